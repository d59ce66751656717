"""Where the command begins: verbs are loaded when they are used, and errors become one line and an exit code."""

import os
import sys
from importlib import import_module

import click

from wherry.client import Client
from wherry.errors import ExecutableNotFound, ExecutableNotRunnable, WherryError

FAILED, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
_INTERRUPTED = 130

# verb: (module, one line for --help)
_VERBS = {
    "create": ("run", "Make a container without starting it"),
    "exec": ("execute", "Run a further command in a running container"),
    "images": ("images", "List images"),
    "inspect": ("inspect", "Show all that is known of containers or images, as JSON"),
    "kill": ("lifecycle", "Send running containers a signal"),
    "logs": ("logs", "Show what a container has written"),
    "pause": ("lifecycle", "Freeze all processes of containers"),
    "port": ("listing", "Show a container's published ports"),
    "ps": ("listing", "List containers"),
    "pull": ("images", "Fetch an image from its registry"),
    "restart": ("lifecycle", "Stop containers and start them again"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Make a container and start it"),
    "start": ("lifecycle", "Start containers"),
    "stop": ("lifecycle", "Stop running containers"),
    "unpause": ("lifecycle", "Let paused containers go on"),
    "version": ("listing", "Show the version"),
    "wait": ("lifecycle", "Wait for containers to end, and show their exit codes"),
}


class _Verbs(click.Group):
    """Docker's verbs; a module is imported when one of its verbs is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = getattr(import_module(f"wherry.cli.{_VERBS[cmd_name][0]}"), f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(_VERBS.items())])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", metavar="DIR", help="Images and containers [WHERRY_ROOT, or /var/lib/wherry]")
@click.option("--run", "run_directory", metavar="DIR", help="Live state [WHERRY_RUN, or /run/wherry]")
@click.pass_context
def _command(context: click.Context, root: str | None, run_directory: str | None) -> None:
    """Containers without a daemon."""
    context.obj = Client(root=root, run=run_directory)


def main() -> None:
    """
    Run the command line. Exit codes are docker's: 125 when wherry itself fails to run a container, 126 and 127 when its
    program cannot be executed or is not there, else the program's own.
    """
    verb = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    try:
        result = _command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(FAILED if verb in ("run", "create") else error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os._exit(1)  # nobody reads our output any more, and flushing it at exit would say so again
    except WherryError as error:
        click.echo(f"wherry: {error}", err=True)
        sys.exit(_exit_code(verb, error))
    except OSError as error:
        click.echo(f"wherry: {error}", err=True)
        sys.exit(FAILED if verb in ("run", "create", "exec") else 1)
    sys.exit(result if isinstance(result, int) else 0)


def _exit_code(verb: str, error: WherryError) -> int:
    if isinstance(error, ExecutableNotFound):
        return NOT_FOUND
    if isinstance(error, ExecutableNotRunnable):
        return NOT_RUNNABLE
    return FAILED if verb in ("run", "create") else 1
