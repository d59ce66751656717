"""The `wherry` command: docker's verbs, flags and columns, by this process alone."""

import gc

gc.set_threshold(100_000)  # a command makes little garbage, and searching its imports for some costs 5 ms

from wherry.cli.main import main  # noqa: E402

__all__ = ["main"]
