"""Who is measured: what each can do, and what it promises, which stands beside the figures."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTENDERS", "NODE_IPC", "Contender", "NotMeasured", "by_key", "other_pyipc"]

ROOT = Path(__file__).resolve().parent.parent.parent
NODE_IPC = "9.2.1"
PYIPC = "pyipc"


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
        promises: What a user of it gets for the time it takes.
        needs: The packages that it needs: as each is imported, and as it is installed.
        in_crowd: Whether ``crowd.py`` drives its broadcasts.
        at_most: For some work, the largest ``count`` that it is asked for, where more would take long.
        library: Where the ``pyipc`` is that it imports.
    """

    key: str
    name: str
    peer: str
    variant: str = ""
    works: frozenset[str]
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)
    promises: str
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_crowd: bool = False
    at_most: Mapping[str, int] = dataclasses.field(default_factory=dict)
    library: Path = ROOT

    def takes_part(self, work: str) -> bool:
        """Whether it has a row in the tables of some work."""
        return work in self.works or work in self.cannot

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
        if self.peer.endswith(".js"):
            node_modules()

    def driver(self, work: str) -> str:
        """The file that drives its server."""
        return "crowd.py" if work == "idle" or (work == "broadcast" and self.in_crowd) else self.peer


def node_modules() -> Path:
    """Where node finds node-ipc.

    Raises:
        NotMeasured: It is not there.
    """
    if shutil.which("node") is None:
        raise NotMeasured("node is not installed")
    modules = Path(os.environ.get("PYIPC_NODE_DIR") or ROOT / ".node") / NODE_IPC / "node_modules"
    if not (modules / "node-ipc").is_dir():
        raise NotMeasured(f"node-ipc {NODE_IPC} is not installed under PYIPC_NODE_DIR or .node (./run bench does that)")
    return modules


def other_pyipc(name: str, library: Path) -> Contender:
    """The pyipc of another checkout.

    Raises:
        NotMeasured: There is none.
    """
    if not (library / "pyipc" / "__init__.py").is_file():
        raise NotMeasured(f"there is no pyipc/__init__.py in {library}; give the directory of a checkout")
    return dataclasses.replace(by_key(PYIPC), key=name, name=f"pyipc of {name}", library=library.resolve())


def by_key(key: str) -> Contender:
    """The contender that is called so."""
    return next(contender for contender in CONTENDERS if contender.key == key)


_ALL = frozenset({"request", "requests", "echo", "events", "large", "broadcast", "idle"})
_NO_GREETING = "a connection that does not greet is none to it, and a plain socket does not"
_THREAD_EACH = "it takes a thread for each connection"
_NO_CALL_BACK = "its server calls nobody back"
_ONE_SHAPE = "it is a floor for other work"

