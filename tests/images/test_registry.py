"""Registries: who is asked, what is shown to whom, mirrors, certificates, proxies; and pushing."""

import base64
import json
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from images.build import digest_of, entry, image, layer
from images.conftest import IMPATIENT, Puller
from images.faulty_registry import Answer, FaultyRegistry, Request, basic, serving
from support import registry as registries
from wherry_images import Credentials, ImageStore, PushEvent, RegistryConfig
from wherry_images.credentials import find_credentials, load_config, registry_of
from wherry_images.errors import (
    AuthRequired,
    CredentialHelperFailed,
    DigestMismatch,
    ManifestUnknown,
    RegistryRefused,
    RegistryUnreachable,
)
from wherry_oci.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.root

BUILT = image(layer(entry("f", data=os.urandom(30_000))))


@attrs.define
class TokenServer:
    """Behaves as Docker Hub's: a realm, scopes, tokens that expire, and a registry that wants them."""

    registry: FaultyRegistry
    users: dict[str, str] = attrs.field(factory=dict)
    private: bool = False
    life: int = 300
    tokens: dict[str, tuple[float, list[str]]] = attrs.field(factory=dict)
    issued: int = 0
    refresh: str = "identity-secret"
    realm: str = ""

    def hook(self, request: Request, answer: Answer) -> Answer | None:
        if request.path == "/token":
            return self._issue(request)
        bearer = request.authorization.removeprefix("Bearer ")
        expires, scopes = self.tokens.get(bearer, (0.0, []))
        repository = request.path.removeprefix("/v2/").partition("/manifests")[0].partition("/blobs")[0]
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        wanted = f"repository:{repository}:"
        allowed = any(scope.startswith(wanted) and action in scope for scope in scopes) or repository == ""
        if expires > time.monotonic() and allowed:
            return None
        realm = self.realm or f"http://{self.registry.host}/token"
        challenge = f'Bearer realm="{realm}",service="registry.test",scope="{wanted}{action}"'
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}).encode()
        return Answer(401, {"WWW-Authenticate": challenge}, body)

    def _issue(self, request: Request) -> Answer:
        scopes = request.query.get("scope", [])
        known = any(request.authorization == basic(*pair) for pair in self.users.items())
        if request.method == "POST":
            known = self.refresh in self.form
            scopes = ["repository:app:pull"]
        if (request.authorization or self.private) and not known:
            return Answer(401, {}, b'{"details": "incorrect username or password"}')
        if request.query.get("service", ["registry.test"]) != ["registry.test"]:
            return Answer(400)
        self.issued += 1
        token = f"token-{self.issued}"
        self.tokens[token] = (time.monotonic() + self.life, scopes)
        return Answer(200, {}, json.dumps({"token": token, "expires_in": self.life}).encode())

    form: str = ""


@pytest.fixture
def tokens(faulty: FaultyRegistry) -> TokenServer:
    server = TokenServer(faulty)
    faulty.hooks.append(server.hook)
    return server


def with_credentials(**given: Credentials) -> RegistryConfig:
    return attrs.evolve(IMPATIENT, credentials=given)


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_an_anonymous_token_is_fetched_once_for_a_repository(tokens: TokenServer, puller: Puller) -> None:
    """And used for its manifest and all of its blobs."""
    puller.pull(image(layer(entry("a")), layer(entry("b")), layer(entry("c"))))
    assert tokens.issued == 1
    assert puller.registry.count("GET", "/token") == 1
    puller.pull(BUILT, "other")
    assert tokens.issued == 2


def test_a_token_that_has_expired_is_fetched_anew(tokens: TokenServer, puller: Puller) -> None:
    """Also when it was the registry that took it back."""

    def forget(request: Request, answer: Answer) -> None:
        if "/blobs/" in request.path and request.authorization == "Bearer token-1":
            tokens.tokens.clear()

    puller.registry.hooks.insert(0, forget)
    puller.pull(BUILT)
    assert tokens.issued == 2


