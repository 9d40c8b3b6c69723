"""`python -m fastseg` is the `fastseg` command."""

import sys

from fastseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
