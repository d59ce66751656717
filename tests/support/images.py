"""
Test images, made from Debian's packages once and kept outside the tree by the hash of their recipe.

They are built as their namesakes on Docker Hub are: same entry points, commands, ports, users and stop signals.
"""

import fcntl
import functools
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from support import layout
from support.layout import Entry, Json, Layout, file, folder, hardlink, symlink, whiteout

FORMAT = 4  # raise it when the code below makes something else of the same recipe
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Of what packages bring, no container here needs what matches one of these.
_UNUSED = re.compile(
    r"^(dev|boot|etc/(apt|cron|init\.d)|(usr/)?lib/systemd|var/cache|var/run)(/|$)"
    r"|^usr/share/(apport|bash-completion|bug|debconf|doc|doc-base|gdb|i18n|info|lintian|locale|man|vim)(/|$)"
    r"|perl|/gconv/|/bitcode/|/lib(LLVM|z3|db-5)|/llvmjit|^s?bin/(ip|ss|tc|bridge|devlink|rdma|dcb)$"
)


@attrs.frozen
class Packages:
    """A layer: these packages and what they depend on, less what the layers below have."""

    names: tuple[str, ...]


@attrs.frozen
class Files:
    """A layer: these entries."""

    entries: tuple[Entry, ...]


@attrs.frozen
class Busybox:
    """A layer: Debian's static busybox under the name of each of its applets; nothing else is needed to run it."""

    entries: tuple[Entry, ...] = ()


@attrs.frozen
class Users:
    """A layer: users, each with a group of the same number, added to those that the layers below have."""

    users: tuple[tuple[str, int, str], ...]  # name, number, home


Step = Packages | Files | Busybox | Users


@attrs.frozen
class Recipe:
    """What an image is made of; equal recipes make equal images."""

    steps: tuple[Step, ...]
    config: Json

    def key(self) -> str:
        """Name of the image in the cache."""
        parts = (FORMAT, _suite(), platform.machine(), _UNUSED.pattern, self.steps, self.config)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


class CannotBuild(Exception):
    """A test image cannot be made here; the message says what is missing."""


_BASE: tuple[Step, ...] = (
    Packages(("base-files", "base-passwd", "busybox-static", "libc6", "libc-bin", "netbase")),
    Files(
        (
            symlink("bin/sh", "busybox"),
            folder("tmp", 0o1777),
            folder("var/tmp", 0o1777),
            folder("root", 0o700),
            file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        )
    ),
)

_STEP_DOWN = """\
# Run as the service's own user from here on.
as_user() {
    user=$1; shift
    exec /usr/bin/setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
}
"""


def busybox() -> Recipe:
    """One layer, hard links for every applet."""
    entries = (
        folder("tmp", 0o1777),
        folder("root", 0o700),
        folder("home", 0o755, 65534, 65534),
        folder("var"),
        folder("var/spool"),
        folder("etc"),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"),
        file("etc/group", "root:x:0:\ntty:x:5:\nusers:x:100:\nnobody:x:65534:\n"),
        file("etc/shadow", "root:*:::::::\nnobody:*:::::::\n", 0o640),
    )
    return Recipe((Busybox(entries),), {"Env": [PATH], "Cmd": ["sh"]})


def nginx() -> Recipe:
    """Answers on port 80 with nginx's own welcome page; logs to the container's output."""
    site = (
        "server {\n    listen 80;\n    server_name localhost;\n"
        "    location / {\n        root /usr/share/nginx/html;\n        index index.html;\n    }\n}\n"
    )
    entry_point = (
        "#!/bin/sh\nset -e\n"
        'if [ "$1" = nginx ]; then\n    echo "$0: configuration complete, nginx starts"\nfi\n'
        'exec "$@"\n'
    )
    files = (
        file("docker-entrypoint.sh", entry_point, 0o755),
        file("etc/nginx/conf.d/default.conf", site),
        symlink("var/log/nginx/access.log", "/dev/stdout"),
        symlink("var/log/nginx/error.log", "/dev/stderr"),
        folder("var/lib/nginx", 0o755),
        folder("docker-entrypoint.d"),
    )
    return Recipe(
        (*_BASE, Packages(("nginx-light",)), Files(files)),
        {
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": [PATH],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
            "Labels": {"maintainer": "wherry's tests"},
        },
    )


def debian() -> Recipe:
    """A person's shell: bash, with Debian's own tools beside it."""
    return Recipe((*_BASE, Packages(("bash", "coreutils", "procps"))), {"Env": [PATH], "Cmd": ["bash"]})


