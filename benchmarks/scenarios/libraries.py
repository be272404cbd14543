"""To whom it is done."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING

from harness.contender import NotMeasured, node_modules
from scenarios import wires

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIBRARIES", "Library", "by_key"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
    """One row of the tables.

    Args:
        key: What it is called on the command line and in JSON.
        name: What it is called in tables.
        program: The file in ``victims/``.
        wire: Its bytes.
        needs: The packages that it needs: as each is imported, and as it is installed.
        node: The version of node-ipc that it is.
        server: The variant of its servers.
        asker: The variant of those who ask a worker.
        only: The scenarios that it takes part in, where it is a variant; ``None`` for all.
        cannot: The scenarios that do not apply to it, and why.
    """

    key: str
    name: str
    program: str
    wire: wires.Wire
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    node: str = ""
    server: str = ""
    asker: str = ""
    only: frozenset[str] | None = None
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Check that it is here.

        Raises:
            NotMeasured: It is not.
        """
        for module, package in self.needs.items():
            if importlib.util.find_spec(module) is None:
                raise NotMeasured(f"{package} is not installed (./run hostile does that, or pip install {package})")
        if self.node:
            node_modules(self.node)


def _node_ipc(version: str) -> Library:
    return Library(
        key=f"node-ipc-{version.partition('.')[0]}",
        name=f"node-ipc {version}",
        program="node_ipc_victim.js",
        wire=wires.NODE_IPC,
        node=version,
    )


LIBRARIES = (
    Library(key="pyipc", name="pyipc", program="pyipc_victim.py", wire=wires.PYIPC, asker="confirmed"),
    Library(
        key="pyipc-strict",
        name="pyipc, `plain_peers=False`",
        program="pyipc_victim.py",
        wire=wires.PYIPC,
        server="strict",
        only=frozenset({"silent"}),
    ),
    _node_ipc("9.2.1"),
    _node_ipc("10.1.0"),
    Library(key="zmq", name="pyzmq", program="zmq_victim.py", wire=wires.ZMTP, needs={"zmq": "pyzmq"}),
    Library(key="nng", name="pynng", program="nng_victim.py", wire=wires.SP, needs={"pynng": "pynng"}),
    Library(key="asyncio", name="asyncio streams", program="asyncio_victim.py", wire=wires.LINES),
    Library(
        key="multiprocessing",
        name="multiprocessing.connection",
        program="multiprocessing_victim.py",
        wire=wires.PICKLE,
        cannot={"nested": "it takes pickles, which whoever has the key may make run anything"},
    ),
    Library(
        key="websockets",
        name="websockets",
        program="websockets_victim.py",
        wire=wires.WEBSOCKET,
        needs={"websockets": "websockets"},
    ),
    Library(
        key="pyro5",
        name="Pyro5",
        program="pyro5_victim.py",
        wire=wires.PYRO,
        needs={"Pyro5": "Pyro5"},
        cannot={"slow-reader": "its server calls nobody back"},
    ),
    Library(
        key="rpyc",
        name="RPyC",
        program="rpyc_victim.py",
        wire=wires.BRINE,
        needs={"rpyc": "rpyc"},
        cannot={
            "slow-reader": "a call back is answered before anything else goes on",
            "nested": "it takes no JSON: what is sent is a remote object, or its own format",
        },
    ),
)


def by_key(key: str) -> Library:
    """The library that is called so."""
    return next(library for library in LIBRARIES if library.key == key)
