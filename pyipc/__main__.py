"""``python -m pyipc``: the same as the command ``pyipc``."""

import sys

if __name__ == "__main__":
    try:
        from pyipc.cli.main import main

        status = main()
    except KeyboardInterrupt:
        status = 130  # that is ExitCode.INTERRUPTED, which may not be there yet
    sys.exit(status)
