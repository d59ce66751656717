"""The wherry command, whichever engine does the work: by itself, and with `-H` on wherry's daemon and on dockerd."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from support.leftovers import settled
from wherry import Client

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("engine", ["local", "daemon", "dockerd"], indirect=True)]

_WHERRY = str(Path(sys.executable).with_name("wherry"))


@attrs.frozen
class _Command:
    """`wherry`, with what leads it to an engine."""

    words: tuple[str, ...]

    def __call__(self, *arguments: str, code: int = 0, **options: Any) -> str:
        """What it prints; it must end with *code*."""
        return self.run(*arguments, code=code, **options).stdout

    def run(self, *arguments: str, code: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "input": "", **options}
        done = subprocess.run([*self.words, *arguments], check=False, **settings)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def wherry(engine: Client) -> _Command:
    """On an engine that has busybox and nothing else."""
    host = engine._host
    return _Command((_WHERRY, *(("-H", host) if host else ())))


def test_containers_run_in_the_foreground(wherry: _Command) -> None:
    """Both streams, stdin, exit codes; one that cannot start has docker's."""
    done = wherry.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    text = "0123456789abcde\n" * 8192
    assert wherry("run", "--rm", "-i", "busybox", "cat", input=text) == text
    assert "not found" in wherry.run("run", "--rm", "busybox", "nope", code=127).stderr
    assert wherry("ps", "-aq") == ""


