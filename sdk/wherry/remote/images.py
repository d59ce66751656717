"""`client.images` of a distant engine."""

import base64
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from wherry.engineapi.containers import ContainerCreate, ContainerCreated
from wherry.engineapi.document import Words, asked, told
from wherry.engineapi.images import (
    HistoryItem,
    ImageDeleted,
    ImageInspect,
    ImagesPruned,
    ImageSummary,
    JSONMessage,
    SearchResult,
)
from wherry.engineapi.system import AuthConfig
from wherry.remote.api import Api, EngineError, Request, filters, refused, understood
from wherry_images import Credentials, Image, PullEvent, PushEvent
from wherry_images.collect import Pruned
from wherry_images.credentials import erase_credentials, find_credentials, store_credentials
from wherry_images.image import image_of
from wherry_images.progress import Phase, drive
from wherry_images.reference import DEFAULT_REGISTRY, parse_reference
from wherry_images.search import Result
from wherry_oci.errors import InvalidArgument, Unsupported
from wherry_oci.spec.digest import Digest

if TYPE_CHECKING:
    import builtins

    from wherry_images.compression import Source

_HUB_KEY = "https://index.docker.io/v1/"  # what docker calls its own registry where it keeps passwords
_READ_SIZE = 1 << 20
_PHASES: dict[str, Phase] = {
    "Waiting": "waiting",
    "Preparing": "waiting",
    "Downloading": "downloading",
    "Extracting": "unpacking",
    "Pull complete": "done",
    "Already exists": "exists",
    "Pushing": "uploading",
    "Pushed": "done",
    "Layer already exists": "exists",
}


