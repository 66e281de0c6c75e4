"""`python -m simimg` is the `simimg` command."""

import sys

from simimg.cli import main

if __name__ == "__main__":
    sys.exit(main())
