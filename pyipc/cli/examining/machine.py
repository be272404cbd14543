"""What ``pyipc doctor`` finds out about this machine and this installation."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Final

import trio

import pyipc
from pyipc.cli.examining.findings import Finding, ok, warning
from pyipc.cli.peers import own_uid
from pyipc.cli.showing.figures import count

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["examine_environment"]

#: What a process keeps open beside its connections, roughly.
_OTHER_FILES: Final = 64


def examine_environment() -> Iterator[Finding]:
    """Versions, the system, and its limits. Call it inside of trio."""
    yield _versions()
    user = "" if own_uid() is None else f", as user {own_uid()}"
    yield ok("platform", f"{platform.platform()}{user}", platform=sys.platform, uid=own_uid())
    backend = trio.lowlevel.current_statistics().io_statistics.backend
    yield ok("events", f"trio waits with {backend}", backend=backend)
    yield from _open_files()


def _versions() -> Finding:
    from importlib import metadata  # which takes longer to load than all of the rest

    versions: dict[str, str | None] = {"python": platform.python_version(), "pyipc": pyipc.__version__}
    for name in ("trio", "msgspec", "cryptography", "rich"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    missing = [name for name in ("trio", "msgspec") if versions[name] is None]
    if missing:
        remedy = "install pyipc with pip, which brings them along"
        return warning(
            "versions", f"{text}; pyipc cannot do without {' and '.join(missing)}", remedy, versions=versions
        )
    return ok("versions", text, versions=versions)


def _open_files() -> Iterator[Finding]:
    """Every connection takes a descriptor."""
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "any number of" if soft == resource.RLIM_INFINITY else count(soft)
    facts = {"soft": soft, "hard": hard}
    wanted = pyipc.Options().max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = count(pyipc.Options().max_connections)
        yield warning(
            "open-files",
            f"a process may open {limit} files, too few for the {most} connections that a server takes by default",
            f"ulimit -n {wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)}, "
            "or a smaller max_connections",
            **facts,
        )
    else:
        yield ok("open-files", f"a process may open {limit} files", **facts)
