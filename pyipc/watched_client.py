"""A client that tells an instrument what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyipc.client import Client

if TYPE_CHECKING:
    from pyipc.endpoint import Endpoint
    from pyipc.options import Options
    from pyipc.router import Router
    from pyipc.watch import Watch

__all__ = ["WatchedClient"]


class WatchedClient(Client):
    """A client whose calls are in the contexts that an instrument gives, also while there is no connection."""

    def __init__(self, endpoint: Endpoint, router: Router | None, options: Options, watch: Watch) -> None:
        super().__init__(endpoint, router, options, watch)
        self._watch = watch

    async def request(self, event: str, data: object = None, **how: Any) -> Any:
        """As `Client.request`.

        Cancellation: the server is told and cancels its handler.
        """
        with self._watch.calling("request", event, self._endpoint.parsed.redacted):
            return await super().request(event, data, **self._watch.traced(how))
