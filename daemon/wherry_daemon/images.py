"""Images: everything below /images, and what the registry is asked for."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wherry.engineapi.containers import ContainerConfig
from wherry.engineapi.document import asked, parse
from wherry.engineapi.images import (
    Committed,
    DistributionInspect,
    ErrorDetail,
    HistoryItem,
    ImageDeleted,
    ImageDescriptor,
    ImagesPruned,
    JSONMessage,
    Platform,
    ProgressDetail,
    PushResult,
    SearchResult,
)
from wherry.engineapi.system import AuthConfig
from wherry.images import ImageCollection
from wherry.inspection import image_document, image_summary, unix_time
from wherry_daemon.context import Context, filters
from wherry_daemon.http import TAR, Answer, Json, Request, Stream
from wherry_daemon.refusals import BadParameter, message
from wherry_daemon.routes import Routes
from wherry_daemon.streams import documents
from wherry_images import Credentials, Image
from wherry_images.errors import ImageNotFound, ManifestUnknown
from wherry_images.reference import familiar, parse_reference
from wherry_oci.errors import Error

if TYPE_CHECKING:
    from wherry_images import PullEvent, PushEvent

route = Routes()

# What of a container's configuration an image can have.
_COMMITTED = (
    *("User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Labels", "StopSignal", "OnBuild", "Shell"),
    *("ExposedPorts", "Volumes"),
)


def _images(context: Context) -> ImageCollection:
    return context.client.images


@route("GET", "/images/json")
def listing(context: Context, request: Request) -> Answer:
    wanted = filters(request.mapping("filters"))
    if name := request.text("filter"):
        wanted["reference"] = [name]
    found = [image for image in _images(context).list() if _fits(context, image, wanted)]
    return Json(document=[image_summary(image) for image in found])


def _fits(context: Context, image: Image, wanted: Mapping[str, Any]) -> bool:
    for name, values in wanted.items():
        if name == "reference":
            if not any(_matches(tag, value) for tag in image.tags for value in values):
                return False
        elif name == "label":
            if not all(_has_label(image, value) for value in values):
                return False
        elif name == "dangling":
            if any((value in ("1", "true")) == bool(image.names) for value in values):
                return False
        elif name in ("before", "since"):
            other = context.client.images.get(values[0])
            if image.id == other.id or (image.created < other.created) != (name == "before"):
                return False
        else:
            raise BadParameter(f"invalid filter {name!r}")
    return True


def _matches(tag: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    repository = tag.rpartition(":")[0]
    short = repository.rpartition("/")[2]
    return any(fnmatchcase(text, pattern) for text in (tag, repository, short, f"{short}:{tag.rpartition(':')[2]}"))


def _has_label(image: Image, wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in image.labels and (not equals or image.labels[name] == value)


@route("GET", "/images/search")
def search(context: Context, request: Request) -> Answer:
    found = _images(context).search(request.text("term"), limit=request.number("limit", 25) or 25)
    return Json(
        document=[
            SearchResult(name=one.name, description=one.description, star_count=one.stars, is_official=one.official)
            for one in found
        ]
    )


# fetching and sending


def _credentials(request: Request) -> Credentials | None:
    """X-Registry-Auth: base64 of a JSON object (Engine API, "Authentication")."""
    text = request.headers.get("x-registry-auth", "")
    if not text:
        return None
    try:
        document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) or b"{}")
    except (ValueError, RecursionError):
        raise BadParameter("X-Registry-Auth is no base64 of a JSON object") from None
    given = parse(document, AuthConfig, "X-Registry-Auth")
    if not given.username and not given.identity_token:
        return None
    return Credentials(username=given.username, password=given.password, identity_token=given.identity_token)


@route("POST", "/images/create")
def create(context: Context, request: Request) -> Answer:
    if request.text("fromSrc"):
        return _import(context, request)
    name, tag = request.text("fromImage"), request.text("tag")
    if not name:
        raise BadParameter("fromImage or fromSrc is needed")
    reference = name if not tag else f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
    for _ in request.pieces():
        continue
    store = _images(context)
    events = store.pulling(reference, platform=request.text("platform") or None, credentials=_credentials(request))
    return Stream(pieces=documents(_pull_documents(reference, _worded(reference, events))))


def _worded(reference: str, events: Iterator["PullEvent"]) -> Iterator["PullEvent"]:
    """A registry that has no such thing, in the words by which clients know that it is not there."""
    try:
        yield from events
    except ManifestUnknown as error:
        parsed = parse_reference(reference)
        raise _Missing(
            f"manifest for {familiar(str(parsed))} not found: manifest unknown: {error.said or 'manifest unknown'}"
        ) from error


class _Missing(ImageNotFound):
    """The registry says that there is no such image."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)
        self.name = text


