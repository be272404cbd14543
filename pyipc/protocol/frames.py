"""Cutting a stream of bytes into complete frames, in linear time and bounded memory."""

from __future__ import annotations

from pyipc.errors import RemoteProtocolError

__all__ = ["FrameBuffer", "add_piece"]

# Pieces below this size are put together as they come, so that the memory a dribbled frame takes is that of
# its bytes and not that of a Python object for each few of them.
_SMALL_PIECE = 4096


class FrameBuffer:
    """Holds the frame that has not arrived completely.

    Memory grows with what has arrived and never with what was announced, and every byte is looked
    at a fixed number of times, however the stream is cut.

    Attributes:
        partial_size: Bytes of the incomplete frame held.
    """

    __slots__ = ("_delimiter", "_max_frame_size", "_pieces", "partial_size")

    def __init__(self, delimiter: bytes, max_frame_size: int) -> None:
        self._delimiter = delimiter
        self._max_frame_size = max_frame_size
        self._pieces: list[bytes | bytearray] | None = None
        self.partial_size: int = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived.

        Returns:
            All frames that are now complete, each with its delimiter; ``b""`` if there is none.
        """
        end = chunk.rfind(self._delimiter) + 1
        if end == 0:
            if chunk:
                if self._pieces is None:
                    self._pieces = []
                add_piece(self._pieces, chunk)
                self.partial_size += len(chunk)
            return b""
        complete = chunk if end == len(chunk) else chunk[:end]
        if self._pieces is not None:
            self._pieces.append(complete)
            complete = b"".join(self._pieces)
            self._pieces = None
        self.partial_size = len(chunk) - end
        if self.partial_size:
            self._pieces = [chunk[end:]]
        return complete

    def take_back(self) -> bytes:
        """Hold the incomplete frame no more: somebody else looks at it."""
        partial = b"".join(self._pieces or ())
        self._pieces = None
        self.partial_size = 0
        return partial

    def check(self) -> None:
        """Refuse an incomplete frame that is too large already.

        Separate from `feed`, so that the complete frames before it are delivered first.

        Raises:
            RemoteProtocolError: With the code ``"size"``.
        """
        if self.partial_size > self._max_frame_size:
            self._pieces = None
            raise RemoteProtocolError(
                "size", f"the peer is sending a frame of more than {self._max_frame_size:,} bytes (max_frame_size)"
            )


def add_piece(pieces: list[bytes | bytearray], chunk: bytes) -> None:
    """Keep what has arrived of something larger, to be joined once it is complete."""
    last = pieces[-1] if pieces else b""
    if not pieces or len(chunk) >= _SMALL_PIECE or len(last) >= _SMALL_PIECE:
        pieces.append(chunk)
    elif isinstance(last, bytearray):
        last += chunk
    else:
        pieces[-1] = bytearray(last) + chunk
