"""One conversation that is watched: joined by `relay`, cut by `cutter`, put into the backlog."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from pyipc.cli.showing.figures import duration, size
from pyipc.cli.showing.journal import peer_record, peer_text
from pyipc.cli.showing.text import now
from pyipc.cli.tapping.cutter import Agreement, Budget, Cutter, Piece
from pyipc.cli.tapping.relay import Direction, relay
from pyipc.cli.tapping.transcript import Entry, Moment, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.cli.tapping.backlog import Backlog
    from pyipc.transports import Link

__all__ = ["Conversation", "Reading"]

#: Made when something went past, so that reading it is left to whoever shows it.
Reading: TypeAlias = "Callable[[], Entry]"

#: What waiting takes beside the bytes of a frame.
_OVERHEAD: Final = 512


class Conversation:
    """Two links, and what goes past between them.

    Args:
        number: What it is called.
        backlog: Where everything goes that is to be shown.
        delimiter: Ends each frame; ``None`` for bytes as they come.
        max_kept_size: Bytes of each frame that are kept to be shown.
        budget: Bytes that all conversations together may keep of frames that have not ended.
        full: Whether data is shown in full length.
        lossless: Whether the conversation waits while the backlog is full; else frames are skipped.
    """

    def __init__(
        self,
        number: int,
        backlog: Backlog[Reading],
        *,
        delimiter: bytes | None,
        max_kept_size: int,
        budget: Budget,
        full: bool,
        lossless: bool,
    ) -> None:
        self._backlog = backlog
        self._lossless = lossless
        self._max_kept_size = max_kept_size
        self._transcript = Transcript(number, full=full)
        agreement = Agreement()
        self._cutters = (
            {each: Cutter(delimiter, max_kept_size, budget, agreement) for each in Direction}
            if delimiter is not None
            else {}
        )
        self._sizes = dict.fromkeys(Direction, 0)

    async def run(self, client: Link, server: Link) -> None:
        """Join the two until they have finished.

        Cancellation: closes both.
        """
        began = trio.current_time()
        await self._happened("connected", f": {peer_text(client.peer)}", peer=peer_record(client.peer))
        try:
            broken = await relay(client, server, self._watch)
        finally:
            for cutter in self._cutters.values():
                cutter.drop()
        seconds = trio.current_time() - began
        there, back = (self._sizes[each] for each in (Direction.TO_SERVER, Direction.TO_CLIENT))
        text = f" after {duration(seconds * 1e9)}: {size(there)} ->, {size(back)} <-"
        facts: dict[str, object] = {"seconds": seconds, "size_to_server": there, "size_to_client": back}
        if broken is not None:
            text += f"; the {broken.side} is lost: {broken.error}"
            facts |= {"lost": broken.side, "message": str(broken.error)}
        await self._happened("closed", text, **facts)

    async def _watch(self, direction: Direction, chunk: bytes) -> None:
        """See what was just passed on."""
        moment = _moment()
        self._sizes[direction] += len(chunk)
        if not chunk:
            await self._end(moment, direction)
        elif (cutter := self._cutters.get(direction)) is not None:
            for piece in cutter.feed(chunk):
                await self._show(functools.partial(self._transcript.frame, moment, direction, piece), len(piece.data))
        else:
            kept = chunk[: self._max_kept_size]
            reading = functools.partial(self._transcript.chunk, moment, direction, Piece(kept, len(chunk)))
            await self._show(reading, len(kept))

    async def _end(self, moment: Moment, direction: Direction) -> None:
        cutter = self._cutters.get(direction)
        if cutter is not None and (piece := cutter.rest()) is not None:
            await self._show(functools.partial(self._transcript.frame, moment, direction, piece), len(piece.data))
        await self._happened("end", f": the {direction.source} has finished sending", side=direction.source)

    async def _happened(self, kind: str, text: str, **facts: object) -> None:
        await self._show(functools.partial(self._transcript.happened, _moment(), kind, text, **facts), 0)

    async def _show(self, reading: Reading, kept: int) -> None:
        if self._lossless:
            await self._backlog.put(reading, kept + _OVERHEAD)
        else:
            self._backlog.offer(reading, kept + _OVERHEAD)


def _moment() -> Moment:
    return Moment(now(), trio.current_time())
