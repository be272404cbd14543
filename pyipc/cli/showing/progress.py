"""A bar that shows how far something has come, on a terminal; with rich's where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from pyipc.cli.showing.figures import count

if TYPE_CHECKING:
    from collections.abc import Callable

    import rich.console

    from pyipc.cli.showing.console import Console

__all__ = ["show_progress"]

_INTERVAL: Final = 0.1
_WIDTH: Final = 30


async def show_progress(console: Console, title: str, look: Callable[[], tuple[float, float]]) -> None:
    """Show progress until cancelled, and then leave no trace of it; nothing unless somebody looks.

    Args:
        console: Where.
        title: What is being done.
        look: Gives how much is done, from 0 to 1, and how much a second.

    Cancellation: takes the bar away.
    """
    if console.json or not console.is_terminal:
        return
    terminal = console.rich()
    if terminal is not None:
        await _show_richly(console, terminal, title, look)
    else:
        await _show_plainly(console, title, look)


async def _show_richly(
    console: Console, terminal: rich.console.Console, title: str, look: Callable[[], tuple[float, float]]
) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(_WIDTH),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    # It is refreshed here, since a thread of its own would write in between.
    with Progress(*columns, console=terminal, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(title, total=1.0, rate="")
        while True:
            done, rate = look()
            progress.update(task, completed=done, rate=f"{count(rate)}/s", refresh=True)
            await console.output.wait_for_room()
            await trio.sleep(_INTERVAL)


async def _show_plainly(console: Console, title: str, look: Callable[[], tuple[float, float]]) -> None:
    width = 0
    try:
        while True:
            done, rate = look()
            bar = "#" * round(done * _WIDTH)
            line = f"{title} [{bar:<{_WIDTH}}] {done:4.0%} {count(rate)}/s"
            console.output.put(f"\r{line:<{width}}")
            width = len(line)
            await console.output.wait_for_room()
            await trio.sleep(_INTERVAL)
    finally:
        # Not every terminal knows how to erase a line, but all know spaces.
        console.output.put(f"\r{'':<{width}}\r")
