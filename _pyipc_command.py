"""The script ``pyipc``: outside of the package, as importing that takes a while, in which Ctrl-C may come already."""

__all__ = ["main"]


def main() -> int:
    """Run the command line; return the exit status."""
    try:
        from pyipc.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # that is ExitCode.INTERRUPTED, which may not be there yet
