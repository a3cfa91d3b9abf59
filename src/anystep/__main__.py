"""`python -m anystep` is `anystep`."""

import sys

from anystep.cli import main

if __name__ == "__main__":
    sys.exit(main())
