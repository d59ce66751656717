"""The menu of what can be done with wherry's sources: `nox -l` shows it, `nox -s NAME` does it."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import nox

HERE = Path(__file__).parent
GROUPS = nox.project.load_toml(HERE / "pyproject.toml")

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "virtualenv"

# What the sessions need from Debian: package -> what it is for. Tests that miss one skip and name it.
DEMO = {
    "docker-registry": "the registry that images are pulled from",
    "mmdebstrap": "makes the test images from Debian's packages",
    "debian-archive-keyring": "lets mmdebstrap check those packages",
    "iproute2": "makes the test host's network devices",
    "procps": "ps, to show the processes of a container",
    "psmisc": "pstree, to show the processes of a container",
    "curl": "fetches pages as a user would",
}
JUDGES = {
    "nftables": "nft, to see the rules that wherry made",
    "uidmap": "newuidmap: ids for an ordinary user's containers",
    "passt": "pasta: the way out of an ordinary user's containers",
    "slirp4netns": "another way out of them",
    "libseccomp2": "the judge of seccomp programs",
    "libarchive-tools": "bsdtar, a judge of layers",
    "umoci": "a judge of unpacking",
    "skopeo": "a judge of the content store",
    "runc": "a judge of the runtime, and a runtime to call",
    "crun": "a runtime to call",
    "docker.io": "dockerd and containerd, judges of layers and callers of the runtime; the docker command",
    "podman": "a caller of the runtime",
    "iptables": "dockerd's networks",
    "openssl": "certificates for registries",
    "strace": "shows what a process did",
    "systemd": "makes control groups for the runtime",
    "dbus-daemon": "the bus between the two",
}
RIVALS = {
    "docker.io": "docker and dockerd",
    "iptables": "dockerd's networks",
    "podman": "podman, conmon",
    "netavark": "podman's networks, where podman uses it",
    "golang-github-containernetworking-plugin-dnsname": "podman's networks, where podman uses CNI",
    "containernetworking-plugins": "podman's networks, where podman uses CNI",
    "runc": "runc",
    "crun": "crun",
}

# What needs no network: the runtime, crun, which works on cgroup v2 only, and limits of an ordinary user. A kernel for
# user-mode-linux has no nf_tables.
VM_TESTS = [
    *("-k", "crun or not test_runtimes"),
    "--ignore=tests/oci/test_nftables.py",
    "--ignore=tests/oci/test_engines.py",
    "tests/oci",
    "tests/contract/test_runtimes.py",
    "tests/e2e/test_delegation.py",
]

# Again as an ordinary user, for whom another engine does the work: networks, names, files, execs.
ROOTLESS_TESTS = [f"tests/e2e/test_{name}.py" for name in ("networks", "names", "ipv6", "files", "attach", "volumes")]


@nox.session
def demo(session: nox.Session) -> None:
    """nginx from a registry on a published port, with no daemon (`-- --hub`: Docker Hub, on this machine's network)."""
    _debian(session, DEMO)
    _install(session, "tests")
    session.run("python", "-m", "support.demo", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})


@nox.session
def tests(session: nox.Session) -> None:
    """All that CI runs: unit, root and e2e tests, some of these rootless too (`-- ARGS` go to pytest, once)."""
    _debian(session, DEMO | JUDGES)
    _install(session, "tests")
    _pytest(session)
    if not session.posargs:
        _pytest(session, "--rootless", *ROOTLESS_TESTS)


@nox.session
def unit(session: nox.Session) -> None:
    """Tests that need neither root nor a network, with branch coverage."""
    _install(session, "tests", "coverage")
    _pytest(session, "-m", "unit", "--cov", "--cov-branch", "--cov-report=term:skip-covered")


@nox.session
def root(session: nox.Session) -> None:
    """Tests with real namespaces, mounts and cgroups; as root."""
    _debian(session, DEMO | JUDGES)
    _install(session, "tests")
    _pytest(session, "-m", "root")


@nox.session
def e2e(session: nox.Session) -> None:
    """Tests of the whole: real images, registry, containers and commands; as root."""
    _debian(session, DEMO | JUDGES)
    _install(session, "tests")
    _pytest(session, "-m", "e2e")


