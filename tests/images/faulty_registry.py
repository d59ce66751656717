"""A registry on loopback that does as it is told, also what no registry should: for tests of what then happens."""

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from images.build import OCI_INDEX, BuiltImage, digest_of


@attrs.define
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@attrs.define
class Answer:
    """
    What to send instead of the usual.

    After `cut` bytes of the body the connection is torn, or with `silent` kept until the client gives up; `drip` sends
    byte by byte.
    """

    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    cut: int | None = None
    silent: bool = False
    drip: bool = False


Hook = Callable[[Request, Answer], Answer | None]


class FaultyRegistry:
    """Manifests and blobs in memory; each request passes the hooks, which may change its answer."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.requests: list[Request] = []
        self.hooks: list[Hook] = []
        self.uploads: dict[str, bytearray] = {}
        self.chunk_limit = 0
        self.mounts = True
        self.lock = threading.Lock()
        self.sent: dict[str, int] = {}  # bytes of each blob that went out

    host = ""

    def push(self, repository: str, tag: str, built: BuiltImage) -> None:
        self.blobs.update(built.blobs)
        self.put_manifest(repository, built.media_type, built.manifest, tag)

    def push_index(self, repository: str, tag: str, content: bytes, *built: BuiltImage) -> None:
        for one in built:
            self.push(repository, one.digest, one)
        self.put_manifest(repository, OCI_INDEX, content, tag)

    def put_manifest(self, repository: str, media_type: str, content: bytes, tag: str) -> None:
        for target in {tag, digest_of(content)}:
            self.manifests[repository, target] = (media_type, content)

    def count(self, method: str, part: str) -> int:
        """How many requests there were of *method* with *part* in their path."""
        return sum(one.method == method and part in one.path for one in self.requests)

    def answer(self, request: Request, body: bytes) -> Answer:
        path = request.path
        if path in ("/v2", "/v2/"):
            return Answer(200, {}, b"{}")
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            return self._manifest(request, found[1], found[2], body)
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", path):
            return self._blob(request, found[2])
        if found := re.fullmatch(r"/v2/(.+)/blobs/uploads/([^/]*)", path):
            return self._upload(request, found[1], found[2], body)
        return _error(404, "UNSUPPORTED", "no such thing")

    def _manifest(self, request: Request, repository: str, target: str, body: bytes) -> Answer:
        if request.method == "PUT":
            self.put_manifest(repository, request.headers.get("content-type", ""), body, target)
            return Answer(201, {"Docker-Content-Digest": digest_of(body)})
        if (repository, target) not in self.manifests:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, content = self.manifests[repository, target]
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(content)}, content)

    def _blob(self, request: Request, digest: str) -> Answer:
        if digest not in self.blobs:
            return _error(404, "BLOB_UNKNOWN", "blob unknown")
        content = self.blobs[digest]
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted:
            start = int(wanted[1])
            if start >= len(content):
                return Answer(416)
            return Answer(206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:])
        return Answer(200, {}, content)

    def _upload(self, request: Request, repository: str, number: str, body: bytes) -> Answer:
        base = f"/v2/{repository}/blobs/uploads/"
        if request.method == "POST":
            mount = request.query.get("mount", [""])[0]
            if self.mounts and mount in self.blobs:
                return Answer(201, {"Location": f"/v2/{repository}/blobs/{mount}"})
            number = secrets.token_hex(8)
            self.uploads[number] = bytearray()
            return Answer(202, {"Location": f"{base}{number}?state=x", "Docker-Upload-UUID": number})
        if number not in self.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        self.uploads[number] += body
        if request.method == "PATCH":
            end = len(self.uploads[number]) - 1
            return Answer(202, {"Location": f"{base}{number}?state=y", "Range": f"0-{end}"})
        content = bytes(self.uploads.pop(number))
        digest = request.query.get("digest", [""])[0]
        if digest_of(content) != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[digest] = content
        return Answer(201, {"Location": f"/v2/{repository}/blobs/{digest}"})


def _error(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, {"Content-Type": "application/json"}, body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FaultyRegistry

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parse_qs(parts.query), headers)
        body = self._body(headers)
        with self.registry.lock:
            self.registry.requests.append(request)
            answer = self.registry.answer(request, body)
            for hook in self.registry.hooks:
                answer = hook(request, answer) or answer
        self._reply(request, answer)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(headers.get("content-length", "0")))

    def _reply(self, request: Request, answer: Answer) -> None:
        self.send_response(answer.status)
        answer.headers.setdefault("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "HEAD":
            return
        body = answer.body if answer.cut is None else answer.body[: answer.cut]
        try:
            for piece in (body[at : at + 1] for at in range(len(body))) if answer.drip else (body,):
                self.wfile.write(piece)
            if answer.silent:
                self.rfile.read(1)
        except OSError:
            self.close_connection = True
            return
        if "/blobs/" in request.path:
            with self.registry.lock:
                digest = request.path.rpartition("/")[2]
                self.registry.sent[digest] = self.registry.sent.get(digest, 0) + len(body)
        if answer.cut is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, *_: Any) -> None:
        pass  # clients that hang up are what some tests are about


@contextmanager
def serving(registry: FaultyRegistry | None = None, *, tls: Any = None) -> Iterator[FaultyRegistry]:
    """*registry* behind a port of loopback: its `host` says which."""
    registry = registry or FaultyRegistry()
    handler = type("Handler", (_Handler,), {"registry": registry, "timeout": 5, "disable_nagle_algorithm": True})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
