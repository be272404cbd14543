"""What a worker says to its primary, and asks it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    import pyipc
    from pyipc.cluster.job import Attachment
    from pyipc.cluster.superior import Superior

__all__ = ["Correspondence"]

T = TypeVar("T")


class Correspondence:
    """The part of a `Worker` that is about its primary."""

    _primary: Superior
    _messages: pyipc.Client
    _is_ready: bool
    _is_asking: bool

    async def send(self, data: object) -> None:
        """Send the primary something, for its handlers of ``message``, as Node's ``process.send()`` does.

        Cancellation: a cancelled send has sent nothing.
        """
        await self.emit("message", data)

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
        """Send the primary an event, for the handlers of its `Cluster.router`. See `pyipc.Client.emit`.

        Raises:
            ConnectionClosed: The primary is gone.
            LocalProtocolError: The event cannot be sent.

        Cancellation: a cancelled emit has sent nothing, unless it was waiting to be confirmed.
        """
        if confirm:
            await self._begin_asking()
        if not (attachments or confirm or traceparent):  # which costs less
            await self._messages.emit(event, data)
            return
        await self._messages.emit(
            event, data, attachments=list(attachments), confirm=confirm, timeout=timeout, traceparent=traceparent
        )

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        traceparent: str = "",
    ) -> Any: ...

    @overload
    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: type[T],
        traceparent: str = "",
    ) -> T: ...

    async def request(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: Any = None,
        traceparent: str = "",
    ) -> Any:
        """Ask the primary something. See `pyipc.Client.request`.

        Raises:
            RequestError: It was not answered with a result.
            ConnectionLost: The primary is gone.
            LocalProtocolError: The request cannot be sent.

        Cancellation: the primary is told, and cancels its handler.
        """
        await self._begin_asking()
        return await self._messages.request(
            event, data, attachments=list(attachments), timeout=timeout, result=result, traceparent=traceparent
        )

    async def _begin_asking(self) -> None:
        """Tell the primary that somebody is about to wait for an answer, as long as it waits for this worker."""
        if not (self._is_ready or self._is_asking):
            self._is_asking = True
            await self._primary.asking()

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]: ...

    @overload
    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: type[T],
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[T]]: ...

    def stream(
        self,
        event: str,
        data: object = None,
        *,
        attachments: Iterable[Attachment] = (),
        timeout: float | None = None,
        result: Any = None,
        traceparent: str = "",
    ) -> AbstractAsyncContextManager[pyipc.Stream[Any]]:
        """Ask the primary for a stream. See `pyipc.Client.stream`."""
        return self._stream(
            event,
            data,
            {"attachments": list(attachments), "timeout": timeout, "result": result, "traceparent": traceparent},
        )

    @asynccontextmanager
    async def _stream(self, event: str, data: object, how: dict[str, Any]) -> AsyncIterator[pyipc.Stream[Any]]:
        await self._begin_asking()
        async with self._messages.stream(event, data, **how) as stream:
            yield stream

    async def publish(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Attachment] = (),
        traceparent: str = "",
    ) -> None:
        """Publish under a topic, to the primary and to all workers that have subscribed. See `pyipc.Client.publish`.

        Cancellation: a cancelled publish has sent nothing.
        """
        await self._messages.publish(topic, data, retain=retain, attachments=list(attachments), traceparent=traceparent)

    def subscribe(
        self,
        pattern: str,
        *,
        max_buffered: int = 1_024,
        max_buffered_size: int = 8 * 1024 * 1024,
        policy: Literal["drop_oldest", "drop_newest", "close"] = "drop_oldest",
        retained: bool = True,
    ) -> pyipc.Subscription:
        """Subscribe to what the primary and other workers publish. See `pyipc.Client.subscribe`."""
        return self._messages.subscribe(
            pattern,
            max_buffered=max_buffered,
            max_buffered_size=max_buffered_size,
            policy=policy,
            retained=retained,
        )

    async def flush(self) -> None:
        """Wait until everything sent to the primary so far is with the operating system.

        Cancellation: nothing is unsent by it.
        """
        await self._messages.flush()
