"""The log drivers "syslog" and "journald": each line is a message for somebody else, and nothing of it is kept here."""

import os
from time import gmtime, localtime, strftime

from wherry_shim.logs import NoLog
from wherry_shim.logsocket import LogSocket
from wherry_shim.outputlines import LineSplitter, OutputLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Message = Callable[[OutputLine], bytes]

JOURNAL = "unixgram:///run/systemd/journal/socket"
_INFO, _ERR = 6, 3  # severities (RFC 5424, "PRI"): of stdout and stderr
_NANO = 1_000_000_000


class Forwarder(NoLog):
    """What is written goes as *message* makes it to *address*; what is not taken there is counted in `lost`."""

    def __init__(self, address: str, message: "Message") -> None:
        """Raises OSError when nobody listens there."""
        self.lost = 0
        self._socket = LogSocket(address)
        self._message = message
        self._splitter = LineSplitter()

    def append(self, stream: int, piece: bytes, time_ns: int) -> None:
        """Send the lines that *piece* completes."""
        for line in self._splitter.feed(stream, piece, time_ns):
            self._send(line)

    def _send(self, line: OutputLine) -> None:
        if not self._socket.send(self._message(line)):
            self.lost += len(line.text)

    def begin_run(self) -> None:
        """What the last run left without a newline is a line."""
        for line in self._splitter.rest():
            self._send(line)

    def close(self) -> None:
        """Once."""
        self.begin_run()
        self._socket.close()


def syslog_message(facility: int, form: str, tag: str) -> "Message":
    """
    Docker's messages in *form*: rfc3164, rfc5424, rfc5424micro, or "" for what syslog(3) writes.

    In the newer forms the tag is the message's id, too.
    """
    host, pid = os.uname().nodename, os.getpid()

    def made(line: OutputLine) -> bytes:
        priority = facility * 8 + (_INFO if line.stream == 1 else _ERR)
        seconds, rest = divmod(line.time_ns, _NANO)
        if form in ("", "rfc3164"):
            moment = strftime("%b %e %H:%M:%S", localtime(seconds))
            origin = f" {host}" if form else ""
            head = f"<{priority}>{moment}{origin} {tag}[{pid}]: "
        else:
            micro = f".{rest // 1000:06d}" if form == "rfc5424micro" else ""
            moment = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}{micro}Z"
            head = f"<{priority}>1 {moment} {host} {tag} {pid} {tag} - "
        return head.encode("utf-8", "surrogateescape") + line.text.removesuffix(b"\n") + b"\n"

    return made


def journal_message(fields: "dict[str, str]") -> "Message":
    """The journal's native entries (systemd.io/JOURNAL_NATIVE_PROTOCOL), with *fields* in each."""
    common = b"".join(_field(name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items())

    def made(line: OutputLine) -> bytes:
        seconds, rest = divmod(line.time_ns, _NANO)
        moment = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09d}Z"
        return b"".join(
            (
                _field("MESSAGE", line.text.removesuffix(b"\n")),
                _field("PRIORITY", b"%d" % (_INFO if line.stream == 1 else _ERR)),
                _field("SYSLOG_TIMESTAMP", moment.encode()),
                b"" if line.whole else _field("CONTAINER_PARTIAL_MESSAGE", b"true"),
                common,
            )
        )

    return made


def _field(name: str, value: bytes) -> bytes:
    """With its length in front where a newline in it would end it."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
