"""cp: between a container and the host, with docker's rules for what becomes what."""

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click

from wherry.client import Client
from wherry.container import Container
from wherry.rootfsview import RootfsView
from wherry_oci.errors import NotFound

_PIECE = 1 << 20


def _place(text: str) -> tuple[str | None, str]:
    """Container and path, or None and a path of the host; a colon after a slash is part of a path."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or text.startswith("."):
        return None, text
    return name, path


@click.command("cp")
@click.argument("source")
@click.argument("target")
@click.option("-a", "--archive", is_flag=True, help="With the owners' numbers")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing")
@click.pass_obj
def cp_command(client: Client, source: str, target: str, archive: bool, quiet: bool) -> None:
    """
    Copy files between a container and the host: CONTAINER:PATH and PATH, or - for a tar.

    A directory goes into a target that exists, and becomes one that does not; SOURCE/. is what is in it.
    """
    (from_container, from_path), (to_container, to_path) = _place(source), _place(target)
    if (from_container is None) == (to_container is None):
        raise click.UsageError("one of the two must be a container's path, CONTAINER:PATH, and only one")
    if from_container is not None:
        _copy_out(client.containers.get(from_container), from_path, to_path, archive)
    else:
        assert to_container is not None
        _copy_in(client.containers.get(to_container), from_path, to_path, archive)
    if not quiet:
        click.echo(f"Successfully copied {source} to {target}", err=True)


def _copy_out(container: Container, path: str, target: str, keep_owner: bool) -> None:
    if target == "-":
        for piece in container.get_archive(path):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    content_only = path.endswith("/.")
    name = os.path.basename(path.removesuffix("/.").rstrip("/")) or "."
    place = Path(target)
    into = place.is_dir() and not content_only
    base = place / name if into else place
    if not base.parent.is_dir():
        raise NotFound(f"{base.parent} does not exist: make it first")
    owner = None if keep_owner else (os.geteuid(), os.getegid())
    # The container made this archive: it is unpacked below the target, whatever links it plants.
    parent = os.open(base.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pieces = container.get_archive(path.removesuffix("/.") or "/")
        RootfsView(parent).extract("/", pieces, rename=(name, base.name), owner=owner)
    finally:
        os.close(parent)


def _copy_in(container: Container, source: str, path: str, keep_owner: bool) -> None:
    if source == "-":
        container.put_archive(path, iter(lambda: sys.stdin.buffer.read(_PIECE), b""))
        return
    origin = Path(source)
    if not os.path.lexists(origin):
        raise NotFound(f"{source} does not exist on the host")
    target = container.path(path)
    content_only = source.endswith("/.")
    if target.is_dir() and not content_only:
        directory, name = str(target), origin.name
    elif content_only and target.is_dir():
        directory, name = str(target), ""
    elif path.endswith("/") and not origin.is_dir():
        raise NotFound(f"{path} in the container is no directory")
    else:
        directory, name = str(target.parent), target.name
    container.put_archive(directory, _packed(origin, name, keep_owner))


def _packed(origin: Path, name: str, keep_owner: bool) -> Iterator[bytes]:
    """*origin* as a tar in which it is called *name*; of no name, what is in it."""

    def adapt(member: tarfile.TarInfo) -> tarfile.TarInfo:
        if not keep_owner:
            member.uid = member.gid = 0
        return member

    tops = [(origin, name)] if name else [(child, child.name) for child in sorted(origin.iterdir())]
    for path, shown in tops:
        yield from _tar(path, shown, adapt)
    yield bytes(1024)


def _tar(path: Path, shown: str, adapt: "object") -> Iterator[bytes]:
    """One file or directory with all below it, without the archive's end."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tar.gettarinfo(str(path), arcname=shown)
        if member is None:  # a socket, which no archive holds
            return
        member = adapt(member)  # type: ignore[operator]
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    yield header
    if member.isreg():
        remaining = member.size
        with path.open("rb") as file:
            while remaining > 0:
                piece = file.read(min(_PIECE, remaining)) or bytes(min(_PIECE, remaining))
                remaining -= len(piece)
                yield piece
        yield bytes(-member.size % 512)
    elif member.isdir():
        for child in sorted(path.iterdir()):
            yield from _tar(child, f"{shown}/{child.name}", adapt)