def test_a_user_gets_a_token_for_private_repositories(
    tokens: TokenServer, puller: Puller, make_store: Callable[..., ImageStore]
) -> None:
    """Name and password go to the token server, by Basic."""
    tokens.private, tokens.users = True, {"joe": "s3cret"}
    with pytest.raises(AuthRequired, match="incorrect username or password"):
        puller.pull(BUILT)
    host = puller.registry.host
    with pytest.raises(AuthRequired):
        puller.store.pull(puller.name(), credentials=Credentials(username="joe", password="wrong"))
    puller.store.pull(puller.name(), credentials=Credentials(username="joe", password="s3cret"))
    store = make_store("other", registries=with_credentials(**{host: Credentials(username="joe", password="s3cret")}))
    store.pull(puller.name())
    blobs = [one for one in puller.registry.requests if "/blobs/" in one.path and one.authorization]
    assert all(one.authorization.startswith("Bearer ") for one in blobs)


def test_an_identity_token_is_sent_as_refresh_token(tokens: TokenServer, puller: Puller) -> None:
    """As docker login leaves it for some registries."""
    tokens.private = True
    bodies: list[str] = []
    original = puller.registry.answer

    def answer(request: Request, body: bytes) -> Answer:
        tokens.form = body.decode("latin-1")
        if request.path == "/token":
            bodies.append(tokens.form)
        return original(request, body)

    puller.registry.answer = answer  # type: ignore[method-assign] # the tests' own registry
    puller.registry.push("app", "latest", BUILT)
    puller.store.pull(puller.name(), credentials=Credentials(identity_token="identity-secret"))
    assert "grant_type=refresh_token" in bodies[0]


def test_no_token_for_who_may_not(tokens: TokenServer, puller: Puller) -> None:
    """A token without the scope that is wanted: an error, not a circle."""
    tokens.life = 0
    with pytest.raises(AuthRequired, match="authentication required"):
        puller.pull(BUILT)
    assert len(puller.registry.requests) < 8


@pytest.mark.parametrize("realm", ["http://token.example/", "ftp://x/", "nonsense", ""])
def test_a_realm_without_tls_gets_nothing(tmp_path: Path, realm: str) -> None:
    """An https registry that names an http realm (or none): nothing is sent there."""
    with https(tmp_path) as (registry, config):
        registry.push("app", "latest", BUILT)
        challenge = f'Bearer realm="{realm}",service="x"'
        registry.hooks.append(lambda request, answer: Answer(401, {"WWW-Authenticate": challenge}))
        secret = Credentials(username="joe", password="s3cret")
        store = ImageStore(tmp_path / "root", registries=attrs.evolve(config, credentials={registry.host: secret}))
        with pytest.raises(RegistryRefused, match="token server"):
            store.pull(f"{registry.host}/app")
        assert all(one.authorization == "" for one in registry.requests)
        store.close()


def test_a_token_that_would_break_a_header_is_refused(puller: Puller) -> None:
    """Line breaks in it could add headers of the token server's choice."""

    def hook(request: Request, answer: Answer) -> Answer | None:
        if request.path == "/token":
            return Answer(200, {}, json.dumps({"token": "x\r\nEvil: 1"}).encode())
        challenge = f'Bearer realm="http://{puller.registry.host}/token"'
        return Answer(401, {"WWW-Authenticate": challenge})

    puller.registry.hooks.append(hook)
    with pytest.raises(RegistryUnreachable, match="has no token"):
        puller.pull(BUILT)


# -- Basic, redirects --------------------------------------------------------------------------------------------------


def _wants_basic(user: str, password: str) -> Callable[[Request, Answer], Answer | None]:
    def hook(request: Request, answer: Answer) -> Answer | None:
        if request.authorization == basic(user, password):
            return None
        return Answer(401, {"WWW-Authenticate": 'Basic realm="Registry"'})

    return hook


def test_basic_credentials_are_shown_only_when_asked_for(puller: Puller) -> None:
    """The first request goes without."""
    puller.registry.hooks.append(_wants_basic("joe", "pä:ss"))
    puller.registry.push("app", "latest", BUILT)
    with pytest.raises(AuthRequired, match="log in"):
        puller.store.pull(puller.name())
    puller.registry.requests.clear()
    puller.store.pull(puller.name(), credentials=Credentials(username="joe", password="pä:ss"))
    assert puller.registry.requests[0].authorization == ""


