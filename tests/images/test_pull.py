"""Pulling: what a registry may do wrong, and that nothing partial is ever seen."""

import errno
import hashlib
import json
import os
import random
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from images.build import (
    OCI_INDEX,
    OCI_MANIFEST,
    BuiltImage,
    Layer,
    digest_of,
    directory,
    entry,
    hard_link,
    image,
    index,
    layer,
    symlink,
    tar,
)
from images.conftest import IMPATIENT, Puller
from images.faulty_registry import Answer, FaultyRegistry, Request
from images.mounting import describe, mounted
from wherry_images import ImageStore, Limits, PullEvent
from wherry_images.errors import (
    AuthRequired,
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    InvalidLayer,
    LimitExceeded,
    ManifestUnknown,
    NoSpace,
    Offline,
    PlatformNotFound,
    RateLimited,
    RegistryRefused,
    RegistryUnreachable,
    SizeMismatch,
    UnsupportedImage,
)
from wherry_images.layout import Layout
from wherry_images.registry import Registry
from wherry_oci.errors import InvalidArgument

pytestmark = pytest.mark.root


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression shortens."""
    return random.Random(seed).randbytes(size)


def simple(size: int = 100_000, seed: int = 0) -> BuiltImage:
    return image(layer(directory("etc"), entry("etc/f", data=noise(size, seed))))


def blob_of(built: BuiltImage, position: int = 0) -> str:
    return digest_of(built.layers[position].blob)


def visible(store: ImageStore) -> list[str]:
    """All that a pull could have left: images, blobs, directories, partial files, leases, records."""
    root = Path(store.root)
    names: list[str] = [one.id for one in store.list()]
    for folder in ("content/blobs/sha256", "snapshots", "ingest", "leases"):
        if (root / folder).exists():
            names += sorted(f"{folder}/{name}" for name in os.listdir(root / folder))
    return names


def is_consistent(store: ImageStore) -> None:
    assert store.check(content=True) == []


# -- the ordinary -----------------------------------------------------------------------------------------------------


def test_a_pulled_image_has_the_files_of_all_its_layers(puller: Puller, tmp_path: Path) -> None:
    """Three layers in three compressions: files, removals, replacements, seen through the mount."""
    built = image(
        layer(
            directory("d", mode=0o750), entry("d/old"), entry("keep", data=b"1"), entry("suid", data=b"x", mode=0o4755)
        ),
        layer(directory("d", mode=0o700), entry("d/.wh.old"), entry("d/new", data=b"2"), compression="zstd"),
        layer(hard_link("link", "suid"), entry("keep", data=b"3"), compression=""),
        config={"Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v"}, "Entrypoint": ["/e"]},
    )
    pulled = puller.pull(built)
    assert pulled.id == built.id
    assert pulled.names == (puller.name(),)
    assert pulled.digests == (f"{puller.registry.host}/app@{built.digest}",)
    assert (pulled.config.env, pulled.config.exposed_ports, pulled.labels) == (("A=b",), ("80/tcp",), {"k": "v"})
    assert (pulled.config.entrypoint, pulled.config.cmd) == (("/e",), ("/bin/true",))
    assert pulled.created == "2024-01-02T03:04:05Z"
    assert len(pulled.history) == 3
    with mounted(puller.store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["d", "keep", "link", "suid"]
        assert os.listdir(root / "d") == ["new"]
        assert (root / "keep").read_bytes() == b"3"
        assert (root / "link").stat().st_mode & 0o7777 == 0o4755
    is_consistent(puller.store)


def test_a_second_pull_fetches_no_layer(puller: Puller) -> None:
    """It asks what the tag stands for, and no more."""
    built = simple()
    first = puller.pull(built)
    sent = dict(puller.registry.sent)
    assert puller.store.pull(puller.name()) == first
    assert puller.registry.sent[blob_of(built)] == sent[blob_of(built)]


def test_layers_are_shared_between_images(puller: Puller) -> None:
    """A layer that stands alone is fetched and unpacked once, whatever it lies on."""
    shared = layer(directory("s"), entry("s/f", data=noise(5000)))
    one = image(layer(entry("a")), shared)
    other = image(layer(entry("b")), layer(entry("c")), shared)
    puller.pull(one, "one")
    puller.pull(other, "other")
    assert puller.registry.count("GET", digest_of(shared.blob)) == 1
    assert len(os.listdir(f"{puller.store.root}/snapshots")) == 4


def test_a_layer_that_needs_its_lower_ones_is_not_shared_between_other_stacks(puller: Puller, tmp_path: Path) -> None:
    """The same tar shows the mode of srv that lies below it, which differs."""
    lonely = layer(entry("srv/f"))
    stacks = {mode: image(layer(directory("srv", mode=mode)), lonely) for mode in (0o700, 0o711)}
    alone = image(lonely)
    for mode, built in stacks.items():
        pulled = puller.pull(built, f"m{mode:o}")
        with mounted(puller.store.mounts(pulled, tmp_path / f"c{mode}"), tmp_path / "m") as root:
            assert (root / "srv").stat().st_mode & 0o777 == mode
            assert (root / "srv/f").exists()
    pulled = puller.pull(alone, "alone")
    with mounted(puller.store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
        assert (root / "srv").stat().st_mode & 0o777 == 0o755


def test_the_same_layer_twice_in_one_image(puller: Puller, tmp_path: Path) -> None:
    """As empty layers often are."""
    empty = layer()
    built = image(layer(entry("a")), empty, layer(entry("b")), empty)
    pulled = puller.pull(built)
    with mounted(puller.store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["a", "b"]


def test_an_opaque_root_hides_the_layers_below(puller: Puller, tmp_path: Path) -> None:
    """overlayfs would not look there, so those layers are not mounted."""
    built = image(layer(entry("old")), layer(entry(".wh..wh..opq"), entry("new")), layer(entry("top")))
    pulled = puller.pull(built)
    with mounted(puller.store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
        assert sorted(os.listdir(root)) == ["new", "top"]


@pytest.mark.parametrize("count", [1, 2, 130, 500])
def test_images_of_up_to_500_layers(puller: Puller, tmp_path: Path, count: int) -> None:
    """More than the one page of mount(2) would take by absolute names."""
    built = image(*[layer(entry(f"f{number}"), compression="") for number in range(count)])
    pulled = puller.pull(built)
    mounts = puller.store.mounts(pulled, tmp_path / "c")
    assert sum(option.startswith("lowerdir=") for option in mounts[0].options) == count
    if count <= 130:
        with mounted(mounts, tmp_path / "m") as root:
            assert len(os.listdir(root)) == count


def test_several_gzip_members_and_zstd_frames(puller: Puller, tmp_path: Path) -> None:
    """Also with checksums, skippable frames and the zeros that fill a last block."""
    import gzip

    import zstandard

    content = tar(entry("f", data=noise(300_000)))
    halves = content[:200_000], content[200_000:]
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    skip = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    blobs = {
        "gzip": b"".join(map(gzip.compress, halves)) + bytes(100),
        "zstd": skip + pack(halves[0]) + skip + pack(halves[1]) + skip,
    }
    for kind, blob in blobs.items():
        pulled = puller.pull(image(Layer(content, blob, layer(compression=kind).media_type)), kind)
        with mounted(puller.store.mounts(pulled, tmp_path / kind), tmp_path / "m") as root:
            assert (root / "f").read_bytes() == noise(300_000)
        puller.store.remove(pulled.id)


def test_docker_manifests_are_taken(puller: Puller) -> None:
    """Schema 2, as docker pushes it."""
    built = image(layer(entry("f")), docker=True)
    assert puller.pull(built).id == built.id


def test_an_image_without_layers(puller: Puller, tmp_path: Path) -> None:
    """FROM scratch and nothing more: an empty root."""
    pulled = puller.pull(image())
    with mounted(puller.store.mounts(pulled, tmp_path / "c"), tmp_path / "m") as root:
        assert os.listdir(root) == []


def test_events_tell_what_happens(puller: Puller) -> None:
    """In the caller's thread, each layer from its download to its end."""
    built = simple()
    puller.registry.push("app", "latest", built)
    events: list[PullEvent] = []
    threads = set()

    def note(event: PullEvent) -> None:
        events.append(event)
        threads.add(threading.current_thread())

    puller.store.pull(puller.name(), progress=note)
    assert threads == {threading.current_thread()}
    phases = [event.phase for event in events if event.layer == blob_of(built)]
    assert phases[-1] == "done"
    assert {"downloading", "unpacking"} < set(phases)
    sizes = [event for event in events if event.phase == "downloading"]
    assert sizes[-1].current == sizes[-1].total == len(built.layers[0].blob)


