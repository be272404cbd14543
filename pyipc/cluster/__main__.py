"""What a worker process runs whose target is a function: ``python -m pyipc.cluster package.module:function``."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from pyipc.cluster.environment import invitation
from pyipc.cluster.joining import ignore_terminal, run_worker

if TYPE_CHECKING:
    from pyipc.cluster.worker import Worker

__all__ = ["main"]


def main() -> None:
    """Run the function that the command line names, as the worker that this process was started as."""
    ignore_terminal()
    invited = invitation()
    if invited is None or len(sys.argv) < 2:
        sys.exit("pyipc.cluster is what workers of a cluster run; start one with `pyipc run package.module:function`")
    target = sys.argv.pop(1)
    sys.path[:] = [*invited.paths, *(path for path in sys.path if path not in invited.paths)]

    async def run(worker: Worker) -> None:
        # Imported here, where the primary can be told what is wrong with it.
        await find(target)(worker)

    run_worker(run)


def find(target: str) -> Any:
    """The function named as in ``"package.module:function"``, which comes from the command line, never from a peer."""
    module_name, _, path = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        found = getattr(found, name)
    if not inspect.iscoroutinefunction(found):
        raise TypeError(f"{target} is not an async function that takes a worker, but {found!r}")
    return found


if __name__ == "__main__":
    main()
