"""Many processes on one root at a time."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from images.build import directory, entry, image, layer
from images.conftest import Puller

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("WHERRY_STRESS_SECONDS", "10"))

_WORK = """
import os, random, subprocess, sys, time
from wherry_images import ImageStore, RegistryConfig
from wherry_images.errors import ImageInUse, ImageNotFound

root, run, seconds, number, *names = sys.argv[1:]
os.makedirs(run)
store = ImageStore(root, registries=RegistryConfig(certificates=(), retry_wait=0.01))
chance = random.Random(int(number))
until = time.monotonic() + float(seconds)
counts = dict.fromkeys(("pulled", "ran", "removed", "pruned", "checked", "saved"), 0)

def run_one(name):
    image = store.pull(name, policy="missing")
    holder = f"{number}-{counts['ran']}"
    try:
        with store.database.transaction() as connection:
            store.hold(connection, holder, image)
    except ImageNotFound:
        return
    directory = f"{run}/{holder}"
    try:
        (mount,) = store.mounts(image, directory)
        options = [option for option in mount.options if not option.startswith("lowerdir=")]
        layers = [option.removeprefix("lowerdir=") for option in mount.options if option.startswith("lowerdir=")]
        target = directory + "/rootfs"
        os.mkdir(target)
        command = ["mount", "-t", mount.type, "-o", ",".join(["lowerdir=" + ":".join(layers), *options]), "overlay"]
        subprocess.run([*command, target], check=True)
        try:
            for which in ("base", "top"):
                content = open(f"{target}/{which}/0", "rb").read()
                assert len(content) == 5000 and content.strip(bytes(1)), which
            assert len(os.listdir(target + "/base")) == 40
            open(target + "/base/new", "w").close()
        finally:
            subprocess.run(["umount", target], check=True)
    finally:
        subprocess.run(["rm", "-rf", directory], check=True)
        with store.database.transaction(durable=False) as connection:
            store.release(connection, holder)
    counts["ran"] += 1

while time.monotonic() < until:
    name = chance.choice(names)
    what = chance.random()
    if what < 0.25:
        store.pull(name)
        counts["pulled"] += 1
    elif what < 0.75:
        run_one(name)
    elif what < 0.85:
        try:
            store.remove(name, force=chance.random() < 0.3)
            counts["removed"] += 1
        except (ImageNotFound, ImageInUse):
            pass
    elif what < 0.92:
        store.prune(all=chance.random() < 0.5)
        counts["pruned"] += 1
    elif what < 0.96:
        try:
            for piece in store.save([name]):
                pass
            counts["saved"] += 1
        except ImageNotFound:
            pass
    else:
        problems = [one for one in store.check() if one.kind != "orphan"]
        assert problems == [], problems
        counts["checked"] += 1
store.close()
print(counts)
"""


def test_8_processes_pull_run_remove_and_prune_at_once(puller: Puller, tmp_path: Path) -> None:
    """No error in any of them, no layer lost, and the store is as its records say."""
    chance = random.Random(1)
    base = layer(directory("base"), *[entry(f"base/{number}", data=chance.randbytes(5000)) for number in range(40)])
    names = []
    for number in range(5):
        top = layer(
            directory("top"),
            *[entry(f"top/{one}", data=chance.randbytes(5000)) for one in range(20)],
            entry(f"base/.wh.{number}") if number else directory("top"),
            entry(f"base/extra{number}") if number else directory("top"),
        )
        puller.registry.push(f"app{number}", "latest", image(base, top))
        names.append(puller.name(f"app{number}"))
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                _WORK,
                puller.store.root,
                str(tmp_path / f"run{number}"),
                str(SECONDS),
                str(number),
                *names,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    results = [(process.communicate(), process.returncode) for process in processes]
    failures = [error for (_, error), status in results if status]
    assert failures == []
    assert all("'ran': 0" not in output for (output, _), _ in results), [output for (output, _), _ in results]
    store = puller.store
    store.prune()
    assert store.check(content=True) == []
    store.prune(all=True)
    assert store.check(content=True) == []
    for folder in ("snapshots", "content/blobs/sha256", "ingest", "leases"):
        assert os.listdir(f"{store.root}/{folder}") == [], folder