def test_credentials_do_not_follow_a_redirect_to_another_host(puller: Puller) -> None:
    """CVE-2020-15157: blobs often lie with a third party, which has an address that is signed."""
    with serving() as storage:
        storage.blobs.update(BUILT.blobs)

        def away(request: Request, answer: Answer) -> Answer | None:
            if "/blobs/" in request.path and answer.status != 401:
                return Answer(307, {"Location": f"http://{storage.host}{request.path}?signed=1"})
            return None

        puller.registry.hooks += [_wants_basic("joe", "secret"), away]
        puller.registry.push("app", "latest", BUILT)
        puller.store.pull(puller.name(), credentials=Credentials(username="joe", password="secret"))
        assert len(storage.requests) == 2
        assert all(one.authorization == "" for one in storage.requests)


def test_redirects_on_the_same_host_keep_them(puller: Puller) -> None:
    """A registry may move things about."""

    def moved(request: Request, answer: Answer) -> Answer | None:
        if request.path.startswith("/v2/old/"):
            return Answer(301, {"Location": request.path.replace("/v2/old/", "/v2/app/")})
        return None

    puller.registry.hooks += [moved, _wants_basic("joe", "secret")]
    puller.registry.push("app", "latest", BUILT)
    puller.store.pull(puller.name("old"), credentials=Credentials(username="joe", password="secret"))


# -- config.json and helpers -------------------------------------------------------------------------------------------


def _config(tmp_path: Path, content: dict[str, Any]) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return str(path)


def _auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("Registry.Example:5000", "registry.example:5000"),
    ],
)
def test_keys_of_config_json(tmp_path: Path, key: str, registry: str) -> None:
    """In all the forms that docker has written them."""
    assert registry_of(key) == registry
    path = _config(tmp_path, {"auths": {key: {"auth": _auth("joe", "se:cret")}}})
    assert find_credentials(registry, path=path) == Credentials(username="joe", password="se:cret")
    assert find_credentials("other.example", path=path) is None


def test_config_json_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_CONFIG names the folder; DOCKER_AUTH_CONFIG is the content and goes before it, where it has something."""
    _config(tmp_path, {"auths": {"a.example": {"auth": _auth("file", "1")}, "b.example": {"auth": _auth("file", "2")}}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"a.example": {"auth": _auth("environment", "1")}}}))
    assert find_credentials("a.example") == Credentials(username="environment", password="1")
    assert find_credentials("b.example") == Credentials(username="file", password="2")
    assert find_credentials("c.example") is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"auths": 7}', '{"auths": {"a.example": {"auth": "%%%"}}}'])
def test_a_broken_config_json(tmp_path: Path, content: str) -> None:
    """An error that names it, or nothing found; never a crash."""
    path = tmp_path / "config.json"
    path.write_text(content)
    if content == '{"auths": 7}':
        assert find_credentials("a.example", path=str(path)) is None
    else:
        with pytest.raises(InvalidArgument, match=r"config\.json"):
            find_credentials("a.example", path=str(path))


def _helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_credential_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One registry's own before the store of all; the file's when neither knows."""
    _helper(
        tmp_path,
        "one",
        'read url; test "$url" = a.example && echo \'{"ServerURL":"x","Username":"one","Secret":"1"}\' ||'
        " { echo credentials not found in native keychain; exit 1; }",
        monkeypatch,
    )
    _helper(
        tmp_path,
        "all",
        'read url; case "$url" in https://index.docker.io/v1/) echo \'{"Username":"<token>","Secret":"t"}\';;'
        " *) echo credentials not found in native keychain; exit 1;; esac",
        monkeypatch,
    )
    config = {
        "auths": {"c.example": {"auth": _auth("file", "3")}},
        "credHelpers": {"a.example": "one"},
        "credsStore": "all",
    }
    path = _config(tmp_path, config)
    assert find_credentials("a.example", path=path) == Credentials(username="one", password="1")
    assert find_credentials("docker.io", path=path) == Credentials(identity_token="t")
    assert find_credentials("c.example", path=path) == Credentials(username="file", password="3")
    assert find_credentials("d.example", path=path) is None


