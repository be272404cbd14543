"""Every example and every program in the README, run as a reader would run it."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from pyipc.transports.safe_paths import default_directories
from tests.conftest import needs_node_channel

if TYPE_CHECKING:
    import subprocess

    from tests.conftest import NodeModules

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
#: Programs that another test runs, because they need a partner.
ELSEWHERE = {
    "from_node_ipc": "tests/test_examples_from_node_ipc.py",
    "node": "tests/interop/test_node_examples.py",
    "transport_package": "tests/test_transport_package.py",
}
#: Programs that start one of Node.
WITH_NODE = {"cluster/mixed.py"}
ARGUMENTS = {"wordcount/main.py": ["--limit", "300"]}
PATIENCE = 100

pytestmark = [
    pytest.mark.skipif(
        sys.platform == "win32", reason="cannot run here: the examples use local names, which need Unix sockets"
    ),
    pytest.mark.time_limit(PATIENCE + 10),
]

PROGRAMS = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("cluster/*.py"), *EXAMPLES.glob("*/main.py"))
)


async def run(
    program: Path, *arguments: str, task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [sys.executable, "-W", "error", program, *arguments],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            task_status=task_status,
        )


def marks(program: str) -> list[pytest.MarkDecorator]:
    return [needs_node_channel] if program in WITH_NODE else []


@pytest.mark.parametrize("program", [pytest.param(each, marks=marks(each)) for each in PROGRAMS])
async def test_an_example_runs(program: str) -> None:
    result = await run(EXAMPLES / program, *ARGUMENTS.get(program, ()))
    assert (result.returncode, result.stderr.decode()) == (0, "")
    assert result.stdout
    shown = re.search(rf"^    \$ python examples/{program}\n(.*?)^\"\"\"", source(program), re.MULTILINE | re.DOTALL)
    if shown is not None:
        assert result.stdout.decode() == textwrap.dedent(shown[1])


def source(program: str) -> str:
    return (EXAMPLES / program).read_text("utf-8")


def test_the_examples_of_the_cluster_say_what_they_print() -> None:
    for program in PROGRAMS:
        if program.startswith("cluster/"):
            assert f"    $ python examples/{program}\n" in source(program)


def test_no_example_is_left_out() -> None:
    programs = {Path(program).parts[0] for program in PROGRAMS}
    for entry in EXAMPLES.iterdir():
        if entry.name in ELSEWHERE:
            assert (ROOT / ELSEWHERE[entry.name]).exists()
        elif not entry.name.startswith(("_", ".")):
            assert entry.name in programs, f"nothing runs examples/{entry.name}"


def blocks(language: str) -> list[str]:
    """The code blocks of the README in one language."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def output_of(command: str) -> str:
    """What the README says that a command prints."""
    (shown,) = [block for block in blocks("console") if block.startswith(f"$ {command}\n")]
    return shown.partition("\n")[2]


def files_of(name: str) -> set[Path]:
    """Sockets and lock files of a bare name and of a node-ipc name, wherever they may be."""
    places = [Path("/tmp"), *map(Path, default_directories(os.getuid()))]
    return {
        path for place in places if place.is_dir() for path in place.iterdir() if re.search(rf"\b{name}\b", path.name)
    }


@pytest.mark.interop
async def test_the_readme_runs(tmp_path: Path, node_modules: NodeModules) -> None:
    """All of its programs, at once and unchanged but for the name, with the output that it shows."""
    name = f"world_{os.getpid()}"  # a word, since it becomes one in JavaScript
    server, client, node_client = blocks("python")[0], blocks("python")[1], blocks("js")[0]
    assert [len(program.splitlines()) for program in (server, client, node_client)] == [13, 11, 5]
    for file, source in (("server.py", server), ("client.py", client), ("client.js", node_client)):
        unique = re.sub(r"\bworld\b", name, source)
        assert unique != source
        (tmp_path / file).write_text(unique, "utf-8")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            server_process = await nursery.start(run, tmp_path / "server.py")
            result = await run(tmp_path / "client.py")
            node = await trio.run_process(
                ["node", tmp_path / "client.js"],
                capture_stdout=True,
                env={**os.environ, "NODE_PATH": str(node_modules("9.2.1"))},
            )
            while_it_ran = files_of(name)
            server_process.send_signal(signal.SIGINT)  # as Ctrl-C does
    assert (result.returncode, result.stderr.decode()) == (0, "")
    assert result.stdout.decode() == output_of("python client.py")
    assert node.stdout.decode() == output_of("node client.js")
    assert len(while_it_ran) == 4, while_it_ran  # two sockets, each with a lock file
    assert files_of(name) == set()


async def test_the_parts_of_the_readme_run(tmp_path: Path) -> None:
    """Its program with an example of each part beyond events and requests."""
    name = f"shop_{os.getpid()}"
    (program,) = [block for block in blocks("python") if '"shop"' in block]
    (tmp_path / "shop.py").write_text(program.replace('"shop"', repr(name)), "utf-8")
    result = await run(tmp_path / "shop.py")
    assert (result.returncode, result.stderr.decode()) == (0, "")
    assert result.stdout.decode() == output_of("python shop.py")
    assert files_of(name) == set()


async def test_the_workers_of_the_readme_run(tmp_path: Path) -> None:
    """Its program with a cluster."""
    name = f"library_{os.getpid()}"
    (program,) = [block for block in blocks("python") if '"library"' in block]
    (tmp_path / "library.py").write_text(program.replace('"library"', repr(name)), "utf-8")
    result = await run(tmp_path / "library.py")
    assert (result.returncode, result.stderr.decode()) == (0, "")
    assert result.stdout.decode() == output_of("python library.py")
    assert files_of(name) == set()
