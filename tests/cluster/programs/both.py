"""One script that is primary and worker."""

import sys

from pyipc import cluster


async def main(worker: cluster.Worker) -> None:
    """Is there until it is to leave."""
    await worker.run()


if __name__ == "__main__":
    if cluster.is_primary:
        sys.exit(cluster.run(workers=2, role="both"))
    cluster.run_worker(main)