def test_a_container_s_whole_life(wherry: _Command, tmp_path: Path) -> None:
    """create, start -a, ps, port, inspect, exec, top, stats, logs, cp, diff, rename, update, kill, wait, rm."""
    script = "echo hello; trap 'exit 4' TERM; while :; do sleep 0.01; done"
    made = wherry(
        "create", "--name", "one", "-p", "80", "-l", "a=b", "-e", "X=1", "busybox", "sh", "-c", script
    ).strip()
    assert wherry("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Labels}}") == "one created a=b\n"
    assert wherry("start", "one") == "one\n"
    listed = wherry("ps", "--no-trunc").splitlines()
    assert listed[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert listed[1].startswith(made)
    assert "->80/tcp" in listed[1]
    assert wherry("port", "one", "80").splitlines()[0].startswith("0.0.0.0:")
    [document] = json.loads(wherry("inspect", "one"))
    assert (document["Id"], document["State"]["Running"]) == (made, True)
    assert wherry("exec", "-e", "Y=2", "one", "sh", "-c", "echo $X$Y; exit 9", code=9) == "12\n"
    assert wherry("exec", "-i", "one", "cat", input="through") == "through"
    wherry("exec", "-d", "one", "touch", "/touched")
    assert settled(lambda: [] if "/touched" in wherry("diff", "one") else ["not yet"]) == []
    assert wherry("top", "one").count("\n") >= 2
    assert wherry("stats", "--no-stream", "--format", "{{.Name}}", "one") == "one\n"
    assert settled(lambda: [] if "hello" in wherry("logs", "one") else ["nothing"]) == []
    assert wherry("logs", "--tail", "0", "one") == ""
    assert wherry("logs", "-t", "one").endswith("Z hello\n")
    (tmp_path / "f").write_text("copied")
    wherry("cp", str(tmp_path / "f"), "one:/f")
    wherry("cp", "one:/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "copied"
    wherry("rename", "one", "two")
    wherry("update", "--memory", "64m", "--memory-swap", "64m", "two")
    assert wherry("inspect", "-f", "{{.HostConfig.Memory}}", "two") == f"{64 << 20}\n"
    wherry("pause", "two")
    assert wherry("ps", "--format", "{{.State}}") == "paused\n"
    wherry("unpause", "two")
    assert "running" in wherry.run("rm", "two", code=1).stderr
    assert wherry("stop", "two") == "two\n"
    assert wherry("wait", "two") == "4\n"
    assert wherry("ps", "-a", "--format", "{{.Status}}").startswith("Exited (4) ")
    assert wherry("start", "two") == "two\n"
    assert wherry("kill", "two") == "two\n"
    assert wherry("rm", "-f", "two") == "two\n"
    wherry("inspect", "two", code=1)


def test_start_shows_what_it_writes(wherry: _Command) -> None:
    """`start -a` and `start -i`, with its exit code; attach to what does not run is refused."""
    wherry("create", "--name", "one", "busybox", "sh", "-c", "echo once; exit 3")
    assert wherry("start", "-a", "one", code=3) == "once\n"
    wherry("create", "-i", "--name", "cat", "busybox", "cat")
    assert wherry("start", "-ai", "cat", input="typed") == "typed"
    assert "attach to" in wherry.run("attach", "one", code=1).stderr
    assert wherry("logs", "-f", "one") == "once\n"


def test_images_volumes_and_networks(wherry: _Command, tmp_path: Path) -> None:
    """images, tag, history, save, load, import, export, commit, rmi; volume and network verbs; df, info, events."""
    assert wherry("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest\n"
    wherry("tag", "busybox", "other:1")
    assert "other:1" in wherry("image", "inspect", "-f", "{{.RepoTags}}", "busybox")
    assert wherry("history", "busybox").startswith("CREATED")
    wherry("save", "-o", str(tmp_path / "saved.tar"), "other:1")
    assert "Untagged: other:1" in wherry("rmi", "other:1")
    loaded = wherry("load", "-i", str(tmp_path / "saved.tar")).splitlines()
    assert loaded.count("Loaded image: other:1") == 1
    wherry("volume", "create", "--label", "a=b", "data")
    assert wherry("volume", "ls", "-q") == "data\n"
    wherry("run", "--name", "one", "-v", "data:/d", "busybox", "sh", "-c", "echo x > /made; echo y > /d/kept")
    wherry("export", "-o", str(tmp_path / "rootfs.tar"), "one")
    wherry("import", str(tmp_path / "rootfs.tar"), "imported:1")
    wherry("commit", "one", "committed:1")
    assert wherry("run", "--rm", "-v", "data:/d", "committed:1", "cat", "/made", "/d/kept") == "x\ny\n"
    net = wherry("network", "create", "--internal", "net").strip()
    assert wherry("network", "inspect", "-f", "{{.Id}} {{.Internal}}", "net") == f"{net} true\n"
    wherry("network", "connect", "net", "one")
    wherry("network", "disconnect", "net", "one")
    assert wherry("network", "rm", "net") == "net\n"
    lines = wherry("system", "df").splitlines()
    assert [line.split()[0] for line in lines] == ["TYPE", "Images", "Containers", "Local"]
    assert lines[2].split()[1:3] == ["1", "0"]
    assert wherry("info", "-f", "{{.Containers}}") == "1\n"
    assert "Server Version: " in wherry("info")
    assert "container create" in wherry("events", "--since", "10m", "--until", "0s")
    assert wherry("container", "prune", "-f").strip()
    wherry("volume", "rm", "data")
    wherry("rmi", "committed:1", "imported:1", "other:1")
    assert ":" in wherry("version")


def test_a_context_leads_to_its_engine(engine: Client, tmp_path: Path) -> None:
    """`--context`, by docker's own files; with `--host`, too, it is refused."""
    from hashlib import sha256

    if engine._host is None:
        pytest.skip("about engines elsewhere")
    meta = tmp_path / "contexts/meta" / sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": engine._host}}}))
    wherry = _Command(("env", f"DOCKER_CONFIG={tmp_path}", _WHERRY))
    assert wherry("--context", "far", "images", "--format", "{{.Repository}}") == "busybox\n"
    assert "both name an engine" in wherry.run("--context", "far", "-H", "auto", "ps", code=2).stderr
    assert "nosuch" in wherry.run("--context", "nosuch", "ps", code=1).stderr


def test_what_only_this_process_can_do_says_so(engine: Client, wherry: _Command) -> None:
    """No verb does it here when another engine was named."""
    if engine._host is None:
        pytest.skip("about engines elsewhere")
    for verb in (("doctor",), ("system", "check"), ("system", "restore")):
        assert "the one of this process" in wherry.run(*verb, code=1).stderr
