"""Where the command begins: verbs are loaded when they are used, and errors become one line and an exit code."""

import os
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from wherry.cli.names import client_of
from wherry.errors import ExecutableNotFound, ExecutableNotRunnable, WherryError

if TYPE_CHECKING:
    from wherry.reservation import Reservation

FAILED, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
_INTERRUPTED = 130
PLACE = "wherry.place"  # in a context's meta: the Reservation, or None

# verb: (module, one line for --help)
_VERBS = {
    "attach": ("attach", "Join a running container's streams"),
    "commit": ("files", "Make an image of a container"),
    "completion": ("completion", "Print what makes a shell complete verbs, flags and names"),
    "cp": ("copying", "Copy files between a container and the host"),
    "create": ("run", "Make a container without starting it"),
    "daemon": ("daemon", "Serve Docker's Engine API, for the docker command and docker-py"),
    "diff": ("files", "Show the files that a container changed"),
    "events": ("events", "Show what happens, as it happens"),
    "doctor": ("system", "Show what this host has of what containers need, and what would mend a lack"),
    "exec": ("execute", "Run a further command in a running container"),
    "export": ("files", "Write a container's root file system as a tar"),
    "history": ("images", "Show how an image was made"),
    "images": ("images", "List images"),
    "import": ("files", "Make an image of a root file system's tar"),
    "info": ("system", "Show what the engine is and has"),
    "inspect": ("inspect", "Show all that is known of containers, images, networks or volumes"),
    "kill": ("lifecycle", "Send running containers a signal"),
    "load": ("files", "Read images from an archive"),
    "login": ("registries", "Remember credentials for a registry"),
    "logout": ("registries", "Forget the credentials for a registry"),
    "logs": ("logs", "Show what a container has written"),
    "pause": ("lifecycle", "Freeze all processes of containers"),
    "port": ("listing", "Show a container's published ports"),
    "ps": ("listing", "List containers"),
    "pull": ("images", "Fetch an image from its registry"),
    "push": ("registries", "Send an image to its registry"),
    "rename": ("lifecycle", "Give a container another name"),
    "restart": ("lifecycle", "Stop containers and start them again"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Make a container and start it"),
    "save": ("files", "Write images as an archive"),
    "search": ("registries", "Find images on Docker Hub"),
    "start": ("lifecycle", "Start containers"),
    "stats": ("stats", "Show what running containers use"),
    "stop": ("lifecycle", "Stop running containers"),
    "tag": ("images", "Give an image one more name"),
    "top": ("listing", "Show the processes of a container"),
    "unpause": ("lifecycle", "Let paused containers go on"),
    "unshare": ("unshare", "Look around in the namespaces of an ordinary user's containers"),
    "update": ("update", "Change limits and restart policy of containers"),
    "version": ("listing", "Show the version"),
    "wait": ("lifecycle", "Wait for containers to end, and show their exit codes"),
}
# group: verb in it: (module, its name there, one line)
_GROUPS = {
    "container": {
        **{
            name: (module, name, line)
            for name, (module, line) in _VERBS.items()
            if module in ("attach", "execute", "lifecycle", "logs", "run", "stats", "update")
            or name in ("commit", "cp", "diff", "export", "port", "top")
        },
        "inspect": ("inspect", "inspect", "Show all that is known of containers"),
        "ls": ("listing", "ps", "List containers"),
        "prune": ("system", "container_prune", "Remove every container that does not run"),
    },
    "image": {
        **{
            name: (*_VERBS[name][:1], name, _VERBS[name][1])
            for name in ("history", "import", "load", "pull", "save", "tag")
        },
        "inspect": ("inspect", "inspect", "Show all that is known of images"),
        "ls": ("images", "images", "List images"),
        "prune": ("system", "image_prune", "Remove images that nobody needs"),
        "push": ("registries", "push", "Send an image to its registry"),
        "rm": ("images", "rmi", "Remove images"),
    },
    "network": {
        "connect": ("networks", "network_connect", "Give a container a place in a network"),
        "create": ("networks", "network_create", "Make a network"),
        "disconnect": ("networks", "network_disconnect", "Take a container out of a network"),
        "inspect": ("networks", "network_inspect", "Show all that is known of networks"),
        "ls": ("networks", "network_ls", "List networks"),
        "prune": ("networks", "network_prune", "Remove networks in which no container is"),
        "rm": ("networks", "network_rm", "Remove networks"),
    },
    "system": {
        "check": ("system", "check", "Look for what is not as the records say"),
        "events": ("events", "events", "Show what happens, as it happens"),
        "info": ("system", "info", "Show what the engine is and has"),
        "df": ("system", "df", "Show how much room images, containers and volumes take"),
        "restore": ("system", "restore", "Start after a reboot what should run"),
        "prune": ("system", "prune", "Remove what nobody needs"),
    },
    "volume": {
        "create": ("volumes", "volume_create", "Make a volume"),
        "inspect": ("volumes", "volume_inspect", "Show all that is known of volumes"),
        "ls": ("volumes", "volume_ls", "List volumes"),
        "prune": ("volumes", "volume_prune", "Remove volumes that no container has"),
        "rm": ("volumes", "volume_rm", "Remove volumes"),
    },
}
_GROUP_LINES = {
    "container": "Containers",
    "image": "Images",
    "network": "Networks",
    "system": "All of it",
    "volume": "Volumes",
}


class _Verbs(click.Group):
    """Verbs whose module is imported when one of them is used."""

    def __init__(self, *args: Any, verbs: dict[str, tuple[str, str, str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self._verbs, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return self.commands.get(cmd_name)
        module, name, _ = self._verbs[cmd_name]
        command: click.Command = getattr(import_module(f"wherry.cli.{module}"), f"{name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = {name: line for name, (_, _, line) in self._verbs.items()}
        groups = [(name, group.help or "") for name, group in sorted(self.commands.items())]
        if groups:
            with formatter.section("Groups"):
                formatter.write_dl(groups)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


@click.group(
    cls=_Verbs,
    verbs={name: (module, name, line) for name, (module, line) in _VERBS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--root",
    metavar="DIR",
    help="Images and containers [WHERRY_ROOT, or /var/lib/wherry, or the user's]",
)
@click.option(
    "--run",
    "run_directory",
    metavar="DIR",
    help="Live state [WHERRY_RUN, or /run/wherry, or the user's]",
)
@click.option(
    "-H",
    "--host",
    metavar="ADDRESS",
    help="An engine elsewhere: unix://PATH, tcp://HOST:PORT, ssh://[USER@]HOST, auto [WHERRY_HOST, or none]",
)
@click.option("-c", "--context", "docker_context", metavar="NAME", help="The engine of one of docker's contexts")
@click.pass_context
def _command(
    context: click.Context,
    root: str | None,
    run_directory: str | None,
    host: str | None,
    docker_context: str | None,
) -> None:
    """Containers without a daemon."""
    context.meta[PLACE] = context.obj
    context.obj = client_of(root, run_directory, host, docker_context)


for _name, _verbs in _GROUPS.items():
    _command.add_command(_Verbs(_name, verbs=_verbs, help=_GROUP_LINES[_name]))


def run(place: "Reservation | None") -> int:
    """
    Run the command line and return its exit code. *place* is for `run`, and given up if that does not use it.

    Exit codes are docker's: 125 when wherry itself fails to run a container, 126 and 127 when its program cannot be
    executed or is not there, else the program's own.
    """
    warnings.showwarning = _show_warning  # type: ignore[assignment] # it takes what is given
    verb = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    try:
        result = _command.main(standalone_mode=False, obj=place)
    except click.ClickException as error:
        error.show()
        return FAILED if verb in ("run", "create") else error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        os._exit(1)  # nobody reads our output any more, and flushing it at exit would say so again
    except WherryError as error:
        click.echo(f"wherry: {error}", err=True)
        return _exit_code(verb, error)
    except OSError as error:
        click.echo(f"wherry: {error}", err=True)
        return FAILED if verb in ("run", "create", "exec") else 1
    finally:
        if place is not None:
            place.give_up()
    return result if isinstance(result, int) else 0


def _show_warning(message: Warning | str, *_: object) -> None:
    """As docker writes them."""
    click.echo(f"WARNING: {message}", err=True)


def _exit_code(verb: str, error: WherryError) -> int:
    if isinstance(error, ExecutableNotFound):
        return NOT_FOUND
    if isinstance(error, ExecutableNotRunnable):
        return NOT_RUNNABLE
    return FAILED if verb in ("run", "create") else 1
