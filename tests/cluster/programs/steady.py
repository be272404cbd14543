"""A worker that is there until it is to leave."""

from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    """Is there."""
    await worker.run()


cluster.run_worker(main)
