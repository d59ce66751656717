"""pull, images, rmi."""

from datetime import datetime

import click

from wherry.cli import table
from wherry.cli.names import IMAGE
from wherry.client import Client
from wherry.errors import WherryError
from wherry_images import Image
from wherry_images.reference import familiar

_NANO = 1_000_000_000
_SHORT = 12
_SHOWN = 45
_NONE = "<none>"


@click.command("pull")
@click.argument("reference")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image's name")
@click.option("--platform", help="os[/arch[/variant]]")
@click.pass_obj
def pull_command(client: Client, reference: str, quiet: bool, platform: str | None) -> None:
    """Fetch an image from its registry."""
    from wherry.cli.progress import TransferDisplay

    with TransferDisplay(quiet) as display:
        image = client.images.pull(reference, platform=platform, progress=display.on_event)
    if not quiet:
        click.echo(f"Digest: {image.manifest}")
    click.echo(reference)


_FIELDS = ("Repository", "Tag", "ID", "CreatedSince", "CreatedAt", "Size", "Digest")
_HEADING = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT"}


@click.command("images")
@click.option("-q", "--quiet", is_flag=True, help="Ids only")
@click.option("--no-trunc", is_flag=True, help="Whole ids")
@click.option("--digests", is_flag=True, help="Digests, too")
@table.format_option
@click.pass_obj
def images_command(client: Client, quiet: bool, no_trunc: bool, digests: bool, form: str | None) -> None:
    """List images."""
    rows = [row for image in client.images.list() for row in _rows(image, no_trunc)]
    if quiet:
        for image_id in dict.fromkeys(row["ID"] for row in rows):
            click.echo(image_id)
    elif form not in (None, "", "table"):
        assert form is not None
        table.show_by(form, {name: _HEADING.get(name, name.upper()) for name in _FIELDS}, rows)
    else:
        columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
        table.show([_HEADING.get(name, name.upper()) for name in columns], [[row[c] for c in columns] for row in rows])


def _rows(image: Image, whole: bool) -> list[dict[str, str]]:
    common = {
        "ID": image.id if whole else image.id.partition(":")[2][:_SHORT],
        "CreatedSince": table.ago(_nanoseconds(image.created)) if image.created else "N/A",
        "CreatedAt": image.created or "N/A",
        "Size": table.size(image.size),
        "Digest": image.manifest,
    }
    rows = []
    for tag in image.tags or (f"{_NONE}:{_NONE}",):
        repository, _, name = tag.rpartition(":")
        rows.append({"Repository": repository, "Tag": name, **common})
    return rows


def _nanoseconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * _NANO)
    except ValueError:
        return 0


@click.command("tag")
@click.argument("source", type=IMAGE)
@click.argument("target")
@click.pass_obj
def tag_command(client: Client, source: str, target: str) -> None:
    """Give the image SOURCE the name TARGET, too."""
    client.images.tag(source, target)


@click.command("history")
@click.argument("image", type=IMAGE)
@click.option("--no-trunc", is_flag=True, help="Whole commands")
@click.pass_obj
def history_command(client: Client, image: str, no_trunc: bool) -> None:
    """Show how an image was made, the last step first."""
    rows = []
    for step in reversed(client.images.get(image).history):
        created_by = (
            step.created_by if no_trunc or len(step.created_by) <= _SHOWN else step.created_by[: _SHOWN - 1] + "…"
        )
        created = table.ago(_nanoseconds(step.created)) if step.created else "N/A"
        rows.append([created, created_by, step.comment])
    table.show(["CREATED", "CREATED BY", "COMMENT"], rows)


@click.command("rmi")
@click.argument("images", nargs=-1, required=True, type=IMAGE)
@click.option("-f", "--force", is_flag=True, help="Even if it has several names, or a stopped container uses it")
@click.pass_obj
def rmi_command(client: Client, images: tuple[str, ...], force: bool) -> int:
    """Remove images."""
    failed = 0
    for name in images:
        try:
            for line in client.images.remove(name, force=force):
                done, _, what = line.partition(": ")
                click.echo(f"{done.capitalize()}: {familiar(what) if done == 'untagged' else what}")
        except WherryError as error:
            click.echo(f"wherry: {error}", err=True)
            failed = 1
    return failed
