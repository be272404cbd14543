"""Servers of a worker listen through its primary, wherever in its program they are opened."""

from __future__ import annotations

from pyipc import cluster
from tests.cluster.diary import QUICK, Diary
from tests.cluster.programs import hosting


async def test_a_server_that_a_message_has_opened_is_the_primarys_as_well() -> None:
    primary = cluster.Cluster(f"{hosting.__name__}:main", workers=2, **QUICK)
    diary = Diary(primary)
    async with primary:
        alone = await primary.worker("1").request("open alone")
        for event, data in (("open here", None), ("open in a task", None), ("have another open", "2")):
            address = await primary.worker("1").request(event, data)
            await diary.until(lambda: address in {str(each.address) for each in diary.of("listening")}, address)  # noqa: B023
        assert alone not in {str(each.address) for each in diary.of("listening")}
