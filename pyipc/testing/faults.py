"""Faults, and what they do to the chunks of one direction.

Pure: chance comes from a seed and nothing here waits, sends or looks at a clock, so the same chunks
and the same seed always give the same misfortune.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import operator
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FaultStatistics", "Faults", "Traffic"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Faults:
    """How one direction of a link misbehaves. The default is not at all.

    Chances are from 0 to 1 for each chunk, where a chunk is what one ``send`` or ``receive`` of the
    wrapped link moves. On a stream its bytes keep their order, and all of them arrive, except where
    the fault says otherwise.

    Attributes:
        seed: All chance comes from it. ``repr`` shows it, so that a run that fails can be repeated.
        delay: Seconds that each chunk waits, or the least and the most. Chunks wait one after the
            other, so the link becomes slower as well.
        drop: Chance that a chunk vanishes.
        duplicate: Chance that a chunk comes twice.
        reorder: Chance that a chunk is held back until the next one has passed.
        tear: Chance that only the beginning of a chunk passes. A stream breaks then; a link that is
            not reliable goes on.
        split: Pass chunks on in pieces of 1 to ``split`` bytes. For streams only.
        coalesce: Hold chunks back until there are so many, and pass them on as one. For streams
            only.
        hold_interval: Seconds after which what ``coalesce`` or ``reorder`` holds back is passed on
            in any case.
        half_close_after: After so many bytes the sender seems to have finished; what it still sends
            vanishes.
        reset_after: After so many bytes the link breaks, for both sides.
        blackhole_after: After so many bytes nothing arrives any more in either direction, and
            nobody is told.

    Raises:
        ValueError: A value is out of range.
    """

    seed: int = 0
    delay: float | tuple[float, float] = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    tear: float = 0.0
    split: int | None = None
    coalesce: int = 1
    hold_interval: float = 0.1
    half_close_after: int | None = None
    reset_after: int | None = None
    blackhole_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "duplicate", "reorder", "tear"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance from 0 to 1, not {getattr(self, name)!r}")
        least, most = self.delay if isinstance(self.delay, tuple) else (self.delay, self.delay)
        if not 0 <= least <= most:
            raise ValueError(f"delay must be seconds, or the least and the most of them, not {self.delay!r}")
        if not self.hold_interval > 0:
            raise ValueError(f"hold_interval must be above zero, not {self.hold_interval!r}")
        if self.coalesce < 1 or (self.split is not None and self.split < 1):
            raise ValueError(f"coalesce and split must be at least 1, not {self.coalesce!r} and {self.split!r}")
        for name in ("half_close_after", "reset_after", "blackhole_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is a number of bytes, not {value!r}")

    def __repr__(self) -> str:
        said = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if field.name == "seed" or getattr(self, field.name) != field.default
        ]
        return f"Faults({', '.join(said)})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What went in one direction since the link was wrapped.

    Attributes:
        chunks: Chunks that came along.
        size: Bytes that were passed on.
        dropped: Chunks that vanished by ``drop``, or late ones whose successor was torn.
        duplicated: Chunks that were passed on twice.
        reordered: Chunks that were held back for the next one.
        torn: Chunks of which only the beginning was passed on.
        coalesced: Chunks that were passed on as part of a larger one.
        vanished_size: Bytes that a black hole took, or that came after an end which faults had set.
    """

    chunks: int = 0
    size: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    torn: int = 0
    coalesced: int = 0
    vanished_size: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FaultStatistics:
    """What a faulty link has done so far.

    Attributes:
        sent: From this side to the peer.
        received: From the peer to this side.
    """

    sent: Traffic
    received: Traffic


class Fate(enum.Enum):
    """What happens to the link itself."""

    HALF_CLOSE = "half-close"
    RESET = "reset"
    BLACKHOLE = "blackhole"


#: What of `Faults` leaves chunks alone as long as the numbers of bytes are not reached.
_HARMLESS: Final = ("seed", "hold_interval", "half_close_after", "reset_after", "blackhole_after")


