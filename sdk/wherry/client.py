"""The front door: `Client` remembers where things are; the first call that needs something finds it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from wherry.errors import ContainerError
from wherry.places import holder_directory, root_directory, run_directory

if TYPE_CHECKING:
    import builtins
    from datetime import datetime

    from wherry.container import Container
    from wherry.doctor import Check
    from wherry.engineapi.containerlist import ContainerSummary
    from wherry.engineapi.system import DiskUsage, SystemInfo
    from wherry.events import EventStream
    from wherry.execs import Exec
    from wherry.images import ImageCollection
    from wherry.local import LocalEngine
    from wherry.networkcollection import NetworkCollection
    from wherry.options import RunOptions
    from wherry.pool import Pool
    from wherry.remote.client import RemoteClient, RemoteEvents
    from wherry.remote.containers import RemoteExec
    from wherry.restoring import Restored
    from wherry.stats import Stats
    from wherry.storage import Storage
    from wherry.volumecollection import VolumeCollection


_WHOLE_LOG = {"Type": "local", "Config": {"max-size": "-1"}}  # what is returned must not be rotated away


class Client:
    """
    Containers, by this very process: no daemon is needed, none is looked for.

    With *host* (or WHERRY_HOST) the work is done by an engine that speaks Docker's Engine API instead: `unix://PATH`,
    `tcp://HOST:PORT` (DOCKER_TLS_VERIFY and DOCKER_CERT_PATH hold), `ssh://[USER@]HOST`, `context:NAME` for one of
    docker's contexts, or `auto` for a daemon if one answers, else none; "" is this process' own engine whatever the
    environment says. What only that can do raises Unsupported then.

    *root* (WHERRY_ROOT, or /var/lib/wherry) keeps images and containers, *run* (WHERRY_RUN; /run/wherry, or `run` below
    a root that was given) what lives only while they do. *mirrors* are tried before a registry itself:
    `{"docker.io": ["http://127.0.0.1:5000"]}` (or WHERRY_REGISTRY_MIRRORS).

    *runtime* is the OCI runtime of the containers it makes, unless `run` is told another: "wherry" (its own, in the
    shim's process), or a command that takes runc's flags: "runc", "crun", a path.

    Making one does nothing but remember. It may be shared by threads, pickled, and used after fork.
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        run: str | os.PathLike[str] | None = None,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        host: str | None = None,
        runtime: str | None = None,
    ) -> None:
        self._host = (os.environ.get("WHERRY_HOST") if host is None else host) or None
        self._made_remote: RemoteClient | None = None
        self._root, self._run = Path(root_directory(root)), Path(run_directory(run, root))
        self._mirrors = mirrors
        self._runtime = runtime
        self._made_engine: LocalEngine | None = None
        self._made_storage: Storage | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made_engine": None, "_made_storage": None, "_made_remote": None}

    @classmethod
    def from_env(cls) -> "Client":
        """On the engine that the docker command would use: DOCKER_HOST, DOCKER_CONTEXT, or the context in use."""
        from wherry.remote.address import find

        made = cls(host="env")
        find()  # for its errors, which belong here
        return made

    @property
    def _remote(self) -> "RemoteClient | None":
        """The engine elsewhere, None for the one of this process."""
        if self._host is None:
            return None
        if self._made_remote is None:
            from wherry.remote.client import choose

            self._made_remote = choose(self._host)
            if self._made_remote is None:
                self._host = None
        return self._made_remote

    @property
    def _engine(self) -> "LocalEngine":
        if (remote := self._remote) is not None:
            from wherry.errors import Unsupported

            raise Unsupported(f"the engine at {remote.api.address} cannot do that: it takes the one of this process")
        if self._made_engine is None:
            if os.geteuid() == 0:
                from wherry.local import LocalEngine

                self._made_engine = LocalEngine(self._root, self._run, self._mirrors)
            else:
                from wherry.rootless.engine import RootlessEngine

                self._made_engine = RootlessEngine(self._root, self._run, self._mirrors, holder=holder_directory())
        return self._made_engine

    @property
    def _storage(self) -> "Storage":
        """What images need of the engine: to pull one, half of the modules that a container takes are not imported."""
        if self._made_engine is not None or os.geteuid() != 0:
            return self._engine
        if self._made_storage is None:
            from wherry.storage import Storage

            self._made_storage = Storage(self._root, self._run, self._mirrors)
        return self._made_storage

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let idle connections to the root's database go, and a user's idle worker; the client stays usable."""
        for made in (self._made_engine, self._made_storage):
            if made is not None:
                made.close()

    @property
    def containers(self) -> "ContainerCollection":
        """Every container of this root."""
        if (remote := self._remote) is not None:
            return remote.containers  # type: ignore[return-value] # another class with the same methods
        return ContainerCollection(self)

    @property
    def networks(self) -> "NetworkCollection":
        """Every network of this root."""
        if (remote := self._remote) is not None:
            return remote.networks  # type: ignore[return-value] # another class with the same methods
        from wherry.networkcollection import NetworkCollection

        return NetworkCollection(self._engine)

    @property
    def images(self) -> "ImageCollection":
        """Every image of this root."""
        if (remote := self._remote) is not None:
            return remote.images  # type: ignore[return-value] # another class with the same methods
        from wherry.images import ImageCollection

        return ImageCollection(self._storage)

    @property
    def volumes(self) -> "VolumeCollection":
        """Every volume of this root."""
        if (remote := self._remote) is not None:
            return remote.volumes  # type: ignore[return-value] # another class with the same methods
        from wherry.volumecollection import VolumeCollection

        return VolumeCollection(self._engine)

    def run(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> "Container":
        """
        Start a container and return once it runs; the image is pulled if it is missing.

        The options are docker-py's (`wherry.options.RunOptions`); `ports` maps the container's ports to the host's. If
        anything fails nothing is left of it. With `wait_for` it returns once it is ready (`Container.wait_for`). Raises
        ImageNotFound and what else a pull can raise, NameInUse, PortInUse, ExecutableNotFound, UserNotFound,
        StartFailed, NotReady, TimeoutError, InvalidArgument; TypeError for an option that nobody knows.
        """
        options = self._with_runtime(options)
        if (remote := self._remote) is not None:
            return remote.run(image, command, **options)
        from wherry.container import Container
        from wherry.options import Options

        parsed = Options.parse(command, options)
        container = Container(self._engine.run(image, parsed).id, self._engine)
        if parsed.wait_for:
            try:
                container.wait_for(*parsed.wait_for, timeout=parsed.wait_timeout)
            except BaseException:
                container.__exit__(None, None, None)
                raise
        return container

    def create(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> "Container":
        """As `run`, without starting it."""
        options = self._with_runtime(options)
        if (remote := self._remote) is not None:
            return remote.create(image, command, **options)
        from wherry.container import Container
        from wherry.options import Options

        record = self._engine.create(image, Options.parse(command, options))
        return Container(record.id, self._engine)

    def _with_runtime(self, options: "RunOptions") -> "RunOptions":
        return options if self._runtime is None else {"runtime": self._runtime, **options}

    def pool(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        *,
        size: int = 2,
        **options: Unpack["RunOptions"],
    ) -> "Pool":
        """
        *size* containers that wait, made but for their program, so that `Pool.run` takes milliseconds.

        A context manager. The options are `run`'s; *command* is what `Pool.run` runs when it is given none. Raises what
        `run` raises, and InvalidArgument for a `name`, which several containers cannot have.
        """
        from wherry.pool import Pool

        return Pool(self._engine, image, command, self._with_runtime(options), size)

    def check_output(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack["RunOptions"],
    ) -> bytes:
        """
        Run a container to its end, remove it, and return what it wrote to stdout.

        Raises ContainerError, with both streams, if it ended with another exit code than 0, TimeoutError after
        *timeout* seconds (it is killed then), and what `run` raises.
        """
        options.pop("auto_remove", None)
        options.pop("remove", None)
        if "log_config" not in options and self._remote is None:
            options["log_config"] = _WHOLE_LOG
        with self.run(image, command, **options) as container:
            ended = container.wait(timeout)
            stdout = container.output(stderr=False)
            if ended.exit_code != 0:
                arguments = tuple(container.attrs["Args"])
                words = (container.attrs["Path"], *arguments)
                raise ContainerError(container.id, words, ended.exit_code, stdout, container.output(stdout=False))
        return stdout

    def events(
        self,
        since: "float | datetime | None" = None,
        until: "float | datetime | None" = None,
        filters: Mapping[str, Any] | None = None,
        *,
        follow: bool = True,
    ) -> "EventStream | RemoteEvents":
        """
        What happens from here on, and with *since* or *until* (seconds since 1970) what has happened, as docker tells.

        It goes on until *until* or `close()`; without *follow* it ends with what is there. *filters* are docker's:
        container, event, image, label, network, type, volume. Of what is long ago only the last megabytes are kept.
        """
        if (remote := self._remote) is not None:
            return remote.events(since, until, filters, follow=follow)
        from wherry.events import EventStream

        self._engine.open()
        return EventStream(
            Path(self._engine.events.directory), since=since, until=until, filters=filters, follow=follow
        )

    def get_exec(self, exec_id: str) -> "Exec | RemoteExec":
        """An exec that `Container.exec_create` has made. Raises ExecNotFound."""
        if (remote := self._remote) is not None:
            return remote.get_exec(exec_id)
        from wherry import execs

        execs.find(self._engine, exec_id)
        return execs.Exec(exec_id, self._engine)

    def restore(self) -> "Restored":
        """
        Start, after a reboot, the containers whose restart policy is always, or unless-stopped if nobody stopped them.

        `started` are their names, `failed` those that could not be started, with the errors.
        """
        from wherry.restoring import restore

        return restore(self._engine)

    def stats(self) -> "list[Stats]":
        """What each running container uses at this moment; see `Container.stats`."""
        if (remote := self._remote) is not None:
            return remote.stats()
        from wherry.stats import Sampler

        return Sampler(self._engine).all()

    def check(self, *, content: bool = False) -> "list[str]":
        """
        What is not as the records say, a line each: images, layers, containers. Nothing is changed.

        With *content* every blob is read and its digest checked.
        """
        engine = self._engine
        problems = [
            f"{problem.kind}: {problem.what}; {problem.repair}" for problem in self.images.check(content=content)
        ]
        return [*problems, *engine.check()]

    def doctor(self) -> "list[Check]":
        """What this host has of what containers need, what it lacks, and what would mend that. Nothing is changed."""
        from wherry.doctor import examine

        return examine(str(self._root), self._engine)

    def info(self) -> "SystemInfo":
        """What the engine is and has, as `docker info` tells."""
        if (remote := self._remote) is not None:
            return remote.info()
        from wherry.systeminfo import system_info

        self._engine.open()
        return system_info(self._engine)

    def df(self) -> "DiskUsage":
        """How much room images, containers and volumes take, as `docker system df` tells."""
        if (remote := self._remote) is not None:
            return remote.df()
        from wherry.diskusage import measure

        return measure(self)

    def version(self) -> dict[str, str]:
        """Of wherry, its interpreter, and the kernel below."""
        if (remote := self._remote) is not None:
            return remote.version()
        import platform

        from wherry import __version__

        return {
            "Version": __version__,
            "PythonVersion": platform.python_version(),
            "Os": "linux",
            "Arch": platform.machine(),
            "KernelVersion": os.uname().release,
        }


class ContainerCollection:
    """`client.containers`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> "Container":
        """As `Client.run`."""
        return self._client.run(image, command, **options)

    def create(
        self, image: str, command: str | Sequence[str] | None = None, **options: Unpack["RunOptions"]
    ) -> "Container":
        """As `Client.create`."""
        return self._client.create(image, command, **options)

    def get(self, name: str) -> "Container":
        """By name, id, or the beginning of an id. Raises ContainerNotFound."""
        from wherry.container import Container

        engine = self._client._engine
        return Container(engine.record(name).id, engine)

    def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        before: str | None = None,
        since: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> "builtins.list[Container]":
        """
        Those that run, or *all*, or the *limit* that were made last; the newest first.

        One look: what is removed meanwhile is left out. *filters* are docker's: ancestor, before, exited, expose,
        health, id, is-task, label, name, network, publish, since, status, volume.
        """
        from wherry.container import Container
        from wherry.selection import select

        engine = self._client._engine
        bounds = {name: value for name, value in (("before", before), ("since", since)) if value is not None}
        found = select(engine, all=all, limit=limit, filters={**(filters or {}), **bounds})
        return [Container(record.id, engine) for record, _ in found]

    def summaries(
        self, *, all: bool = False, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> "builtins.list[ContainerSummary]":
        """What `docker ps` tells of those that `list` gives, in one look."""
        from wherry.containersummary import summaries

        return summaries(self._client._engine, all=all, limit=limit, filters=filters)

    def prune(self) -> "builtins.list[str]":
        """Remove every container that does not run; returns their ids."""
        return self._client._engine.prune()
