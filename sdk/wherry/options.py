"""What `run` and `create` can be asked for: docker-py's names and meanings, checked before anything is made."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

import attrs

from wherry import isolation, logdrivers, networkoptions, userids
from wherry.isolation import Isolation, parse_isolation
from wherry.mounts import MountRequest, parse_mount, parse_volumes
from wherry.network import EndpointRequest
from wherry.networkoptions import parse_networking
from wherry.portbinding import PortBinding, container_ports, parse_ports, publish_all
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.spec.image import Healthcheck

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgtp]?)i?b?", re.IGNORECASE)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_UNITS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1}  # nanoseconds
_LEAST_MEMORY = 6 << 20  # bytes; Docker's least

# docker-py's other names: refused with an error of their own until they are built
_NOT_YET = frozenset(
    "cpu_count cpu_percent device_requests init_path isolation kernel_memory lxc_conf storage_opt "
    "use_config_proxy version".split()
)

_ALONE = Isolation()
OWN_RUNTIME = "wherry"  # in the shim's own process
_MOUNTING = ("mounts", "volumes", "volume_driver")  # read together


class RunOptions(TypedDict, total=False):
    """The keyword arguments of `run` and `create`, with their types; `Options` says what each means."""

    auto_remove: bool
    blkio_weight: int
    blkio_weight_device: Sequence[Mapping[str, Any]]
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    cgroup_parent: str
    cgroupns: str
    cpu_period: int
    cpu_quota: int
    cpu_rt_period: int
    cpu_rt_runtime: int
    cpu_shares: int
    cpus: float
    cpuset_cpus: str
    cpuset_mems: str
    device_cgroup_rules: Sequence[str]
    device_read_bps: Sequence[Mapping[str, Any]]
    device_read_iops: Sequence[Mapping[str, Any]]
    device_write_bps: Sequence[Mapping[str, Any]]
    device_write_iops: Sequence[Mapping[str, Any]]
    devices: Sequence[str]
    dns: Sequence[str]
    dns_opt: Sequence[str]
    dns_search: Sequence[str]
    domainname: str
    entrypoint: str | Sequence[str]
    environment: Mapping[str, str | None] | Sequence[str]
    expose: Sequence[int | str]
    extra_hosts: Mapping[str, str] | Sequence[str]
    group_add: Sequence[str | int]
    healthcheck: Mapping[str, Any]
    hostname: str
    init: bool
    ipc_mode: str
    labels: Mapping[str, str] | Sequence[str]
    lifetime: str
    links: Mapping[str, str] | Sequence[Any]
    log_config: Mapping[str, Any]
    mac_address: str
    mem_limit: int | str
    mem_reservation: int | str
    mem_swappiness: int
    memswap_limit: int | str
    mounts: Sequence[Mapping[str, Any]]
    name: str
    nano_cpus: int
    network: str
    network_disabled: bool
    network_mode: str
    networking_config: Mapping[str, Any]
    networks: Mapping[str, Any] | Sequence[str]
    oom_kill_disable: bool
    oom_score_adj: int
    pid_mode: str
    pids_limit: int
    platform: str
    ports: Mapping[int | str, Any] | Sequence[Any]
    privileged: bool
    publish_all_ports: bool
    pull: str
    read_only: bool
    remove: bool
    restart_policy: Mapping[str, Any] | str
    runtime: str
    security_opt: Sequence[str]
    shm_size: int | str
    stdin_open: bool
    stop_signal: str
    stop_timeout: int
    sysctls: Mapping[str, str]
    tmpfs: Mapping[str, str] | Sequence[str]
    tty: bool
    ulimits: Sequence[Any]
    user: str | int
    userns_mode: str
    uts_mode: str
    volume_driver: str
    volumes: Mapping[str, Any] | Sequence[str]
    volumes_from: Sequence[str]
    wait_for: Any
    wait_timeout: float
    working_dir: str


def size_in_bytes(value: int | str, option: str) -> int:
    """`512m`, `1.5g`, `1024` or a number of bytes; -1 is kept. Raises InvalidArgument that names *option*."""
    if isinstance(value, int):
        return value
    if value.strip() == "-1":
        return -1
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise InvalidArgument(f"{option}={value!r} is no size: write bytes, or a number with k, m, g or t")
    return int(float(match["number"]) * 1024 ** " kmgtp".index(match["unit"].lower() or " "))


def words(command: str | Sequence[str] | None, option: str) -> tuple[str, ...] | None:
    """A command line as its words: a text is split as a POSIX shell does it."""
    if command is None:
        return None
    if isinstance(command, str):
        try:
            return tuple(shlex.split(command))
        except ValueError as error:
            raise InvalidArgument(f"{option}={command!r}: {error}") from None
    return tuple(os.fspath(word) for word in command)


@attrs.frozen(kw_only=True)
class Limit:
    """A resource limit (setrlimit(2)); `name` as in `nofile`."""

    name: str
    soft: int
    hard: int


@attrs.frozen(kw_only=True)
class Restart:
    """Docker's restart policy: `name` is no, on-failure, always or unless-stopped; 0 is no `maximum`."""

    name: str = "no"
    maximum: int = 0  # how often on-failure tries


