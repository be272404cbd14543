"""What a worker process runs whose target is a function: ``python -m pyipc.cluster package.module:function``."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from pyipc.cluster.environment import invitation
from pyipc.cluster.joining import ignore_terminal, run_worker
from pyipc.cluster.node.invited import node_invitation

if TYPE_CHECKING:
    import types

    from pyipc.cluster.worker import Worker

__all__ = ["main"]

# Modules of what is between the interpreter and the program.
_CALLERS = frozenset({"runpy", "__main__", "pyipc", "trio", "outcome", "contextlib", "importlib"})


def main() -> None:
    """Run the function that the command line names, as the worker that this process was started as."""
    invited = invitation()
    if invited is not None:
        ignore_terminal()
    if (invited is None and node_invitation() is None) or len(sys.argv) < 2:
        sys.exit("pyipc.cluster is what workers of a cluster run; start one with `pyipc run package.module:function`")
    target = sys.argv.pop(1)
    sys.excepthook = show
    paths = [] if invited is None else invited.paths
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]

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


def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Show an error that ends the program as if the program had been started by itself, without what has called it."""
    sys.__excepthook__(kind, error.with_traceback(program_part(trace)), trace)


def program_part(trace: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback from the program's first frame on; the whole one where the program has not even begun."""
    part = trace
    while part is not None and part.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _CALLERS:
        if part.tb_frame.f_code is find.__code__:
            trace = None  # what is wrong with the target is in the message
        part = part.tb_next
    return part or trace


if __name__ == "__main__":
    main()
