"""How a worker talks to others, without what it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    import pyipc
    from pyipc.cluster.linking import Colleague

__all__ = ["Links"]


class Links(ABC):
    """The connections of a worker with others."""

    @abstractmethod
    def running(self) -> AbstractAsyncContextManager[None]:
        """Serve other workers, for the length of a block. In the end what is queued for them is sent."""

    @abstractmethod
    async def drain(self) -> None:
        """Have others take new work elsewhere, and wait until what is under way has come to its end.

        Cancellation: the drain goes on.
        """

    @abstractmethod
    def connect(
        self, id: str | None, role: str | None, router: pyipc.Router | None, options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[pyipc.Client]:
        """A client of another worker; see `Worker.connect`."""

    @abstractmethod
    def to(self, id: str | None, role: str | None) -> Colleague:
        """Another worker, to be talked to now and then; see `Worker.to`."""
