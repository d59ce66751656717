"""push, search, login, logout."""

import sys

import click

from wherry.cli import table
from wherry.cli.names import IMAGE
from wherry.client import Client

_DOCKER_HUB = "docker.io"
_SHOWN = 60


@click.command("push")
@click.argument("name", type=IMAGE)
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest")
@click.pass_obj
def push_command(client: Client, name: str, quiet: bool) -> None:
    """Send an image to the registry of its name."""
    from wherry.cli.progress import TransferDisplay

    with TransferDisplay(quiet) as display:
        digest = client.images.push(name, progress=display.on_event)
    click.echo(digest if quiet else f"{name}: digest: {digest}")


@click.command("search")
@click.argument("term")
@click.option("--limit", default=25, help="At most so many", show_default=True)
@click.pass_obj
def search_command(client: Client, term: str, limit: int) -> None:
    """Find images on Docker Hub, or, by HOST/TERM, in another registry."""
    rows = [
        [result.name, result.description[:_SHOWN], str(result.stars), "[OK]" if result.official else ""]
        for result in client.images.search(term, limit=limit)
    ]
    table.show(["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], rows)


@click.command("login")
@click.argument("registry", default=_DOCKER_HUB)
@click.option("-u", "--username", help="Who")
@click.option("-p", "--password", help="The password; shells and ps see it, so better:")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin")
@click.pass_obj
def login_command(
    client: Client, registry: str, username: str | None, password: str | None, password_stdin: bool
) -> None:
    """Try credentials for a registry, and remember them where docker does."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    name = username or click.prompt("Username")
    secret = password if password is not None else click.prompt("Password", hide_input=True)
    where = client.images.login(name, secret, registry)
    click.echo(f"Login Succeeded ({where})")


@click.command("logout")
@click.argument("registry", default=_DOCKER_HUB)
@click.pass_obj
def logout_command(client: Client, registry: str) -> None:
    """Forget the credentials for a registry."""
    forgotten = client.images.logout(registry)
    click.echo(f"Removing login credentials for {registry}" if forgotten else f"Not logged in to {registry}")