class Lane:
    """One direction: chunks are put in, and what is left of them is taken out.

    Args:
        name: Which direction, so that two with the same seed do not share their luck.
        stream: Whether chunks may be cut and joined, and a torn one breaks the link.
        faults: What to do.

    Attributes:
        faults: What is done now.
        fate: What the link is to suffer once everything that is ready has been passed on.
    """

    def __init__(self, name: str, faults: Faults, *, stream: bool) -> None:
        self._name = name
        self._stream = stream
        self._held: list[bytes] = []
        self._late: bytes | None = None
        self._count: collections.Counter[str] = collections.Counter()
        self.begin(faults)

    def begin(self, faults: Faults) -> None:
        """Behave like this from now on; numbers of bytes count from here. What is held stays held."""
        if not self._stream and (faults.split is not None or faults.coalesce > 1):
            raise ValueError("split and coalesce are for streams; this link sends each chunk as a whole or not at all")
        self.faults = faults
        self.fate: Fate | None = None
        self._rng = random.Random(f"{self._name} {faults.seed}")
        self._passed = 0
        ends = (
            (faults.half_close_after, Fate.HALF_CLOSE),
            (faults.reset_after, Fate.RESET),
            (faults.blackhole_after, Fate.BLACKHOLE),
        )
        given = [(mark, fate) for mark, fate in ends if mark is not None]
        self._end: tuple[int, Fate] | None = min(given, key=operator.itemgetter(0), default=None)
        normal = Faults()
        self._harmless = all(
            getattr(faults, field.name) == getattr(normal, field.name)
            for field in dataclasses.fields(faults)
            if field.name not in _HARMLESS
        )

    def delay(self) -> float:
        """Seconds that the next chunk waits."""
        delay = self.faults.delay
        return self._rng.uniform(*delay) if isinstance(delay, tuple) else delay

    def put(self, chunk: bytes) -> None:
        """A chunk has come along."""
        faults = self.faults
        self._count["chunks"] += 1
        chunks = [chunk]
        torn = False
        if self._happens(faults.drop):
            self._count["dropped"] += 1
            chunks.clear()
        elif self._happens(faults.tear):
            self._count["torn"] += 1
            torn = True
            chunks[0] = chunk[: self._rng.randrange(len(chunk))]
        elif self._happens(faults.duplicate):
            self._count["duplicated"] += 1
            chunks.append(chunk)
        breaks = torn and self._stream
        if self._late is not None:
            if breaks:
                self._count["dropped"] += 1
            else:
                chunks.append(self._late)
            self._late = None
        elif chunks and not torn and self._happens(faults.reorder):
            self._count["reordered"] += 1
            self._late = chunks.pop()
        for each in chunks:
            self._pass(each)
        if breaks and self.fate is None:
            self.fate = Fate.RESET

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._rng.random() < chance

    def _pass(self, chunk: bytes) -> None:
        if self._end is not None and self._passed + len(chunk) >= self._end[0]:
            mark, self.fate = self._end
            self.vanish(self._passed + len(chunk) - mark)
            chunk = chunk[: mark - self._passed]
        self._passed += len(chunk)
        if chunk:
            self._held.append(chunk)

    @property
    def holding(self) -> bool:
        """Whether something waits to be taken, or to be released."""
        return bool(self._held) or self._late is not None

    @property
    def ready(self) -> bool:
        """Whether it is time to take what is held, or to suffer the fate."""
        return self.fate is not None or len(self._held) >= self.faults.coalesce

    def release(self) -> None:
        """Do not wait for another chunk any longer."""
        if self._late is not None:
            late, self._late = self._late, None
            self._pass(late)

    def take(self) -> list[bytes]:
        """What is to be passed on now, in this order."""
        chunks, self._held = self._held, []
        if len(chunks) > 1 and self._stream and self.faults.coalesce > 1:
            self._count["coalesced"] += len(chunks)
            chunks = [b"".join(chunks)]
        return chunks

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """A chunk in the pieces in which it travels."""
        most = self.faults.split
        if most is None:
            yield chunk
            return
        start = 0
        while start < len(chunk):
            end = start + self._rng.randint(1, most)
            yield chunk[start:end]
            start = end

    def is_harmless(self, size: int) -> bool:
        """Whether a chunk of so many bytes would pass at once and as it is."""
        near_end = self._end is not None and self._passed + size >= self._end[0]
        return self._harmless and not near_end and not self.holding and self.fate is None

    def passed_by(self, size: int) -> None:
        """A chunk of so many bytes has passed without being put in."""
        self._count["chunks"] += 1
        self._passed += size
        self.arrived(size)

    def arrived(self, size: int) -> None:
        """So many bytes have been passed on."""
        self._count["size"] += size

    def vanish(self, size: int) -> None:
        """So many bytes have gone where nobody finds them."""
        self._count["vanished_size"] += size

    def traffic(self) -> Traffic:
        """What came along so far."""
        return Traffic(**self._count)
