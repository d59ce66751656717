"""`python -m wherry_daemon`."""

import sys

from wherry_daemon.command import main

if __name__ == "__main__":
    sys.exit(main())
