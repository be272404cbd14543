"""The contract of the peers, and what every Python peer does alike.

**A peer** is one file, run as two processes that the harness starts and watches::

    python NAME.py serve WORKLOAD ADDRESS PARAMS      the server
    python NAME.py drive WORKLOAD ADDRESS PARAMS      the driver, which measures

``ADDRESS`` is one of those below; the driver is given what the server said. ``PARAMS`` is JSON, the fields of `Params`;
both sides get the same.

=====================  ========================================================================================
``unix:/path``         a Unix socket
``tcp:127.0.0.1:0``    TCP, with ``TCP_NODELAY``
``tls:127.0.0.1:0``    TLS over that. The client verifies the server by what is in the working directory: ``ca.pem``,
                       ``server.pem`` and ``server-key.pem`` (`server_context`, `client_context`)
``udp:127.0.0.1:0``    datagrams; a client is bound to a port of its own, and connected if its library can do that.
                       Nothing is sent twice: who loses a datagram gets no figures
``mtls:127.0.0.1:0``   pyipc alone: as ``tls:``, and the server verifies the client by ``client.pem`` and
                       ``client-key.pem``
``fd:/path``           pyipc alone: as ``unix:``, on a listening socket that the server has already
``memory:name``        pyipc alone: both ends in the process of the driver, while that of the server stands by
=====================  ========================================================================================

**What they say**, a line each on stdout, and nothing else there:

====================  ==========================================================================================
server                ``ready ADDRESS`` once it listens, with the real port (`ready`)
driver                ``begin`` right before the measured part (`begin`). It then waits for one byte on stdin,
                      so that the harness can note both processes' CPU time and memory first. Connecting and
                      warming up come before
driver                one JSON object of figures (`report_laps`, `report_rate`), and then holds still with all
                      its connections open, so that the harness can look at both processes again
====================  ==========================================================================================

**Ending.** A process ends when its stdin closes, and by itself after `LIFETIME` seconds. Closing down in good order is
not measured and not needed. A peer that meets anything unexpected (a wrong answer, a wrong count) ends with an
exception; its last line stands in the table as the reason.

**Small work** carries ``{"type":"tick","data":{"n":123,"s":"abcdefghijklmnop","f":1.25}}``, 64 bytes; other sizes have
a longer ``s`` (`payload`). Both sides encode and decode with msgspec (`encode`, `decode`), or with the serializer that
is the library's point; a receiver looks the event name up in a dict and calls what it finds there.

=============  =================================================================================================
``request``    ``count`` times: send the payload, wait for it to come back. One in flight. `report_laps`.
               Warm up with ``count // 10 + 100`` before `begin`
``requests``   ``count`` requests, ``tasks`` of them outstanding, by so many tasks or threads, each of which gets
               its own answer: ask with ``payload(size, 100 + task)`` and compare. `report_rate`. Connect before
               `begin`, but neither this nor what follows is warmed up
``echo``       ``count`` events, answered by events; at most ``tasks`` outstanding, so: send ``tasks``, then one for
               each that comes back. `report_rate`. Over UDP ``tasks`` is so small that nothing is lost on loopback
``events``     ``count`` events of ``size`` bytes one way, each through a handler. The clock stops when the receiver,
               having handled ``count``, has said so. No event may be lost. `report_rate`
``large``      ``count`` times: one event of ``size`` bytes (64 MB), then wait until the receiver has decoded and
               handled it and said so. `report_laps`
``items``      pyipc alone: the server answers one question with ``count`` answers of ``size`` bytes, by a stream or by
               events, or ``count`` questions with one each. `report_rate`
``bytes``      as ``large``, with ``size`` bytes that are no JSON (`blob`), which the receiver has as ``bytes`` at the
               end: pyipc alone, as an attachment or as base64 in the data, and as a floor a bare copy
``broadcast``  the server sends ``count`` events to each of ``clients`` clients, which one driver holds. `report_rate`
               with ``count * clients``. A server of frames that end in `DELIMITER` is driven by ``crowd.py``: it
               answers the event ``here`` (each client sends one at first) with an event ``here`` to that client,
               and the event ``go`` (which one client sends) with the broadcast. Others bring their own driver,
               which compares the bytes of what arrives and decodes none of it
``topic``      the same with a topic: ``crowd.py`` subscribes each of the clients, and the server publishes. The
               variant ``broadcast`` broadcasts instead, to be compared with
``idle``       ``crowd.py`` opens ``clients`` connections with plain sockets, says nothing, and waits until the
               server's process holds so many more descriptors; where so many are not allowed it fails. The
               server accepts and keeps them, as it would those of real clients
=============  =================================================================================================

**A program and its workers.** Those who start processes of their own are asked for what follows. But for ``handover``
there is no server then: the driver starts its workers, after `arguments` and before `begin`, except for ``start``. What
the workers use is counted as the server's. They end with whoever started them, and are told what to do in any way that
is usual there; `worker_arguments` reads the command line of one that runs the same program.

==================  ============================================================================================
``worker-request``  as ``request``, to one worker
``worker-events``   as ``events``, to one worker, which says when it has handled ``count``
``primary-events``  the same, from one worker, which is told to begin
``start``           from nothing until ``workers`` workers have all said that they can work. `report_laps`, of one
``jobs``            ``count`` jobs, each the call of `work` with a payload, done by ``workers`` workers; every
                    result is compared. Where something has to be kept waiting, ``tasks`` jobs are outstanding.
                    `report_rate`
``handover``        the server has ``workers`` workers, which serve one address. ``callers.py`` makes ``count``
                    connections to it, ``tasks`` at a time: each sends a payload and `DELIMITER`, waits until it has
                    come back, and closes
==================  ============================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import statistics
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

if TYPE_CHECKING:
    import ssl

__all__ = [
    "DELIMITER",
    "EVENT",
    "LIFETIME",
    "Arguments",
    "Envelope",
    "Frames",
    "Params",
    "arguments",
    "begin",
    "blob",
    "client_context",
    "connect",
    "decode",
    "encode",
    "host",
    "listen",
    "payload",
    "ready",
    "report_laps",
    "report_rate",
    "server_context",
    "target",
    "warm_up",
    "work",
    "worker_arguments",
]

#: Seconds after which a forgotten process ends.
LIFETIME = 120
EVENT = "tick"
DELIMITER = b"\f"
_LETTERS = "abcdefghijklmnop"


# --- what is asked for ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """How much work.

    Args:
        count: Messages in the measured part.
        size: Bytes of the JSON of one message.
        tasks: Messages that are outstanding at a time.
        clients: Connections.
        workers: Processes of a program that starts some.
        variant: Which form of the peer, where it has several.
        server_pid: The server's process; only ``crowd.py`` wants to know.
    """

    count: int = 1
    size: int = 64
    tasks: int = 100
    clients: int = 1_000
    workers: int = 1
    variant: str = ""
    server_pid: int = 0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line."""

    role: str
    workload: str
    address: str
    params: Params


