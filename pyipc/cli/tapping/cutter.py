"""Cutting what goes past into frames, for showing them: in constant memory, whatever their size."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from pyipc.cli.strict_json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Agreement", "Budget", "Cutter", "Piece"]

# A binary record: this byte, the length of what follows in eight bytes, and that.
_RECORD: Final = b"\x01"
_RECORD_HEAD: Final = 9
# More than this no introduction takes, unless it was made to.
_LONGEST_INTRODUCTION: Final = 16_384


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A frame, or the beginning of one; or an attachment, of which nothing is kept.

    Attributes:
        data: Its bytes, or the first of them if it is larger than is kept.
        size: How many bytes it has altogether, without its delimiter.
        finished: Whether its delimiter has come, or all of it.
        is_attachment: Whether it is an attachment.
    """

    data: bytes
    size: int
    finished: bool = True
    is_attachment: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether ``data`` is all of it."""
        return self.finished and len(self.data) == self.size


class Agreement:
    """What both sides of one conversation have said that they can do, as far as it matters for cutting.

    Attributes:
        on_records: Whether a frame may have binary records before it.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()
        self.on_records: bool = False

    def note(self, frame: bytes) -> None:
        """Look at a frame, which may be a hello or a welcome."""
        if self.on_records or len(frame) > _LONGEST_INTRODUCTION or b"pyipc." not in frame:
            return
        try:
            said = read_json(frame.decode("utf-8"))
            name, features = said["type"], said["data"]["features"]
        except (ValueError, LookupError, TypeError):
            return
        if name in ("pyipc.hello", "pyipc.welcome") and isinstance(features, list) and "attachments" in features:
            self._said.add(name)
            self.on_records = len(self._said) == 2


class Budget:
    """Bytes that all cutters together may keep of frames that have not ended.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, wanted: int) -> int:
        """Take so many bytes, or those that are left; return how many."""
        taken = min(wanted, self._left)
        self._left -= taken
        return taken

    def give_back(self, size: int) -> None:
        """Let others have them."""
        self._left += size


class Cutter:
    """Divides one direction of a connection.

    Args:
        delimiter: The byte that ends each frame.
        max_kept_size: Bytes of each frame that are kept; the rest is counted.
        budget: Shared with other cutters; less is kept of each frame while it is used up.
        agreement: Shared with the cutter of the other direction; of its own if left out.
    """

    def __init__(
        self, delimiter: bytes, max_kept_size: int, budget: Budget, agreement: Agreement | None = None
    ) -> None:
        self._delimiter = delimiter
        self._agreement = agreement or Agreement()
        # Of a record: the beginning that has come, and once that is complete how much there is to come and has come.
        self._head = b""
        self._missing = 0
        self._record_size = 0
        self._max_kept_size = max_kept_size
        self._budget = budget
        self._kept = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """The frames and attachments that end in ``chunk``."""
        start = 0
        while start < len(chunk):
            if self._is_in_record or (
                not self._size and self._agreement.on_records and chunk.startswith(_RECORD, start)
            ):
                start = self._pass_record(chunk, start)
                if not self._is_in_record:
                    yield Piece(b"", self._record_size, is_attachment=True)
                continue
            end = chunk.find(self._delimiter, start)
            if end < 0:
                self._keep(chunk, start, len(chunk))
                return
            self._keep(chunk, start, end)
            piece = self._take(finished=True)
            self._agreement.note(piece.data)
            yield piece
            start = end + 1

    def rest(self) -> Piece | None:
        """What has begun and will not be finished, if there is something."""
        if self._is_in_record:
            return Piece(b"", self._record_size, finished=False, is_attachment=True)
        return self._take(finished=False) if self._size else None

    @property
    def _is_in_record(self) -> bool:
        return len(self._head) > 0 or self._missing > 0

    def _pass_record(self, chunk: bytes, start: int) -> int:
        """Count what is of one record in a chunk; say where it ends."""
        if not self._missing:
            end = start + _RECORD_HEAD - len(self._head)
            self._head += chunk[start:end]
            self._record_size = 0
            if len(self._head) < _RECORD_HEAD:
                return len(chunk)
            self._missing = int.from_bytes(self._head[1:], "big")
            self._head = b""
            start = end
        size = min(self._missing, len(chunk) - start)
        self._missing -= size
        self._record_size += size
        return start + size

    def drop(self) -> None:
        """Forget what is kept, at the end of a connection."""
        self._take(finished=False)

    def _keep(self, chunk: bytes, start: int, end: int) -> None:
        # What lacks a part is not continued, so that what is kept is always a beginning.
        if len(self._kept) == self._size:
            room = self._budget.take(min(end - start, self._max_kept_size - len(self._kept)))
            self._kept += chunk[start : start + room]
        self._size += end - start

    def _take(self, *, finished: bool) -> Piece:
        piece = Piece(bytes(self._kept), self._size, finished)
        self._budget.give_back(len(self._kept))
        self._kept.clear()
        self._size = 0
        return piece