@attrs.frozen(kw_only=True)
class Log:
    """Where output goes: the `driver` (logdrivers.DRIVERS), and its `options` as they were given."""

    driver: str = "local"
    options: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def is_kept(self) -> bool:
        """Whether it can be read back."""
        return self.driver in logdrivers.KEPT_HERE

    @property
    def limits(self) -> dict[str, Any]:
        """What the driver's writer takes: `max_size` (bytes of a file, -1 for any), `max_files`, `compress`."""
        local = self.driver == "local"
        size = self.options.get("max-size", "20m" if local else "-1")
        return {
            "max_size": -1 if size in ("-1", "0") else _decimal_size(size),
            "max_files": int(self.options.get("max-file", "5" if local else "1")),
            "compress": self.options.get("compress", "true" if local else "false") == "true",
        }


@attrs.frozen(kw_only=True)
class HealthCheck:
    """What to run and how often; times are nanoseconds, 0 stands for the image's or Docker's own."""

    test: tuple[str, ...] = ()  # NONE, CMD and words, or CMD-SHELL and a line; () is the image's
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@attrs.frozen(kw_only=True)
class Options:
    """A request for a container, checked and in one form. Sizes are bytes, times seconds."""

    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None  # () takes the image's away
    environment: tuple[str, ...] = ()  # NAME=value
    working_dir: str = ""
    user: str = ""  # "" is the image's
    group_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    name: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    ports: tuple[PortBinding, ...] = ()
    publish_all_ports: bool = False
    expose: tuple[str, ...] = ()  # NUMBER/PROTOCOL, beside the image's
    isolation: Isolation = _ALONE
    user_ids: int = 0  # how many a user namespace of its own has; 0: it has none
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[tuple[str, str], ...] = ()  # a container's name or id, and "", "ro" or "rw"
    tmpfs: Mapping[str, str] = attrs.field(factory=dict)  # path: mount options
    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None  # memory and swap together
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    oom_score_adj: int | None = None
    ulimits: tuple[Limit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp_unconfined: bool = False
    read_only: bool = False
    devices: tuple[tuple[str, str, str], ...] = ()  # on the host, in the container, rights
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    shm_size: int = 64 << 20
    network: str = "bridge"  # or none, host, container:NAME, or a network's name
    endpoints: tuple[EndpointRequest, ...] = (EndpointRequest(network="bridge"),)
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # name:address
    auto_remove: bool = False
    restart: Restart = Restart()
    health: HealthCheck = HealthCheck()
    log: Log = Log()
    wait_for: tuple[Any, ...] = ()  # readiness.py's strategies, and callables
    wait_timeout: float = 60.0
    lifetime: str = "detached"  # or "owner": it ends, and is removed, with the process that made it
    tty: bool = False
    stdin_open: bool = False
    init: bool = False
    stop_signal: str = ""  # "" is the image's, or SIGTERM
    stop_timeout: int = 10
    cgroup_parent: str = "/wherry"
    runtime: str = OWN_RUNTIME  # or a command: a name on PATH, or an absolute path
    platform: str | None = None
    pull: str = "missing"

    @classmethod
    def parse(
        cls, command: str | Sequence[str] | None, given: Mapping[str, Any], *, as_docker: bool = False
    ) -> "Options":
        """
        The options that *given* (`RunOptions`) asks for; *as_docker*: see `mounts.parse_volume`.

        Raises TypeError for a name that nobody knows, with the nearest one, Unsupported for one of docker-py's that is
        not built yet, and InvalidArgument, with the option's name, for a value that makes no sense.
        """
        _check_names(given)
        values = {name: value for name, value in given.items() if value is not None and name not in _NOT_YET}
        parsed: dict[str, Any] = {"command": words(command, "command")}
        parsed["mounts"] = _mounts(values, as_docker)
        parsed["network"], parsed["endpoints"] = parse_networking(values)
        parsed["isolation"] = parse_isolation(values)
        for name, value in values.items():
            if name not in (*_MOUNTING, *networkoptions.OPTIONS, *isolation.OPTIONS):
                parsed.update(_PARSERS[name](value) if name in _PARSERS else {name: value})
        options = cls(**parsed)
        options._check()
        return options

    def _check(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise InvalidArgument(f"name={self.name!r}: a name is one of a-z A-Z 0-9, then those and _ . -")
        if self.memory is not None and 0 < self.memory < _LEAST_MEMORY:
            raise InvalidArgument(f"mem_limit={self.memory}: at least {_LEAST_MEMORY} bytes (6m) are needed")
        if self.memory_swap is not None and self.memory_swap > 0 and self.memory is None:
            raise InvalidArgument("memswap_limit counts memory and swap together: give mem_limit too")
        if self.nano_cpus is not None and (self.cpu_quota is not None or self.cpu_period is not None):
            raise InvalidArgument("nano_cpus (or cpus) and cpu_quota/cpu_period say the same thing: give one of them")
        if self.pull not in ("missing", "always", "never", "newer"):
            raise InvalidArgument(f"pull={self.pull!r}: one of missing, always, never, newer")
        self._check_network()
        if self.user_ids:
            userids.check(self)
        if self.lifetime not in ("detached", "owner"):
            raise InvalidArgument(f"lifetime={self.lifetime!r}: one of detached, owner")
        if self.auto_remove and self.restart.name != "no":
            raise InvalidArgument(
                "auto_remove and restart_policy exclude each other: one removes what the other starts"
            )
        if self.working_dir and not self.working_dir.startswith("/"):
            raise InvalidArgument(f"working_dir={self.working_dir!r}: it must be an absolute path")

    def _check_network(self) -> None:
        """What goes with networks of one's own only."""
        if self.ports and not networkoptions.has_endpoints(self.network):
            raise InvalidArgument(f"ports cannot be published with network={self.network!r}: leave one of them out")
        if self.network.startswith(networkoptions.CONTAINER):
            for name in ("hostname", "domainname", "dns", "dns_opt", "dns_search", "extra_hosts"):
                if getattr(self, name):
                    raise InvalidArgument(f"{name} does not go with network={self.network!r}: it is the other's")


def _check_names(given: Mapping[str, Any]) -> None:
    for name in given:
        if name in RunOptions.__annotations__:
            continue
        if name in _NOT_YET:
            if given[name] in (None, False, "", [], {}):
                continue
            raise Unsupported(f"the option {name}= is not supported yet")
        from difflib import get_close_matches

        near = get_close_matches(name, RunOptions.__annotations__, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"run() got an unexpected keyword argument {name!r}{hint}")


def nanoseconds(value: Any, option: str) -> int:
    """docker-py's number of nanoseconds, a timedelta, or a text such as `1m30s`. Raises InvalidArgument."""
    if isinstance(value, bool) or value is None:
        raise InvalidArgument(f"{option}={value!r} is no time")
    if isinstance(value, int):
        return value
    if hasattr(value, "total_seconds"):
        return int(value.total_seconds() * 1_000_000_000)
    spans = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|us|ns|s)", str(value))
    if not spans or "".join(number + unit for number, unit in spans) != str(value):
        raise InvalidArgument(f"{option}={value!r} is no time: write 30s, 1m30s, or a number of nanoseconds")
    return int(sum(float(number) * _UNITS[unit] for number, unit in spans))


def _restart(value: Mapping[str, Any] | str) -> dict[str, Any]:
    """docker-py's mapping (Name, MaximumRetryCount), or the command line's `on-failure:3`."""
    if isinstance(value, str):
        name, _, count = value.partition(":")
    else:
        name, count = value.get("Name") or "no", str(value.get("MaximumRetryCount") or "")
    if name not in ("", "no", "on-failure", "always", "unless-stopped") or (count and not count.isdigit()):
        raise InvalidArgument(f"restart_policy={value!r}: one of no, on-failure[:N], always, unless-stopped")
    if count and name != "on-failure":
        raise InvalidArgument(f"restart_policy={value!r}: only on-failure has a maximum")
    return {"restart": Restart(name=name or "no", maximum=int(count or 0))}


def _wait_for(value: Any) -> dict[str, Any]:
    from wherry.readiness import strategies

    return {"wait_for": tuple(strategies(value))}


_DECIMAL_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)