_PHASES = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "unpacking": "Extracting",
    "uploading": "Pushing",
    "mounted": "Mounted from another repository",
    "exists": "Already exists",
    "done": "Pull complete",
}


def _pull_documents(reference: str, events: Iterator["PullEvent"]) -> Iterator[JSONMessage]:
    parsed = parse_reference(reference)
    shown = familiar(str(parsed))
    begun = False
    try:
        for event in events:
            if event.phase == "resolving":
                continue
            if not begun:
                begun = True
                yield JSONMessage(status=f"Pulling from {parsed.repository}", id=str(parsed.target))
            if event.layer:
                yield _progress(event)
    except Error as error:
        if not begun:
            raise
        yield _failure(error)
        return
    if not begun:
        yield JSONMessage(status=f"Pulling from {parsed.repository}", id=str(parsed.target))
        yield JSONMessage(status=f"Status: Image is up to date for {shown}")
    else:
        yield JSONMessage(status=f"Status: Downloaded newer image for {shown}")


def _failure(error: Error) -> JSONMessage:
    """Told in the stream, where clients look for it."""
    said = message(error)
    return JSONMessage(error_detail=ErrorDetail(message=said), error=said)


def _progress(event: "PullEvent | PushEvent") -> JSONMessage:
    moves = event.phase in ("downloading", "unpacking", "uploading")
    return JSONMessage(
        status=_PHASES.get(event.phase, event.phase.capitalize()),
        id=event.layer.partition(":")[2][:12],
        progress_detail=ProgressDetail(current=event.current, total=event.total or 0) if moves else ProgressDetail(),
    )


@route("POST", "/images/{name}/push")
def push(context: Context, request: Request, name: str) -> Answer:
    tag = request.text("tag")
    reference = f"{name}:{tag}" if tag else name
    for _ in request.pieces():
        continue
    _images(context).get(reference)
    return Stream(pieces=documents(_push_documents(context, reference, request)), at_once=True)


def _push_documents(context: Context, reference: str, request: Request) -> Iterator[JSONMessage]:
    parsed = parse_reference(reference)
    yield JSONMessage(status=f"The push refers to repository [{parsed.registry}/{parsed.repository}]")
    events = context.client.images.pushing(reference, credentials=_credentials(request))
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                digest = stop.value
                break
            if event.layer:
                yield _progress(event)
    except Error as error:
        yield _failure(error)
        return
    made = PushResult(tag=parsed.tag or "", digest=digest)
    yield JSONMessage(status=f"{made.tag}: digest: {made.digest} size: {made.size}")
    yield JSONMessage(progress_detail=ProgressDetail(), aux=made)


def _import(context: Context, request: Request) -> Answer:
    source = request.text("fromSrc")
    if source != "-":
        raise BadParameter("fromSrc: only - (the request's body) is read; fetch the address yourself")
    repository, tag = request.text("repo"), request.text("tag")
    reference = f"{repository}:{tag}" if repository and tag else repository or None
    changes = _changes(request.query.get("changes", []))
    image = context.client.images.import_(
        _Body(request.pieces()), reference, config=changes, message=request.text("message")
    )
    return Stream(pieces=documents([JSONMessage(status=image.id)]))


class _Body:
    """A request's body, to be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int, /) -> bytes:
        """Up to *size* bytes."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


