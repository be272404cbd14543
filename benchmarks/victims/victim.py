"""The contract of the victims, and what every Python one does alike.

**A victim** is one file, a small program as the documentation of its library would have one write it. It is started as
one process for each role that a scenario needs::

    python NAME.py ROLE PLACE PARAMS

``PLACE`` is the path of a Unix socket. ``PARAMS`` is JSON, the fields of `Params`. What a process says is a JSON object
a line on stdout; what it is asked to do, a line each on stdin.

=============  =====================================================================================================
``serve``      says ``{"ready": true}`` once it listens, and answers each job, an object with a number ``n``, with
               `handle`, after the seconds that `begin` says. What it learns of a connection or a job that went wrong
               goes to the journal, by `note`. One exception is no reason to end: where the library does not see to
               that itself, the program catches it. The variant ``told`` takes jobs that nobody waits for, where that
               is another kind of socket
``ask``        says ``{"ready": true}``. For each line, a job, it asks the server, and says its answer, or
               ``{"error": why}``. It connects with the first job, and after an error again with the next one, unless
               its library comes back by itself
``tell``       likewise, but waits for no answer, and says ``{}`` when the library has taken the job
``publish``    listens, says ``{"ready": true}``, waits for ``clients`` subscribers, says ``{"full": true}``, waits for
               a line, publishes ``count`` messages of ``size`` bytes, ``rate`` of them a second, and says
               ``{"sent": 7}``; for each line after that ``{"told": {what: times}}``, what it heard of subscribers
``subscribe``  says ``{"ready": true}`` when it is connected, and for each line how many messages it has: ``{"got": 7}``
=============  =====================================================================================================

SIGINT is Ctrl-C: whoever has something to clean up does so. A process ends when its stdin closes, and by itself after
`LIFETIME` seconds. It may have no more than `ADDRESS_SPACE` bytes of addresses, so that a claim of 4 GiB is no reason
to fail, and whoever really takes as much is ended by the harness before.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = [
    "ADDRESS_SPACE",
    "LIFETIME",
    "Arguments",
    "Params",
    "arguments",
    "ask_lines",
    "ask_lines_async",
    "begin",
    "error_name",
    "handle",
    "note",
    "paced",
    "payload",
    "say",
]

#: Seconds after which a forgotten process ends.
LIFETIME = 90
ADDRESS_SPACE = 16 * 1024**3
#: Seconds that a long job takes, in which its worker can be killed.
LONG = 2.0
#: Seconds between two attempts to connect.
RETRY = 0.05
#: Where `note` writes, in the working directory.
JOURNAL = "journal"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """What a role is told.

    Args:
        name: What this server calls itself in its answers.
        variant: Which form of the role, where there are several.
        work: Seconds that each job takes.
        long_job: The number of one that takes `LONG` seconds.
        patience: Seconds that an answer is waited for.
        clients: Subscribers to wait for.
        count: Messages to publish.
        size: Bytes of each.
        rate: How many of them a second.
    """

    name: str = "first"
    variant: str = ""
    work: float = 0.0
    long_job: int = -1
    patience: float = 3.0
    clients: int = 0
    count: int = 0
    size: int = 0
    rate: int = 1


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line."""

    role: str
    place: str
    params: Params


def arguments() -> Arguments:
    """The command line of this process, which from now on has bounds."""
    role, place, params = sys.argv[1:4]
    signal.alarm(LIFETIME)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been started with SIGINT ignored
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS tells of no limit, and yet has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if role == "serve":
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    return Arguments(role, place, Params(**json.loads(params)))


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


# --- what is said --------------------------------------------------------------------------------------------------


def say(**said: object) -> None:
    """A line for the harness."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def note(kind: str, what: object) -> None:
    """A line in the journal: ``begun`` or ``handled`` and a number, or ``noticed`` and what became of a peer."""
    with open(JOURNAL, "a", encoding="utf-8") as journal:
        journal.write(json.dumps([kind, what]) + "\n")


def error_name(error: BaseException) -> str:
    """What an error is called, with its code where it has one that tells more."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} ({code})" if isinstance(code, str) else type(error).__name__


# --- jobs ----------------------------------------------------------------------------------------------------------


def begin(params: Params, job: Any) -> float:
    """Take a job down as begun, and say how many seconds it takes."""
    note("begun", job["n"])
    return LONG if job["n"] == params.long_job else params.work


def handle(params: Params, job: Any) -> dict[str, Any]:
    """Take a job down as handled, and say who has done it."""
    note("handled", job["n"])
    return {"by": params.name, "n": job["n"]}


def ask_lines(
    params: Params, connect: Callable[[], Any], call: Callable[[Any, Any], Any], *, comes_back: bool = False
) -> None:
    """The roles ``ask`` and ``tell`` of a library that blocks.

    Args:
        params: Has the patience, with which a server is waited for as well.
        connect: Makes a connection, which has a ``close``.
        call: Asks over a connection, and returns the answer or ``None``.
        comes_back: Whether a connection is kept after an error.
    """
    connection = None
    say(ready=True)
    for line in _lines():
        try:
            if connection is None:
                connection = _connect_patiently(connect, params.patience)
            said = call(connection, json.loads(line)) or {}
        except Exception as error:
            said = {"error": error_name(error)}
            if connection is not None and not comes_back:
                with contextlib.suppress(Exception):
                    connection.close()
                connection = None
        say(**said)


def _connect_patiently(connect: Callable[[], Any], patience: float) -> Any:
    deadline = time.monotonic() + patience
    while True:
        try:
            return connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY)


def _lines() -> Iterator[str]:
    while line := sys.stdin.readline():
        yield line


async def ask_lines_async(
    params: Params,
    read_line: Callable[[], Awaitable[str]],
    sleep: Callable[[float], Awaitable[object]],
    connect: Callable[[contextlib.AsyncExitStack], Awaitable[Any]],
    call: Callable[[Any, Any], Awaitable[Any]],
    *,
    comes_back: bool = False,
) -> None:
    """The same for one that does not block; what a connection has to be left by goes onto the stack."""
    async with contextlib.AsyncExitStack() as stack:
        connection = None
        say(ready=True)
        while line := await read_line():
            try:
                if connection is None:
                    connection = await _connect_patiently_async(connect, stack, sleep, params.patience)
                said = await call(connection, json.loads(line)) or {}
            except Exception as error:
                said = {"error": error_name(error)}
                if not comes_back:
                    with contextlib.suppress(Exception):
                        await stack.aclose()
                    connection = None
            say(**said)


async def _connect_patiently_async(
    connect: Callable[[contextlib.AsyncExitStack], Awaitable[Any]],
    stack: contextlib.AsyncExitStack,
    sleep: Callable[[float], Awaitable[object]],
    patience: float,
) -> Any:
    deadline = time.monotonic() + patience
    while True:
        try:
            return await connect(stack)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await sleep(RETRY)


# --- publishing ----------------------------------------------------------------------------------------------------


def payload(params: Params) -> dict[str, str]:
    """What is published, which no compression makes small."""
    return {"s": base64.b64encode(os.urandom(params.size))[: params.size - 10].decode()}


def paced(params: Params) -> Iterator[float]:
    """Before each message the seconds to wait, mostly none: as many messages as there are to be, at their rate."""
    began = time.monotonic()
    for number in range(params.count):
        ahead = number / params.rate - (time.monotonic() - began)
        yield ahead if ahead > 0.01 else 0.0
