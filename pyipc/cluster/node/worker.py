"""A worker of a Node primary, as its own program sees it: what such a primary cannot do is an error that says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, final

import trio

import pyipc
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.links import Links
from pyipc.cluster.node.lines import is_internal, is_reserved
from pyipc.cluster.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from pyipc.cluster.job import Attachment
    from pyipc.cluster.linking import Colleague

__all__ = ["NoLinks", "NodeWorker"]


@final
class NodeWorker(Worker):
    """A worker whose primary, or parent, is a Node program.

    Args:
        *given: As for any worker.
        let_come: Called when it is to leave: what the primary has sent waits for no handlers any more.
    """

    def __init__(self, *given: Any, let_come: Callable[[], None]) -> None:
        super().__init__(*given)
        self._let_come = let_come

    async def emit(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        confirm: bool = False,
        timeout: float | None = None,
        traceparent: str = "",
    ) -> None:
        """Send the primary an event. See `Worker.emit`.

        Only ``message`` is what Node itself understands; for other names the primary has to have loaded
        ``pyipc-channel.js``.

        Raises:
            LocalProtocolError: Likewise; or Node, or that helper, would take the message for one of its own.

        Cancellation: a cancelled emit has sent nothing.
        """
        if event == "message":
            _check(data)
        await super().emit(
            event, data, attachments=attachments, confirm=confirm, timeout=timeout, traceparent=traceparent
        )

    async def publish(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Attachment] = (),
        traceparent: str = "",
    ) -> None:
        """Refuse: a Node primary knows no topics.

        Raises:
            ClusterError: Always.

        Cancellation: it is refused before anything is waited for.
        """
        raise _no_topics()

    def subscribe(
        self,
        pattern: str,
        *,
        max_buffered: int = 1_024,
        max_buffered_size: int = 8 * 1024 * 1024,
        policy: Literal["drop_oldest", "drop_newest", "close"] = "drop_oldest",
        retained: bool = True,
    ) -> pyipc.Subscription:
        """Refuse: a Node primary knows no topics.

        Raises:
            ClusterError: Always.
        """
        raise _no_topics()

    def begin_draining(self, timeout: float | None) -> None:
        """See `Worker.begin_draining`."""
        super().begin_draining(timeout)
        self._let_come()


def _check(data: object) -> None:
    """See whether a message would arrive as one.

    Raises:
        LocalProtocolError: It would not.
    """
    if not isinstance(data, dict):  # of what else becomes an object in JSON fields are attributes
        data = {name: getattr(data, name, None) for name in ("cmd", "type")}
    if is_internal(data):
        raise pyipc.LocalProtocolError(
            "Node takes a message whose `cmd` begins with NODE_ for its own, and its program would not hear of it; "
            "give that field another name or value"
        )
    if is_reserved(data):
        raise pyipc.LocalProtocolError(
            "a message to a Node program whose `type` begins with `pyipc.` would be taken for a request, or for the "
            "answer to one; give that field another name or value"
        )


def _no_topics() -> ClusterError:
    return ClusterError("a Node primary knows no topics; send it a message, and let it send that to its other workers")


@final
class NoLinks(Links):
    """No connections with other workers, as a Node primary makes none."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()

    def connect(
        self, id: str | None, role: str | None, router: pyipc.Router | None, options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[pyipc.Client]:
        self._refuse()

    def to(self, id: str | None, role: str | None) -> Colleague:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ClusterError(
            "a Node primary connects its workers with nobody; send it a message for the other one, or have that listen "
            "on an address of its own"
        )
