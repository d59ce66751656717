"""`client.images` of a distant engine."""

import base64
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from wherry.remote.api import Api, EngineError, filters, refused
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
        document = self._api.get(f"/images/{name}/json", about={"image": name})
        history = self._api.get(f"/images/{name}/history", about={"image": name})
        return _image(document, history)

    def list(self) -> "builtins.list[Image]":
        """All of them, the newest first."""
        return [self.get(one["Id"]) for one in self._api.get("/images/json")]

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
        for document in self._api.documents(
            "POST", "/images/create", query, headers=self._auth(parsed.registry, credentials), about={"pull": reference}
        ):
            _check(document, reference)
            if (phase := _PHASES.get(document.get("status", ""))) is not None:
                yield PullEvent(document.get("id", ""), phase, *_amounts(document))
        return self.get(reference)

    def push(self, name: str, *, progress: Callable[[PushEvent], None] | None = None) -> str:
        """As `ImageCollection.push`."""
        return drive(self.pushing(name), progress)

    def pushing(self, name: str, *, credentials: Credentials | None = None) -> Generator[PushEvent, None, str]:
        """As `push`, as an iterator of its events that returns the digest."""
        parsed = parse_reference(name)
        headers = self._auth(parsed.registry, credentials) or {"X-Registry-Auth": _encoded({})}
        digest = ""
        for document in self._api.documents(
            "POST", f"/images/{_plain(parsed.name)}/push", {"tag": parsed.tag}, headers=headers, about={"image": name}
        ):
            _check(document, name)
            digest = str((document.get("aux") or {}).get("Digest") or digest)
            if (phase := _PHASES.get(document.get("status", ""))) is not None:
                yield PushEvent(document.get("id", ""), phase, *_amounts(document))
        return digest

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
        return [f"{what.lower()}: {of}" for one in done for what, of in one.items()]

    def prune(self, *, all: bool = False) -> Pruned:
        """As `ImageCollection.prune`."""
        done = self._api.post("/images/prune", {"filters": filters({"dangling": not all})})
        removed = tuple(f"{what.lower()}: {of}" for one in done.get("ImagesDeleted") or () for what, of in one.items())
        return Pruned(removed=removed, size=int(done.get("SpaceReclaimed") or 0))

    def save(self, names: str | Sequence[str], *, format: Literal["docker", "oci"] = "docker") -> Iterator[bytes]:
        """As `ImageCollection.save`; which format it is the engine decides."""
        if format != "docker":
            raise Unsupported(f"format={format!r}: the Engine API has docker's alone")
        chosen = [names] if isinstance(names, str) else list(names)
        return self._api.stream("GET", "/images/get", {"names": chosen}, about={"image": ", ".join(chosen)})

    def load(self, source: "Source | str | os.PathLike[str]") -> "builtins.list[Image]":
        """As `ImageCollection.load`."""
        loaded = []
        for document in self._api.documents("POST", "/images/load", {"quiet": True}, _pieces(source)):
            _check(document, "the archive")
            what, _, name = str(document.get("stream", "")).strip().partition(": ")
            if what in ("Loaded image", "Loaded image ID"):
                loaded.append(name)
        return [self.get(name) for name in loaded]

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
        for document in self._api.documents("POST", "/images/create", query, _pieces(source)):
            _check(document, "the archive")
            made = str(document.get("status") or made)
        return self.get(made)

    def export(self, name: str) -> Iterator[bytes]:
        """The image's root file system as a tar, by a container that is never started."""
        made = self._api.post("/containers/create", None, {"Image": name, "Cmd": ["true"]}, about={"image": name})["Id"]
        try:
            yield from self._api.stream("GET", f"/containers/{made}/export", about={"container": made})
        finally:
            self._api.delete(f"/containers/{made}", {"force": True, "v": True}, about={"container": made})

    def search(self, term: str, *, limit: int = 25) -> "builtins.list[Result]":
        """As `ImageCollection.search`."""
        return [
            Result(
                name=one["name"],
                description=one.get("description") or "",
                stars=int(one.get("star_count") or 0),
                official=bool(one.get("is_official")),
            )
            for one in self._api.get("/images/search", {"term": term, "limit": limit}) or ()
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


def _encoded(document: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def _auth_config(registry: str, found: Credentials) -> dict[str, str]:
    return {
        "username": found.username,
        "password": found.password,
        "identitytoken": found.identity_token,
        "registrytoken": found.registry_token,
        "serveraddress": _HUB_KEY if registry == DEFAULT_REGISTRY else registry,
    }


def _check(document: Mapping[str, Any], name: str) -> None:
    """A failure in the middle of a stream is a line of it. Raises what it means."""
    if not document.get("error"):
        return
    said = str(document["error"])
    error = refused(500, said, {"pull": name})
    raise EngineError(f"{name}: {said}", 500) if isinstance(error, EngineError) else error


def _amounts(document: Mapping[str, Any]) -> tuple[int, int | None]:
    detail = document.get("progressDetail") or {}
    total = detail.get("total")
    return int(detail.get("current") or 0), None if total is None else int(total)


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


def _image(document: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Image:
    """The Engine API's image as a value of wherry's."""
    steps = [
        {
            "created_by": one.get("CreatedBy") or "",
            "comment": one.get("Comment") or "",
            "empty_layer": not one.get("Size"),
        }
        for one in reversed(history)
    ]
    names = tuple(str(parse_reference(tag)) for tag in document.get("RepoTags") or () if tag != "<none>:<none>")
    digests = tuple(
        str(parse_reference(one)) for one in document.get("RepoDigests") or () if not one.startswith("<none>")
    )
    return image_of(
        {
            "os": document.get("Os"),
            "architecture": document.get("Architecture"),
            "variant": document.get("Variant"),
            "created": document.get("Created"),
            "author": document.get("Author"),
            "config": document.get("Config"),
            "rootfs": {"diff_ids": (document.get("RootFS") or {}).get("Layers")},
            "history": steps,
        },
        id=document["Id"],
        manifest=Digest((document.get("Descriptor") or {}).get("digest") or ""),
        names=names,
        digests=digests,
        size=int(document.get("Size") or 0),
    )
