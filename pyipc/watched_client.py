"""A client that tells an instrument what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyipc.client import Client
from pyipc.watched import WatchedStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyipc.endpoint import Endpoint
    from pyipc.options import Options
    from pyipc.router import Router
    from pyipc.streams import Stream
    from pyipc.watch import Watch

__all__ = ["WatchedClient"]


class WatchedClient(Client):
    """A client whose calls are in the contexts that an instrument gives, also while there is no connection.

    Takes what `Client` takes.
    """

    def __init__(self, endpoints: Sequence[Endpoint], router: Router | None, options: Options, watch: Watch) -> None:
        super().__init__(endpoints, router, options, watch)
        self._watch = watch

    async def emit(self, event: str, data: object = None, **how: Any) -> None:
        """As `Client.emit`.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed.
        """
        if not how.get("confirm"):
            await super().emit(event, data, **how)  # its connection knows where it comes from
            return
        with self._watch.calling("confirmed", event, self._address):
            await super().emit(event, data, **self._watch.traced(how))

    async def request(self, event: str, data: object = None, **how: Any) -> Any:
        """As `Client.request`.

        Cancellation: the server is told and cancels its handler.
        """
        with self._watch.calling("request", event, self._address):
            return await super().request(event, data, **self._watch.traced(how))

    async def publish(self, topic: str, data: object = None, **how: Any) -> None:
        """As `Client.publish`.

        Cancellation: a cancelled publish has sent nothing.
        """
        await super().publish(topic, data, **self._watch.traced(how))

    def _make_stream(self, event: str, data: object, **how: Any) -> Stream[Any]:
        return WatchedStream(event, data, watch=self._watch, address=self._address, **how)

    @property
    def _address(self) -> str:
        return str(self._up.destinations)
