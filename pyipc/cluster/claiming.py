"""The addresses that workers listen on: their primary has taken them, and shares out who comes.

An address is taken when the first worker asks for it, and kept while one of its processes listens there or is about
to be started again: so whoever comes while a worker restarts waits, and is not refused.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final

import trio

import pyipc
from pyipc.cluster.handing import Handing
from pyipc.cluster.policies import Policy, ReusePort, RoundRobin
from pyipc.cluster.process import ProcessState
from pyipc.cluster.reuse_port import Reservation, reserve
from pyipc.transports import transport_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from pyipc.cluster.handing import HandingStatistics
    from pyipc.cluster.handle import WorkerHandle
    from pyipc.cluster.policies import Shared
    from pyipc.cluster.process import WorkerProcess
    from pyipc.transports import Claim

__all__ = ["CODES", "Claims", "claim_key"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")

# Seconds that an address is kept when nobody listens there any more: whoever is starting may ask for it.
_RELEASE_DELAY: Final = 2.0
# Seconds that connections which were accepted last may take until a worker has them.
_LAST_HANDOVERS: Final = 2.0

#: What a worker is told by a code when its address cannot be taken.
CODES: Final[Mapping[str, type[pyipc.IPCError]]] = {
    "address-in-use": pyipc.AddressInUse,
    "unsafe-path": pyipc.UnsafePath,
    "listen": pyipc.ListenError,
    "address": pyipc.AddressError,
}


@dataclasses.dataclass(eq=False, slots=True)
class _Address:
    """An address that is taken.

    Attributes:
        key: How workers and primary call it.
        options: How it was asked for.
        claim: The claim.
        handing: Who shares out the connections; ``None`` if workers accept by themselves.
        users: The processes that listen there, or are to once they are ready.
        shared: What the first process that listens there wants all of them to know.
        closed: Those of them that listen there no more. One that fails closes its listeners before it ends, and is
            awaited like others.
        awaited: Workers that listened there whose process has ended, and that are started again.
        scope: Ends the sharing out.
    """

    key: str
    options: Mapping[str, object]
    claim: Claim
    handing: Handing | None
    users: set[WorkerProcess] = dataclasses.field(default_factory=set)
    shared: object = None
    closed: set[WorkerProcess] = dataclasses.field(default_factory=set)
    awaited: set[WorkerHandle] = dataclasses.field(default_factory=set)
    scope: trio.CancelScope = dataclasses.field(default_factory=trio.CancelScope)

    @property
    def is_idle(self) -> bool:
        return self.users <= self.closed and not self.awaited


class Claims:
    """Takes addresses for workers.

    Args:
        policy: Which worker gets which connection.
        max_handovers: How many connections of an address a worker may be given before it has taken the first of them.
    """

    def __init__(self, policy: Policy | Shared | ReusePort, max_handovers: int) -> None:
        self._max_handovers = max_handovers
        self.policy: Policy | Shared | ReusePort = policy
        self._addresses: dict[str, _Address] = {}
        self._turn = trio.Lock()
        self._nursery: trio.Nursery | None = None

    def statistics(self) -> dict[str, HandingStatistics]:
        """What became of the connections, by address; of those that the primary accepts."""
        return {
            str(each.claim.address): each.handing.statistics()
            for each in self._addresses.values()
            if each.handing is not None
        }

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Share out connections.

        Cancellation: all addresses are released.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for each in list(self._addresses.values()):
                    await self._release(each)

    # --- what workers ask for ---

    async def listen(self, process: WorkerProcess, data: Any) -> dict[str, object]:
        """A process is to listen on an address.

        Args:
            process: Which.
            data: What it said: ``address``, ``options`` and, for a port of the system's choice, which one ``turn``; and
                what it would have others know that listen there, ``shared``.

        Returns:
            What it is told: ``claim`` (how the address is called), ``address`` (where it is), ``sockets`` (how many
            listening sockets it is given to accept on by itself; 0 if connections are handed to it) and ``shared``
            (what the first to listen there has said).

        Raises:
            Refused: The address cannot be taken; the code is one of `CODES`.

        Cancellation: what was taken for it is released after a while.
        """
        try:
            address, options = pyipc.parse_address(data["address"]), dict(data["options"])
            # A port of the system's choice is the same for the first servers of all workers, and for their second ones.
            key = claim_key(address, int(data["turn"]))
            async with self._turn:
                taken = self._addresses.get(key) or await self._take(key, address, options)
        except (pyipc.IPCError, TypeError, ValueError) as error:
            raise pyipc.Refused(_code_of(error), str(error)) from error
        if taken.options != options:
            raise pyipc.Refused(
                "listen",
                f"{address} is taken with other options by another worker ({taken.options}, and not {options}); use "
                "the same in all workers. A reload cannot change them, as the old workers listen there till its end: "
                "start the cluster again",
            )
        taken.users.add(process)
        taken.closed.discard(process)
        taken.awaited.discard(process.handle)
        if taken.shared is None:
            taken.shared = data.get("shared")
        count = 0
        if taken.handing is None:
            count = len(taken.claim.sockets)
            assert self._nursery is not None
            self._nursery.start_soon(self._send_listening, taken, process)
        elif process.is_ready:
            self._begin(taken, process)
        return {"claim": key, "address": str(taken.claim.address), "sockets": count, "shared": taken.shared}

    async def _take(self, key: str, address: pyipc.Address, options: Mapping[str, object]) -> _Address:
        assert self._nursery is not None
        policy = self.policy
        if isinstance(policy, ReusePort) and address.scheme in ("tcp", "tls"):
            claim: Claim = await reserve(address)
        else:
            claim = await transport_for(address.scheme).claim(address, options)
        handing = None
        if isinstance(policy, Policy) or not claim.sockets:
            # What workers cannot accept on by themselves, as pipes, is handed over in any case.
            chooser = policy if isinstance(policy, Policy) else RoundRobin()
            handing = Handing(key, claim, chooser, address=str(claim.address), max_handovers=self._max_handovers)
        taken = self._addresses[key] = _Address(key, options, claim, handing)
        logger.info("listening on %s for workers", claim.address)
        if handing is not None:
            self._nursery.start_soon(self._hand_out, handing, taken.scope)
        return taken

    async def _hand_out(self, handing: Handing, scope: trio.CancelScope) -> None:
        with scope:
            await handing.run()

    def _begin(self, taken: _Address, process: WorkerProcess) -> None:
        """A process that is ready gets its share from now on."""
        if taken.handing is not None and process.candidate is not None:
            taken.handing.join(process.candidate)

    async def _send_listening(self, taken: _Address, process: WorkerProcess) -> None:
        """Give a process sockets to accept on by itself."""
        own: Sequence[socket.socket] = ()
        try:
            if isinstance(taken.claim, Reservation):
                own = taken.claim.listening_sockets()
            for sock in own or taken.claim.sockets:
                await process.courier.send({"listening": taken.key}, sock)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # its end is on its way
        except OSError as error:
            logger.error("worker %r gets no socket for %s: %s", process.handle.id, taken.claim.address, error)
        finally:
            for sock in own:
                sock.close()

    def close(self, process: WorkerProcess, key: str) -> None:
        """A process listens on an address no more, though it goes on."""
        taken = self._addresses.get(key)
        if taken is not None:
            self._leave(taken, process)
            # One that is to leave has its listeners closed by that: its next process listens there again.
            if process in taken.users and process.state is not ProcessState.DRAINING:
                taken.closed.add(process)
                self._look_at(taken)

    # --- what becomes of them ---

    def process_changed(self, process: WorkerProcess) -> None:
        """The state of a process has changed."""
        for taken in list(self._addresses.values()):
            match process.state:
                case ProcessState.READY if process in taken.users - taken.closed:
                    self._begin(taken, process)
                case ProcessState.READY:
                    taken.awaited.discard(process.handle)
                    self._look_at(taken)
                case ProcessState.DRAINING:
                    self._leave(taken, process)
                case ProcessState.GONE:
                    self._leave(taken, process)
                    if process in taken.users:
                        taken.users.discard(process)
                        taken.closed.discard(process)
                        if process.handle.current is process:
                            taken.awaited.add(process.handle)
                    if process.handle.gone.is_set():
                        taken.awaited.discard(process.handle)
                    self._look_at(taken)

    def _leave(self, taken: _Address, process: WorkerProcess) -> None:
        if taken.handing is not None and process.candidate is not None:
            taken.handing.leave(process.candidate)

    def _look_at(self, taken: _Address) -> None:
        """Release an address that nobody needs, after a while."""
        if taken.is_idle and self._nursery is not None:
            self._nursery.start_soon(self._release_later, taken)

    async def _release_later(self, taken: _Address) -> None:
        await trio.sleep(_RELEASE_DELAY)
        async with self._turn:
            if taken.is_idle:
                await self._release(taken)

    async def _release(self, taken: _Address) -> None:
        if self._addresses.get(taken.key) is taken:
            del self._addresses[taken.key]
        taken.scope.cancel()
        await taken.claim.aclose()
        if taken.handing is not None:
            taken.handing.close()

    async def retire(self) -> None:
        """Take no newcomers any more; hand out those who have come, and release all addresses.

        Workers must not have been told to leave yet.

        Cancellation: the addresses are released all the same.
        """
        try:
            with trio.move_on_after(_LAST_HANDOVERS):
                addresses = list(self._addresses.values())
                for taken in addresses:
                    if taken.handing is not None:
                        taken.handing.add(taken.claim.retire())
                for taken in addresses:
                    if taken.handing is not None:
                        await taken.handing.wait_handed()
        finally:
            with trio.CancelScope(shield=True):
                for taken in list(self._addresses.values()):
                    await self._release(taken)


def claim_key(address: pyipc.Address, turn: int) -> str:
    """How workers and primary call an address.

    Args:
        address: The address.
        turn: Which server of the worker it is for, where the system chooses the port.
    """
    return f"{address}#{turn}" if address.scheme in ("tcp", "tls") and not address.port else str(address)


def _code_of(error: Exception) -> str:
    for code, kind in CODES.items():
        if isinstance(error, kind):
            return code
    return "listen"
