"""What was measured on what."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from harness.contender import NODE_IPC
from harness.contenders import CONTENDERS

__all__ = ["about"]


def about() -> dict[str, str]:
    """Names and versions of the machine, the languages and the packages that are here."""
    packages = [
        "pyipc-sockets",
        "trio",
        "msgspec",
        *dict.fromkeys(package for each in CONTENDERS for package in each.needs.values()),
    ]
    found = {package: number for package in packages if (number := _version(package))}
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        **({"node": node} if (node := _node()) else {}),
        "node-ipc": NODE_IPC,
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
