"""
`wherry-oci`: the runtime by its command line, with runc's commands, flags and output.

What enters a container must be an interpreter that nobody can write (CVE-2019-5736). So the commands that make
processes start themselves again, from a read-only image of the interpreter, and at once without `site`.
"""

import sys

_ENTERING = frozenset(("create", "run", "exec"))


def main() -> int:
    """The console script."""
    arguments = sys.argv[1:]
    if not _ENTERING.isdisjoint(arguments):
        from wherry_oci.command.image import execute

        execute(arguments)
    return run(arguments)


def run(arguments: "list[str]") -> int:
    """The exit status of `wherry-oci` with *arguments*."""
    from wherry_oci.command.dispatch import dispatch

    return dispatch(arguments)
