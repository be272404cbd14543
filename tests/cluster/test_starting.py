"""What a worker process is started with: its command line, its groups, its descriptors and where it finds modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pyipc import cluster
from pyipc.cluster.environment import VARIABLE, Invitation, take_invitation
from pyipc.cluster.spawning import process_options
from pyipc.cluster.target import command_line
from tests.cluster.diary import PATIENCE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

IS_ROOT = sys.platform != "win32" and os.geteuid() == 0
posix = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: Windows inherits neither of these")


@pytest.mark.skipif(not IS_ROOT, reason="cannot run here: only root has groups to lose")
def test_workers_of_another_user_are_in_none_of_the_superusers_groups() -> None:
    options = process_options(cluster.Settings(uid=65534, gid=65534))
    assert options["extra_groups"] == []
    assert "extra_groups" not in process_options(cluster.Settings())
    options = process_options(cluster.Settings(gid=65534)) | {"stdout": subprocess.PIPE, "text": True}
    done = subprocess.run(["id", "-G"], check=True, **options)
    assert done.stdout.split() == ["65534"]


@pytest.mark.parametrize(
    ("own", "command"),
    [
        (["-um", "prog", "a"], ["-u", "-m", "prog", "a"]),
        (["-mprog", "-m"], ["-m", "prog", "-m"]),
        (["-uW", "error", "prog.py"], ["-uW", "error", "prog.py"]),
        (["-Wignore", "-X", "dev", "prog.py", "-c"], ["-Wignore", "-X", "dev", "prog.py", "-c"]),
        (
            ["--check-hash-based-pycs", "always", "-OO", "prog.py"],
            ["--check-hash-based-pycs", "always", "-OO", "prog.py"],
        ),
    ],
)
def test_the_program_of_this_process_is_found_behind_any_options(own: list[str], command: list[str]) -> None:
    assert command_line(cluster.Settings(), executable="python", own=["python", *own]) == ["python", *command]


@pytest.mark.parametrize("own", [["-uc", "pass"], ["-"], ["-i"]])
def test_a_program_without_a_file_cannot_be_run_again(own: list[str]) -> None:
    with pytest.raises(cluster.ClusterError, match="no file to start again"):
        command_line(cluster.Settings(), executable="python", own=["python", *own])


def test_an_invitation_that_cannot_be_read_makes_no_primary() -> None:
    environment = {VARIABLE: "{}x"}
    for _ in range(2):
        with pytest.raises(cluster.ClusterError, match="unset it"):
            take_invitation(environment)
    environment = {VARIABLE: str(Invitation(id="1"))}
    assert take_invitation(environment) == Invitation(id="1")
    assert not environment


PRIMARY = """
    import json, sys
    import trio
    from pyipc import cluster

    async def main() -> None:
        settings = json.loads(sys.argv[1])
        async with cluster.Cluster("beside:main", workers=1, restart="never", args=[], **settings) as primary:
            print(json.dumps(await primary.worker("1").request("what")))

    trio.run(main)
"""
BESIDE = """
    import os, signal, subprocess, sys

    async def main(worker):
        def what(message):
            code = "import signal; print(signal.getsignal(2).__name__, repr(signal.getsignal(1))[1:17])"
            child = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
            inheritable = []
            for descriptor in range(3, 64):
                try:
                    if os.get_inheritable(descriptor):
                        inheritable.append(descriptor)
                except OSError:
                    pass
            return {"file": __file__, "child": child.stdout, "inheritable": inheritable}

        worker.on("what", what)
        await worker.run()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A script with a module beside it, where a worker is found; another of that name is in `elsewhere`."""
    directory = tmp_path / "program"
    for each in (directory, tmp_path / "elsewhere"):
        each.mkdir()
        (each / "beside.py").write_text(textwrap.dedent(BESIDE))
    (directory / "primary.py").write_text(textwrap.dedent(PRIMARY))
    return directory


def run(program: Path, **settings: object) -> dict[str, object]:
    """Run it from elsewhere; what the worker says."""
    done = subprocess.run(
        [sys.executable, str(program / "primary.py"), json.dumps(settings)],
        cwd=program.parent / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    said: dict[str, object] = json.loads(done.stdout)
    return said


@posix
def test_a_module_beside_the_script_is_found_and_a_worker_leaves_nothing_to_its_children(program: Path) -> None:
    said = run(program)
    assert said["file"] == str(program / "beside.py")
    assert said["inheritable"] == []
    assert said["child"] == "default_int_handler Handlers.SIG_DFL\n"


@posix
def test_a_directory_that_the_settings_name_comes_first(program: Path) -> None:
    said = run(program, cwd=str(program.parent / "elsewhere"))
    assert said["file"] == str(program.parent / "elsewhere" / "beside.py")