def _decimal_size(text: str) -> int:
    """`20m` is 20,000,000 bytes here, as in Docker's log options."""
    match = _DECIMAL_SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"log_config: max-size={text!r} is no size: write a number with k, m or g")
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


def _log(value: Mapping[str, Any]) -> dict[str, Any]:
    """docker-py's `LogConfig`, or a mapping: `{"Type": "json-file", "Config": {"max-size": "10m"}}`."""
    given = {str(key).lower(): item for key, item in value.items()}
    driver = str(given.get("type") or "local")
    options = {str(key): str(item) for key, item in (given.get("config") or {}).items()}
    logdrivers.check(driver, options)
    for name, text in options.items():
        if name == "max-file" and (not text.isdigit() or int(text) < 1):
            raise InvalidArgument(f"log_config: max-file={text!r} is no number of files: at least 1")
        if name == "compress" and text not in ("true", "false"):
            raise InvalidArgument(f"log_config: compress={text!r} is neither true nor false")
        if (name, text) == ("compress", "true") and driver == "json-file":
            raise Unsupported("log_config: json-file is not compressed here: the driver local is")
    log = Log(driver=driver, options=options)
    _ = log.limits  # raises
    return {"log": log}


def _health(value: Mapping[str, Any]) -> dict[str, Any]:
    """docker-py's mapping: test, interval, timeout, start_period, start_interval, retries, in either case."""
    given = {key.replace("_", "").lower(): item for key, item in value.items()}
    test = given.get("test") or ()
    if isinstance(test, str):
        test = ("CMD-SHELL", test)
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f"healthcheck: test {list(test)!r} must begin with NONE, CMD or CMD-SHELL")
    times = {
        name: nanoseconds(given[name.replace("_", "")], f"healthcheck {name}")
        for name in ("interval", "timeout", "start_period", "start_interval")
        if given.get(name.replace("_", ""))
    }
    return {"health": HealthCheck(test=tuple(test), retries=int(given.get("retries") or 0), **times)}


