"""What type checkers know of what primary and workers say to each other. Nothing here runs: `./run lint` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import pyipc
    from pyipc import cluster

    Rows = AbstractAsyncContextManager[pyipc.Stream[int], bool | None]


async def talk(primary: cluster.Cluster, handle: cluster.WorkerHandle, worker: cluster.Worker) -> None:
    """What has types, and what is refused."""
    assert_type(await handle.request("a", result=int), int)
    assert_type(await worker.request("a", result=int), int)
    assert_type(await worker.to("b").request("a", result=int), int)
    assert_type(await worker.request("a"), Any)
    rows: list[Rows] = [each.stream("a", result=int) for each in (handle, worker, worker.to("b"))]
    print(rows)
    subscription: pyipc.Subscription = primary.subscribe("a")
    print(subscription)
    await primary.fork(env={"A": "1"}, drain_timeout=3)
    await primary.fork(drain_timeot=3)  # type: ignore[call-arg]
    await worker.request("a", timout=3)  # type: ignore[call-overload]
    await primary.publish("a", bogus=1)  # type: ignore[call-arg]