@nox.session
def vm(session: nox.Session) -> None:
    """
    Tests of the runtime, and of limits of users, on pure cgroup v2, in a virtual machine (`-- ARGS` go to pytest).

    $WHERRY_VM is the command that boots one, `vm-run --accel uml` if not set: it takes --mount DIR, --cwd DIR,
    --env K=V and -- COMMAND, runs COMMAND in a machine that sees this one's files, and hands its output and exit
    status back.
    """
    boot = shlex.split(os.environ.get("WHERRY_VM", "")) or _vm_run()
    if not boot:
        session.skip("no vm-run on PATH or in ../shared/vm: name what boots a virtual machine in $WHERRY_VM")
    _debian(session, DEMO | JUDGES)
    _install(session, "tests")
    # There is no network inside: what the tests run on is made here.
    prepare = "from support import images; images.get('busybox')"
    session.run("python", "-c", prepare, env={"PYTHONPATH": str(HERE / "tests")})
    inside = [f"{session.bin}/python", "-m", "pytest", "-p", "no:cacheprovider", *(session.posargs or VM_TESTS)]
    where = ["--mount", str(HERE), "--cwd", str(HERE), "--env", f"HOME={Path.home()}"]
    where += ["--env", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis"]  # what is mounted cannot be written there
    session.run(*boot, *where, "--env", "PYTHONDONTWRITEBYTECODE=1", "--", *inside, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and who may import whom (ruff, import-linter)."""
    _install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types of everything, tests too (mypy, strict)."""
    _install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Speed beside docker, podman, runc and crun, as a table (`-- --help` for what to choose)."""
    _debian(session, DEMO | RIVALS)
    _install(session, "tests", "bench")
    # As users have it: a copy with its bytecode, not this work tree.
    session.install("--force-reinstall", "--no-deps", ".")
    session.run("python", "-m", "bench", *session.posargs, env={"PYTHONPATH": str(HERE / "tests")})


def _install(session: nox.Session, *groups: str) -> None:
    session.install(*nox.project.dependency_groups(GROUPS, *groups), "-e", ".")


def _vm_run() -> list[str]:
    """The script of that name on PATH or beside the project, with the back end that needs no virtualisation."""
    beside = HERE.parent / "shared/vm/vm-run"
    found = shutil.which("vm-run") or (str(beside) if beside.exists() else None)
    return [found, "--accel", "uml"] if found else []


def _pytest(session: nox.Session, *arguments: str) -> None:
    session.run("python", "-m", "pytest", "-n", "auto", *arguments, *session.posargs)


def _debian(session: nox.Session, packages: dict[str, str]) -> None:
    """Install what is missing, as root; else say what to install. No service of theirs is started."""
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    wanted = "\n".join(f"  {package:24} {packages[package]}" for package in missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        session.warn(f"not installed, so some tests skip; as root: apt-get install {' '.join(missing)}\n{wanted}")
        return
    session.log(f"from Debian:\n{wanted}")
    with _NoServices():
        # A fresh machine has no lists, and old lists name packages that are gone.
        fresh = not any(Path("/var/lib/apt/lists").glob("*_Packages*"))
        if (not fresh and _apt("install", *missing)) or (_apt("update") and _apt("install", *missing)):
            return
        left = [package for package in missing if not _apt("install", package)]
    if left:
        session.warn(f"apt-get cannot install {' '.join(left)}: what needs them skips or fails")


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", package]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
    except FileNotFoundError:
        return False


def _apt(*arguments: str) -> bool:
    command = ["apt-get", "--quiet=2", "--yes", "--no-install-recommends", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0


class _NoServices:
    """
    While it is entered, Debian packages start no service on this machine.

    Debian asks /usr/sbin/policy-rc.d; 101 is "action forbidden by policy". One that is there already is respected.
    """

    policy = Path("/usr/sbin/policy-rc.d")

    def __enter__(self) -> None:
        self.ours = not self.policy.exists()
        if self.ours:
            self.policy.write_text("#!/bin/sh\nexit 101\n")
            self.policy.chmod(0o755)

    def __exit__(self, *_: object) -> None:
        if self.ours:
            self.policy.unlink()
