"""What was measured on what."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from harness.contender import NODE_IPC
from harness.contenders import CONTENDERS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["about"]


#: What `about` tells of, unless it is asked for others.
MEASURED = tuple(dict.fromkeys(package for each in CONTENDERS for package in each.needs.values()))


def about(others: Iterable[str] = MEASURED, node_ipc: str = NODE_IPC) -> dict[str, str]:
    """Names and versions of the machine, the languages and the packages that are here.

    Args:
        others: The packages that take part beside pyipc and what it needs.
        node_ipc: The releases of node-ipc that do.
    """
    packages = ["pyipc-sockets", "trio", "msgspec", *others]
    found = {package: number for package in packages if (number := _version(package))}
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        **({"node": node} if (node := _node()) else {}),
        **({"node-ipc": node_ipc} if node_ipc else {}),
        **found,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _node() -> str | None:
    if shutil.which("node") is None:
        return None
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=10, check=False)
    return told.stdout.strip().removeprefix("v")
