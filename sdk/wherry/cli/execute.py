"""exec."""

import click

from wherry.cli.interactive import Detached, join
from wherry.cli.names import CONTAINER
from wherry.cli.parameters import detach_keys_option
from wherry.client import Client
from wherry.detachkeys import DetachKeys

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("exec", context_settings=_PASS_ON)
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it")
@detach_keys_option
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable")
@click.option("-i", "--interactive", is_flag=True, help="Keep its stdin open")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option("-u", "--user", help="user[:group], by name or number")
@click.option("-w", "--workdir", help="Where it starts")
@click.option("--privileged", is_flag=True, help="With all capabilities")
@click.argument("container", type=CONTAINER)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_command(
    client: Client,
    detach: bool,
    detach_keys: str,
    env: tuple[str, ...],
    interactive: bool,
    tty: bool,
    user: str | None,
    workdir: str | None,
    privileged: bool,
    container: str,
    command: tuple[str, ...],
) -> int:
    """Run a further command in a running container."""
    keys = DetachKeys(detach_keys)
    process = client.containers.get(container).popen(
        command, user=user, environment=env, working_dir=workdir, tty=tty, stdin=interactive, privileged=privileged
    )
    try:
        return 0 if detach else join(process, terminal=tty, stdin=interactive, keys=keys)
    except Detached:
        return 0
    finally:
        process.close()
