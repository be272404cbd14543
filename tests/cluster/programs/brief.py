"""A worker that has nothing to do."""

from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    """Is ready, and returns."""
    await worker.ready()


cluster.run_worker(main)