def health_check(options: Options, image: Healthcheck | None) -> dict[str, Any] | None:
    """What the shim shall run (wherry_shim.health): the request's, else the image's; None for nothing."""
    asked = options.health
    test = asked.test or (tuple(image.test or ()) if image is not None else ())
    if not test or test[0] == "NONE":
        return None
    fields = ("interval", "timeout", "start_period", "start_interval", "retries")
    inherited = {name: getattr(image, name, 0) or 0 for name in fields}
    return {"test": list(test), **{name: getattr(asked, name) or inherited[name] for name in fields}}


def _environment(value: Mapping[str, str | None] | Sequence[str]) -> dict[str, Any]:
    """A name alone, or with None, takes the value that the caller's own environment has for it, as docker does."""
    found = []
    items = value.items() if isinstance(value, Mapping) else ((*item.partition("=")[::2],) for item in value)
    bare = {item for item in value if "=" not in item} if not isinstance(value, Mapping) else set()
    for name, setting in items:
        if not name or "=" in name or "\0" in name:
            raise InvalidArgument(f"environment: {name!r} is no variable's name")
        if setting is None or name in bare:
            own = os.environ.get(name)
            if own is not None:
                found.append(f"{name}={own}")
        else:
            found.append(f"{name}={setting}")
    return {"environment": tuple(found)}


