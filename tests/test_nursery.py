"""The nursery that nobody notices: what is raised in its body arrives as itself."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio
import trio.testing

from pyipc.nursery import hidden_nursery
from pyipc.testing import pair


async def test_an_error_in_the_body_is_the_same_object() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None


async def test_an_error_keeps_its_context() -> None:
    with pytest.raises(ValueError, match="second") as caught:
        async with hidden_nursery():
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
    assert isinstance(caught.value.__context__, KeyError)


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("mine", [ValueError(1)]),
        ExceptionGroup("mine", [ValueError(1), KeyError(2)]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError(1)])]),
        BaseExceptionGroup("mine", [KeyboardInterrupt()]),
    ],
)
async def test_the_body_s_own_group_stays_as_it_is(group: BaseExceptionGroup[BaseException]) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise group
    assert caught.value is group


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
async def test_what_ends_the_program_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error


async def test_a_task_that_ends_the_program_ends_it() -> None:
    async def stop() -> NoReturn:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with hidden_nursery() as nursery:
            nursery.start_soon(stop)
            await trio.sleep_forever()


async def test_a_task_that_fails_is_not_hidden() -> None:
    async def fail() -> NoReturn:
        raise RuntimeError("a bug")

    with pytest.raises(ExceptionGroup) as caught:
        async with hidden_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()
    assert caught.group_contains(RuntimeError, match="a bug")


async def test_two_errors_are_both_told() -> None:
    async def stop() -> NoReturn:
        raise SystemExit(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with hidden_nursery() as nursery:
            nursery.start_soon(stop)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("and this")
    assert caught.group_contains(SystemExit)
    assert caught.group_contains(ValueError)


async def test_cancellation_from_outside() -> None:
    with trio.CancelScope() as scope:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_error_while_cancelled_from_outside_arrives_as_itself() -> None:
    with pytest.raises(ValueError, match="while cleaning up"), trio.CancelScope() as scope:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")


async def test_the_body_s_own_group_while_cancelled_from_outside() -> None:
    """A nursery in the body collects an error and cancellations; the latter go where they belong."""

    async def fail() -> NoReturn:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    with pytest.raises(ExceptionGroup) as caught, trio.CancelScope() as scope:
        async with hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            async with trio.open_nursery() as own:
                own.start_soon(fail)
                own.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    assert caught.group_contains(ValueError, depth=1)


async def test_the_tasks_end_with_the_body() -> None:
    ended = trio.Event()

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with hidden_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


async def test_through_a_client_and_a_server() -> None:
    group = ExceptionGroup("mine", [ValueError(1)])
    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        async with pair():
            raise group
    assert caught.value is group
