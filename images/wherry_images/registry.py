"""
Talking to registries (distribution-spec), with whom they are known to be and what may be shown to whom.

Credentials go to the host that they are for and to the token server that it names, never along a redirect; nothing
that began with TLS goes on without.
"""

import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import attrs
import urllib3
from urllib3.exceptions import HTTPError

from wherry_images.content import check_digest
from wherry_images.credentials import Credentials, find_credentials
from wherry_images.documents import parse_manifest
from wherry_images.errors import (
    AuthRequired,
    BlobUnknown,
    DigestMismatch,
    InvalidImage,
    ManifestUnknown,
    RateLimited,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from wherry_images.hosts import Endpoint, RegistryConfig, certificate_files, is_loopback
from wherry_images.reference import DEFAULT_REGISTRY
from wherry_oci.errors import Error, InvalidArgument, Unavailable
from wherry_oci.spec.digest import Digest, digest_of, parse_digest
from wherry_oci.spec.manifest import INDEXES, MANIFESTS, MAX_DOCUMENT, Index, Manifest, loads_json

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
_USER_AGENT = "wherry/0.1"
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_MAX_ERROR = 64 << 10  # bytes of an error's body that are read
_MAX_PAGES = 100
_HTTPS = 443
_TOKEN_LIFE_S = 60  # when a token server does not say (distribution's token.md)
_CHALLENGE = re.compile(r'([a-zA-Z][a-zA-Z0-9_-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)')


T = TypeVar("T")


class _BrokenOff(RegistryUnreachable):
    """An answer that began well did not come to its end."""


class Cancelled(Error):
    """The operation was given up by whoever began it."""


@attrs.frozen(kw_only=True)
class Fetched:
    """A manifest or index as a registry sent it."""

    content: bytes
    media_type: str
    digest: Digest

    def parse(self, what: str) -> Manifest | Index:
        return parse_manifest(self.content, self.media_type, what)


@attrs.frozen
class _Token:
    header: str
    expires: float  # on the monotonic clock


class Registry:
    """
    What one operation says to one registry and its mirrors; safe to use from several threads.

    `close` ends all its connections, also those that another thread waits on.
    """

    def __init__(self, name: str, config: RegistryConfig, *, push: bool = False) -> None:
        self.name, self._config = name, config
        self._endpoints = config.endpoints(name, push=push)
        self._lock = threading.Lock()  # guards all below; never held while the network is waited for
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._schemes: dict[str, str] = {}
        self._challenges: dict[str, tuple[str, dict[str, str]]] = {}
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._live: set[BaseHTTPResponse] = set()
        self.cancelled = threading.Event()

    def close(self) -> None:
        self.cancel()
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for manager in pools:
            for key in manager.pools.keys():  # noqa: SIM118 # it is no mapping that could be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()  # clear() would leave that to the garbage collector
            manager.clear()

    def cancel(self) -> None:
        """Make every call that is under way, and each later one, end with Cancelled."""
        self.cancelled.set()
        with self._lock:
            live = list(self._live)
        for response in live:
            with suppress(Exception):  # it may just be ending by itself
                response.shutdown()

    # -- manifests and blobs -------------------------------------------------------------------------------------------

    def manifest(self, repository: str, target: str) -> Fetched:
        """
        The manifest or index *target*, a tag or digest, from the first endpoint that has it.

        Raises ManifestUnknown, AuthRequired, RateLimited, RegistryUnreachable, DigestMismatch, InvalidImage.
        """
        return self._first(lambda endpoint: self._manifest(endpoint, repository, target))

    def head(self, repository: str, target: str) -> Digest | None:
        """The digest of *target*, as the registry says without sending it; None if it does not say."""

        def ask(endpoint: Endpoint) -> Digest | None:
            with self._exchange(
                endpoint,
                "HEAD",
                f"/v2/{repository}/manifests/{target}",
                scopes=(f"repository:{repository}:pull",),
                headers={"Accept": _ACCEPT},
                unknown=ManifestUnknown,
            ) as response:
                said = response.headers.get("Docker-Content-Digest")
            with suppress(InvalidArgument):
                return parse_digest(said) if said else None
            return None

        return self._first(ask)

    def _manifest(self, endpoint: Endpoint, repository: str, target: str) -> Fetched:
        def fetch() -> tuple[bytes, str]:
            with self._exchange(
                endpoint,
                "GET",
                f"/v2/{repository}/manifests/{target}",
                scopes=(f"repository:{repository}:pull",),
                headers={"Accept": _ACCEPT},
                unknown=ManifestUnknown,
            ) as response:
                content = self._read(response, MAX_DOCUMENT, f"the manifest of {repository}")
                return content, response.headers.get("Content-Type", "")

        content, media_type = self._whole(fetch)
        if ":" not in target:
            return Fetched(content=content, media_type=media_type, digest=digest_of(content))
        check_digest(content, parse_digest(target), f"manifest of {repository} from {endpoint.host}")
        return Fetched(content=content, media_type=media_type, digest=parse_digest(target))

    def small_blob(self, repository: str, digest: Digest, size: int) -> bytes:
        """A blob of *size* bytes, at once and checked. Raises as `blob`, and DigestMismatch."""

        def fetch() -> bytes:
            with self.blob(repository, digest, 0) as (response, _):
                return self._read(response, size + 1, f"blob {digest}")

        content = self._whole(fetch)
        check_digest(content, digest, f"blob from {self.name}")
        return content

    def _whole(self, fetch: Callable[[], T]) -> T:
        """What *fetch* gives, which is called again when its answer breaks off."""
        for attempt in range(self._config.retries):
            try:
                return fetch()
            except _BrokenOff:
                self.pause(self._config.retry_wait * 2**attempt)
        return fetch()

    def _read(self, response: "BaseHTTPResponse", limit: int, what: str) -> bytes:
        try:
            content = response.read(limit + 1, decode_content=True)
        except (HTTPError, OSError) as error:
            raise _BrokenOff(f"{what} broke off: {error}", registry=self.name) from error
        if len(content) > limit:
            raise InvalidImage(f"{what} has more than {limit} bytes")
        return content

    @contextmanager
    def blob(self, repository: str, digest: Digest, offset: int) -> "Iterator[tuple[BaseHTTPResponse, int]]":
        """
        A response that is a blob from *offset* on, or from the earlier position that comes with it.

        Raises BlobUnknown, and as `manifest`.
        """
        error: Error | None = None
        for endpoint in self._endpoints:
            exchange = self._exchange(
                endpoint,
                "GET",
                f"/v2/{repository}/blobs/{digest}",
                scopes=(f"repository:{repository}:pull",),
                headers={"Range": f"bytes={offset}-"} if offset else {},
                unknown=BlobUnknown,
                also=(416,),
            )
            try:
                response = exchange.__enter__()
            except (RegistryError, Unavailable) as refused:
                error = _worse(error, refused)
                continue
            try:
                yield response, _start(response, offset)
            finally:
                exchange.__exit__(None, None, None)
            return
        assert error is not None
        raise error

    @contextmanager
    def foreign(self, url: str, offset: int) -> "Iterator[tuple[BaseHTTPResponse, int]]":
        """As `blob`, from an address that a manifest names: no credentials are sent there."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RegistryRefused(f"a layer's address {url[:200]!r} is not http or https", registry=self.name)
        if parts.scheme == "http" and not self._config.may_be_plain(parts.netloc):
            raise RegistryRefused(f"a layer's address {url[:200]} has no TLS", registry=self.name)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._follow("GET", url, headers, None, {})
        with self._closing(response):
            self._raise_for(response, url, BlobUnknown, (416,))
            yield response, _start(response, offset)

    # -- pushing -------------------------------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: Digest) -> bool:
        try:
            with self._exchange(
                self._endpoints[-1],
                "HEAD",
                f"/v2/{repository}/blobs/{digest}",
                scopes=_push_scopes(repository),
                unknown=BlobUnknown,
            ):
                return True
        except BlobUnknown:
            return False

    def start_upload(self, repository: str, mount: Digest | None = None, source: str = "") -> str | None:
        """
        Where to send a blob. With *mount*, the registry is asked to take it from its repository *source* instead: None
        then says that it has.
        """
        query = f"?{urlencode({'mount': mount, 'from': source})}" if mount else ""
        scopes = _push_scopes(repository) + ((f"repository:{source}:pull",) if mount else ())
        path = f"/v2/{repository}/blobs/uploads/{query}"
        with self._exchange(self._endpoints[-1], "POST", path, scopes=scopes, body=b"") as response:
            if mount and response.status == 201:
                return None
            return self._location(response, path)

    def send_chunk(
        self, repository: str, location: str, start: int, end: int, pieces: Callable[[], Iterable[bytes]]
    ) -> str:
        """Send the bytes from *start* up to *end* of a blob; tells where the next ones go."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
        }
        with self._exchange(
            self._endpoints[-1],
            "PATCH",
            location,
            scopes=_push_scopes(repository),
            headers=headers,
            body=pieces,
            retry=False,
        ) as response:
            return self._location(response, location)

    def finish_upload(
        self, repository: str, location: str, digest: Digest, size: int, pieces: Callable[[], Iterable[bytes]] | None
    ) -> None:
        """Send the blob's last *size* bytes and its digest."""
        joint = "&" if urlsplit(location).query else "?"
        with self._exchange(
            self._endpoints[-1],
            "PUT",
            f"{location}{joint}{urlencode({'digest': digest})}",
            scopes=_push_scopes(repository),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
            body=pieces if pieces is not None else b"",
            retry=False,
        ):
            pass

    def put_manifest(self, repository: str, target: str, content: bytes, media_type: str) -> Digest:
        """Give *content* the name *target*. Raises DigestMismatch if the registry made something else of it."""
        expected = digest_of(content)
        with self._exchange(
            self._endpoints[-1],
            "PUT",
            f"/v2/{repository}/manifests/{target}",
            scopes=_push_scopes(repository),
            headers={"Content-Type": media_type},
            body=content,
        ) as response:
            said = response.headers.get("Docker-Content-Digest")
        if said and said != expected:
            raise DigestMismatch(expected, said, f"manifest pushed to {self.name}")
        return expected

    def _location(self, response: "BaseHTTPResponse", path: str) -> str:
        """The whole address that an answer names: where an upload goes on."""
        location = response.headers.get("Location")
        if not location:
            raise RegistryUnreachable(f"{path}: the answer does not say where to send the blob", registry=self.name)
        endpoint = self._endpoints[-1]
        scheme = self._schemes.get(endpoint.host, endpoint.schemes[0])
        target = urljoin(f"{scheme}://{endpoint.host}{path if '://' not in path else ''}", location)
        parts = urlsplit(target)
        if parts.scheme == "http" and (scheme == "https" or not self._config.may_be_plain(parts.netloc)):
            raise RegistryRefused(f"{path}: the blob should go to {target[:200]}, which has no TLS", registry=self.name)
        return target

    # -- the registry itself -------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask for nothing: raises AuthRequired if the credentials are not the right ones."""
        with self._exchange(self._endpoints[-1], "GET", "/v2/", scopes=()):
            pass

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository."""
        return self._listing(f"/v2/{repository}/tags/list", "tags", (f"repository:{repository}:pull",))

    def catalog(self) -> list[str]:
        """The repositories, where the registry tells them."""
        return self._listing("/v2/_catalog", "repositories", ("registry:catalog:*",))

    def _listing(self, path: str, field: str, scopes: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for _ in range(_MAX_PAGES):
            with self._exchange(self._endpoints[-1], "GET", path, scopes=scopes, unknown=ManifestUnknown) as response:
                answer = loads_json(self._read(response, MAX_DOCUMENT, path), path)
                following = re.match(r'<([^>]+)>;\s*rel="?next"?', response.headers.get("Link", ""))
            items = answer.get(field) if isinstance(answer, dict) else None
            found += [item for item in items or [] if isinstance(item, str)]
            if not following:
                break
            parts = urlsplit(urljoin(path, following[1]))
            path = parts.path + (f"?{parts.query}" if parts.query else "")
        return found

    def search_v1(self, term: str, limit: int) -> object:
        """The answer of docker's first registry API to a search; Docker Hub still gives it."""
        endpoint = self._endpoints[-1]
        if self.name == DEFAULT_REGISTRY:
            endpoint = attrs.evolve(endpoint, host="index.docker.io")
        path = f"/v1/search?{urlencode({'q': term, 'n': limit})}"
        with self._exchange(endpoint, "GET", path, scopes=(), unknown=ManifestUnknown) as response:
            return loads_json(self._read(response, MAX_DOCUMENT, "the search's answer"), "the search's answer")

    # -- endpoints -----------------------------------------------------------------------------------------------------

    def _first(self, ask: Callable[[Endpoint], T]) -> T:
        """What the first endpoint that answers *ask* says; else the error that tells most."""
        error: Error | None = None
        for endpoint in self._endpoints:
            try:
                return ask(endpoint)
            except (RegistryError, Unavailable, InvalidImage, DigestMismatch) as refused:
                if endpoint is self._endpoints[-1] and error is None:
                    raise
                error = _worse(error, refused)
        assert error is not None
        raise error

    # -- one exchange --------------------------------------------------------------------------------------------------

    @contextmanager
    def _exchange(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        scopes: tuple[str, ...],
        headers: Mapping[str, str] | None = None,
        body: "bytes | Callable[[], Iterable[bytes]] | None" = None,
        unknown: type[RegistryError] = RegistryRefused,
        also: tuple[int, ...] = (),
        retry: bool = True,
    ) -> "Iterator[BaseHTTPResponse]":
        """Send, authenticate as the host wants, follow redirects, retry what is worth it; yields a good answer."""
        attempt = 0
        while True:
            failure: RegistryError
            wait: float | None = None
            try:
                response = self._authenticated(endpoint, method, path, scopes, dict(headers or {}), body)
            except RegistryUnreachable as error:
                failure = error
            else:
                with self._closing(response):
                    if response.status not in _TRANSIENT:
                        self._raise_for(response, f"{endpoint.host}{path}", unknown, also)
                        yield response
                        return
                    failure = self._error(response, f"{endpoint.host}{path}", unknown)
                    wait = _retry_after(response)
            attempt += 1
            pause = self._config.retry_wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            if wait is not None:
                pause = wait + random.uniform(0, self._config.retry_wait)
            retries = self._config.retries if retry else 0
            if _is_refused(failure) and endpoint.host not in self._schemes:
                retries = min(retries, 1)  # nobody listens, and never did: more patience would only look like a hang
            if attempt > retries or pause > self._config.longest_wait:
                raise failure
            self.pause(pause)

    def pause(self, seconds: float) -> None:
        """Wait, unless the operation is cancelled meanwhile: then Cancelled is raised."""
        if self.cancelled.wait(seconds):
            raise Cancelled("given up")

    def _authenticated(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        scopes: tuple[str, ...],
        headers: dict[str, str],
        body: "bytes | Callable[[], Iterable[bytes]] | None",
    ) -> "BaseHTTPResponse":
        header = self._authorization(endpoint, scopes)
        response = self._send(endpoint, method, path, headers, body, header)
        for fresh in (False, True):  # a token may just have expired: once more with a new one
            if response.status != 401:
                return response
            challenge = _challenge(response.headers.getlist("WWW-Authenticate"))
            if challenge is None:
                return response
            with self._lock:
                self._challenges[endpoint.host] = challenge
            if fresh or header is not None:
                self._forget_tokens(endpoint)
            try:
                again = self._authorization(endpoint, scopes)
            except BaseException:
                self._discard(response)
                raise
            if again is None or (again == header and again.startswith("Basic ")):
                return response
            header = again
            self._discard(response)
            response = self._send(endpoint, method, path, headers, body, header)
        return response

    def _send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        headers: dict[str, str],
        body: "bytes | Callable[[], Iterable[bytes]] | None",
        authorization: str | None,
    ) -> "BaseHTTPResponse":
        """Send to the endpoint by the first of its schemes that works there."""
        secret = {"Authorization": authorization} if authorization else {}
        if "://" in path:  # an upload's location
            same = urlsplit(path).netloc == endpoint.host
            return self._follow(method, path, headers, body, secret if same else {})
        if endpoint.host not in self._schemes and "http" in endpoint.schemes and self._is_surely_plain(endpoint.host):
            self._schemes[endpoint.host] = "http"
        known = self._schemes.get(endpoint.host)
        schemes = (known,) if known else endpoint.schemes
        first: RegistryUnreachable | None = None
        for scheme in schemes:
            try:
                response = self._follow(
                    method, f"{scheme}://{endpoint.host}{endpoint.path}{path}", headers, body, secret
                )
            except RegistryUnreachable as error:
                if first is not None:
                    error.add_note(f"before that: {first}")
                if scheme == schemes[-1] or _is_certificate_error(error):
                    raise
                first = error
                continue
            self._schemes[endpoint.host] = scheme
            return response
        raise AssertionError("an endpoint has a scheme")

    def _is_surely_plain(self, host: str) -> bool:
        """
        Whether *host*, of this machine, answers a TLS greeting with something else.

        It is asked without the authorities, whose loading takes longer than a request.
        """
        if not is_loopback(host):
            return False
        parts = urlsplit(f"//{host}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            address = (parts.hostname, parts.port or _HTTPS)
            with socket.create_connection(address, min(self._config.timeout, 10)) as plain, context.wrap_socket(plain):
                return False
        except ssl.SSLError as error:
            return error.reason == "WRONG_VERSION_NUMBER"
        except (OSError, ValueError):  # the request itself will say what is wrong
            return False

    def _follow(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: "bytes | Callable[[], Iterable[bytes]] | None",
        secret: dict[str, str],
    ) -> "BaseHTTPResponse":
        for _ in range(_MAX_REDIRECTS):
            response = self._request(method, url, {**headers, **secret}, body)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                return response
            self._discard(response)
            target = urljoin(url, location)
            old, new = urlsplit(url), urlsplit(target)
            if new.scheme not in ("http", "https"):
                raise RegistryRefused(f"{url} redirects to {target[:200]!r}", registry=self.name)
            if new.scheme == "http" and (old.scheme == "https" or not self._config.may_be_plain(new.netloc)):
                raise RegistryRefused(f"{url} redirects to {target[:200]}, which has no TLS", registry=self.name)
            if (old.scheme, old.netloc) != (new.scheme, new.netloc):
                secret = {}
            url = target
        raise RegistryUnreachable(f"{url} redirects without an end", registry=self.name)

    def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: "bytes | Callable[[], Iterable[bytes]] | None",
    ) -> "BaseHTTPResponse":
        if self.cancelled.is_set():
            raise Cancelled("given up")
        parts = urlsplit(url)
        content = body() if callable(body) else body
        if content is not None and not isinstance(content, bytes):
            content = iter(content)
        pool = self._pool(parts.scheme, parts.netloc)
        try:
            response = pool.request(
                method,
                url,
                body=content,
                headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=min(self._config.timeout, 10), read=self._config.timeout),
            )
        except (HTTPError, OSError, ValueError) as error:
            if self.cancelled.is_set():
                raise Cancelled("given up") from error
            raise RegistryUnreachable(
                f"{method} {url.partition('?')[0]}: {_reason(error)}", registry=self.name
            ) from error
        with self._lock:
            self._live.add(response)
        if self.cancelled.is_set():
            self._discard(response)
            raise Cancelled("given up")
        return response

    @contextmanager
    def _closing(self, response: "BaseHTTPResponse") -> Iterator[None]:
        try:
            yield
        finally:
            self._discard(response)

    def _discard(self, response: "BaseHTTPResponse") -> None:
        """Give the connection back for the next request if little is left on it, else close it."""
        with self._lock:
            self._live.discard(response)
        with suppress(Exception):
            left = int(response.headers.get("Content-Length", "0") or 0)
            if left <= _MAX_ERROR:
                response.read(_MAX_ERROR + 1)
        if response.closed:
            response.release_conn()
        else:
            response.close()
            response.release_conn()

    def _pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        key = (scheme, host)
        with self._lock:
            pool = self._pools.get(key)
        if pool is None:
            made = self._make_pool(scheme, host)
            with self._lock:
                pool = self._pools.setdefault(key, made)
        return pool

    def _make_pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        from urllib.request import getproxies_environment

        options: dict[str, Any] = {"maxsize": self._config.parallel + 1, "num_pools": 4}
        if scheme == "https":
            options["ssl_context"] = self._tls(host)
        proxies = getproxies_environment()
        proxy = proxies.get(scheme) or proxies.get("all")
        if proxy and not _is_direct(scheme, host, proxies.get("no")):
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            headers = None
            if parts.username:
                from urllib.parse import unquote

                headers = urllib3.make_headers(
                    proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                )
            address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            return urllib3.ProxyManager(address, proxy_headers=headers, **options)
        manager = urllib3.PoolManager(**options)
        if host in self._config.insecure:
            manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _UnverifiedPool}
        return manager

    def _tls(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        authorities, client = certificate_files(self._config, host)
        if not authorities and not context.get_ca_certs() and not ssl.get_default_verify_paths().capath:
            with suppress(ImportError):
                import certifi

                context.load_verify_locations(certifi.where())
        try:
            for path in authorities:
                context.load_verify_locations(path)
            if client is not None:
                context.load_cert_chain(*client)
        except (ssl.SSLError, OSError) as error:
            raise InvalidArgument(f"the certificates for {host} cannot be used: {error}") from error
        if host in self._config.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # -- authentication ------------------------------------------------------------------------------------------------

    def _authorization(self, endpoint: Endpoint, scopes: tuple[str, ...]) -> str | None:
        """What to send as Authorization by what the host has asked for so far; None for nothing."""
        challenge = self._challenges.get(endpoint.host)
        if challenge is None:
            return None
        scheme, parameters = challenge
        credentials = self._credentials_for(endpoint)
        if scheme == "basic":
            return credentials.basic if credentials is not None and credentials.username else None
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        wanted = scopes or tuple(filter(None, parameters.get("scope", "").split(" ")))
        key = (realm, service, *sorted(wanted))
        with self._lock:
            token = self._tokens.get(key)
        if token is None or token.expires <= time.monotonic():
            token = self._fetch_token(endpoint, realm, service, wanted, credentials)
            with self._lock:
                self._tokens[key] = token
        return token.header

    def _forget_tokens(self, endpoint: Endpoint) -> None:
        _, parameters = self._challenges[endpoint.host]
        with self._lock:
            for key in [key for key in self._tokens if key[0] == parameters.get("realm", "")]:
                del self._tokens[key]

    def _credentials_for(self, endpoint: Endpoint) -> Credentials | None:
        name = endpoint.credentials_for
        if name not in self._credentials:
            given = self._config.credentials.get(name)
            self._credentials[name] = given or find_credentials(name, path=self._config.docker_config)
        return self._credentials[name]

    def _fetch_token(
        self,
        endpoint: Endpoint,
        realm: str,
        service: str,
        scopes: tuple[str, ...],
        credentials: Credentials | None,
    ) -> _Token:
        """An access token (distribution's token.md and oauth.md). Raises AuthRequired and as any request."""
        parts = urlsplit(realm)
        began_with_tls = self._schemes.get(endpoint.host, endpoint.schemes[0]) == "https"
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RegistryRefused(f"{endpoint.host} names the token server {realm[:200]!r}", registry=self.name)
        if parts.scheme == "http" and (began_with_tls or not self._config.may_be_plain(parts.netloc)):
            raise RegistryRefused(
                f"{endpoint.host} names the token server {realm[:200]}, which has no TLS; nothing is sent there",
                registry=self.name,
            )
        started = time.monotonic()
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "service": service,
                "scope": " ".join(scopes),
                "client_id": "wherry",
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._follow("POST", realm, headers, urlencode(form).encode(), {})
        else:
            query = [("service", service)] if service else []
            query += [("scope", scope) for scope in scopes]
            secret: dict[str, str] = {}
            if credentials is not None and credentials.username:
                query.append(("account", credentials.username))
                secret = {"Authorization": credentials.basic}
            url = realm + ("&" if parts.query else "?") + urlencode(query)
            response = self._follow("GET", url, {}, None, secret)
        with self._closing(response):
            if response.status in (400, 401, 403):
                raise AuthRequired(
                    f"{self.name} refuses a token" + (" to these credentials" if credentials else "; log in"),
                    registry=self.name,
                    status=response.status,
                    said=_said(response),
                )
            if response.status in _TRANSIENT and response.status != 429:
                raise RegistryUnreachable(
                    f"the token server of {self.name} failed with status {response.status}",
                    registry=self.name,
                    status=response.status,
                    said=_said(response),
                )
            self._raise_for(response, realm, AuthRequired, ())
            answer = loads_json(self._read(response, _MAX_ERROR, "a token"), f"the answer of {parts.netloc}")
        return _token(answer, started, self.name)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _raise_for(
        self, response: "BaseHTTPResponse", what: str, unknown: type[RegistryError], also: tuple[int, ...]
    ) -> None:
        if response.status >= 300 and response.status not in also:
            raise self._error(response, what, unknown)

    def _error(self, response: "BaseHTTPResponse", what: str, unknown: type[RegistryError]) -> RegistryError:
        status, said = response.status, _said(response)
        if status == 429:
            return RateLimited(
                f"{self.name} takes no more requests now",
                registry=self.name,
                said=said,
                retry_after=_retry_after(response),
                limit=response.headers.get("RateLimit-Limit"),
                remaining=response.headers.get("RateLimit-Remaining"),
            )
        if status in (401, 403):
            hint = "log in, or with other credentials" if status == 401 else "these credentials may not"
            return AuthRequired(f"{what}: access refused; {hint}", registry=self.name, status=status, said=said)
        if status == 404:
            return unknown(f"{what}: not found", registry=self.name, status=status, said=said)
        if status >= 500 or status == 408:
            return RegistryUnreachable(f"{what}: status {status}", registry=self.name, status=status, said=said)
        return RegistryRefused(f"{what}: status {status}", registry=self.name, status=status, said=said)


class _UnverifiedPool(urllib3.HTTPSConnectionPool):
    """Connections to a host whose certificate nobody vouches for, by the user's consent: no warning for each."""

    def _validate_conn(self, conn: Any) -> None:
        if conn.is_closed:
            conn.connect()


def _push_scopes(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def _is_direct(scheme: str, host: str, exceptions: str | None) -> bool:
    """Whether *host* is reached without the environment's proxy."""
    if is_loopback(host):
        return True
    from requests.utils import should_bypass_proxies

    return should_bypass_proxies(f"{scheme}://{host}", exceptions)


def _worse(first: Error | None, second: Error) -> Error:
    """The registry's own word goes before what its mirrors said; what they said is added to it."""
    if first is not None:
        second.add_note(f"before that: {first}")
    return second


def _start(response: "BaseHTTPResponse", offset: int) -> int:
    """Where in the blob a response begins: a server may ignore a Range."""
    if response.status == 206:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else offset
    return offset if response.status == 416 else 0


def _challenge(headers: Iterable[str]) -> tuple[str, dict[str, str]] | None:
    """The scheme and parameters of the WWW-Authenticate header that can be answered: Bearer before Basic."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
            for name, value in _CHALLENGE.findall(rest)
        }
        found.setdefault(scheme.lower(), parameters)
    for scheme in ("bearer", "basic"):
        if scheme in found:
            return scheme, found[scheme]
    return None


def _token(answer: object, started: float, registry: str) -> _Token:
    fields = answer if isinstance(answer, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryUnreachable("the token server's answer has no token", registry=registry)
    life = fields.get("expires_in")
    seconds = life if isinstance(life, int) and life > 0 else _TOKEN_LIFE_S
    return _Token(f"Bearer {token}", started + 0.9 * min(seconds, 86400))


def _is_refused(error: BaseException | None) -> bool:
    """Whether it comes down to a refused connection."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__
    return False


def _retry_after(response: "BaseHTTPResponse") -> float | None:
    """Seconds to wait, as Retry-After says in one of its two forms."""
    value = (response.headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _said(response: "BaseHTTPResponse") -> str:
    """The registry's own words in the body of an error (distribution-spec, "Error Codes")."""
    with suppress(Exception):
        body = response.read(_MAX_ERROR, decode_content=True)
        with suppress(Exception):
            document = loads_json(body, "error")
            assert isinstance(document, dict)
            if "errors" in document:
                words = []
                for error in document["errors"]:
                    detail = error.get("detail")
                    extra = f" ({detail})" if isinstance(detail, str) and detail else ""
                    words.append(f"{error.get('code', '')}: {error.get('message', '')}{extra}".strip(": "))
                return "; ".join(words)[:1000]
            return str(document.get("details") or document.get("message") or document.get("error") or "")[:1000]
        return body[:300].decode("utf-8", "replace").strip()
    return ""


def _is_certificate_error(error: BaseException) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        inner = error.__cause__ or getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return False
        error = inner
    return False


def _reason(error: BaseException) -> str:
    """The innermost thing that went wrong: urllib3 wraps it several times."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        if not isinstance(inner, BaseException):
            return str(error) or type(error).__name__
        error = inner
