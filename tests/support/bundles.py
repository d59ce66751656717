"""Bundles with busybox, and `wherry-oci` to make containers of them, for tests of the runtime."""

import json
import os
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import Any

import attrs

from support.layout import Layout
from wherry_oci.command.information import template

_MAIN = "import sys; from wherry_oci.command import main; sys.exit(main())"


@attrs.frozen
class Runtime:
    """`wherry-oci --root ROOT` and one bundle."""

    path: Path

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def rootfs(self) -> Path:
        return self.bundle / "rootfs"

    @property
    def root(self) -> Path:
        return self.path / "state"

    def configure(self, *arguments: str, **changes: Any) -> dict[str, Any]:
        """Write a config.json that runs *arguments*; *changes* to `linux` and others are merged in, and returned."""
        config = template(rootless=False)
        config["process"] |= {"terminal": False, "args": list(arguments), "rlimits": []}
        for name, value in changes.items():
            config[name] = {**config[name], **value} if isinstance(value, dict) and name in config else value
        config["linux"]["cgroupsPath"] = f"/wherry-oci-tests/{uuid.uuid4().hex[:12]}"
        (self.bundle / "config.json").write_text(json.dumps(config))
        return config

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _MAIN, "--root", str(self.root), *arguments]

    def __call__(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """
        Run the command; standard streams are files, as those of a container may outlive it: each call has its own, and
        `out` and `err` are the last one's.
        """
        output, errors = self.path / "out", self.path / "err"
        output.unlink(missing_ok=True)
        errors.unlink(missing_ok=True)
        with output.open("wb") as out, errors.open("wb") as err:
            done = subprocess.run(
                self.words(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.bundle,
                timeout=120,
                check=False,
                **options,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, output.read_text(), errors.read_text())

    def state(self, id: str) -> dict[str, Any]:
        shown = self("state", id)
        assert shown.returncode == 0, shown.stderr
        state: dict[str, Any] = json.loads(shown.stdout)
        return state

    def clean(self) -> None:
        """Delete what a test left, and the folder of the groups."""
        for id in os.listdir(self.root) if self.root.is_dir() else ():
            self("delete", "--force", id)
        top = Path("/sys/fs/cgroup")
        for parent in (*top.glob("wherry-oci-tests"), *top.glob("*/wherry-oci-tests")):
            try:
                parent.rmdir()
            except OSError:  # other tests use it at this time
                continue


def prepare(path: Path, busybox: Layout) -> Runtime:
    """A runtime in *path*, whose bundle has the image *busybox*."""
    runtime = Runtime(path)
    runtime.rootfs.mkdir(parents=True)
    for layer in busybox.manifest["layers"]:
        with tarfile.open(busybox.blob(layer["digest"])) as archive:
            archive.extractall(runtime.rootfs, filter="fully_trusted")
    return runtime
