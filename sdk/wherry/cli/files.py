"""commit, diff, export, import, save, load: containers and images as files."""

import os
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import click

from wherry.cli.names import CONTAINER, IMAGE
from wherry.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

_LETTERS = {"added": "A", "modified": "C", "deleted": "D"}


def _write(pieces: Iterable[bytes], path: str | None) -> None:
    """To *path*, which appears when it is whole, or to stdout."""
    if path is None:
        if sys.stdout.isatty():
            raise click.UsageError("a tar is not for a terminal: redirect it, or use --output")
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "xb") as file:
            for piece in pieces:
                file.write(piece)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


@contextmanager
def _opened(path: str) -> "Iterator[IO[bytes]]":
    if path == "-":
        yield sys.stdin.buffer
    else:
        with open(path, "rb") as file:
            yield file


@click.command("save")
@click.argument("images", nargs=-1, required=True, type=IMAGE)
@click.option("-o", "--output", metavar="FILE", help="Instead of stdout")
@click.pass_obj
def save_command(client: Client, images: tuple[str, ...], output: str | None) -> None:
    """Write images as an archive that docker, podman and skopeo read."""
    _write(client.images.save(images), output)


@click.command("load")
@click.option("-i", "--input", "path", default="-", metavar="FILE", help="Instead of stdin")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing")
@click.pass_obj
def load_command(client: Client, path: str, quiet: bool) -> None:
    """Read images from an archive of docker's or OCI's."""
    with _opened(path) as file:
        images = client.images.load(file)
    for image in images if not quiet else ():
        for name in image.tags:
            click.echo(f"Loaded image: {name}")
        if not image.tags:
            click.echo(f"Loaded image ID: {image.id}")


@click.command("import")
@click.argument("file")
@click.argument("reference", required=False)
@click.option("-m", "--message", default="", help="A comment")
@click.pass_obj
def import_command(client: Client, file: str, reference: str | None, message: str) -> None:
    """Make an image of the tar of a root file system; FILE may be - for stdin."""
    with _opened(file) as source:
        click.echo(client.images.import_(source, reference, message=message).id)


@click.command("export")
@click.argument("container", type=CONTAINER)
@click.option("-o", "--output", metavar="FILE", help="Instead of stdout")
@click.pass_obj
def export_command(client: Client, container: str, output: str | None) -> None:
    """Write a container's root file system as a tar."""
    _write(client.containers.get(container).export(), output)


@click.command("diff")
@click.argument("container", type=CONTAINER)
@click.pass_obj
def diff_command(client: Client, container: str) -> None:
    """Show the files that a container added (A), changed (C) and deleted (D)."""
    for change in client.containers.get(container).diff():
        click.echo(f"{_LETTERS[change.kind]} {change.path}")


@click.command("commit")
@click.argument("container", type=CONTAINER)
@click.argument("reference", required=False)
@click.option("-a", "--author", default="", help="Who made it")
@click.option("-m", "--message", default="", help="A comment")
@click.option("-p/--no-pause", "--pause/--no-pause", default=True, help="Whether it is paused meanwhile")
@click.pass_obj
def commit_command(
    client: Client, container: str, reference: str | None, author: str, message: str, pause: bool
) -> None:
    """Make an image of a container."""
    image = client.containers.get(container).commit(reference, author=author, message=message, pause=pause)
    click.echo(image.id)