def _labels(value: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
    pairs = value.items() if isinstance(value, Mapping) else (item.partition("=")[::2] for item in value)
    return {"labels": {str(key): str(text) for key, text in pairs}}


def _mounts(given: Mapping[str, Any], as_docker: bool) -> tuple[MountRequest, ...]:
    """What `volumes`, `mounts` and `volume_driver` ask for, in that order. Raises InvalidArgument, Unsupported."""
    if (driver := given.get("volume_driver")) not in (None, "", "local"):
        raise Unsupported(f"volume_driver={driver!r} is not supported: local is")
    found = parse_volumes(given.get("volumes") or (), as_docker=as_docker)
    found += [parse_mount(mount, as_docker=as_docker) for mount in given.get("mounts") or ()]
    seen: set[str] = set()
    for request in found:
        if request.target in seen:
            raise InvalidArgument(f"volumes: two mounts on {request.target}: give one of them another path")
        seen.add(request.target)
    return tuple(found)


def _volumes_from(value: Sequence[str]) -> dict[str, Any]:
    found = []
    for item in [value] if isinstance(value, str) else value:
        name, _, mode = item.partition(":")
        if not name or mode not in ("", "ro", "rw"):
            raise InvalidArgument(f"volumes_from: {item!r} is not container[:ro|rw]")
        found.append((name, mode))
    return {"volumes_from": tuple(found)}


def _tmpfs(value: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
    pairs = value.items() if isinstance(value, Mapping) else (item.partition(":")[::2] for item in value)
    return {"tmpfs": dict(pairs)}


def _ulimits(value: Sequence[Any]) -> dict[str, Any]:
    """docker-py's `Ulimit` (Name, Soft, Hard), or `nofile=1024:2048`."""
    limits = []
    for item in value:
        if isinstance(item, str):
            name, _, numbers = item.partition("=")
            soft, _, hard = numbers.partition(":")
            try:
                limits.append(Limit(name=name, soft=int(soft), hard=int(hard or soft)))
            except ValueError:
                raise InvalidArgument(f"ulimits: {item!r} is not name=soft[:hard]") from None
        else:
            limits.append(Limit(name=item["Name"], soft=int(item["Soft"]), hard=int(item["Hard"])))
    return {"ulimits": tuple(limits)}


def _devices(value: Sequence[str]) -> dict[str, Any]:
    found = []
    for item in value:
        parts = item.split(":")
        rights = parts[2] if len(parts) > 2 else "rwm"
        if not parts[0].startswith("/") or len(parts) > 3 or not set(rights) <= set("rwm"):
            raise InvalidArgument(f"devices: {item!r} is not host[:container[:rwm]]")
        found.append((parts[0], parts[1] if len(parts) > 1 else parts[0], rights))
    return {"devices": tuple(found)}


def _security(value: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in value:
        key, separator, setting = item.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and setting in ("", "true", "false"):
            found["no_new_privileges"] = setting != "false"
        elif key == "seccomp" and setting == "unconfined":
            found["seccomp_unconfined"] = True
        elif key in ("seccomp", "apparmor", "label", "systempaths"):
            raise Unsupported(
                f"security_opt: {item!r} is not supported yet: no-new-privileges and seccomp=unconfined are"
            )
        else:
            raise InvalidArgument(f"security_opt: {item!r} is no security option{'' if separator else ' of docker'}")
    return found


def _extra_hosts(value: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
    pairs = [f"{name}:{address}" for name, address in value.items()] if isinstance(value, Mapping) else value
    return {"extra_hosts": tuple(pairs)}


def _expose(value: Sequence[int | str]) -> dict[str, Any]:
    return {"expose": tuple(f"{number}/{protocol}" for one in value for number, protocol in container_ports(one))}


def _capabilities(name: str) -> Any:
    def parse(value: Sequence[str]) -> dict[str, Any]:
        from wherry_oci.linux.process import CAPABILITIES

        found = []
        for given in value:
            capability = given.upper()
            if capability != "ALL" and not capability.startswith("CAP_"):
                capability = f"CAP_{capability}"
            if capability != "ALL" and capability not in CAPABILITIES:
                raise InvalidArgument(f"{name}: {given!r} is no capability; capabilities(7) lists them")
            found.append(capability)
        return {name: tuple(found)}

    return parse


def _texts(name: str) -> Any:
    return lambda value: {name: tuple(str(item) for item in cast("Iterable[object]", value))}


def _size(option: str, name: str) -> Any:
    return lambda value: {name: size_in_bytes(value, option)}


def _entrypoint(value: str | Sequence[str]) -> dict[str, Any]:
    found = words(value, "entrypoint") or ()
    return {"entrypoint": tuple(word for word in found if word) if found == ("",) else found}


_PARSERS: dict[str, Any] = {
    "auto_remove": lambda value: {"auto_remove": True} if value else {},
    "remove": lambda value: {"auto_remove": True} if value else {},
    "cap_add": _capabilities("cap_add"),
    "cap_drop": _capabilities("cap_drop"),
    "cpus": lambda value: {"nano_cpus": int(float(value) * 1e9)},
    "devices": _devices,
    "dns": _texts("dns"),
    "dns_opt": _texts("dns_opt"),
    "dns_search": _texts("dns_search"),
    "entrypoint": _entrypoint,
    "environment": _environment,
    "expose": _expose,
    "extra_hosts": _extra_hosts,
    "group_add": _texts("group_add"),
    "healthcheck": _health,
    "labels": _labels,
    "wait_for": _wait_for,
    "log_config": _log,
    "mem_limit": _size("mem_limit", "memory"),
    "mem_reservation": _size("mem_reservation", "memory_reservation"),
    "memswap_limit": _size("memswap_limit", "memory_swap"),
    "ports": lambda value: {"ports": tuple(parse_ports(value))},
    "restart_policy": _restart,
    "security_opt": _security,
    "shm_size": _size("shm_size", "shm_size"),
    "tmpfs": _tmpfs,
    "ulimits": _ulimits,
    "user": lambda value: {"user": str(value)},
    "userns_mode": lambda value: {"user_ids": userids.parse(value)},
    "volumes_from": _volumes_from,
}


def published(options: Options, exposed: Iterable[str]) -> tuple[PortBinding, ...]:
    """The ports to publish, with `publish_all_ports` also those that the image exposes."""
    if not options.publish_all_ports:
        return options.ports
    return (*options.ports, *publish_all(list(exposed), options.ports))
