"""What a worker runs, as a command line.

A target is ``"package.module:function"``, the path of a script, or, as with Node, the very program that the primary
runs, which then asks ``cluster.is_primary``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from pyipc.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.settings import Settings

__all__ = ["command_line", "is_function", "shown"]

_DOTTED: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION: Final = re.compile(rf"{_DOTTED}:{_DOTTED}")

# Options of the interpreter that take the next argument along.
_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})


def is_function(target: str) -> bool:
    """Whether a target names a function, as in ``"app:main"``."""
    return _FUNCTION.fullmatch(target) is not None


def command_line(
    settings: Settings, *, executable: str = sys.executable, own: Sequence[str] | None = None
) -> list[str]:
    """The command by which a worker process is started.

    Args:
        settings: Those of the worker.
        executable: The interpreter.
        own: The command line of this process; by default ``sys.orig_argv``.

    Raises:
        ClusterError: This process was started in a way that cannot be repeated, such as from an interactive prompt.
    """
    own = sys.orig_argv if own is None else own
    flags, program, arguments = _taken_apart(own[1:])
    if settings.exec_args is not None:
        flags = list(settings.exec_args)
    if settings.args is not None:
        arguments = list(settings.args)
    if settings.exec is None:
        if not program or program[0] in ("-", "-c"):
            raise ClusterError(
                "a worker cannot run the program of this process, which has no file to start again; say what workers "
                "run, as in Cluster('package.module:function') or Cluster('worker.py')"
            )
        return [executable, *flags, *program, *arguments]
    arguments = [] if settings.args is None else arguments
    if is_function(settings.exec):
        return [executable, *flags, "-m", "pyipc.cluster", settings.exec, *arguments]
    if not os.path.exists(os.path.join(settings.cwd or "", settings.exec)):
        raise ClusterError(
            f"workers cannot run {settings.exec!r}: it is neither a function, as in 'package.module:function', nor the "
            "path of a script that exists"
        )
    return [executable, *flags, settings.exec, *arguments]


def _taken_apart(own: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Options of the interpreter, the program, and the program's arguments."""
    place = 0
    while place < len(own):
        word = own[place]
        if word in _WITH_VALUE:
            place += 2
            continue
        if word == "-m" or word == "-c":
            return list(own[:place]), list(own[place : place + 2]), list(own[place + 2 :])
        if word == "-" or not word.startswith("-"):
            return list(own[:place]), [word], list(own[place + 1 :])
        place += 1
    return list(own), [], []


def shown(command: Sequence[str]) -> str:
    """A command line for people."""
    return subprocess.list2cmdline(command)