class RemoteImageCollection:
    """The images of a distant engine: as `ImageCollection`, by calls of the Engine API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, name: str) -> Image:
        """By name or id. Raises ImageNotFound."""
        found = self._api.read(ImageInspect, f"/images/{name}/json", about={"image": name})
        history = self._api.read_all(HistoryItem, f"/images/{name}/history", about={"image": name})
        return _image(found, history)

    def list(self) -> "builtins.list[Image]":
        """All of them, the newest first."""
        return [self.get(one.id) for one in self._api.read_all(ImageSummary, "/images/json")]

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: Literal["missing", "always", "never", "newer"] = "always",
        progress: Callable[[PullEvent], None] | None = None,
    ) -> Image:
        """As `ImageCollection.pull`; "newer" is "always": the engine looks itself what is missing."""
        from wherry_images.errors import ImageNotFound

        if policy not in ("missing", "always", "never", "newer"):
            raise InvalidArgument(f"policy={policy!r}: one of missing, always, never, newer")
        if policy in ("missing", "never"):
            try:
                return self.get(reference)
            except ImageNotFound:
                if policy == "never":
                    raise
        return drive(self.pulling(reference, platform=platform), progress)

    def pulling(
        self, reference: str, *, platform: str | None = None, credentials: Credentials | None = None
    ) -> Generator[PullEvent, None, Image]:
        """As `pull`, as an iterator of its events that returns the image."""
        parsed = parse_reference(reference)
        query = {"fromImage": _plain(parsed.name), "tag": parsed.target, "platform": platform}
        headers = self._auth(parsed.registry, credentials)
        for message in self._messages(
            Request("POST", "/images/create", query, headers=headers, about={"pull": reference}), reference
        ):
            if (phase := _PHASES.get(message.status)) is not None:
                yield PullEvent(message.id, phase, *_amounts(message))
        return self.get(reference)

    def push(self, name: str, *, progress: Callable[[PushEvent], None] | None = None) -> str:
        """As `ImageCollection.push`."""
        return drive(self.pushing(name), progress)

    def pushing(self, name: str, *, credentials: Credentials | None = None) -> Generator[PushEvent, None, str]:
        """As `push`, as an iterator of its events that returns the digest."""
        parsed = parse_reference(name)
        headers = self._auth(parsed.registry, credentials) or {"X-Registry-Auth": _encoded(AuthConfig())}
        digest = ""
        path = f"/images/{_plain(parsed.name)}/push"
        for message in self._messages(
            Request("POST", path, {"tag": parsed.tag}, headers=headers, about={"image": name}), name
        ):
            digest = message.aux.digest if message.aux is not None else digest
            if (phase := _PHASES.get(message.status)) is not None:
                yield PushEvent(message.id, phase, *_amounts(message))
        return digest

    def _messages(self, request: Request, name: str) -> Iterator[JSONMessage]:
        """What the engine tells while it works on *name*. Raises what it says has failed."""
        for line in self._api.lines(request):
            message = understood(line, JSONMessage)
            if message.error:  # a failure in the middle of a stream is a line of it
                error = refused(500, message.error, {"pull": name})
                raise EngineError(f"{name}: {message.error}", 500) if isinstance(error, EngineError) else error
            yield message

    def _auth(self, registry: str, given: Credentials | None) -> dict[str, str]:
        found = given or find_credentials(registry)
        if found is None:
            return {}
        return {"X-Registry-Auth": _encoded(_auth_config(registry, found))}

    def tag(self, name: str, reference: str) -> Image:
        """As `ImageCollection.tag`."""
        parsed = parse_reference(reference)
        self._api.post(f"/images/{name}/tag", {"repo": _plain(parsed.name), "tag": parsed.tag}, about={"image": name})
        return self.get(reference)

    def remove(self, name: str, *, force: bool = False) -> "builtins.list[str]":
        """As `ImageCollection.remove`."""
        done = self._api.delete(f"/images/{name}", {"force": force}, about={"image": name})
        return [_removal(understood(one, ImageDeleted)) for one in done]

    def prune(self, *, all: bool = False) -> Pruned:
        """As `ImageCollection.prune`."""
        done = self._api.ask(ImagesPruned, "/images/prune", {"filters": filters({"dangling": not all})})
        return Pruned(removed=tuple(map(_removal, done.images_deleted or ())), size=done.space_reclaimed)

    def save(self, names: str | Sequence[str], *, format: Literal["docker", "oci"] = "docker") -> Iterator[bytes]:
        """As `ImageCollection.save`; which format it is the engine decides."""
        if format != "docker":
            raise Unsupported(f"format={format!r}: the Engine API has docker's alone")
        chosen = [names] if isinstance(names, str) else list(names)
        about = {"image": ", ".join(chosen)}
        return self._api.stream(Request("GET", "/images/get", {"names": chosen}, about=about))

    def load(self, source: "Source | str | os.PathLike[str]") -> "builtins.list[Image]":
        """As `ImageCollection.load`."""
        loaded = []
        request = Request("POST", "/images/load", {"quiet": True}, _pieces(source))
        for message in self._messages(request, "the archive"):
            what, _, name = message.stream.strip().partition(": ")
            if what in ("Loaded image", "Loaded image ID"):
                loaded.append(name)
        found = [self.get(name) for name in loaded]
        return list({image.id: image for image in found}.values())

    def import_(
        self,
        source: "Source | str | os.PathLike[str]",
        reference: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        message: str = "",
    ) -> Image:
        """As `ImageCollection.import_`; of *config* the engine takes Cmd, Env and the like, as Dockerfile's lines."""
        named = {}
        if reference is not None:
            parsed = parse_reference(reference)
            named = {"repo": _plain(parsed.name), "tag": parsed.tag}
        changes = [f"{_instruction(name)} {_written(value)}" for name, value in (config or {}).items()]
        query = {"fromSrc": "-", **named, "changes": changes, "message": message}
        made = ""
        for line in self._messages(Request("POST", "/images/create", query, _pieces(source)), "the archive"):
            made = line.status or made
        return self.get(made)

    def export(self, name: str) -> Iterator[bytes]:
        """The image's root file system as a tar, by a container that is never started."""
        idle = ContainerCreate(image=name, cmd=Words(["true"]))
        made = self._api.ask(ContainerCreated, "/containers/create", None, idle, about={"image": name}).id
        try:
            yield from self._api.stream(Request("GET", f"/containers/{made}/export", about={"container": made}))
        finally:
            self._api.delete(f"/containers/{made}", {"force": True, "v": True}, about={"container": made})

    def search(self, term: str, *, limit: int = 25) -> "builtins.list[Result]":
        """As `ImageCollection.search`."""
        found = self._api.read_all(SearchResult, "/images/search", {"term": term, "limit": limit})
        return [
            Result(name=one.name, description=one.description, stars=one.star_count, official=one.is_official)
            for one in found
        ]

    def login(self, username: str, password: str, registry: str = "docker.io") -> str:
        """Let the engine try the credentials, and remember them where docker does; returns where."""
        credentials = Credentials(username=username, password=password)
        self.try_login(registry, credentials)
        return store_credentials(registry, credentials)

    def try_login(self, registry: str, credentials: Credentials) -> None:
        """Whether the registry takes *credentials*; nothing is remembered. Raises AuthRequired."""
        self._api.post("/auth", None, _auth_config(registry, credentials), about={"pull": f"{registry}/login"})

    def logout(self, registry: str = "docker.io") -> bool:
        """Forget them; whether there were any."""
        return erase_credentials(registry)