def arguments() -> Arguments:
    """The command line of this process, which from now on ends with whoever started it."""
    asked = worker_arguments()
    signal.alarm(LIFETIME)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS tells of no limit, and yet has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.role == "serve":
        _end_with_stdin()
    return asked


def worker_arguments() -> Arguments:
    """The same for a worker, whose end others see to."""
    role, workload, address, params = sys.argv[1:5]
    return Arguments(role, workload, address, Params(**json.loads(params)))


def _end_with_stdin() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


# --- what is said --------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def ready(address: str, listener: socket.socket | None = None) -> None:
    """Say that this server listens.

    Args:
        address: Where, as it was asked for.
        listener: Tells the port that was really taken; without it ``address`` has to have it.
    """
    if listener is not None and listener.family == socket.AF_INET:
        scheme, _, _ = address.partition(":")
        host, port = listener.getsockname()
        address = f"{scheme}:{host}:{port}"
    _say(f"ready {address}")


def begin() -> None:
    """Say that the measured part begins, and wait until the harness has looked at both processes."""
    _say("begin")
    if not os.read(0, 1):
        os._exit(0)
    _end_with_stdin()


def report_laps(laps: list[float]) -> NoReturn:
    """Report how long each of many repetitions took, in seconds; then hold still. Does not return."""
    laps.sort()
    mean = statistics.fmean(laps)
    _report(
        {
            "count": len(laps),
            "mean_us": mean * 1e6,
            "p50_us": laps[len(laps) // 2] * 1e6,
            "p99_us": laps[len(laps) * 99 // 100] * 1e6,
            "per_second": 1 / mean,
        }
    )


def report_rate(count: int, seconds: float) -> NoReturn:
    """Report that ``count`` messages took so many seconds; then hold still. Does not return."""
    _report({"count": count, "per_second": count / seconds})


def _report(figures: dict[str, float]) -> NoReturn:
    _say(json.dumps(figures))
    while True:
        signal.pause()


# --- payload -------------------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, omit_defaults=True, gc=False):
    """One message. ``call`` is for peers that have to match answers to requests themselves."""

    type: str
    data: Any = None
    call: int = 0


_encode = msgspec.json.Encoder().encode
#: An `Envelope` from its JSON, without the delimiter.
decode = msgspec.json.Decoder(Envelope).decode


def encode(event: str, data: object, call: int = 0) -> bytes:
    """The JSON of a message, without the delimiter."""
    return _encode(Envelope(event, data, call))


def payload(size: int = 64, n: int = 123) -> dict[str, Any]:
    """The data of a `EVENT` whose JSON takes ``size`` bytes, for ``n`` of three digits."""
    length = size - 64 + len(_LETTERS)
    return {"n": n, "s": (_LETTERS * (length // len(_LETTERS) + 1))[:length], "f": 1.25}


def work(data: Any) -> Any:
    """A job: all that it takes is to be done elsewhere."""
    return data


def warm_up(count: int) -> int:
    """How many requests come before the measured ones."""
    return count // 10 + 100


def blob(size: int) -> bytes:
    """So many bytes that are no text."""
    return os.urandom(size)


class Frames:
    """Cuts a stream into what stands between the delimiters."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, chunk: bytes) -> list[bytes]:
        """The frames that ``chunk`` completes."""
        *frames, self._rest = (self._rest + chunk).split(DELIMITER)
        return frames


# --- sockets -------------------------------------------------------------------------------------------------------


def target(address: str) -> str | tuple[str, int]:
    """What a socket is bound or connected to: a path, or host and port."""
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "fd"):
        return rest
    host, _, port = rest.rpartition(":")
    return host, int(port)


def host(address: str) -> str:
    """Whom the certificate at a network address is to be for."""
    return address.split(":")[1]


def _socket(address: str) -> socket.socket:
    if isinstance(target(address), str):
        return socket.socket(socket.AF_UNIX)
    if address.startswith("udp:"):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock = socket.socket(socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listen(address: str, backlog: int = 4_096) -> socket.socket:
    """A listening socket; what it accepts has ``TCP_NODELAY`` as it has. Of datagrams, one that is bound."""
    sock = _socket(address)
    sock.bind(target(address))
    if sock.type == socket.SOCK_STREAM:
        sock.listen(backlog)
    return sock


def connect(address: str) -> socket.socket:
    """A connected, blocking socket."""
    sock = _socket(address)
    sock.connect(target(address))
    return sock


def server_context(address: str) -> ssl.SSLContext | None:
    """What a server wraps connections with; ``None`` for an address that is not TLS."""
    if not address.startswith("tls:"):
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("server.pem", "server-key.pem")
    return context


def client_context(address: str) -> ssl.SSLContext | None:
    """What a client wraps its connection with, which verifies the server; ``None`` for an address that is not TLS."""
    if not address.startswith("tls:"):
        return None
    import ssl

    return ssl.create_default_context(cafile="ca.pem")