def test_a_callback_that_raises_ends_the_pull(puller: Puller) -> None:
    """At once, with its own exception, and without a thread left behind."""
    puller.registry.push("app", "latest", simple())

    def stop(event: PullEvent) -> None:
        if event.phase == "downloading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        puller.store.pull(puller.name(), progress=stop)
    assert puller.store.list() == []
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("wherry")]
    is_consistent(puller.store)
    puller.store.pull(puller.name())


def test_an_iterator_that_is_closed_ends_the_pull(puller: Puller) -> None:
    """Events by iteration, for notebooks and servers."""
    puller.registry.push("app", "latest", simple())
    events = puller.store.pulling(puller.name())
    assert next(events).phase == "resolving"
    next(events)
    events.close()
    assert puller.store.list() == []


# -- names, platforms, policies ----------------------------------------------------------------------------------------


def test_pull_by_digest(puller: Puller) -> None:
    """The digest is what is asked for, and what is found again."""
    built = simple()
    puller.registry.push("app", "latest", built)
    name = f"{puller.registry.host}/app@{built.digest}"
    pulled = puller.store.pull(name)
    assert (pulled.names, pulled.digests) == ((), (name,))
    assert puller.store.get(name) == pulled
    assert puller.store.pull(f"{puller.registry.host}/app:latest@{built.digest}").id == built.id


