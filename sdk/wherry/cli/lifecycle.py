"""start, stop, restart, kill, pause, unpause, wait, rm: each for several containers, going on after one that fails."""

from collections.abc import Callable

import click

from wherry.cli.each import each
from wherry.cli.names import CONTAINER
from wherry.cli.parameters import detach_keys_option
from wherry.client import Client
from wherry.container import Container


def for_each(client: Client, names: tuple[str, ...], action: Callable[[Container], str | None]) -> int:
    """Do *action* to every container; print its name, or what *action* returns. The exit code."""
    return each(names, lambda name: action(client.containers.get(name)))


all_containers = click.argument("containers", nargs=-1, required=True, type=CONTAINER)


@click.command("start")
@all_containers
@click.option("-a", "--attach", is_flag=True, help="Show what it writes, and end as it does")
@click.option("-i", "--interactive", is_flag=True, help="Give it what is typed, too")
@detach_keys_option
@click.pass_obj
def start_command(
    client: Client, containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str
) -> int:
    """Start containers."""
    if not attach and not interactive:
        return for_each(client, containers, lambda container: container.start())
    if len(containers) > 1:
        raise click.UsageError("only one container can be attached to")
    container = client.containers.get(containers[0])
    terminal, _ = container._stdio
    if terminal or interactive or client._remote is not None:
        return start_joined(container, interactive, detach_keys)
    from wherry.cli.foreground import follow_to_the_end

    with client._engine.log_reader(container._record) as reader:
        reader.skip_all()
        container.start()
        return follow_to_the_end(container, reader)


def start_joined(container: Container, interactive: bool, detach_keys: str) -> int:
    """With its own streams from the first byte on; one that runs is joined as it is. Its exit code."""
    from wherry.cli.interactive import attend
    from wherry.detachkeys import DetachKeys

    keys = DetachKeys(detach_keys)
    terminal, stdin_open = container._stdio
    with container._ending() as ended, container.attach() as process:
        container.start()
        return attend(container, process, ended, terminal=terminal, stdin=interactive and stdin_open, keys=keys)


@click.command("stop")
@all_containers
@click.option("-t", "--time", "--timeout", "timeout", type=float, help="Seconds to wait before it is killed")
@click.option("-s", "--signal", help="The signal to send first")
@click.pass_obj
def stop_command(client: Client, containers: tuple[str, ...], timeout: float | None, signal: str | None) -> int:
    """Stop running containers."""
    return for_each(client, containers, lambda container: container.stop(timeout, signal))


@click.command("restart")
@all_containers
@click.option("-t", "--time", "--timeout", "timeout", type=float, help="Seconds to wait before it is killed")
@click.pass_obj
def restart_command(client: Client, containers: tuple[str, ...], timeout: float | None) -> int:
    """Stop containers and start them again."""
    return for_each(client, containers, lambda container: container.restart(timeout))


@click.command("kill")
@all_containers
@click.option("-s", "--signal", default="KILL", help="The signal", show_default=True)
@click.pass_obj
def kill_command(client: Client, containers: tuple[str, ...], signal: str) -> int:
    """Send running containers a signal."""
    return for_each(client, containers, lambda container: container.kill(signal))


@click.command("pause")
@all_containers
@click.pass_obj
def pause_command(client: Client, containers: tuple[str, ...]) -> int:
    """Freeze all processes of containers."""
    return for_each(client, containers, lambda container: container.pause())


@click.command("unpause")
@all_containers
@click.pass_obj
def unpause_command(client: Client, containers: tuple[str, ...]) -> int:
    """Let paused containers go on."""
    return for_each(client, containers, lambda container: container.unpause())


@click.command("wait")
@all_containers
@click.pass_obj
def wait_command(client: Client, containers: tuple[str, ...]) -> int:
    """Wait for containers to end, and show their exit codes."""
    return for_each(client, containers, lambda container: str(container.wait().exit_code))


@click.command("rename")
@click.argument("container", type=CONTAINER)
@click.argument("new_name")
@click.pass_obj
def rename_command(client: Client, container: str, new_name: str) -> None:
    """Give a container another name."""
    client.containers.get(container).rename(new_name)


@click.command("rm")
@all_containers
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs")
@click.option("-v", "--volumes", is_flag=True, help="Its volumes without a name, too")
@click.pass_obj
def rm_command(client: Client, containers: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Remove containers."""
    return for_each(client, containers, lambda container: container.remove(force=force, v=volumes))
