"""Who is measured: what each can do, and what it promises, which stands beside the figures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from harness.clusters import CLUSTERS
from harness.contender import NODE_IPC, Contender, NotMeasured
from harness.transports import FD, MEMORY, MUTUAL_TLS, TCP, TLS, UDP, UNIX, Transport

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONTENDERS", "by_key", "other_pyipc"]

PYIPC = "pyipc"


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
_STREAMS = frozenset({UNIX, TCP, TLS})


def _pyipc_over(transport: Transport, promises: str, **different: Any) -> Contender:
    """pyipc in tables that compare its transports."""
    return dataclasses.replace(
        Contender(
            key=f"{PYIPC}-{transport.name}",
            name=f"{PYIPC} over {transport.title}",
            peer="pyipc_peer.py",
            works=frozenset({"request", "events"}),
            transports=frozenset(),
            alone_over=transport,
            promises=promises,
        ),
        **different,
    )


def _pyipc_answers(way: str, name: str, promises: str) -> Contender:
    """One of the ways in which pyipc brings many answers to whoever wants them."""
    return Contender(
        key=f"{PYIPC}-{way}",
        name=f"{PYIPC}, {name}",
        peer="pyipc_peer.py",
        variant=way,
        works=frozenset({"items"}),
        transports=_STREAMS,
        promises=promises,
    )


CONTENDERS = (
    Contender(
        key=PYIPC,
        name="pyipc",
        peer="pyipc_peer.py",
        works=_ALL | {"topic"},
        transports=_STREAMS | {UDP},
        in_crowd=True,
        promises="Order, back-pressure, limits on everything, requests matched, timed and cancelled, heartbeats, "
        "reconnect, the peer's user checked. JSON. Over UDP no order and no back-pressure.",
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
        key="pyipc-attachment",
        name="pyipc, an attachment",
        peer="pyipc_peer.py",
        variant="attachment",
        works=frozenset({"bytes"}),
        transports=_STREAMS,
        promises="Order, back-pressure, limits. Bytes beside the JSON.",
    ),
    Contender(
        key="pyipc-base64",
        name="pyipc, bytes in the data",
        peer="pyipc_peer.py",
        variant="base64",
        works=frozenset({"bytes"}),
        transports=_STREAMS,
        promises="The same. Base64 in the JSON, made and read by msgspec.",
    ),
    _pyipc_answers("stream", "a stream", "Order, an end or an error, no more than there is credit for. JSON."),
    _pyipc_answers("events", "events", "Order, back-pressure of the whole connection; no end. JSON."),
    _pyipc_answers("requests", "a request for each", "Each is asked for after the one before. JSON."),
    Contender(
        key="pyipc-broadcast",
        name="pyipc, broadcast",
        peer="pyipc_peer.py",
        variant="broadcast",
        works=frozenset({"topic"}),
        in_crowd=True,
        promises="The same.",
    ),
    Contender(
        key="pyipc-confirmed",
        name="pyipc, confirmed events",
        peer="pyipc_peer.py",
        variant="confirmed",
        works=frozenset({"request", "requests"}),
        promises="The same, and each is handled once although the connection breaks. No answer but that it was.",
    ),
    Contender(
        key="node-ipc",
        name=f"node-ipc {NODE_IPC}",
        peer="node_ipc.js",
        works=_ALL - {"requests"},
        cannot={"requests": "it has no requests; its echo by events is measured instead"},
        transports=_STREAMS | {UDP},
        at_most={"large": 1},
        in_crowd=True,
        promises="Order, reconnect; neither over UDP. No back-pressure, no limits, no requests: a request is answered "
        "by an event. Its own JSON.",
    ),
    Contender(
        key="bare-sockets",
        name="bare sockets",
        peer="bare_sockets.py",
        works=_ALL - {"requests", "echo"} | {"bytes"},
        cannot={"requests": _ONE_SHAPE, "echo": _ONE_SHAPE},
        transports=_STREAMS,
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
        key="trio-tls",
        name="trio SSLStream",
        peer="trio_streams.py",
        works=_ALL - {"broadcast", "idle"},
        transports=frozenset({TLS}),
        promises="Order, back-pressure. No limits, no time-outs, no reconnect. JSON by msgspec.",
    ),
    Contender(
        key="asyncio",
        name="asyncio streams",
        peer="asyncio_streams.py",
        works=_ALL,
        transports=_STREAMS,
        in_crowd=True,
        promises="Order, back-pressure, a limit on a line. No time-outs, no reconnect. JSON by msgspec.",
    ),
    Contender(
        key="uvloop",
        name="asyncio streams, uvloop",
        peer="asyncio_streams.py",
        variant="uvloop",
        works=_ALL,
        transports=_STREAMS,
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
        transports=_STREAMS,
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
    Contender(
        key="datagrams",
        name="bare sockets, datagrams",
        peer="datagrams.py",
        works=frozenset({"request", "echo"}),
        transports=frozenset({UDP}),
        promises="Nothing; blocks. A floor. JSON by msgspec.",
    ),
    Contender(
        key="trio-datagrams",
        name="bare trio, datagrams",
        peer="trio_datagrams.py",
        works=frozenset({"request", "echo"}),
        transports=frozenset({UDP}),
        promises="Nothing. A floor. JSON by msgspec.",
    ),
    Contender(
        key="asyncio-datagrams",
        name="asyncio datagrams",
        peer="asyncio_datagrams.py",
        works=frozenset({"request", "echo"}),
        transports=frozenset({UDP}),
        promises="Nothing. JSON by msgspec.",
    ),
    Contender(
        key="uvloop-datagrams",
        name="asyncio datagrams, uvloop",
        peer="asyncio_datagrams.py",
        variant="uvloop",
        works=frozenset({"request", "echo"}),
        transports=frozenset({UDP}),
        needs={"uvloop": "uvloop"},
        promises="The same.",
    ),
    _pyipc_over(
        UNIX,
        "Order, back-pressure, limits on everything, requests matched, timed and cancelled, heartbeats, reconnect, the "
        "peer's user checked. JSON.",
    ),
    _pyipc_over(FD, "The same, on a listening socket that was there already."),
    _pyipc_over(MEMORY, "The same, inside one process."),
    _pyipc_over(TCP, "The same, but of the peer only its address is known."),
    _pyipc_over(TLS, "The same, encrypted, the server's certificate verified."),
    _pyipc_over(MUTUAL_TLS, "The same, encrypted, the certificates of both sides verified."),
    _pyipc_over(
        UDP,
        "Limits on everything, requests matched, timed and cancelled. What is lost is lost, and what comes twice or "
        "late comes so.",
        works=frozenset({"request"}),
        cannot={"events": "it may lose events"},
    ),
    *CLUSTERS,
)
