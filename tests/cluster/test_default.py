"""The cluster that the functions of the module are about."""

from __future__ import annotations

import sys

import pytest

from pyipc import cluster
from tests.cluster.diary import QUICK, program
from tests.conftest import CANNOT_RUN

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} it looks at /proc"),
    pytest.mark.usefixtures("nothing_is_left"),
]


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default cluster for each test."""
    monkeypatch.setattr(sys.modules["pyipc.cluster.default"], "_default", None)


async def test_it_is_the_same_until_its_block_has_ended() -> None:
    cluster.setup_primary(exec=program("main"), policy="least-loaded", **QUICK)
    told: list[str] = []
    async with cluster.default() as primary:
        cluster.on("exit", lambda event: told.append(event.worker.id if event.worker else ""))
        await cluster.fork("a")
        await cluster.disconnect()
        assert told == ["a"]
        assert not cluster.workers
        assert cluster.default() is primary
        await cluster.fork("b")  # as with Node
        assert list(cluster.workers) == ["b"]
    assert told == ["a", "b"]
    again = cluster.default()
    assert again is not primary
    assert again.settings == primary.settings
    assert isinstance(cluster.scheduling_policy, cluster.LeastLoaded)
    async with again:
        await cluster.fork("c")
    assert told == ["a", "b"]


async def test_the_policy_can_be_set_by_name() -> None:
    assert isinstance(cluster.scheduling_policy, cluster.RoundRobin)
    cluster.setup_primary(policy="shared")
    assert isinstance(cluster.scheduling_policy, cluster.Shared)
    with pytest.raises(ValueError, match="there is no policy 'alphabetical'"):
        cluster.setup_primary(policy="alphabetical")
