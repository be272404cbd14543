"""Where the command starts: it imports nothing before Ctrl-C is minded, as importing takes a while."""

from __future__ import annotations

__all__ = ["main"]


def main() -> int:
    """Run the command line with the arguments of the process; return the exit status."""
    try:
        from pyipc.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # that is ExitCode.INTERRUPTED, which may not be there yet
