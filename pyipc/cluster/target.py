"""What a worker runs, as a command line.

A target is ``"package.module:function"``, the path of a script, of Python or of Node, or, as with Node, the very
program that the primary runs, which then asks ``cluster.is_primary``.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Final

from pyipc.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.cluster.settings import Settings

__all__ = ["command_line", "import_paths", "is_function", "shown"]

_DOTTED: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION: Final = re.compile(rf"{_DOTTED}:{_DOTTED}")


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
        ClusterError: This process was started in a way that cannot be repeated, such as from an interactive prompt; or
            the script, or Node, is not there.
    """
    if settings.node is not None:
        return _node_command_line(settings, settings.node)
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


def _node_command_line(settings: Settings, script: str) -> list[str]:
    path = settings.env.get("PATH") or os.environ.get("PATH")
    executable = shutil.which(settings.node_executable, path=None if path is None else str(path))
    if executable is None:
        raise ClusterError(
            f"there is no program {settings.node_executable!r} to run {script!r} with; install Node.js, or say with "
            "node_executable where it is"
        )
    if not os.path.isfile(os.path.join(settings.cwd or "", script)):
        raise ClusterError(f"workers cannot run {script!r}: there is no such file for Node")
    # It may be found in a directory beside the present one, and be started in another.
    return [os.path.abspath(executable), *(settings.exec_args or ()), script, *(settings.args or ())]


def _taken_apart(own: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Options of the interpreter, the program, and the program's arguments."""
    flags: list[str] = []
    words = collections.deque(own)
    while words:
        word = words.popleft()
        if word == "-" or not word.startswith("-"):
            return flags, [word], list(words)
        # Short options may be written together, and the value of one behind it: -um program, -Wignore.
        letters = "" if word.startswith("--") else word[1:]
        found = next((place for place, letter in enumerate(letters) if letter in "cmWX"), None)
        if found is not None and letters[found] in "cm":
            flags += [f"-{letters[:found]}"] if found else []
            value = letters[found + 1 :] or (words.popleft() if words else "")
            return flags, [f"-{letters[found]}", value], list(words)
        flags.append(word)
        if words and (word == "--check-hash-based-pycs" or found == len(letters) - 1):
            flags.append(words.popleft())
    return flags, [], []


def import_paths(settings: Settings) -> list[str]:
    """Where workers look first for the module of a function: where the program of this process finds its own.

    That is the directory of its script. Behind one that the setting ``cwd`` names, as that may be a newer version.
    """
    if sys.flags.safe_path or not sys.path or _is_command(sys.path[0]):
        return []
    own = os.path.abspath(sys.path[0])
    return [own] if settings.cwd is None else [os.path.abspath(settings.cwd), own]


def _is_command(directory: str) -> bool:
    """Whether it is where installed commands are, which are no place for modules of a program."""
    return os.path.realpath(directory) in (
        os.path.realpath(sysconfig.get_path("scripts")),
        os.path.realpath(os.path.dirname(sys.executable)),
    )


def shown(command: Sequence[str]) -> str:
    """A command line for people."""
    return subprocess.list2cmdline(command)
