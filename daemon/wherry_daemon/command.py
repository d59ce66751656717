"""`wherry daemon`: the door, opened until a signal closes it."""

import argparse
import grp
import logging
import os
import signal
import socket
import ssl
from collections.abc import Sequence

from wherry.client import Client
from wherry_daemon.api import HEADERS, Api
from wherry_daemon.context import Context
from wherry_daemon.http import Request
from wherry_daemon.server import Server, listen_tcp, listen_unix
from wherry_oci.errors import Error, InvalidArgument, PermissionDenied

log = logging.getLogger("wherry.daemon")

DEFAULT_HOST = "unix:///run/wherry/docker.sock"
_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_DRAIN_S = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wherry daemon", description="Docker's Engine API on wherry's containers.")
    parser.add_argument(
        "-H", "--host", action="append", metavar="ADDRESS", help=f"unix://, tcp:// or fd:// [{DEFAULT_HOST}]"
    )
    parser.add_argument("--root", help="images and containers [WHERRY_ROOT, or /var/lib/wherry]")
    parser.add_argument("--run", help="live state [WHERRY_RUN, or /run/wherry]")
    parser.add_argument("-G", "--group", default="docker", help="the group that may use a unix socket [docker]")
    parser.add_argument("--tlsverify", action="store_true", help="tcp: clients need a certificate")
    parser.add_argument("--tlscacert", help="who vouches for clients' certificates")
    parser.add_argument("--tlscert", help="the daemon's certificate")
    parser.add_argument("--tlskey", help="its key")
    parser.add_argument("--insecure-loopback", action="store_true", help="tcp on loopback without TLS")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, client: Client | None = None) -> int:
    """Serve *client*'s containers, or those of --root, until SIGTERM or SIGINT; returns the exit code."""
    arguments = _arguments(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The kernel may hand the signal to any thread, and only the main one runs handlers: it has to be woken.
    woken, wake = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if client is None or arguments.root or arguments.run:
        client = Client(root=arguments.root, run=arguments.run, host="")
    server = Server(Api(Context(client)), HEADERS)
    try:
        client._engine.prepare()
        for host in arguments.host or [DEFAULT_HOST]:
            open_door(server, host, arguments)
            log.info("listening on %s", host)
    except (Error, OSError) as error:
        log.error("%s", error)
        server.close()
        return 1
    _notify("READY=1")
    os.read(woken, 1)
    log.info("closing: containers go on")
    _notify("STOPPING=1")
    server.close(_DRAIN_S)
    for host in arguments.host or [DEFAULT_HOST]:
        if host.startswith("unix://"):
            os.unlink(host.removeprefix("unix://"))
    client.close()
    return 0


def open_door(server: Server, host: str, arguments: argparse.Namespace) -> None:
    """Listen on *host*. Raises InvalidArgument, PermissionDenied, Unavailable."""
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        server.serve(listen_unix(rest, _group(arguments.group)))
    elif scheme == "fd":
        for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _activated()):
            server.serve(socket.socket(fileno=descriptor))
    elif scheme == "tcp":
        _open_tcp(server, rest, arguments)
    else:
        raise InvalidArgument(f"-H {host}: one of unix://PATH, tcp://HOST:PORT, fd://")


def _group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _activated() -> int:
    """How many sockets systemd gave. Raises InvalidArgument when none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument("-H fd://: no socket was given (LISTEN_PID, LISTEN_FDS): start it by its socket unit")
    return int(os.environ["LISTEN_FDS"])


def _open_tcp(server: Server, address: str, arguments: argparse.Namespace) -> None:
    host, _, port = address.rstrip("/").rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if arguments.tlsverify:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.tlscacert)
        context.load_cert_chain(arguments.tlscert, arguments.tlskey)
        context.verify_mode = ssl.CERT_REQUIRED
        server.serve(listen_tcp(host, int(port)), tls=context)
        return
    if host not in _LOOPBACK or not arguments.insecure_loopback:
        raise PermissionDenied(
            f"-H tcp://{address}: whoever reaches it is root here: give --tlsverify with certificates; without TLS it "
            "is only for loopback, with --insecure-loopback"
        )
    server.serve(listen_tcp(host, int(port)), check=check_local)


def check_local(request: Request) -> None:
    """
    Refuse what a web page in a browser of this machine could send: DNS rebinding shows in Host, the page in Origin.

    Raises PermissionDenied.
    """
    host = request.headers.get("host", "").rpartition(":")[0].strip("[]") or request.headers.get("host", "")
    if host not in _LOOPBACK:
        raise PermissionDenied(f"the Host {host[:200]!r} is not this machine's own name")
    if request.headers.get("origin", f"http://{request.headers['host']}") != f"http://{request.headers['host']}":
        raise PermissionDenied("requests of web pages are refused")


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it asked for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        end.sendall(state.encode())
