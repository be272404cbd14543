"""A script that was to be a worker, and forgets to be one."""


async def main(worker: object) -> None:
    """Is never called."""
