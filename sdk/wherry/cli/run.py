"""run, create."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from wherry.attachment import Attachment
from wherry.cli.main import PLACE
from wherry.cli.names import IMAGE
from wherry.cli.parameters import detach_keys_option, pairs
from wherry.client import Client
from wherry.container import Container
from wherry.containerstore import Record
from wherry.detachkeys import DetachKeys
from wherry.logreader import Reader
from wherry.mounts import parse_mount_text
from wherry.networkoptions import parse_network_text
from wherry.options import Options, size_in_bytes
from wherry.reservation import Reservation

_PASS_ON = {"ignore_unknown_options": False, "allow_interspersed_args": False}


def _many(*names: str, **settings: Any) -> Callable[..., Any]:
    """A flag that may be given several times."""
    return click.option(*names, multiple=True, **settings)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """docker run's flags, as far as there is something behind them."""
    for option in reversed(
        (
            _many("--add-host", metavar="NAME:ADDRESS", help="A line in /etc/hosts"),
            click.option("--blkio-weight", type=int, help="Its weight at the disks (10 to 1000)"),
            _many("--blkio-weight-device", metavar="PATH:WEIGHT", help="The same, of one device"),
            _many("--cap-add", help="Add a capability"),
            _many("--cap-drop", help="Drop a capability"),
            click.option("--cgroup-parent", help="The cgroup in which the container's is made"),
            click.option("--cgroupns", metavar="MODE", help="host or private"),
            click.option("-c", "--cpu-shares", type=int, help="Its weight against others"),
            click.option("--cpu-period", type=int, help="Microseconds"),
            click.option("--cpu-quota", type=int, help="Microseconds of each period"),
            click.option("--cpu-rt-period", type=int, help="Microseconds of real time"),
            click.option("--cpu-rt-runtime", type=int, help="Microseconds of each such period"),
            click.option("--cpus", type=float, help="How many processors' time it gets"),
            click.option("--cpuset-cpus", help="Which processors (0-3, 0,1)"),
            click.option("--cpuset-mems", help="Which memory nodes"),
            _many("--device", metavar="HOST[:CONTAINER[:rwm]]", help="Give it a device"),
            _many("--device-cgroup-rule", metavar="RULE", help="Allow a device (c 1:3 rwm)"),
            _many("--device-read-bps", metavar="PATH:RATE", help="At most so many bytes a second"),
            _many("--device-read-iops", metavar="PATH:RATE", help="At most so many reads a second"),
            _many("--device-write-bps", metavar="PATH:RATE", help="At most so many bytes a second"),
            _many("--device-write-iops", metavar="PATH:RATE", help="At most so many writes a second"),
            _many("--dns", help="A name server"),
            _many("--dns-option", "--dns-opt", help="An option of the resolver"),
            _many("--dns-search", help="A search domain"),
            click.option("--domainname", help="Its NIS domain name"),
            click.option("--entrypoint", help="Instead of the image's"),
            _many("-e", "--env", metavar="NAME[=VALUE]", help="Set a variable"),
            _many("--env-file", type=click.Path(exists=True, dir_okay=False), help="Variables, one a line"),
            _many("--expose", metavar="PORT[/PROTOCOL]", help="A port that it listens on"),
            _many("--group-add", help="A further group"),
            click.option("--health-cmd", help="A command that tells whether it is well"),
            click.option("--health-interval", help="Time between two checks (30s)"),
            click.option("--health-retries", type=int, help="Failures in a row that make it unhealthy (3)"),
            click.option("--health-start-interval", help="Time between two checks at first (5s)"),
            click.option("--health-start-period", help="How long failures at first do not count (0s)"),
            click.option("--health-timeout", help="How long a check may take (30s)"),
            click.option("--log-driver", help="local, json-file, syslog, journald or none"),
            click.option("--log-opt", "log_opts", multiple=True, metavar="NAME=VALUE", help="max-size, max-file, …"),
            click.option("--no-healthcheck", is_flag=True, help="No check, whatever the image says"),
            click.option("-h", "--hostname", help="Its host name"),
            click.option("--init", is_flag=True, help="A small init that reaps and passes signals on"),
            click.option("-i", "--interactive", is_flag=True, help="Keep its stdin open"),
            click.option("--ipc", metavar="MODE", help="host, private, shareable or none"),
            _many("-l", "--label", metavar="NAME[=VALUE]", help="A label"),
            _many("--label-file", type=click.Path(exists=True, dir_okay=False), help="Labels, one a line"),
            click.option("-m", "--memory", help="At most so much memory (512m)"),
            click.option("--memory-reservation", help="Soft limit"),
            click.option("--memory-swap", help="Memory and swap together; -1 for no limit"),
            click.option("--memory-swappiness", type=int, help="How gladly it swaps (0 to 100)"),
            _many("--mount", metavar="type=TYPE,source=SOURCE,target=PATH[,…]", help="A mount, in all detail"),
            click.option("--name", help="Its name"),
            _many("--link", metavar="CONTAINER[:ALIAS]", help="What it calls another container"),
            click.option("--mac-address", help="Its device's address"),
            _many("--network", "--net", help="A network's name, none, host or container:NAME"),
            _many("--network-alias", help="A further name in its first network"),
            click.option("--ip", help="Its IPv4 address in its first network"),
            click.option("--ip6", help="Its IPv6 address in its first network"),
            click.option("--oom-kill-disable", is_flag=True, help="Wait for memory instead of killing"),
            click.option("--oom-score-adj", type=int, help="-1000 to 1000"),
            click.option("--pid", metavar="MODE", help="host: it sees the host's processes"),
            click.option("--pids-limit", type=int, help="At most so many processes"),
            click.option("--platform", help="os[/arch[/variant]]"),
            click.option("--privileged", is_flag=True, help="With all rights: nothing is kept from it"),
            _many("-p", "--publish", metavar="[[IP:]HOST:]CONTAINER[/PROTOCOL]", help="Publish a port"),
            click.option("-P", "--publish-all", is_flag=True, help="Publish all ports that the image exposes"),
            click.option(
                "--pull", type=click.Choice(["always", "missing", "never", "newer"]), help="When to fetch the image"
            ),
            click.option("--read-only", is_flag=True, help="Nothing in its rootfs can be written"),
            click.option("--restart", "restart_policy", help="no, on-failure[:N], always, unless-stopped"),
            click.option("--rm", "remove", is_flag=True, help="Remove it when it ends"),
            click.option("--runtime", help="Its OCI runtime: wherry, or a command such as runc"),
            _many("--security-opt", help="no-new-privileges, seccomp=unconfined"),
            click.option("--shm-size", help="Of /dev/shm (64m)"),
            click.option("--stop-signal", help="What asks it to end"),
            click.option("--stop-timeout", type=int, help="Seconds before it is killed"),
            _many("--sysctl", metavar="NAME=VALUE", help="A kernel parameter of its own"),
            _many("--tmpfs", metavar="PATH[:OPTIONS]", help="A tmpfs"),
            click.option("-t", "--tty", is_flag=True, help="Give it a terminal"),
            _many("--ulimit", metavar="NAME=SOFT[:HARD]", help="A resource limit"),
            click.option("--userns", "userns_mode", metavar="MODE", help="host, auto or auto:size=N: a user namespace"),
            click.option("--uts", metavar="MODE", help="host: it has the host's name"),
            click.option("-u", "--user", help="user[:group], by name or number"),
            _many("-v", "--volume", metavar="[SOURCE:]CONTAINER[:OPTIONS]", help="A volume, or a path of the host"),
            click.option("--volume-driver", help="Only local is known"),
            _many("--volumes-from", metavar="CONTAINER[:ro]", help="All volumes of another container"),
            click.option("-w", "--workdir", help="Where it starts"),
            click.argument("image", type=IMAGE),
            click.argument("command", nargs=-1, type=click.UNPROCESSED),
        )
    ):
        command = option(command)
    return command