def _plain(name: str) -> str:
    """A normalized name as Docker's clients send it: the Hub's are without the Hub."""
    return name.removeprefix(f"{DEFAULT_REGISTRY}/library/").removeprefix(f"{DEFAULT_REGISTRY}/")


def _encoded(credentials: AuthConfig) -> str:
    return base64.urlsafe_b64encode(json.dumps(asked(credentials)).encode()).decode()


def _auth_config(registry: str, found: Credentials) -> AuthConfig:
    return AuthConfig(
        username=found.username,
        password=found.password,
        identity_token=found.identity_token,
        registry_token=found.registry_token,
        server_address=_HUB_KEY if registry == DEFAULT_REGISTRY else registry,
    )


def _removal(done: ImageDeleted) -> str:
    return f"untagged: {done.untagged}" if done.untagged else f"deleted: {done.deleted}"


def _amounts(message: JSONMessage) -> tuple[int, int | None]:
    detail = message.progress_detail
    return (0, None) if detail is None else (detail.current, detail.total or None)


def _pieces(source: "Source | str | os.PathLike[str]") -> Iterator[bytes]:
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            while piece := file.read(_READ_SIZE):
                yield piece
        return
    while piece := source.read(_READ_SIZE):
        yield piece


_INSTRUCTIONS = {"Cmd": "CMD", "Entrypoint": "ENTRYPOINT", "User": "USER", "WorkingDir": "WORKDIR"}


def _instruction(name: str) -> str:
    if name not in _INSTRUCTIONS:
        raise Unsupported(f"config {name!r}: an engine elsewhere takes {', '.join(_INSTRUCTIONS)} on import")
    return _INSTRUCTIONS[name]


def _written(value: Any) -> str:
    return json.dumps(list(value)) if isinstance(value, list | tuple) else str(value)


def _manifest_of(digests: Sequence[str]) -> str:
    """An engine before API 1.48 tells it by the names alone under which a registry has it."""
    return digests[0].rpartition("@")[2] if digests else ""


def _image(found: ImageInspect, history: Sequence[HistoryItem]) -> Image:
    """The Engine API's image as a value of wherry's."""
    steps = [
        {"created_by": step.created_by, "comment": step.comment, "empty_layer": not step.size}
        for step in reversed(history)
    ]
    tags = [tag for tag in found.repo_tags or () if tag != "<none>:<none>"]
    digests = [digest for digest in found.repo_digests or () if not digest.startswith("<none>")]
    return image_of(
        {
            "os": found.os,
            "architecture": found.architecture,
            "variant": found.variant,
            "created": found.created,
            "author": found.author,
            "config": told(found.config),
            "rootfs": {"diff_ids": found.root_fs.layers},
            "history": steps,
        },
        id=Digest(found.id),
        manifest=Digest(found.descriptor.digest if found.descriptor is not None else _manifest_of(digests)),
        names=tuple(str(parse_reference(tag)) for tag in tags),
        digests=tuple(str(parse_reference(digest)) for digest in digests),
        size=found.size,
    )
