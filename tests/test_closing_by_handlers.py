"""Closing and draining where something is in the way: a handler that asks for it, a caller that does not wait."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import pyipc
from pyipc.options import check_timeout
from pyipc.timers import Timers
from tests.wire import stay

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.time_limit(20)

FAST: dict[str, Any] = {"reconnect_interval": 0.1, "reconnect_jitter": False}


@pytest.mark.parametrize("timeout", [8.0, None])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
async def test_a_handler_of_an_event_may_drain_its_server(
    *, confirm: bool, behind: bool, timeout: float | None, autojump_clock: trio.testing.MockClock
) -> None:
    took: list[float] = []
    server = pyipc.Server("memory:stop")

    @server.on("stop")
    async def stop(message: pyipc.Message[Any]) -> None:
        await server.drain(timeout)

    async def serve() -> None:
        await server.run()
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(serve)
        async with pyipc.connect("memory:stop", **FAST) as client, trio.open_nursery() as emits:

            async def emit(event: str) -> None:
                with pytest.raises(pyipc.Unconfirmed):
                    await client.emit(event, confirm=True, timeout=20)

            if confirm:
                emits.start_soon(emit, "stop")
            else:
                await client.emit("stop")
            if behind:
                await trio.sleep(0.5)
                emits.start_soon(emit, "behind")
            if confirm or behind:
                await trio.sleep(7)
                assert took
                assert took[0] <= 6
    assert server._draining.report.cut_off == 0


async def test_a_cancelled_close_of_a_client_closes_it_at_once(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []
    async with pyipc.Server("memory:close") as server:
        server.on_disconnect(lambda reason: ended.append(reason.code))
        server.on("stay", stay)
        async with pyipc.connect("memory:close", **FAST) as client, trio.open_nursery() as nursery:

            async def emit() -> None:
                with pytest.raises(pyipc.Unconfirmed):
                    await client.emit("stay", confirm=True)

            nursery.start_soon(emit)
            await trio.sleep(1)
            (connection,) = server.connections
            with trio.move_on_after(0.5) as closing:
                await client.aclose()  # which waits for what is not confirmed
            assert closing.cancelled_caught
            assert not client.connected
            for ask in (lambda: client.request("x"), lambda: client.emit("x", confirm=True), lambda: client.emit("x")):
                with pytest.raises(pyipc.ConnectionClosed):
                    await ask()
            await trio.sleep(0.5)
            assert connection.reason is not None


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(math.nan, ValueError), (-1, ValueError), (-0.5, ValueError), ("1", TypeError), (True, TypeError)],
)
async def test_what_is_no_time_out_is_refused_where_it_is_given(
    timeout: Any, error: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        pyipc.Server("memory:times") as server,
        pyipc.connect("memory:times") as client,
    ):
        await client.flush()
        (connection,) = server.connections
        waits: list[Callable[[], Any]] = [
            lambda: client.emit("x", confirm=True, timeout=timeout),
            lambda: client.wait_connected(timeout),
            lambda: client.events("x").get(timeout=timeout),
            lambda: connection.emit("x", confirm=True, timeout=timeout),
            lambda: server.drain(timeout),
        ]
        if timeout not in (-1, -0.5):  # of a request it is what is left of a time
            waits += [lambda: client.request("x", timeout=timeout), lambda: connection.request("x", timeout=timeout)]
        for wait in waits:
            with pytest.raises(error, match="timeout must be"):
                await wait()
        with pytest.raises(error, match="timeout must be"):
            client.stream("x", timeout=timeout)
        async with client.subscribe("x") as subscription:
            with pytest.raises(error, match="timeout must be"):
                await subscription.get(timeout=timeout)
        with pytest.raises(pyipc.NoHandler):
            await client.request("x")  # nothing was broken by it


async def test_a_timer_has_a_time() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Timers().call_at(math.nan, lambda late: None)
    for timeout in (None, 0, 1.5, math.inf):
        check_timeout(timeout)


async def test_what_is_left_of_a_time_may_be_less_than_nothing() -> None:
    """As it is where somebody takes the present time from a deadline that has passed."""
    check_timeout(-1.5, may_be_over=True)
    with pytest.raises(ValueError, match="timeout must be"):
        check_timeout(math.nan, may_be_over=True)
    router = pyipc.Router()

    @router.on("x")
    async def never(message: pyipc.Message[Any]) -> None:
        await trio.sleep_forever()

    async with pyipc.Server("memory:over", router=router), pyipc.connect("memory:over") as client:
        with pytest.raises(pyipc.RequestTimeout):
            await client.request("x", timeout=-1.5)
        connection = client._up.connection
        assert connection is not None
        with pytest.raises(pyipc.RequestTimeout):
            await connection.request("x", timeout=-1.5)
