"""One contender, and whether it can be measured here."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness.transports import TCP, UNIX, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.workloads import Workload

__all__ = ["NODE_IPC", "ROOT", "Contender", "NotMeasured", "node_modules"]

ROOT = Path(__file__).resolve().parent.parent.parent
NODE_IPC = "9.2.1"


class NotMeasured(Exception):
    """Why there is no figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the tables.

    Args:
        key: What it is called on the command line and in JSON.
        name: What it is called in tables.
        peer: The file in ``peers/`` that both of its processes run.
        variant: Which form of the peer.
        works: What it can do.
        cannot: For other work, why not. What is in neither is not listed.
        transports: Over what it can do that, beside tables that compare transports.
        alone_over: Over what it is measured in those tables, and only there.
        promises: What a user of it gets for the time it takes.
        needs: The packages that it needs: as each is imported, and as it is installed.
        in_crowd: Whether ``crowd.py`` drives its broadcasts and topics.
        runs_node: Whether Node runs a part of it.
        at_most: For some work, the largest ``count`` that it is asked for, where more would take long.
        library: Where the ``pyipc`` is that it imports.
    """

    key: str
    name: str
    peer: str
    variant: str = ""
    works: frozenset[str]
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)
    transports: frozenset[Transport] = frozenset({UNIX, TCP})
    alone_over: Transport | None = None
    promises: str
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_crowd: bool = False
    runs_node: bool = False
    at_most: Mapping[str, int] = dataclasses.field(default_factory=dict)
    library: Path = ROOT

    def takes_part(self, workload: Workload) -> bool:
        """Whether it has a row in the table of a workload."""
        if workload.work not in self.works and workload.work not in self.cannot:
            return False
        if self.alone_over is not None:
            return workload.transport is None
        return workload.transport in self.transports

    def transport_at(self, workload: Workload) -> Transport:
        """What its bytes move over at a workload in which it takes part."""
        transport = self.alone_over or workload.transport
        assert transport is not None
        return transport

    def check(self, work: str) -> None:
        """Check that it can be measured here.

        Raises:
            NotMeasured: It cannot.
        """
        if work not in self.works:
            raise NotMeasured(self.cannot.get(work, "it has no such thing"))
        for module, package in self.needs.items():
            if importlib.util.find_spec(module) is None:
                raise NotMeasured(f"{package} is not installed (./run bench does that, or pip install {package})")
        if self.runs_node or self.peer.endswith(".js"):
            node_modules()

    def driver(self, work: str) -> str:
        """The file that drives its server."""
        if work == "handover":
            return "callers.py"
        return "crowd.py" if work == "idle" or (work in ("broadcast", "topic") and self.in_crowd) else self.peer


def node_modules(version: str = NODE_IPC) -> Path:
    """Where node finds that release of node-ipc.

    Raises:
        NotMeasured: It is not there.
    """
    if shutil.which("node") is None:
        raise NotMeasured("node is not installed")
    modules = Path(os.environ.get("PYIPC_NODE_DIR") or ROOT / ".node") / version / "node_modules"
    if not (modules / "node-ipc").is_dir():
        raise NotMeasured(f"node-ipc {version} is not installed under PYIPC_NODE_DIR or .node (./run bench does that)")
    return modules