# docker run's flag, as click names it: ours, where they differ
_NAMES = {
    "add_host": "extra_hosts",
    "device": "devices",
    "device_cgroup_rule": "device_cgroup_rules",
    "dns_option": "dns_opt",
    "env": "environment",
    "interactive": "stdin_open",
    "ipc": "ipc_mode",
    "link": "links",
    "label": "labels",
    "memory": "mem_limit",
    "memory_reservation": "mem_reservation",
    "memory_swap": "memswap_limit",
    "memory_swappiness": "mem_swappiness",
    "mount": "mounts",
    "pid": "pid_mode",
    "publish": "ports",
    "publish_all": "publish_all_ports",
    "sysctl": "sysctls",
    "ulimit": "ulimits",
    "uts": "uts_mode",
    "volume": "volumes",
    "workdir": "working_dir",
}


def _asked(flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags say, as `Client.create` takes it."""
    environment = [line for path in flags.pop("env_file") for line in _environment_lines(path)]
    environment += flags.pop("env")
    flags["label"] = [*(line for path in flags.pop("label_file") for line in _environment_lines(path)), *flags["label"]]
    flags |= {name: [_by_device(item, field) for item in flags[name]] for name, field in _OF_DEVICES.items()}
    flags["sysctl"] = dict(item.partition("=")[::2] for item in flags["sysctl"])
    flags |= _networking(flags)
    flags["mount"] = [parse_mount_text(text) for text in flags["mount"]]
    health = {key: flags.pop(f"health_{key}") for key in _HEALTH}
    flags["healthcheck"] = (
        {"test": ["NONE"]} if flags.pop("no_healthcheck") else _given({"test": health.pop("cmd"), **health})
    )
    driver, log_options = flags.pop("log_driver"), pairs(flags.pop("log_opts"))
    if driver or log_options:
        flags["log_config"] = {"Type": driver, "Config": log_options}
    if flags["entrypoint"] is not None:  # one word for docker, not a command line
        flags["entrypoint"] = [flags["entrypoint"]] if flags["entrypoint"] else []
    given = {_NAMES.get(name, name): value for name, value in _given(flags).items()}
    return {**given, "environment": environment}


_OF_DEVICES = {
    "blkio_weight_device": "Weight",
    **dict.fromkeys(("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops"), "Rate"),
}


def _by_device(text: str, field: str) -> dict[str, Any]:
    """`/dev/sda:1mb`, docker's flag, in the words of the Engine API."""
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/"):
        raise click.UsageError(f"{text!r} is not PATH:{field.upper()}")
    return {"Path": path, field: size_in_bytes(value, field.lower())}


def _networking(flags: dict[str, Any]) -> dict[str, Any]:
    """--network as often as one likes; --network-alias, --ip and --ip6 are for the first one."""
    places = [parse_network_text(text) for text in flags.pop("network")]
    aliases, ip, ip6 = (flags.pop(name) for name in ("network_alias", "ip", "ip6"))
    first = _given({"aliases": list(aliases), "ipv4_address": ip, "ipv6_address": ip6})
    if not places:
        places = [("bridge", {})] if first else []
    if not any(config for _, config in places) and len(places) <= 1 and not first:
        return {"network": places[0][0] if places else None}
    name, config = places[0]
    config["aliases"] = [*config.get("aliases", ()), *first.pop("aliases", ())]
    return {"network": name, "networks": {**dict(places), name: {**config, **first}}}


_HEALTH = ("cmd", "interval", "retries", "start_interval", "start_period", "timeout")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, (), False, {}, [])}


