"""Source files that change: which count, that they lead to a reload, and that a mistake in them costs nothing."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyipc import cluster
from tests.cli.processes import PATIENCE
from tests.cluster.foreground import running, started, step
from tests.conftest import CANNOT_RUN, is_wine, needs_node_channel

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(is_wine(), reason=f"{CANNOT_RUN} Wine does not tell of changes")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no signals to send")


async def test_changes_are_noticed_and_litter_is_not(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("deep/er", "__pycache__", ".venv", "out"):
        (tmp_path / directory).mkdir(parents=True)
    found: list[str] = []
    news = trio.Event()

    def changed(paths: list[str]) -> None:
        found.extend(paths)
        news.set()

    sources = cluster.SourceFiles(["."], ["*.py", "settings.*"])
    assert str(sources) == "*.py, settings.* in ."
    await nursery.start(sources.watch, changed)
    for path in ("__pycache__/a.py", ".venv/a.py", "data.json", "a.pyc", "deep/er/a.py", "settings.toml"):
        (tmp_path / path).write_text("x", "utf-8")
    with trio.fail_after(PATIENCE):
        while len(found) < 2:
            await news.wait()
            news = trio.Event()
        assert set(found) == {str(tmp_path.joinpath("deep/er/a.py").relative_to(tmp_path)), "settings.toml"}
        found.clear()
        (tmp_path / "deep/er/a.py").unlink()
        await news.wait()
    assert len(found) == 1
    nursery.cancel_scope.cancel()


async def test_cancelling_does_not_wait_for_the_thread(tmp_path: Path) -> None:
    stops: list[threading.Event] = []

    def watch(*directories: str, stop_event: threading.Event, **options: object) -> Iterator[set[object]]:
        stops.append(stop_event)
        yield set()
        stop_event.wait()

    sources = cluster.SourceFiles([str(tmp_path)])
    sources._watch = watch
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(sources.watch, lambda paths: None)
            nursery.cancel_scope.cancel()
    assert stops[0].is_set()


async def test_a_directory_that_is_removed_while_it_is_watched(tmp_path: Path, nursery: trio.Nursery) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "a.py").write_text("", "utf-8")
    news = trio.Event()
    await nursery.start(cluster.SourceFiles([str(watched)]).watch, lambda paths: news.set())
    (watched / "a.py").unlink()
    watched.rmdir()
    with trio.fail_after(PATIENCE):
        await news.wait()
    nursery.cancel_scope.cancel()


def test_what_cannot_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cluster.ClusterError, match="no directory whose files could be watched"):
        cluster.SourceFiles([str(tmp_path / "missing")])
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(cluster.ClusterError, match=re.escape("pip install 'pyipc-sockets[watch]'")):
        cluster.SourceFiles([str(tmp_path)])


def version(number: int) -> str:
    """Source of a worker; its length differs with the number, so that a cache cannot take one for another."""
    return f"async def main(worker):\n    print({'+'.join(['1'] * number)}, flush=True)\n    await worker.run()\n"


@needs_signals
async def test_a_change_leads_to_a_reload_and_a_mistake_to_none(tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text(version(1), "utf-8")
    async with started("changing:main", cwd=tmp_path, workers=2, reload=True) as program:
        await program.line(step("watching", rest=r"\*\.py in \."), stream="err")
        await running(program)
        source.write_text(version(2), "utf-8")
        await program.line(step("changed", rest=r"changing\.py"), stream="err")
        await program.line(step("reload", rest="source files have changed"), stream="err")
        await program.line(step("reloaded"), stream="err")
        source.write_text("async def main(worker) -> nothing but this:\n", "utf-8")
        failed = await program.line(step("reload-failed"), stream="err")
        assert "SyntaxError" in failed["rest"]
        source.write_text(version(3), "utf-8")
        await program.line(step("reloaded"), stream="err", count=2)
        await program.line("^3$", count=2)
        result = await program.interrupt()
    assert (result.status, result.out.split()) == (0, ["1", "1", "2", "2", "3", "3"])


@pytest.mark.parametrize("target", ["server.js", "server.cjs", "./src/server.mjs"])
def test_of_a_node_program_other_files_count(target: str) -> None:
    assert str(cluster.SourceFiles(target=target)) == "*.js, *.cjs, *.mjs in ."
    assert str(cluster.SourceFiles(include=["*.ts"], target=target)) == "*.ts in ."


@pytest.mark.parametrize("target", ["app:main", "worker.py", None])
def test_of_any_other_program_those_of_python_count(target: str | None) -> None:
    assert str(cluster.SourceFiles(target=target)) == "*.py in ."


@needs_signals
@needs_node_channel
@pytest.mark.parametrize("how", [{"target": "changing.js"}, {"target": None, "node": "changing.js"}])
async def test_a_change_of_a_node_program_leads_to_a_reload(tmp_path: Path, how: dict[str, Any]) -> None:
    source = tmp_path / "changing.js"
    source.write_text("console.log(1); process.on('message', () => {});\n", "utf-8")
    async with started(**how, cwd=tmp_path, workers=1, reload=True) as program:
        await program.line(step("watching", rest=r"\*\.js, \*\.cjs, \*\.mjs in \."), stream="err")
        await running(program)
        (tmp_path / "other.py").write_text("", "utf-8")
        source.write_text("nothing in any language\n", "utf-8")
        await program.line(step("changed", rest=r"changing\.js"), stream="err")
        await program.line(step("reload-failed"), stream="err")
        source.write_text("console.log(2); process.on('message', () => {});\n", "utf-8")
        await program.line(step("reloaded"), stream="err")
        await program.line("^2$")
        result = await program.interrupt()
    assert (result.status, result.out.split()) == (0, ["1", "2"])


@needs_signals
async def test_where_no_worker_is_left_the_next_change_starts_them(tmp_path: Path) -> None:
    source = tmp_path / "changing.py"
    source.write_text("not Python\n", "utf-8")
    (tmp_path / "other").mkdir()
    async with started(
        "changing:main", cwd=tmp_path, workers=2, reload=True, reload_dirs=[str(tmp_path)], max_restarts=0
    ) as program:
        await program.line(step("waiting"), stream="err")
        source.write_text("not Python either\n", "utf-8")
        await program.line(step("reload-failed"), stream="err")
        await program.line(step("waiting"), stream="err", count=2)
        source.write_text("async def main(worker):\n    await worker.ready()\n    raise SystemError\n", "utf-8")
        await program.line(step("waiting"), stream="err", count=3)
        source.write_text(version(1), "utf-8")
        await program.line("^1$", count=2)
        await program.line(step("reloaded"), stream="err", count=2)
        result = await program.interrupt()
    assert result.status == 0
    # They have the names of those that there were.
    assert set(re.findall(r"  worker (\d+) ", result.err)) == {"1", "2"}


@needs_signals
async def test_who_was_started_meanwhile_is_not_started_by_a_change_as_well(tmp_path: Path) -> None:
    source, broken = tmp_path / "changing.py", tmp_path / "broken"
    source.write_text("import os\nassert not os.path.exists('broken')\n" + version(1), "utf-8")
    broken.touch()
    async with started("changing:main", cwd=tmp_path, workers=2, reload=True, max_restarts=0) as program:
        await program.line(step("waiting"), stream="err")
        broken.unlink()
        program.process.send_signal(signal.SIGTTIN)
        await program.line(step("ready"), stream="err")
        source.write_text(version(2), "utf-8")
        await program.line(step("reloaded", rest="2 workers .*"), stream="err")
        result = await program.interrupt()
    assert result.status == 0
    assert set(re.findall(r"  worker (\d+) ", result.err)) == {"1", "2"}