def test_credential_helpers_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, broken, or named like a path."""
    with pytest.raises(CredentialHelperFailed, match="not on PATH"):
        find_credentials("a.example", path=_config(tmp_path, {"credsStore": "missing"}))
    with pytest.raises(InvalidArgument, match="no name"):
        find_credentials("a.example", path=_config(tmp_path, {"credsStore": "../../bin/x"}))
    _helper(tmp_path, "bad", "echo no keyring >&2; exit 3", monkeypatch)
    with pytest.raises(CredentialHelperFailed, match="status 3: no keyring"):
        find_credentials("a.example", path=_config(tmp_path, {"credsStore": "bad"}))


def test_login_and_logout(puller: Puller, make_store: Callable[..., ImageStore], tmp_path: Path) -> None:
    """Credentials are tried, remembered as docker does it, used, and forgotten."""
    puller.registry.hooks.append(_wants_basic("joe", "secret"))
    puller.registry.push("app", "latest", BUILT)
    path = _config(tmp_path, {"HttpHeaders": {"x": "y"}, "auths": {"other.example": {"auth": _auth("o", "o")}}})
    store = make_store(registries=attrs.evolve(IMPATIENT, docker_config=path))
    host = puller.registry.host
    with pytest.raises(AuthRequired):
        store.login(host, Credentials(username="joe", password="wrong"))
    assert store.login(host, Credentials(username="joe", password="secret")) == path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    config = load_config(path)
    assert config["HttpHeaders"] == {"x": "y"}
    assert set(config["auths"]) == {"other.example", host}
    store.pull(puller.name())
    assert store.logout(host)
    assert not store.logout(host)
    assert set(load_config(path)["auths"]) == {"other.example"}
    with pytest.raises(AuthRequired):
        store.pull(puller.name())


def test_login_by_a_helper(
    puller: Puller, make_store: Callable[..., ImageStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper keeps them; the file has no secret."""
    kept = tmp_path / "kept"
    _helper(
        tmp_path,
        "keep",
        f"case $1 in store) cat > {kept};; erase) rm -f {kept};;"
        f" get) test -f {kept} && cat {kept} || {{ echo credentials not found; exit 1; }};; esac",
        monkeypatch,
    )
    path = _config(tmp_path, {"credsStore": "keep"})
    store = make_store(registries=attrs.evolve(IMPATIENT, docker_config=path))
    assert store.login(puller.registry.host, Credentials(username="joe", password="secret")) == "docker-credential-keep"
    assert json.loads(kept.read_text())["Secret"] == "secret"
    assert "secret" not in Path(path).read_text()
    assert find_credentials(puller.registry.host, path=path) == Credentials(username="joe", password="secret")
    assert store.logout(puller.registry.host)
    assert not kept.exists()


# -- mirrors -----------------------------------------------------------------------------------------------------------


def test_mirrors_come_first_and_the_registry_itself_last(
    faulty: FaultyRegistry, make_store: Callable[..., ImageStore]
) -> None:
    """For every registry; the image keeps its own name."""
    with serving() as mirror:
        mirror.push("library/app", "latest", BUILT)
        store = make_store(mirrors={"docker.io": ["http://127.0.0.1:1", f"http://{mirror.host}"]})
        assert store.pull("app").names == ("docker.io/library/app:latest",)
        faulty.push("app", "latest", BUILT)
        behind = make_store("behind", mirrors={faulty.host: [f"http://{mirror.host}"]})
        behind.pull(f"{faulty.host}/app")
        assert mirror.count("GET", "/v2/app/manifests/latest") == 1
        assert faulty.count("GET", "/v2/app/manifests/latest") == 1


