"""``python -m pyipc``: the same as the command ``pyipc``."""

import sys

from pyipc.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