def _environment_lines(path: str) -> list[str]:
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@click.command("create", context_settings=_PASS_ON, add_help_option=False)
@click.option("--help", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _help(c, v))
@_options
@click.pass_obj
def create_command(client: Client, /, image: str, command: tuple[str, ...], **flags: Any) -> None:
    """Make a container without starting it."""
    click.echo(client.create(image, command or None, **_asked(flags)).id)


def _help(context: click.Context, wanted: bool) -> None:
    if wanted:
        click.echo(context.get_help())
        context.exit()


@click.command("run", context_settings=_PASS_ON, add_help_option=False)
@click.option("--help", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _help(c, v))
@click.option("-d", "--detach", is_flag=True, help="Print its id, and leave it running")
@click.option("--cidfile", help="Write its id to this file")
@detach_keys_option
@_options
@click.pass_obj
def run_command(
    client: Client,
    /,
    detach: bool,
    cidfile: str | None,
    detach_keys: str,
    image: str,
    command: tuple[str, ...],
    **flags: Any,
) -> int:
    """Make a container and start it; -h is its host name, --help this."""
    given, keys = _asked(flags), DetachKeys(detach_keys)
    if client._remote is not None:
        return _run_elsewhere(client, image, command, given, detach, cidfile, detach_keys)
    options = Options.parse(command or None, given)
    if options.tty and not detach and options.stdin_open and not os.isatty(0):
        raise click.UsageError("the input device is not a TTY")
    if detach:
        record = client._engine.run(image, options, place=_place())
        _write_id(cidfile, record.id)
        click.echo(record.id)
        return 0
    return _foreground(client, image, options, cidfile, keys)


def _place() -> Reservation | None:
    """What was reserved when the command began."""
    found: Reservation | None = click.get_current_context().meta.get(PLACE)
    return found


def _write_id(path: str | None, container_id: str) -> None:
    if path is not None:
        Path(path).write_text(container_id, encoding="ascii")


def _run_elsewhere(
    client: Client,
    image: str,
    command: tuple[str, ...],
    given: dict[str, Any],
    detach: bool,
    cidfile: str | None,
    detach_keys: str,
) -> int:
    """By an engine that is not this process' own: by its streams, whatever keeps its log."""
    if given.get("tty") and given.get("stdin_open") and not detach and not os.isatty(0):
        raise click.UsageError("the input device is not a TTY")
    if detach:
        container = client.run(image, command or None, **given)
        _write_id(cidfile, container.id)
        click.echo(container.id)
        return 0
    from wherry.cli.lifecycle import start_joined

    container = client.create(image, command or None, **given)
    _write_id(cidfile, container.id)
    return start_joined(container, bool(given.get("stdin_open")), detach_keys)


def _foreground(client: Client, image: str, options: Options, cidfile: str | None, keys: DetachKeys) -> int:
    engine = client._engine
    attached = options.tty or options.stdin_open or not options.log.is_kept
    with ExitStack() as opened:
        attachments: list[Attachment] = []
        readers: list[Reader] = []

        def open_output(record: Record) -> None:
            """Before the start: a container that removes itself may be gone when run returns."""
            if attached:
                attachments.append(opened.enter_context(Attachment.to(engine, record.id, logs=False)))
            else:
                readers.append(opened.enter_context(engine.log_reader(record)))

        record = engine.run(image, options, place=_place(), before_start=open_output)
        container = Container(record.id, engine)
        _write_id(cidfile, record.id)
        if attached:
            from wherry.cli.interactive import attend

            with container._ending() as ended:
                return attend(
                    container,
                    attachments[0],
                    ended,
                    terminal=options.tty,
                    stdin=options.stdin_open,
                    keys=keys,
                )
        from wherry.cli.foreground import follow_to_the_end

        return follow_to_the_end(container, readers[0])