def test_a_mirror_with_wrong_bytes_is_not_the_last_word(
    faulty: FaultyRegistry, make_store: Callable[..., ImageStore]
) -> None:
    """A manifest that is not its digest: the registry itself is asked; if it is wrong too, that is the error."""
    faulty.push("app", "latest", BUILT)
    with serving() as mirror:
        other = image(layer(entry("other")))
        mirror.push("app", "latest", other)
        mirror.manifests["app", BUILT.digest] = (other.media_type, other.manifest)
        store = make_store(mirrors={"*": [f"http://{mirror.host}"]})
        assert store.pull(f"{faulty.host}/app@{BUILT.digest}").id == BUILT.id
        faulty.manifests["app", BUILT.digest] = (other.media_type, other.manifest)
        with pytest.raises(DigestMismatch):
            make_store("b", mirrors={"*": [f"http://{mirror.host}"]}).pull(f"{faulty.host}/app@{BUILT.digest}")


def test_what_the_mirrors_said_is_noted(make_store: Callable[..., ImageStore], faulty: FaultyRegistry) -> None:
    """The registry's own word is the error."""
    store = make_store(registries=attrs.evolve(IMPATIENT, retries=0), mirrors={"*": ["http://127.0.0.1:1"]})
    with pytest.raises(ManifestUnknown) as caught:
        store.pull(f"{faulty.host}/app")
    assert "127.0.0.1:1" in caught.value.__notes__[0]


def test_a_mirror_is_not_shown_the_registrys_credentials(
    faulty: FaultyRegistry, make_store: Callable[..., ImageStore]
) -> None:
    """Whoever mirrors ghcr.io is not ghcr.io."""
    faulty.hooks.append(_wants_basic("joe", "secret"))
    config = with_credentials(**{"ghcr.io": Credentials(username="joe", password="secret")})
    store = make_store(registries=attrs.evolve(config, retries=0), mirrors={"ghcr.io": [f"http://{faulty.host}"]})
    with pytest.raises((AuthRequired, RegistryUnreachable)):
        store.pull("ghcr.io/app")
    assert all(one.authorization == "" for one in faulty.requests)


@pytest.mark.parametrize("address", ["http://mirror.example", "ftp://x", "http://u:p@127.0.0.1", "http://127.0.0.1/?x"])
def test_mirrors_that_may_not_be(address: str) -> None:
    """Plain http only on loopback or by consent; no secrets in addresses."""
    with pytest.raises(InvalidArgument):
        RegistryConfig(mirrors={"docker.io": [address]}).endpoints("docker.io")


def test_plain_http_by_consent() -> None:
    """With and without a port; never unasked."""
    config = RegistryConfig(insecure=frozenset({"plain.example", "10.0.0.1:5000"}))
    for host, plain in (
        ("plain.example", True),
        ("plain.example:5000", True),
        ("10.0.0.1:5000", True),
        ("10.0.0.1:5001", False),
        ("localhost:1", True),
        ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("example.com", False),
        ("localhost.example", False),
    ):
        assert config.may_be_plain(host) == plain, host


def test_the_environment_names_mirrors() -> None:
    """WHERRY_REGISTRY_MIRRORS and WHERRY_INSECURE_REGISTRIES."""
    config = RegistryConfig.from_environment(
        {
            "WHERRY_REGISTRY_MIRRORS": "docker.io=http://127.0.0.1:5000, docker.io=https://b.example,*=https://c.example",
            "WHERRY_INSECURE_REGISTRIES": "d.example, e.example:5000",
        }
    )
    assert [one.host for one in config.endpoints("docker.io")] == [
        "127.0.0.1:5000",
        "b.example",
        "registry-1.docker.io",
    ]
    assert [one.host for one in config.endpoints("quay.io")] == ["c.example", "quay.io"]
    assert config.insecure == {"d.example", "e.example:5000"}
    with pytest.raises(InvalidArgument, match="REGISTRY=ADDRESS"):
        RegistryConfig.from_environment({"WHERRY_REGISTRY_MIRRORS": "nonsense"})


# -- TLS and proxies ---------------------------------------------------------------------------------------------------


