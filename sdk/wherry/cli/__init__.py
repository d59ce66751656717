"""The `wherry` command: docker's verbs, flags and columns, by this process alone."""

from wherry.cli.main import main

__all__ = ["main"]