def redis() -> Recipe:
    """Listens on port 6379 as user redis; its data is a volume."""
    entry_point = (
        "#!/bin/sh\nset -e\n" + _STEP_DOWN + 'case $1 in\n    -*|*.conf) set -- redis-server "$@" ;;\nesac\n'
        '[ "$1" = redis-server ] || exec "$@"\n'
        "# Protected mode refuses every peer but loopback, which in a container is nobody.\n"
        'set -- "$@" --protected-mode no\n'
        '[ "$(id -u)" = 0 ] || exec "$@"\n'
        "chown redis:redis /data\n"
        'as_user redis "$@"\n'
    )
    files = (
        folder("usr/local"),
        folder("usr/local/bin"),
        file("usr/local/bin/docker-entrypoint.sh", entry_point, 0o755),
        folder("data", 0o755, 999, 999),
    )
    return Recipe(
        (*_BASE, Users((("redis", 999, "/data"),)), Packages(("redis-server", "util-linux")), Files(files)),
        {
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["redis-server"],
            "Env": [PATH],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
    )


def postgres() -> Recipe:
    """Listens on port 5432; makes its cluster at first start, as POSTGRES_PASSWORD, _USER and _DB say."""
    entry_point = (
        "#!/bin/sh\nset -e\n"
        + _STEP_DOWN
        + """\
case $1 in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres:postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    as_user postgres "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
        echo "no POSTGRES_PASSWORD is given, so nobody could log in" >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    echo "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$user" --pwfile=/tmp/password --encoding=UTF8 --no-sync
    rm /tmp/password
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    echo "host all all all $method" >>"$PGDATA/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        echo "create database \\"${POSTGRES_DB:-$user}\\"" | postgres --single -D "$PGDATA" postgres >/dev/null
    fi
    echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
"""
    )
    files = (
        folder("usr/local"),
        folder("usr/local/bin"),
        file("usr/local/bin/docker-entrypoint.sh", entry_point, 0o755),
        folder("var/lib/postgresql", 0o1777, 999, 999),
        folder("var/lib/postgresql/data", 0o700, 999, 999),
        folder("run/postgresql", 0o3777, 999, 999),
        symlink("var/run", "/run"),
    )
    return Recipe(
        (
            *_BASE,
            Users((("postgres", 999, "/var/lib/postgresql"),)),
            Packages(("postgresql", "util-linux")),
            Files(files),
        ),
        {
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "Env": [
                PATH.replace("=", "=/usr/lib/postgresql/bin:", 1),
                "LANG=C.UTF-8",
                "PGDATA=/var/lib/postgresql/data",
            ],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {"/var/lib/postgresql/data": {}},
            "StopSignal": "SIGINT",
        },
    )


_WEB_APP = """\
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

store = redis.Redis(host="redis")


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        with psycopg2.connect(host="db", user="postgres", password=os.environ["PASSWORD"]) as connection:
            with connection.cursor() as cursor:
                cursor.execute("create table if not exists visit(path text)")
                cursor.execute("insert into visit values (%s)", (self.path,))
                cursor.execute("select count(*) from visit")
                (stored,) = cursor.fetchone()
        connection.close()
        body = f"{stored} stored, {store.incr('visits')} counted\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 8000), Page).serve_forever()
"""


def web_app() -> Recipe:
    """A page on port 8000 that counts its visits in `db`, a postgres, and in `redis`; $PASSWORD is the database's."""
    files = (folder("srv"), file("srv/app.py", _WEB_APP), folder("app"))
    return Recipe(
        (*_BASE, Packages(("python3-minimal", "python3-psycopg2", "python3-redis")), Files(files)),
        {
            "Cmd": ["python3", "-u", "/srv/app.py"],
            "Env": [PATH],
            "ExposedPorts": {"8000/tcp": {}},
            "WorkingDir": "/app",
        },
    )


def many_layers(count: int = 60) -> Recipe:
    """
    busybox below *count* small layers.

    Layer N adds `layers/N`, writes its number over `top`, and hides the `scratch/N-1` of the layer below it.
    """

    def one(number: int) -> Files:
        entries = [
            folder("layers"),
            file(f"layers/{number}", f"{number}\n"),
            file("top", f"{number}\n"),
            folder("scratch"),
            file(f"scratch/{number}", b""),
        ]
        if number:
            entries.append(whiteout(f"scratch/{number - 1}"))
        return Files(tuple(entries))

    base = busybox()
    return Recipe((*base.steps, *(one(number) for number in range(count))), base.config)


def many_files(count: int = 20_000) -> Recipe:
    """busybox and a layer of *count* small files, 100 to a directory, `files/NN/NNNN`, each holding its number."""

    def entries() -> Iterator[Entry]:
        yield folder("files")
        for number in range(count):
            if number % 100 == 0:
                yield folder(f"files/{number // 100}")
            yield file(f"files/{number // 100}/{number}", f"{number}\n")

    base = busybox()
    return Recipe((*base.steps, Files(tuple(entries()))), base.config)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "busybox": busybox,
    "debian": debian,
    "nginx": nginx,
    "redis": redis,
    "postgres": postgres,
    "web-app": web_app,
    "many-layers": many_layers,
    "many-files": many_files,
}


