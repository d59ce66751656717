"""The real registry, Debian's docker-registry, on loopback, with a storage of its own."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import bcrypt
import requests
import trustme

from support import users
from support.host import free_port
from support.layout import CONFIG, INDEX, LAYER, MANIFEST, Json, Layout, digest

_DOCKER = {
    INDEX: "application/vnd.docker.distribution.manifest.list.v2+json",
    MANIFEST: "application/vnd.docker.distribution.manifest.v2+json",
    CONFIG: "application/vnd.docker.container.image.v1+json",
    LAYER: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
ACCEPTED = tuple(_DOCKER) + tuple(_DOCKER.values())
_ACCEPT = {"Accept": ", ".join([MANIFEST, _DOCKER[MANIFEST]])}
ANOTHER_ARCHITECTURE = "riscv64"


class NoRegistry(Exception):
    """The registry cannot be started; the message says what is missing."""


@attrs.frozen(kw_only=True)
class Registry:
    """A running registry."""

    address: str  # host:port, as in image references
    url: str
    storage: Path
    log: Path
    pid: int
    user: str | None = None
    password: str | None = None
    ca: Path | None = None  # PEM file of the authority that signed its certificate, with TLS only

    @property
    def mirrors(self) -> str:
        """Value of WHERRY_REGISTRY_MIRRORS that makes this registry Docker Hub's."""
        return f"docker.io={self.url}"

    def push(self, image: Layout, name: str, *, docker: bool = False, index: bool = True) -> str:
        """
        Put *image* there as *name* (`library/nginx:latest`); the digest of what the tag names.

        With *docker* the documents are Docker's (schema 2), else OCI's. With *index* the tag names a list that has
        another platform's image beside this machine's, else the manifest itself.
        """
        repository, _, tag = name.partition(":")
        kind = _DOCKER.__getitem__ if docker else str
        with self.session() as session:
            for layer in image.manifest["layers"]:
                self._put_blob(session, repository, image.blob(layer["digest"]).read_bytes())
            ours = self._put_image(session, repository, image, image.config, kind)
            if index:
                theirs = image.config | {"architecture": ANOTHER_ARCHITECTURE}
                manifests = [self._put_image(session, repository, image, theirs, kind), ours]
                content = _encoded({"schemaVersion": 2, "mediaType": kind(INDEX), "manifests": manifests})
            else:
                content = session.get(f"{self.url}/v2/{repository}/manifests/{ours['digest']}", headers=_ACCEPT).content
            self._put_manifest(session, repository, tag or "latest", content)
            return digest(content)

    def session(self) -> requests.Session:
        """An HTTP session with the registry's password and authority; no proxy, no configuration of the machine's."""
        session = requests.Session()
        session.trust_env = False
        if self.user is not None and self.password is not None:
            session.auth = (self.user, self.password)
        if self.ca is not None:
            session.verify = str(self.ca)
        return session

    def _put_image(
        self, session: requests.Session, repository: str, image: Layout, config: Json, kind: Callable[[str], str]
    ) -> Json:
        """Put a manifest with *config* and the image's layers; its descriptor."""
        blob = _encoded(config)
        self._put_blob(session, repository, blob)
        document = {
            "schemaVersion": 2,
            "mediaType": kind(MANIFEST),
            "config": {"mediaType": kind(CONFIG), "digest": digest(blob), "size": len(blob)},
            "layers": [layer | {"mediaType": kind(layer["mediaType"])} for layer in image.manifest["layers"]],
        }
        content = _encoded(document)
        self._put_manifest(session, repository, digest(content), content)
        return {
            "mediaType": kind(MANIFEST),
            "digest": digest(content),
            "size": len(content),
            "platform": {"os": "linux", "architecture": config["architecture"]},
        }

    def _put_blob(self, session: requests.Session, repository: str, content: bytes) -> None:
        name = digest(content)
        if session.head(f"{self.url}/v2/{repository}/blobs/{name}").ok:
            return
        started = session.post(f"{self.url}/v2/{repository}/blobs/uploads/")
        started.raise_for_status()
        session.put(started.headers["Location"], params={"digest": name}, data=content).raise_for_status()

    def _put_manifest(self, session: requests.Session, repository: str, reference: str, content: bytes) -> None:
        url = f"{self.url}/v2/{repository}/manifests/{reference}"
        media_type = json.loads(content)["mediaType"]
        answer = session.put(url, data=content, headers={"Content-Type": media_type})
        if not answer.ok:
            raise requests.HTTPError(f"PUT {url}: {answer.status_code} {answer.text}", response=answer)


def _encoded(document: Json) -> bytes:
    return json.dumps(document, indent=3).encode()


@contextmanager
def running(
    folder: Path, *, tls: bool = False, user: str | None = None, password: str | None = None
) -> Iterator[Registry]:
    """
    A registry on a free port of 127.0.0.1, ended on leaving; its files are in *folder*.

    With *tls* it has a certificate for localhost and 127.0.0.1, signed by `registry.ca`. With *user* and *password*
    it asks for them (Basic). Raises NoRegistry.
    """
    program = shutil.which("docker-registry")
    if not program:
        raise NoRegistry("docker-registry is missing: apt-get install docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings: Json = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    ca = _certificate(folder, settings) if tls else None
    if user is not None and password is not None:
        _passwords(folder, settings, user, password)
    # JSON is YAML, and needs no other library.
    (folder / "config.yml").write_text(json.dumps(settings))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", folder / "config.yml"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        registry = Registry(
            address=f"127.0.0.1:{port}",
            url=f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            storage=folder / "storage",
            log=log,
            pid=process.pid,
            user=user,
            password=password,
            ca=ca,
        )
        _wait(registry, process)
        yield registry
    finally:
        with users.as_root():
            process.kill()
        process.wait()


def _wait(registry: Registry, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    with registry.session() as session:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                session.get(f"{registry.url}/v2/")
                return
            except requests.ConnectionError:
                time.sleep(0.01)
    raise NoRegistry(f"docker-registry does not answer on {registry.url}:\n{registry.log.read_text()[-4000:]}")


def _certificate(folder: Path, settings: Json) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / "certificate.pem").write_bytes(chain)
    settings["http"]["tls"] = {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    return folder / "ca.pem"


def _passwords(folder: Path, settings: Json, user: str, password: str) -> None:
    # The registry reads bcrypt only; a low cost keeps each request fast.
    line = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4, prefix=b"2b")).decode()
    (folder / "htpasswd").write_text(f"{user}:{line}\n")
    settings["auth"] = {"htpasswd": {"realm": "wherry's tests", "path": str(folder / "htpasswd")}}
