"""`python3 -m immud`: the command."""

import sys

from immud.cli import main

if __name__ == "__main__":
    sys.exit(main())