def cache() -> Path:
    """Where images are kept: $WHERRY_TEST_CACHE, or a folder of the user's cache."""
    if given := os.environ.get("WHERRY_TEST_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wherry-tests"


def get(name: str, *, prefix: Sequence[str] = ()) -> Layout:
    """
    The test image of that name, built now if the cache has none.

    Safe from many processes: one builds, the others wait. *prefix* is put before each command that needs the
    machine's network. Raises CannotBuild.
    """
    return build(RECIPES[name](), name, prefix=prefix)


def build(recipe: Recipe, name: str, *, prefix: Sequence[str] = ()) -> Layout:
    """As get(), for a recipe of the test's own."""
    place = cache() / f"{name}-{recipe.key()}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_suffix(".lock")):
        if not place.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-unfinished-", dir=place.parent))
            try:
                layers = _Kitchen(unfinished, tuple(prefix)).cook(recipe)
                layout.write(unfinished / "image", layers, recipe.config)
                (unfinished / "image").rename(place)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return Layout(place)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def _suite() -> str:
    """Code name of the Debian release that packages are taken from: this machine's."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return "stable"


class _Kitchen:
    """Turns steps into layers, each knowing the layers below it."""

    def __init__(self, scratch: Path, prefix: tuple[str, ...]) -> None:
        self.scratch, self.prefix = scratch, prefix
        self.below: dict[str, Entry] = {}  # what the finished layers show, whiteouts aside
        self.packages: tuple[str, ...] = ()

    def cook(self, recipe: Recipe) -> list[list[Entry]]:
        layers = []
        for step in recipe.steps:
            layer = self._layer(step)
            self.below |= {entry.path: entry for entry in layer}
            layers.append(layer)
        return layers

    def _layer(self, step: Step) -> list[Entry]:
        match step:
            case Files(entries):
                return list(entries)
            case Busybox(entries):
                return self._busybox(entries)
            case Users(users):
                return self._users(users)
            case Packages(names):
                return self._packages(names)

    def _packages(self, names: tuple[str, ...]) -> list[Entry]:
        """The packages' files; those of the layers below are named too, so that apt chooses as one system would."""
        self.packages += names
        layer = [
            entry
            for entry in self._bootstrap(self.packages)
            if not _UNUSED.search(entry.path) and self.below.get(entry.path) != entry
        ]
        masters = {entry.path: entry for entry in layer}
        for name in ("passwd", "group"):
            if master := masters.get(f"usr/share/base-passwd/{name}.master"):
                layer.append(file(f"etc/{name}", master.content))
        # Debian keeps PostgreSQL's programs below its version; the image's PATH should not have to know it.
        if server := next((path for path in masters if path.startswith("usr/lib/postgresql/")), None):
            layer.append(symlink("usr/lib/postgresql/bin", f"{server.split('/')[3]}/bin"))
        if not self.below:
            layer += [symlink(f"bin/{name}", "busybox") for name in self._applets(masters["bin/busybox"].content)]
        return layer

    def _bootstrap(self, names: tuple[str, ...]) -> list[Entry]:
        tool = shutil.which("mmdebstrap")
        if not tool:
            raise CannotBuild("mmdebstrap is missing: apt-get install mmdebstrap debian-archive-keyring")
        archive = self.scratch / "packages.tar"
        command = [*self.prefix, tool, "--quiet", "--mode=root" if os.geteuid() == 0 else "--mode=unshare"]
        command += ["--variant=extract", f"--include={','.join(names)}", _suite(), str(archive)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotBuild(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
        try:
            return list(_read(archive))
        finally:
            archive.unlink()

    def _busybox(self, entries: tuple[Entry, ...]) -> list[Entry]:
        by_path = {entry.path: entry for entry in self._bootstrap(("busybox-static",))}
        program = attrs.evolve(by_path["bin/busybox" if "bin/busybox" in by_path else "usr/bin/busybox"])
        links = [hardlink(f"bin/{name}", "bin/busybox", 0o755) for name in self._applets(program.content)]
        return [folder("bin"), file("bin/busybox", program.content, 0o755), *links, *entries]

    def _applets(self, program: bytes) -> list[str]:
        path = self.scratch / "busybox"
        path.write_bytes(program)
        path.chmod(0o755)
        names = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
        # These would stand in the way of programs that images bring, or need a service that is not there.
        return sorted(set(names) - {"busybox", "dpkg", "dpkg-deb", "rpm", "init", "linuxrc", "setpriv"})

    def _users(self, users: tuple[tuple[str, int, str], ...]) -> list[Entry]:
        accounts, groups = (self.below[f"etc/{name}"].content.decode() for name in ("passwd", "group"))
        accounts += "".join(f"{name}:x:{number}:{number}::{home}:/bin/sh\n" for name, number, home in users)
        groups += "".join(f"{name}:x:{number}:\n" for name, number, _ in users)
        return [file("etc/passwd", accounts), file("etc/group", groups)]


def _read(archive: Path) -> Iterator[Entry]:
    """The entries of a tar that mmdebstrap made, with a fixed time: only the packages decide what an image is."""
    with tarfile.open(archive) as stream:
        for member in stream:
            content = stream.extractfile(member) if member.isreg() else io.BytesIO()
            assert content is not None
            path = member.name.removeprefix("./").strip("/")
            if path in ("", "."):
                continue
            yield Entry(
                path=path,
                kind=member.type,
                content=content.read(),
                link=member.linkname.removeprefix("./") if member.islnk() else member.linkname,
                mode=member.mode,
                uid=member.uid,
                gid=member.gid,
                device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
                pax={key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")},
            )
