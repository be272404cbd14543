"""What is between a client and a server, and can be cut without either of them being told."""

from __future__ import annotations

import contextlib

import trio

__all__ = ["Cable"]


class Cable:
    """Carries the bytes of TCP connections, as long as it is whole.

    When it is cut, what is on its way vanishes, ends of streams as well; whoever connects then gets no answer. What was
    cut stays so when the cable is mended: those connections are over then.

    Args:
        port: That of the server on this host.

    Attributes:
        port: Where clients find it, once it runs.
    """

    def __init__(self, port: int) -> None:
        self._far_port = port
        self._whole = trio.Event()
        self._whole.set()
        self.port = 0

    def cut(self) -> None:
        """From now on nothing gets through."""
        self._whole = trio.Event()

    def mend(self) -> None:
        """From now on new connections are carried again."""
        self._whole.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Carry bytes until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._carry, [listener])
            task_status.started()

    async def _carry(self, near: trio.SocketStream) -> None:
        async with near:
            if not self._whole.is_set():
                await self._whole.wait()
                return
            async with await trio.open_tcp_stream("127.0.0.1", self._far_port) as far, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, self._whole)
                nursery.start_soon(self._pump, far, near, self._whole)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, whole: trio.Event) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for chunk in source:
                if self._whole is whole:
                    await sink.send_all(chunk)
        if self._whole is whole:
            with contextlib.suppress(trio.BrokenResourceError):
                await sink.send_eof()
        else:
            await self._whole.wait()