@contextmanager
def https(tmp_path: Path, *, client: bool = False) -> Iterator[tuple[FaultyRegistry, RegistryConfig]]:
    """A registry with a certificate of an authority that certs.d knows; it may want one of its clients, too."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    with serving(tls=context) as registry:
        folder = tmp_path / "certs.d" / registry.host
        folder.mkdir(parents=True)
        authority.cert_pem.write_to_path(folder / "ca.crt")
        if client:
            own = authority.issue_cert("wherry.test")
            own.private_key_pem.write_to_path(folder / "client.key")
            (folder / "client.cert").write_bytes(own.cert_chain_pems[0].bytes())
        yield registry, attrs.evolve(IMPATIENT, retries=0, certificates=[str(tmp_path / "certs.d")])


def test_private_authorities_of_certs_d(tmp_path: Path) -> None:
    """With the authority's certificate it works, without it is refused; never by plain http instead."""
    with https(tmp_path) as (registry, config):
        registry.push("app", "latest", BUILT)
        with _closing(ImageStore(tmp_path / "a", registries=config)) as store:
            assert store.pull(f"{registry.host}/app").id == BUILT.id
        with (
            _closing(ImageStore(tmp_path / "b", registries=attrs.evolve(config, certificates=()))) as store,
            pytest.raises(RegistryUnreachable, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"),
        ):
            store.pull(f"{registry.host}/app")
        consent = attrs.evolve(config, certificates=(), insecure=frozenset({registry.host}))
        with _closing(ImageStore(tmp_path / "c", registries=consent)) as store:
            store.pull(f"{registry.host}/app")


def test_a_registry_of_this_machine_without_tls_needs_no_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To load them takes longer than a request; one that has TLS is held to them all the same."""

    def load(*_: object) -> None:
        raise AssertionError("authorities are loaded")

    with https(tmp_path) as (encrypted, config), serving() as plain:
        plain.push("app", "latest", BUILT)
        encrypted.push("app", "latest", BUILT)
        monkeypatch.setattr(ssl, "create_default_context", load)
        with _closing(ImageStore(tmp_path / "a", registries=config)) as store:
            assert store.pull(f"{plain.host}/app").id == BUILT.id
            with pytest.raises(AssertionError):
                store.pull(f"{encrypted.host}/app")


def test_client_certificates_of_certs_d(tmp_path: Path) -> None:
    """A registry that wants one gets it."""
    with https(tmp_path, client=True) as (registry, config):
        registry.push("app", "latest", BUILT)
        with _closing(ImageStore(tmp_path / "a", registries=config)) as store:
            store.pull(f"{registry.host}/app")
        (tmp_path / "certs.d" / registry.host / "client.key").unlink()
        with _closing(ImageStore(tmp_path / "b", registries=config)) as store, pytest.raises(InvalidArgument):
            store.pull(f"{registry.host}/app")


def test_a_redirect_away_from_tls_is_refused(tmp_path: Path) -> None:
    """Also to this machine itself."""
    with https(tmp_path) as (registry, config), serving() as plain:
        registry.hooks.append(lambda request, answer: Answer(307, {"Location": f"http://{plain.host}{request.path}"}))
        with (
            _closing(ImageStore(tmp_path / "a", registries=config)) as store,
            pytest.raises(RegistryRefused, match="has no TLS"),
        ):
            store.pull(f"{registry.host}/app")
        assert plain.requests == []


@contextmanager
def _closing(store: ImageStore) -> Iterator[ImageStore]:
    try:
        yield store
    finally:
        store.close()


class _Proxy(BaseHTTPRequestHandler):
    """Answers what it is asked for any host, and notes it."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Proxy-Authorization", "")))
        body = b"{}"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch, make_store: Callable[..., ImageStore]) -> None:
    """https through CONNECT, with the proxy's own credentials; not for this machine, nor for NO_PROXY's hosts."""
    seen: list[tuple[str, str]] = []
    handler = type("Handler", (_Proxy,), {"seen": seen})
    with ExitStack() as stack:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        stack.callback(server.server_close)
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        address = f"http://user:pa%40ss@127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setenv("no_proxy", "direct.invalid")
        store = make_store(registries=attrs.evolve(IMPATIENT, retries=0))
        for name in ("registry.invalid/app", "direct.invalid/app", "127.0.0.1:1/app"):
            with pytest.raises(RegistryUnreachable):
                store.pull(name)
    assert seen == [("registry.invalid:443", basic("user", "pa@ss"))]