def test_the_platform_is_chosen_from_an_index(puller: Puller) -> None:
    """Variants too; notes of BuildKit are no platforms."""
    built = {
        name: image(layer(entry(name.replace("/", "-"))), architecture=name.partition("/")[0])
        for name in ("amd64", "arm64", "arm/v6", "arm/v7")
    }
    entries = [
        (one, {"os": "linux", "architecture": name.partition("/")[0], **_variant(name)}) for name, one in built.items()
    ]
    content = json.loads(index(*entries))
    note = dict(content["manifests"][0])
    note["platform"] = {"os": "linux", "architecture": "amd64"}
    note["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    content["manifests"].insert(0, note)
    puller.registry.push_index("multi", "latest", json.dumps(content).encode(), *built.values())
    name = puller.name("multi")
    for platform, expected in (
        ("linux/amd64", "amd64"),
        ("linux/arm64", "arm64"),
        ("linux/arm/v7", "arm/v7"),
        ("arm", "arm/v7"),
        ("linux/arm/v6", "arm/v6"),
        ("linux/arm/v8", "arm/v7"),
        ("linux/arm64/v8", "arm64"),
    ):
        assert puller.store.pull(name, platform=platform).id == built[expected].id
    with pytest.raises(PlatformNotFound) as caught:
        puller.store.pull(name, platform="linux/riscv64")
    assert caught.value.available == ("linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7")
    with pytest.raises(PlatformNotFound):
        puller.store.pull(name, platform="windows/amd64")


def _variant(name: str) -> dict[str, str]:
    variant = name.partition("/")[2]
    return {"variant": variant} if variant else {}


def test_a_platform_that_does_not_match_is_not_found_here(puller: Puller) -> None:
    """In docker's own words, by which docker-py knows to pull."""
    puller.pull(image(layer(entry("f")), architecture="arm64"))
    with pytest.raises(ImageNotFound, match="was found but does not match the specified platform"):
        puller.store.get(puller.name(), platform="linux/amd64")


def test_policies(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """missing asks only if need be, never asks never, newer asks for the digest alone, always asks."""
    store, registry, name = puller.store, puller.registry, puller.name()
    with pytest.raises(ImageNotFound):
        store.pull(name, policy="never")
    assert registry.requests == []
    old, new = simple(seed=1), simple(seed=2)
    registry.push("app", "latest", old)
    assert store.pull(name, policy="missing").id == old.id
    asked = len(registry.requests)
    assert store.pull(name, policy="missing").id == old.id
    assert store.pull(name, policy="never").id == old.id
    assert len(registry.requests) == asked
    assert store.pull(name, policy="newer").id == old.id
    assert [one.method for one in registry.requests[asked:]] == ["HEAD"]
    registry.push("app", "latest", new)
    assert store.pull(name, policy="missing").id == old.id
    assert store.pull(name, policy="newer").id == new.id
    assert store.get(old.id).names == ()
    registry.push("app", "latest", old)
    assert store.pull(name).id == old.id
    with pytest.raises(InvalidArgument, match="one of missing"):
        store.pull(name, policy="sometimes")  # type: ignore[arg-type] # as a caller without types may
    offline = make_store(offline=True)
    assert offline.pull(name).id == old.id
    with pytest.raises(Offline):
        offline.pull("nothing")


def test_newer_keeps_what_is_here_if_nobody_answers(puller: Puller) -> None:
    """As podman has it."""
    built = simple()
    puller.pull(built)
    puller.registry.hooks.append(lambda request, answer: Answer(503))
    assert puller.store.pull(puller.name(), policy="newer").id == built.id


def test_a_tag_that_moves_during_the_pull(puller: Puller) -> None:
    """The image is the one that the tag stood for when it was asked."""
    old, new = simple(seed=1), simple(seed=2)
    puller.registry.push("app", "latest", old)

    def move(request: Request, answer: Answer) -> None:
        if "/blobs/" in request.path:
            puller.registry.put_manifest("app", new.media_type, new.manifest, "latest")

    puller.registry.hooks.append(move)
    assert puller.store.pull(puller.name()).id == old.id


# -- broken connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 1000, 4096, 50_000, 99_999])
def test_a_download_that_is_cut_goes_on_after_the_last_byte(puller: Puller, k: int) -> None:
    """However often it is cut, every byte is sent once."""
    built = simple(300 if k == 1 else 100_000)
    size = len(built.layers[0].blob)

    def cut(request: Request, answer: Answer) -> None:
        if request.method == "GET" and blob_of(built) in request.path:
            answer.cut = min(k, len(answer.body))

    puller.registry.hooks.append(cut)
    puller.pull(built)
    assert puller.registry.sent[blob_of(built)] == size
    is_consistent(puller.store)


def test_a_pull_after_one_that_failed_goes_on(puller: Puller) -> None:
    """In another process, with the bytes that are on the disk; finished layers are not asked for again."""
    built = image(layer(entry("a", data=noise(50_000, 1))), layer(entry("b", data=noise(200_000, 2))))
    first, second = blob_of(built, 0), blob_of(built, 1)

    def cut(request: Request, answer: Answer) -> Answer | None:
        if second in request.path and request.method == "GET":
            if "range" in request.headers:
                return Answer(500)
            answer.cut = 120_000
        return None

    puller.registry.hooks.append(cut)
    with pytest.raises(RegistryUnreachable, match=r"breaks off|status 500"):
        puller.pull(built)
    assert puller.store.list() == []
    is_consistent(puller.store)
    puller.registry.hooks.clear()
    again = ImageStore(puller.store.root, registries=IMPATIENT)
    again.pull(puller.name())
    again.close()
    assert puller.registry.sent[second] == len(built.layers[1].blob)
    assert puller.registry.sent[first] == len(built.layers[0].blob)
    is_consistent(puller.store)


def test_documents_that_are_cut_are_fetched_again(puller: Puller) -> None:
    """Manifests and configurations have no resumption; they are small."""
    built = simple()
    seen: dict[str, int] = {}

    def cut(request: Request, answer: Answer) -> None:
        seen[request.path] = seen.get(request.path, 0) + 1
        if seen[request.path] <= 2 and request.method == "GET" and blob_of(built) not in request.path:
            answer.cut = len(answer.body) // 2

    puller.registry.hooks.append(cut)
    assert puller.pull(built).id == built.id
    assert seen[f"/v2/app/blobs/{built.id}"] == 3


def test_a_kept_blob_that_the_disk_has_lost_is_fetched_again(puller: Puller) -> None:
    """It is hashed again before it is unpacked again."""
    from wherry_images import records

    built = simple()
    pulled = puller.pull(built)
    with puller.store.database.transaction() as connection:
        (one,) = records.image_snapshots(connection, pulled.id)
        connection.execute("DELETE FROM image_name")
        connection.execute("DELETE FROM image")
        connection.execute("DELETE FROM snapshot WHERE id = ?", (one.id,))
    path = Path(puller.store.root, "content/blobs/sha256", blob_of(built).removeprefix("sha256:"))
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    puller.store.pull(puller.name())
    assert path.read_bytes() == built.layers[0].blob
    puller.store.prune()
    is_consistent(puller.store)


def test_a_digest_of_an_index_stands_for_several_images(puller: Puller) -> None:
    """The platform says which of those that were pulled."""
    amd, arm = image(layer(entry("amd"))), image(layer(entry("arm")), architecture="arm64")
    content = index((amd, {"os": "linux", "architecture": "amd64"}), (arm, {"os": "linux", "architecture": "arm64"}))
    puller.registry.push_index("app", "latest", content, amd, arm)
    name = f"{puller.registry.host}/app@{digest_of(content)}"
    for platform in ("linux/amd64", "linux/arm64"):
        puller.store.pull(name, platform=platform)
    assert puller.store.get(name, platform="linux/arm64").id == arm.id
    assert puller.store.get(name, platform="linux/amd64").id == amd.id


def test_a_registry_that_falls_silent(make_store: Callable[..., ImageStore], faulty: FaultyRegistry) -> None:
    """After the configured patience the pull goes on, on another connection, and no silence costs it twice."""
    built = simple()
    silences = iter([20_000, 40_000, 60_000, 80_000, 95_000, 97_000, 99_000])

    def silent(request: Request, answer: Answer) -> Answer | None:
        if blob_of(built) in request.path and (cut := next(silences, None)):
            return attrs.evolve(answer, cut=cut - len(built.layers[0].blob) + len(answer.body), silent=True)
        return None

    faulty.hooks.append(silent)
    puller = Puller(make_store(registries=attrs.evolve(IMPATIENT, timeout=0.2)), faulty)
    assert puller.pull(built).id == built.id
    assert faulty.sent[blob_of(built)] == 20_000 + len(built.layers[0].blob)  # what the first one had begun to send


def test_a_registry_that_sends_byte_by_byte(puller: Puller) -> None:
    """Slow is not broken: it is asked once."""
    built = simple(4_000)
    puller.registry.hooks.append(lambda request, answer: attrs.evolve(answer, drip=True))
    assert puller.pull(built).id == built.id
    assert puller.registry.count("GET", blob_of(built)) == 1


def test_a_server_that_ignores_ranges(puller: Puller) -> None:
    """Bytes that are known are skipped, not mixed in."""
    built = simple()
    cuts = iter([30_000, None])

    def whole(request: Request, answer: Answer) -> Answer | None:
        if blob_of(built) in request.path and request.method == "GET":
            return Answer(200, {}, built.layers[0].blob, cut=next(cuts))
        return None

    puller.registry.hooks.append(whole)
    assert puller.pull(built).id == built.id


def test_a_server_that_answers_with_another_range(puller: Puller) -> None:
    """A later one would leave a gap."""
    built = simple()

    def later(request: Request, answer: Answer) -> Answer | None:
        if blob_of(built) in request.path and request.method == "GET":
            if "range" in request.headers:
                size = len(built.layers[0].blob)
                there = {"Content-Range": f"bytes 90000-{size - 1}/{size}"}
                return Answer(206, there, built.layers[0].blob[90_000:])
            answer.cut = 1000
        return None

    puller.registry.hooks.append(later)
    with pytest.raises(RegistryUnreachable, match="begins at byte 90000"):
        puller.pull(built)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(puller: Puller, status: int) -> None:
    """Twice here, for manifests as for blobs."""
    failures: dict[str, int] = {}

    def fail(request: Request, answer: Answer) -> Answer | None:
        failures[request.path] = failures.get(request.path, 0) + 1
        return Answer(status, {"Retry-After": "0"}) if failures[request.path] <= 2 else None

    puller.registry.hooks.append(fail)
    puller.pull(simple())
    assert set(failures.values()) == {3}


def test_a_rate_limit_that_lasts_tells_the_facts(puller: Puller) -> None:
    """Docker Hub's headers, and its words; a wait beyond patience is not waited."""
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]})
    headers = {"Retry-After": "3600", "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    puller.registry.hooks.append(lambda request, answer: Answer(429, dict(headers), body.encode()))
    with pytest.raises(RateLimited, match="You have reached your pull rate limit") as caught:
        puller.pull(simple())
    assert (caught.value.retry_after, caught.value.limit, caught.value.remaining) == (
        3600.0,
        "100;w=21600",
        "0;w=21600",
    )
    assert len(puller.registry.requests) == 1


def test_a_registry_that_is_not_there(make_store: Callable[..., ImageStore]) -> None:
    """What was tried, and why it failed."""
    config = attrs.evolve(IMPATIENT, retries=1)
    with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:1/.*refused"):
        make_store(registries=config).pull("127.0.0.1:1/app")


def test_a_registry_that_never_listened_is_asked_twice(
    make_store: Callable[..., ImageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is an answer; patience is for those who were there before."""
    pauses: list[float] = []
    monkeypatch.setattr(Registry, "pause", lambda self, seconds: pauses.append(seconds))
    with pytest.raises(RegistryUnreachable, match="refused"):
        make_store(registries=IMPATIENT).pull("127.0.0.1:1/app")
    assert len(pauses) == 1


def test_nonsense_instead_of_http(puller: Puller) -> None:
    """An error, not a hang."""
    puller.registry.hooks.append(lambda request, answer: Answer(200, {"Content-Length": "x"}, b"", cut=0))
    with pytest.raises((RegistryUnreachable, InvalidImage)):
        puller.pull(simple())


# -- wrong bytes -------------------------------------------------------------------------------------------------------


def _replace_blob(puller: Puller, built: BuiltImage, content: bytes, position: int = 0) -> None:
    puller.registry.push("app", "latest", built)
    puller.registry.blobs[blob_of(built, position)] = content


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_found(puller: Puller, where: str) -> None:
    """Nothing becomes visible, the error names the digest, and a retry fetches the blob anew."""
    built = simple()
    blob = bytearray(built.layers[0].blob)
    blob[{"first": 0, "middle": len(blob) // 2, "last": -1}[where]] ^= 1
    _replace_blob(puller, built, bytes(blob))
    with pytest.raises(DigestMismatch) as caught:
        puller.store.pull(puller.name())
    assert caught.value.expected == blob_of(built)
    assert visible(puller.store) == []
    puller.registry.blobs.update(built.blobs)
    assert puller.store.pull(puller.name()).id == built.id


def test_a_blob_that_is_too_long_or_too_short(puller: Puller) -> None:
    """By one byte or by many; the promise of the manifest counts."""
    built = simple()
    blob = built.layers[0].blob
    for content in (blob + b"x", blob + bytes(5_000_000), blob[:-1], b""):
        _replace_blob(puller, built, content)
        with pytest.raises(SizeMismatch) as caught:
            puller.store.pull(puller.name())
        assert caught.value.expected == blob_of(built)
        assert visible(puller.store) == []
    puller.registry.blobs.update(built.blobs)
    puller.store.pull(puller.name())


def test_a_diff_id_that_is_another_layers(puller: Puller) -> None:
    """The blob is right, its tar is not what the configuration promises."""
    built = image(layer(entry("f")), diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(DigestMismatch, match="the layer's tar"):
        puller.pull(built)
    assert puller.store.list() == []
    assert os.listdir(f"{puller.store.root}/snapshots") == []
    is_consistent(puller.store)


def test_a_configuration_that_is_another_one(puller: Puller) -> None:
    """Checked as every blob is."""
    built = simple()
    puller.registry.push("app", "latest", built)
    puller.registry.blobs[built.id] = built.config.replace(b"amd64", b"arm64")
    with pytest.raises(DigestMismatch):
        puller.store.pull(puller.name())


def test_a_manifest_that_is_not_its_digest(puller: Puller) -> None:
    """Asked for by digest, by hand or through an index."""
    built = simple()
    puller.registry.push("app", "latest", built)
    other = simple(seed=3)
    puller.registry.manifests["app", built.digest] = (OCI_MANIFEST, other.manifest)
    with pytest.raises(DigestMismatch) as caught:
        puller.store.pull(f"{puller.registry.host}/app@{built.digest}")
    assert (caught.value.expected, caught.value.actual) == (built.digest, other.digest)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_stream_that_cannot_be_decompressed(puller: Puller, compression: str) -> None:
    """Broken in itself, though its digest is right: an error of the layer, which names it."""
    good = layer(entry("f", data=noise(50_000)), compression=compression)
    broken = bytearray(good.blob)
    broken[2000:2100] = bytes(100)
    bad = Layer(good.tar, bytes(broken), good.media_type)
    with pytest.raises((InvalidLayer, DigestMismatch)):
        puller.pull(image(bad))
    is_consistent(puller.store)
    with pytest.raises(InvalidLayer, match="something else after"):
        puller.pull(image(Layer(good.tar, layer(content=good.tar).blob + b"garbage", good.media_type)))


def test_bombs_end_at_a_limit(make_store: Callable[..., ImageStore], puller: Puller) -> None:
    """10 KiB that become gigabytes: refused, and nothing of it stays on the disk."""
    import zstandard

    info, _ = entry("zeros")
    info.size = 8 << 30
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    pieces = [packer.compress(info.tobuf(tarfile.PAX_FORMAT))]
    zeros = bytes(16 << 20)
    pieces += [packer.compress(zeros) for _ in range(140)]
    bomb = b"".join([*pieces, packer.flush()])
    assert len(bomb) < 300_000
    built = image(Layer(b"", bomb, layer(compression="zstd").media_type), diff_ids=["sha256:" + "1" * 64])
    puller.registry.push("app", "latest", built)
    for limits in (Limits(size=1 << 20), Limits(ratio=10)):
        store = make_store(f"bomb{limits.size}", limits=limits)
        with pytest.raises(LimitExceeded):
            store.pull(puller.name())
        assert store.list() == []
        assert os.listdir(f"{store.root}/snapshots") == []


def test_hostile_layers_leave_nothing(puller: Puller) -> None:
    """An attack in one layer of several: the others are not seen either."""
    for entries in ([entry("../../evil")], [hard_link("x", "../../../../etc/passwd")], [entry(".wh...")]):
        with pytest.raises(InvalidLayer) as caught:
            puller.pull(image(layer(entry("fine")), layer(*entries)))
        assert caught.value.layer.startswith("sha256:")
        assert puller.store.list() == []
    is_consistent(puller.store)


# -- documents ---------------------------------------------------------------------------------------------------------


def _manifest(puller: Puller, content: bytes | dict[str, Any], media_type: str = OCI_MANIFEST) -> str:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    puller.registry.put_manifest("app", media_type, encoded, "latest")
    return puller.name()


def test_documents_that_are_two_things_are_refused(puller: Puller) -> None:
    """CVE-2021-41190: manifest and index in one, or sent as what it does not say it is."""
    built = simple()
    puller.registry.push("app", "latest", built)
    both = {**json.loads(built.manifest), "manifests": []}
    for media_type in (OCI_MANIFEST, OCI_INDEX, "application/json"):
        with pytest.raises(InvalidImage):
            puller.store.pull(_manifest(puller, both, media_type))
    with pytest.raises(InvalidImage, match="was sent as"):
        puller.store.pull(_manifest(puller, built.manifest, OCI_INDEX))
    liar = json.loads(built.manifest)
    liar["mediaType"] = OCI_INDEX
    with pytest.raises(InvalidImage):
        puller.store.pull(_manifest(puller, liar, "application/json"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"schemaVersion":' + b"9" * 10_000 + b"}",
        b'{"schemaVersion":2}',
        b'{"schemaVersion":2,"config":7,"layers":[]}',
        b'{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}',
        b'{"schemaVersion":2,"config":{"digest":"md5:00","size":1},"layers":[]}',
        b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:'
        + b"0" * 64
        + b'","size":-5},"layers":[]}',
        b" " * (5 << 20),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_manifests_that_are_none_are_refused(puller: Puller, content: bytes) -> None:
    """CVE-2021-21285, CVE-2023-25153: a typed error whatever comes, in bounded memory."""
    with pytest.raises((InvalidImage, ManifestUnknown)):
        puller.store.pull(_manifest(puller, content))


def test_a_configuration_of_gigabytes_is_not_fetched(puller: Puller) -> None:
    """Its size is in the manifest."""
    built = simple()
    puller.registry.push("app", "latest", built)
    manifest = json.loads(built.manifest)
    manifest["config"]["size"] = 3 << 30
    with pytest.raises(InvalidImage, match="configuration of"):
        puller.store.pull(_manifest(puller, manifest))
    assert puller.registry.count("GET", "/blobs/") == 0


def test_layers_that_do_not_fit_the_configuration(puller: Puller) -> None:
    """More or fewer than its diff IDs, or one blob with two sizes."""
    built = image(layer(entry("a")), layer(entry("b")))
    puller.registry.push("app", "latest", built)
    manifest = json.loads(built.manifest)
    with pytest.raises(InvalidImage, match="names 2"):
        puller.store.pull(_manifest(puller, {**manifest, "layers": manifest["layers"][:1]}))
    twice = image(layer(entry("a")), layer(entry("a")))
    puller.registry.push("app", "latest", twice)
    manifest = json.loads(twice.manifest)
    manifest["layers"][1]["size"] += 1
    with pytest.raises(InvalidImage, match="two sizes"):
        puller.store.pull(_manifest(puller, manifest))


def test_what_is_no_image_is_told(puller: Puller) -> None:
    """Artifacts by their type, schema 1 by its name, layers that are no file systems."""
    built = simple()
    puller.registry.push("app", "latest", built)
    manifest = json.loads(built.manifest)
    chart = {**manifest, "config": {**manifest["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"}}
    with pytest.raises(UnsupportedImage, match=r"artifact: application/vnd\.cncf\.helm"):
        puller.store.pull(_manifest(puller, chart))
    typed = {**chart, "artifactType": "application/vnd.example.sbom"}
    with pytest.raises(UnsupportedImage, match=r"vnd\.example\.sbom"):
        puller.store.pull(_manifest(puller, typed))
    wasm = {**manifest, "layers": [{**manifest["layers"][0], "mediaType": "application/wasm"}]}
    with pytest.raises(UnsupportedImage, match="application/wasm"):
        puller.store.pull(_manifest(puller, wasm))
    old = {"schemaVersion": 1, "name": "app", "tag": "latest", "fsLayers": []}
    for media_type in ("application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"):
        with pytest.raises(UnsupportedImage, match="schema 1"):
            puller.store.pull(_manifest(puller, old, media_type))


def test_an_index_in_an_index(puller: Puller) -> None:
    """One more is taken; without an end it is refused."""
    built = simple()
    inner = index((built, {"os": "linux", "architecture": "amd64"}))
    puller.registry.push_index("app", "inner", inner, built)
    descriptor = {"mediaType": OCI_INDEX, "digest": digest_of(inner), "size": len(inner)}
    outer = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}
    assert puller.store.pull(_manifest(puller, outer, OCI_INDEX)).id == built.id


def test_what_the_registry_says_is_in_the_error(puller: Puller) -> None:
    """Its own words, for a tag that is unknown and for a door that is shut."""
    with pytest.raises(ManifestUnknown, match="MANIFEST_UNKNOWN: manifest unknown") as caught:
        puller.store.pull(puller.name("nothing"))
    assert (caught.value.status, caught.value.registry) == (404, puller.registry.host)
    body = json.dumps({"errors": [{"code": "DENIED", "message": "requested access is denied"}]}).encode()
    puller.registry.hooks.append(lambda request, answer: Answer(403, {}, body))
    with pytest.raises(AuthRequired, match="requested access is denied"):
        puller.store.pull(puller.name())


# -- foreign layers and redirects --------------------------------------------------------------------------------------


def test_foreign_layers_are_not_fetched_without_consent(puller: Puller, make_store: Callable[..., ImageStore]) -> None:
    """CVE-2020-15157: and with consent, without credentials."""
    built = simple()
    manifest = json.loads(built.manifest)
    manifest["layers"][0]["urls"] = [f"http://{puller.registry.host}/elsewhere"]
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    puller.registry.push("app", "latest", built)
    blob = puller.registry.blobs.pop(blob_of(built))
    name = _manifest(puller, manifest)

    def elsewhere(request: Request, answer: Answer) -> Answer | None:
        return Answer(200, {}, blob) if request.path == "/elsewhere" else None

    puller.registry.hooks.append(elsewhere)
    with pytest.raises(Exception, match="not found"):
        puller.store.pull(name)
    assert puller.registry.count("GET", "/elsewhere") == 0
    willing = make_store("willing", registries=attrs.evolve(IMPATIENT, foreign=True))
    assert willing.pull(name).id == built.id
    asked = next(one for one in puller.registry.requests if one.path == "/elsewhere")
    assert asked.authorization == ""


def _redirect(location: str, request: Request, answer: Answer) -> Answer:
    return Answer(307, {"Location": location})


def test_redirects_end(puller: Puller) -> None:
    """In a circle, to other protocols, to plain http elsewhere."""
    for location, error in (
        ("/v2/app/manifests/latest", RegistryUnreachable),
        ("file:///etc/passwd", RegistryRefused),
        ("http://registry.example/x", RegistryRefused),
        ("gopher://x/", RegistryRefused),
    ):
        puller.registry.hooks[:] = [partial(_redirect, location)]
        with pytest.raises(error):
            puller.store.pull(puller.name())


# -- no space ----------------------------------------------------------------------------------------------------------


def test_what_goes_wrong_while_the_disk_is_written_ahead_fails_the_pull(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of an I/O error once: whoever hears of it must not keep it for himself."""
    sync = Layout.sync

    def failing(layout: Layout) -> None:
        sync(layout)
        if threading.current_thread().name == "wherry-sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    built = simple()
    with monkeypatch.context() as patched:
        patched.setattr("wherry_images.pull._SYNC_AHEAD", 1)
        patched.setattr(Layout, "sync", failing)
        with pytest.raises(OSError, match="Input/output error"):
            puller.pull(built)
    assert [name for name in visible(puller.store) if name.startswith("snapshots/")] == []
    assert puller.pull(built).id == built.id
    is_consistent(puller.store)


def test_no_space_is_told_and_nothing_stays(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills while a layer is unpacked: NoSpace, and everything partial is gone."""
    from wherry_images import tar_reader

    def full(descriptor: int, piece: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(tar_reader, "_write", full)
        with pytest.raises(NoSpace):
            puller.pull(simple())
    assert visible(puller.store) == []
    puller.store.pull(puller.name())


def test_a_small_file_system_that_is_full(puller: Puller, tmp_path: Path) -> None:
    """A real one: blobs and files do not fit, and after more room is made the pull goes through."""
    import subprocess

    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    store = ImageStore(mount / "root", registries=IMPATIENT)
    try:
        puller.registry.push(
            "app", "latest", image(layer(entry("f", data=noise(300_000))), layer(entry("g", data=noise(700_000, 2))))
        )
        with pytest.raises(NoSpace):
            store.pull(puller.name())
        assert visible(store) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(mount)], check=True)
        store.pull(puller.name())
        assert store.check(content=True) == []
    finally:
        store.close()
        subprocess.run(["umount", str(mount)], check=True)


# -- others ------------------------------------------------------------------------------------------------------------


def test_two_stores_that_pull_the_same_share_one_download(
    puller: Puller, make_store: Callable[..., ImageStore]
) -> None:
    """The second one waits for the first, and says so."""
    built = simple(2_000_000)
    puller.registry.push("app", "latest", built)
    started, never = threading.Event(), threading.Event()

    def hold(request: Request, answer: Answer) -> None:
        if blob_of(built) in request.path:
            started.set()

    puller.registry.hooks.append(hold)
    phases: set[str] = set()

    def second() -> None:
        started.wait(10)
        make_store().pull(puller.name(), progress=lambda event: phases.add(event.phase))

    def slowly(event: PullEvent) -> None:
        never.wait(0.05)

    thread = threading.Thread(target=second)
    thread.start()
    puller.store.pull(puller.name(), progress=slowly)
    thread.join()
    assert puller.registry.sent[blob_of(built)] == len(built.layers[0].blob)
    assert "waiting" in phases or "exists" in phases


def test_file_trees_are_the_same_whatever_the_snapshotter(
    puller: Puller, make_store: Callable[..., ImageStore], tmp_path: Path
) -> None:
    """What overlay shows and what native copies."""
    built = image(
        layer(
            directory("./", mode=0o751, uid=3),
            directory("d", mode=0o700),
            entry("d/a"),
            entry("d/b"),
            symlink("l", "d"),
        ),
        layer(entry("d/.wh.a"), entry("l/through"), hard_link("hard", "d/b"), directory("o"), entry("o/x")),
        layer(directory("o", mode=0o711), entry("o/.wh..wh..opq"), entry("o/y"), entry("d2/implied")),
    )
    pulled = puller.pull(built)
    native = make_store(snapshotter="native")
    trees: list[dict[str, tuple[object, ...]]] = []
    for store in (puller.store, native):
        where = tmp_path / f"c{len(trees)}"
        with mounted(store.mounts(pulled, where), tmp_path / "m") as root:
            trees.append(describe(root))
    for tree in trees:  # links to a copied-up file are not kept by overlayfs: the tree says which inode
        assert tree["hard"][0] == "-rw-r--r--"
    del trees[0]["hard"], trees[1]["hard"], trees[0]["d/b"], trees[1]["d/b"]
    assert trees[0] == trees[1]


def test_digests_by_sha512(puller: Puller) -> None:
    """The other algorithm that the specification registers."""
    built = simple()
    digest = "sha512:" + hashlib.sha512(built.manifest).hexdigest()
    puller.registry.push("app", "latest", built)
    puller.registry.manifests["app", digest] = (OCI_MANIFEST, built.manifest)
    assert puller.store.pull(f"{puller.registry.host}/app@{digest}").id == built.id


def test_threads_that_pull_at_once_with_one_store(puller: Puller) -> None:
    """The same images and others: each layer is fetched once, and all get theirs."""
    shared = layer(entry("shared", data=noise(300_000)))
    images = [image(shared, layer(entry(f"f{number}", data=noise(50_000, number)))) for number in range(3)]
    for number, built in enumerate(images):
        puller.registry.push(f"app{number}", "latest", built)
    found: list[str] = []

    def pull(number: int) -> None:
        found.append(puller.store.pull(puller.name(f"app{number % 3}")).id)

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(3 * [built.id for built in images])
    for built in images:
        for position in (0, 1):
            assert puller.registry.sent[blob_of(built, position)] == len(built.layers[position].blob)
    is_consistent(puller.store)
