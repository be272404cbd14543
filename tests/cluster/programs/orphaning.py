"""A primary that is there to be killed: it says which processes its workers are, and waits."""

from __future__ import annotations

import json
import sys

import trio

from pyipc import cluster
from tests.cluster.diary import QUICK, program, told

#: What each of its workers does when the primary is gone, or is still at.
DEEDS = ("idle", "spin", "block", "deafen", "starting", "stubborn")


async def main() -> None:
    async with cluster.Cluster(program("main"), **QUICK) as primary, trio.open_nursery() as nursery:
        pids = {}
        for deed in DEEDS:
            if deed == "starting":
                worker = await primary.fork(deed, exec=program("never_ready"), wait=False)
                while worker.state != "online":
                    await worker.wait_changed()
            else:
                worker = await primary.fork(deed, exec=program("stubborn") if deed == "stubborn" else program("main"))
            pids[deed] = worker.pid
        await primary.worker("deafen").request("deafen")
        nursery.start_soon(told, primary.worker("spin"), "spin")
        nursery.start_soon(told, primary.worker("block"), "block", 600.0)
        await trio.sleep(0.5)  # by then these two do not hear any more; if not, they are only easier to end
        print(json.dumps(pids), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    sys.exit(trio.run(main))