# -- pushing -----------------------------------------------------------------------------------------------------------


def test_a_pushed_image_comes_back_the_same(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """With its progress; blobs that the registry has are not sent."""
    pulled = puller.pull(BUILT, "from")
    store = puller.store
    with serving() as other:
        name = f"{other.host}/to:v1"
        store.tag(pulled.id, name)
        events: list[PushEvent] = []
        assert store.push(name, progress=events.append) == BUILT.digest
        assert {event.phase for event in events} >= {"uploading", "done"}
        assert f"{other.host}/to@{BUILT.digest}" in store.get(name).digests
        assert make_store("again").pull(name).id == BUILT.id
        other.requests.clear()
        store.push(name, progress=events.append)
        assert other.count("POST", "/uploads/") == 0
        assert {"exists"} <= {event.phase for event in events}


def test_blobs_are_mounted_from_other_repositories(puller: Puller) -> None:
    """The registry is told where it has them; one that declines gets them sent."""
    pulled = puller.pull(BUILT, "from")
    store, registry = puller.store, puller.registry
    for mounts, name in ((True, "to"), (False, "other")):
        registry.mounts = mounts
        registry.hooks[:] = [_without_blobs("to"), _without_blobs("other")]
        store.tag(pulled.id, puller.name(name))
        registry.requests.clear()
        store.push(puller.name(name))
        posts = [one for one in registry.requests if one.method == "POST"]
        assert all(one.query["from"] == ["from"] for one in posts[:2])
        assert registry.count("PUT", "/uploads/") == (0 if mounts else 2)


def _without_blobs(repository: str) -> Callable[[Request, Answer], Answer | None]:
    def hook(request: Request, answer: Answer) -> Answer | None:
        is_head = request.method == "HEAD" and f"/v2/{repository}/blobs/" in request.path
        return Answer(404) if is_head else None

    return hook


def test_uploads_in_chunks(puller: Puller) -> None:
    """For registries behind proxies that take no large requests."""
    pulled = puller.pull(BUILT, "from")
    with serving() as other:
        name = f"{other.host}/to"
        puller.store.tag(pulled.id, name)
        puller.store.push(name, chunk_size=7000)
        size = len(BUILT.layers[0].blob)
        assert other.count("PATCH", "/uploads/") == -(-size // 7000) + 1
        ranges = [one.headers["content-range"] for one in other.requests if one.method == "PATCH"]
        assert "0-6999" in ranges
        assert other.blobs[digest_of(BUILT.layers[0].blob)] == BUILT.layers[0].blob


def test_a_push_that_breaks_off_begins_again(puller: Puller) -> None:
    """A 500 or a lost upload: the blob is sent anew."""
    pulled = puller.pull(BUILT, "from")
    with serving() as other:
        failures = iter([500, 503])

        def fail(request: Request, answer: Answer) -> Answer | None:
            if request.method == "PUT" and "/uploads/" in request.path:
                status = next(failures, None)
                return Answer(status) if status else None
            return None

        other.hooks.append(fail)
        name = f"{other.host}/to"
        puller.store.tag(pulled.id, name)
        puller.store.push(name)
        assert set(BUILT.blobs) <= set(other.blobs)


def test_what_may_not_be_pushed(tokens: TokenServer, puller: Puller) -> None:
    """The registry's word is the error (docker-py#3277)."""
    tokens.users = {"joe": "secret"}
    pulled = puller.pull(BUILT, "from")
    puller.store.tag(pulled.id, puller.name("to"))
    tokens.private = True
    with pytest.raises(AuthRequired):
        puller.store.push(puller.name("to"))
    credentials = Credentials(username="joe", password="secret")
    assert puller.store.push(puller.name("to"), credentials=credentials) == BUILT.digest


def test_an_index_of_several_images(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """Pushed under one name, pulled by platform."""
    arm = image(layer(entry("arm")), architecture="arm64")
    amd = image(layer(entry("amd")))
    names = [puller.pull(amd, "amd").id, puller.pull(arm, "arm").id]
    with serving() as other:
        name = f"{other.host}/multi"
        puller.store.push_index(name, names)
        store = make_store("again")
        assert store.pull(name, platform="linux/arm64").id == arm.id
        assert store.pull(name, platform="linux/amd64").id == amd.id


def test_an_upload_elsewhere_is_not_shown_credentials(puller: Puller) -> None:
    """A Location on another host gets the blob, not the secret."""
    pulled = puller.pull(BUILT, "from")
    with serving() as front, serving() as back:

        def away(request: Request, answer: Answer) -> Answer | None:
            if request.method == "POST" and answer.status == 202:
                number = answer.headers["Location"].rpartition("/")[2].partition("?")[0]
                back.uploads[number] = bytearray()
                answer.headers["Location"] = f"http://{back.host}{answer.headers['Location']}"
            return None

        front.hooks += [away, _wants_basic("joe", "secret")]
        name = f"{front.host}/to"
        puller.store.tag(pulled.id, name)
        puller.store.push(name, credentials=Credentials(username="joe", password="secret"))
        assert back.count("PUT", "/uploads/") == 2
        assert all(one.authorization == "" for one in back.requests)


# -- asking ------------------------------------------------------------------------------------------------------------


def test_tags_and_search(puller: Puller) -> None:
    """Pages of tags; search where the registry tells what it has, an error where it does not."""
    host = puller.registry.host

    def listing(request: Request, answer: Answer) -> Answer | None:
        if request.path == "/v2/app/tags/list":
            if "last" in request.query:
                return Answer(200, {}, b'{"tags": ["c"]}')
            return Answer(200, {"Link": '</v2/app/tags/list?last=b>; rel="next"'}, b'{"tags": ["a", "b"]}')
        if request.path == "/v2/_catalog":
            return Answer(200, {}, b'{"repositories": ["my/app", "other"]}')
        return None

    puller.registry.hooks.append(listing)
    assert puller.store.tags(f"{host}/app") == ["a", "b", "c"]
    assert [one.name for one in puller.store.search(f"{host}/app")] == [f"{host}/my/app"]
    puller.registry.hooks.clear()
    with pytest.raises(Unsupported, match="does not tell"):
        puller.store.search(f"{host}/app")


# -- the real registry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "tls", "htpasswd", "tls and htpasswd"])
def test_push_and_pull_with_the_real_registry(puller: Puller, tmp_path: Path, kind: str) -> None:
    """Docker's own, in every way it is set up."""
    pulled = puller.pull(image(layer(entry("a", data=os.urandom(5_000_000))), layer(entry("b"), compression="zstd")))
    user, password = ("joe", "secret") if "htpasswd" in kind else (None, None)
    try:
        running = registries.running(tmp_path / "registry", tls="tls" in kind, user=user, password=password)
        with running as real:
            config = IMPATIENT
            if real.ca is not None:
                folder = tmp_path / "certs.d" / real.address
                folder.mkdir(parents=True)
                (folder / "ca.crt").write_bytes(real.ca.read_bytes())
                config = attrs.evolve(config, certificates=[str(tmp_path / "certs.d")])
            credentials = Credentials(username=user, password=password or "") if user else None
            name = f"{real.address}/some/app:v1"
            with _closing(ImageStore(puller.store.root, registries=config)) as store:
                store.tag(pulled.id, name)
                for chunk_size in (None, 1 << 20):
                    digest = store.push(name, credentials=credentials, chunk_size=chunk_size)
                if user:
                    with pytest.raises(AuthRequired):
                        store.push(name)
            with _closing(ImageStore(tmp_path / "again", registries=config)) as store:
                again = store.pull(name, credentials=credentials)
                assert (again.id, again.manifest) == (pulled.id, digest)
                if user is None:
                    assert store.tags(name) == ["v1"]
                    assert [one.name for one in store.search(f"{real.address}/app")] == [f"{real.address}/some/app"]
    except registries.NoRegistry as error:
        pytest.skip(str(error))