CONTENDERS = (
    Contender(
        key=PYIPC,
        name="pyipc",
        peer="pyipc_peer.py",
        works=_ALL,
        in_crowd=True,
        promises="Order, back-pressure, limits on everything, requests matched, timed and cancelled, heartbeats, "
        "reconnect, the peer's user checked. JSON.",
    ),
    Contender(
        key="pyipc-async",
        name="pyipc, async handler",
        peer="pyipc_peer.py",
        variant="async",
        works=frozenset({"request", "requests"}),
        promises="The same.",
    ),
    Contender(
        key="node-ipc",
        name=f"node-ipc {NODE_IPC}",
        peer="node_ipc.js",
        works=_ALL - {"requests"},
        cannot={"requests": "it has no requests; its echo by events is measured instead"},
        at_most={"large": 1},
        in_crowd=True,
        promises="Order, reconnect. No back-pressure, no limits, no requests: a request is answered by an event. "
        "Its own JSON.",
    ),
    Contender(
        key="bare-sockets",
        name="bare sockets",
        peer="bare_sockets.py",
        works=_ALL - {"requests", "echo"},
        cannot={"requests": _ONE_SHAPE, "echo": _ONE_SHAPE},
        in_crowd=True,
        promises="Order. No limits, no matching, no reconnect; blocks. A floor. JSON by msgspec.",
    ),
    Contender(
        key="bare-trio",
        name="bare trio",
        peer="bare_trio.py",
        works=frozenset({"request", "events"}),
        cannot=dict.fromkeys(sorted(_ALL - {"request", "events"}), _ONE_SHAPE),
        promises="Order. The same frames as pyipc over non-blocking sockets, nothing else. A floor. JSON by msgspec.",
    ),
    Contender(
        key="msgspec",
        name="msgspec alone",
        peer="msgspec_ceiling.py",
        works=frozenset({"events"}),
        promises="Nothing is sent: as many events as msgspec encodes or decodes, whichever is fewer. A ceiling.",
    ),
    Contender(
        key="msgspec-together",
        name="msgspec, both ends at once",
        peer="msgspec_ceiling.py",
        variant="together",
        works=frozenset({"events"}),
        promises="Nothing is sent: one process encodes while the other decodes. A ceiling.",
    ),
    Contender(
        key="trio",
        name="trio SocketStream",
        peer="trio_streams.py",
        works=_ALL,
        in_crowd=True,
        promises="Order, back-pressure. No limits, no time-outs, no reconnect. JSON by msgspec.",
    ),
    Contender(
        key="asyncio",
        name="asyncio streams",
        peer="asyncio_streams.py",
        works=_ALL,
        in_crowd=True,
        promises="Order, back-pressure, a limit on a line. No time-outs, no reconnect. JSON by msgspec.",
    ),
    Contender(
        key="uvloop",
        name="asyncio streams, uvloop",
        peer="asyncio_streams.py",
        variant="uvloop",
        works=_ALL,
        in_crowd=True,
        needs={"uvloop": "uvloop"},
        promises="The same.",
    ),
    Contender(
        key="multiprocessing",
        name="multiprocessing.connection",
        peer="multiprocessing_connection.py",
        works=_ALL - {"idle"},
        cannot={"idle": _THREAD_EACH},
        promises="Order; blocks. No limits, no reconnect; whoever connects can run code. Pickle, not JSON.",
    ),
    Contender(
        key="zmq",
        name="pyzmq",
        peer="zmq_peer.py",
        works=_ALL - {"idle"},
        cannot={"idle": _NO_GREETING},
        needs={"zmq": "pyzmq"},
        promises="Order, reconnect, back-pressure except to subscribers, who miss messages. Requests matched by the "
        "program. I/O in a thread of C++. JSON by msgspec.",
    ),
    Contender(
        key="nng",
        name="pynng",
        peer="nng_peer.py",
        works=_ALL - {"idle"},
        cannot={"idle": _NO_GREETING},
        needs={"pynng": "pynng"},
        promises="Order, reconnect, requests matched and asked again, back-pressure except to subscribers, who miss "
        "messages. I/O in threads of C. JSON by msgspec.",
    ),
    Contender(
        key="websockets",
        name="websockets (trio)",
        peer="websockets_peer.py",
        works=_ALL - {"idle"},
        cannot={"idle": _NO_GREETING},
        needs={"websockets": "websockets"},
        at_most={"events": 20_000},
        promises="Order, back-pressure, pings, masked frames. Requests matched by the program. JSON by msgspec.",
    ),
    Contender(
        key="pyro5",
        name="Pyro5",
        peer="pyro5_peer.py",
        works=frozenset({"request", "requests", "events", "large"}),
        cannot={"echo": _NO_CALL_BACK, "broadcast": _NO_CALL_BACK, "idle": _THREAD_EACH},
        needs={"Pyro5": "Pyro5"},
        at_most={"events": 5_000},
        promises="Methods of remote objects, a thread and a connection for each caller; one-way calls may change "
        "places. Its own JSON.",
    ),
    Contender(
        key="pyro5-batch",
        name="Pyro5, a hundred calls a message",
        peer="pyro5_peer.py",
        variant="batch",
        works=frozenset({"events"}),
        needs={"Pyro5": "Pyro5"},
        promises="The same, in order.",
    ),
    Contender(
        key="rpyc",
        name="RPyC",
        peer="rpyc_peer.py",
        works=frozenset({"request", "requests", "events"}),
        cannot={
            "echo": "a call back is answered before anything else goes on",
            "large": "it copies what is left after every 64 KB it writes: 16 s for 64 MB",
            "broadcast": "a call back is answered before anything else goes on",
            "idle": _THREAD_EACH,
        },
        needs={"rpyc": "rpyc"},
        at_most={"events": 10_000},
        promises="Methods of remote objects, every call answered, matched. JSON by msgspec, inside its own brine.",
    ),
    Contender(
        key="grpc",
        name="grpc.aio",
        peer="grpc_peer.py",
        works=_ALL - {"broadcast", "idle"},
        cannot={"broadcast": "it has no broadcast", "idle": _NO_GREETING},
        needs={"grpc": "grpcio"},
        at_most={"requests": 4_000, "echo": 10_000, "events": 10_000},
        promises="Order in a stream, back-pressure, requests matched, timed and cancelled, keep-alive, reconnect. "
        "JSON by msgspec, not protobuf.",
    ),
    Contender(
        key="grpc-uvloop",
        name="grpc.aio, uvloop",
        peer="grpc_peer.py",
        variant="uvloop",
        works=frozenset({"request", "requests"}),
        needs={"grpc": "grpcio", "uvloop": "uvloop"},
        at_most={"requests": 4_000},
        promises="The same.",
    ),
)