def _changes(lines: Iterable[str]) -> dict[str, Any]:
    """The Dockerfile instructions that commit and import take. Raises BadParameter."""
    import shlex

    found: dict[str, Any] = {}
    for line in (part.strip() for text in lines for part in text.split("\n")):
        if not line:
            continue
        word, _, rest = line.partition(" ")
        instruction, rest = word.upper(), rest.strip()
        if instruction in ("CMD", "ENTRYPOINT"):
            key = "Cmd" if instruction == "CMD" else "Entrypoint"
            found[key] = _words(rest)
        elif instruction == "ENV":
            pairs = shlex.split(rest) if "=" in rest else [rest.replace(" ", "=", 1)]
            found.setdefault("Env", []).extend(pairs)
        elif instruction == "LABEL":
            found.setdefault("Labels", {}).update(item.partition("=")[::2] for item in shlex.split(rest))
        elif instruction == "EXPOSE":
            found.setdefault("ExposedPorts", {}).update(
                {port if "/" in port else f"{port}/tcp": {} for port in rest.split()}
            )
        elif instruction == "VOLUME":
            found.setdefault("Volumes", {}).update({path: {} for path in _words(rest, shell=False)})
        elif instruction in ("USER", "WORKDIR", "STOPSIGNAL"):
            found[{"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[instruction]] = rest
        else:
            raise BadParameter(f"{word} is not a valid change command")
    return found


def _words(text: str, *, shell: bool = True) -> list[str]:
    if text.startswith("["):
        try:
            return [str(word) for word in json.loads(text)]
        except ValueError:
            pass
    return ["/bin/sh", "-c", text] if shell else text.split()


@route("GET", "/images/{name}/get")
def save(context: Context, request: Request, name: str) -> Answer:
    return Stream(pieces=_images(context).save([name]), type=TAR)


@route("GET", "/images/get")
def save_several(context: Context, request: Request) -> Answer:
    return Stream(pieces=_images(context).save(request.query.get("names", [])), type=TAR)


@route("POST", "/images/load")
def load(context: Context, request: Request) -> Answer:
    return Stream(pieces=documents(_load_documents(context, request)))


def _load_documents(context: Context, request: Request) -> Iterator[JSONMessage]:
    try:
        images = _images(context).load(_Body(request.pieces()))
    except Error as error:
        yield _failure(error)
        return
    for image in images:
        for tag in image.tags or ("",):
            yield JSONMessage(stream=f"Loaded image: {tag}\n" if tag else f"Loaded image ID: {image.id}\n")


# one image


@route("GET", "/images/{name}/json")
def inspect(context: Context, request: Request, name: str) -> Answer:
    return Json(document=image_document(_images(context).get(name)))


@route("GET", "/images/{name}/history")
def history(context: Context, request: Request, name: str) -> Answer:
    image = _images(context).get(name)
    newest = [
        HistoryItem(
            id=image.id if number == 0 else "<missing>",
            created=unix_time(step.created),
            created_by=step.created_by,
            comment=step.comment,
            tags=list(image.tags) if number == 0 else None,
        )
        for number, step in enumerate(reversed(image.history))
    ]
    return Json(document=newest)


@route("POST", "/images/{name}/tag")
def tag(context: Context, request: Request, name: str) -> Answer:
    repository, chosen = request.text("repo"), request.text("tag")
    _images(context).tag(name, f"{repository}:{chosen}" if chosen else repository)
    return Json(status=201, document={})


@route("DELETE", "/images/{name}")
def remove(context: Context, request: Request, name: str) -> Answer:
    done = _images(context).remove(name, force=request.flag("force"))
    return Json(document=[_removal(line) for line in done])


def _removal(line: str) -> ImageDeleted:
    what, _, of = line.partition(": ")
    return ImageDeleted(untagged=familiar(of)) if what == "untagged" else ImageDeleted(deleted=of)


@route("POST", "/images/prune")
def prune(context: Context, request: Request) -> Answer:
    wanted = filters(request.mapping("filters"))
    dangling = wanted.pop("dangling", ["true"])
    if wanted:
        raise BadParameter(f"invalid filter {min(wanted)!r}")
    done = _images(context).prune(all=dangling[0] in ("0", "false"))
    removed = [_removal(line) for line in done.removed] or None
    return Json(document=ImagesPruned(images_deleted=removed, space_reclaimed=done.size))


@route("POST", "/commit")
def commit(context: Context, request: Request) -> Answer:
    repository, chosen = request.text("repo"), request.text("tag")
    config = asked(request.parsed(ContainerConfig))
    config = {key: value for key, value in config.items() if key in _COMMITTED}
    image = context.container(request.text("container")).commit(
        f"{repository}:{chosen}" if repository and chosen else repository or None,
        config={**config, **_changes(request.query.get("changes", []))},
        author=request.text("author"),
        message=request.text("comment"),
        pause=request.flag("pause", True),
    )
    return Json(status=201, document=Committed(id=image.id))


@route("GET", "/distribution/{name}/json")
def distribution(context: Context, request: Request, name: str) -> Answer:
    found = _images(context).in_registry(name, credentials=_credentials(request))
    index = json.loads(found.content)
    return Json(
        document=DistributionInspect(
            descriptor=ImageDescriptor(media_type=found.media_type, digest=found.digest, size=len(found.content)),
            platforms=[
                parse(entry["platform"], Platform, "the index")
                for entry in index.get("manifests") or ()
                if entry.get("platform")
            ],
        )
    )
