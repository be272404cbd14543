"""Starts the Python of `build.sh` under Wine, and believes nothing that Wine says about how it ended.

    start.py TARGET --pytest ARGUMENTS...   run pytest in this repository
    start.py TARGET ARGUMENTS...            run python.exe with these arguments
    start.py TARGET --windows-10            make the Wine prefix

A crash of the wineserver ends every program with status 0, or lets it hang. So the wineserver is a child of this
program, pytest writes its status into a file, and a run that lost its wineserver is made once more. All that was
started is ended afterwards; only what belongs to the prefix in TARGET is touched.

Status 124: too late (after WINE_TIME_LIMIT seconds, 2,700 if not set). 125: it ended without a status, or the
wineserver crashed twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
TOO_LATE, NO_STATUS = 124, 125

# Regular files do not do as output of a Windows program, and what Wine starts in the background keeps pipes open.
QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

# The file has the name of the test that runs, and at the end the status.
RUN_PYTEST = """
import pathlib, sys, pytest

progress = pathlib.Path(sys.argv[1])

class Progress:
    def pytest_runtest_logstart(self, nodeid):
        progress.write_text(nodeid, "utf-8")

status = int(pytest.main(sys.argv[2:], [Progress()]))
progress.write_text(str(status))
sys.exit(status)
"""
# No cache, as its paths are those of Windows; and each test is bounded, where signals cannot do it, by its process.
PYTEST_OPTIONS = ("-p", "no:cacheprovider", "-o", "faulthandler_timeout=120")
# What a run of all tests does without: tests of the command line that start a program for nearly every sentence that
# they look at. That takes Wine minutes, and the sentences are those of every system; test_windows.py and the others of
# the command line start enough of them.
LEFT_OUT = tuple(f"--ignore-glob=*cli*test_{name}.py" for name in ("bench", "frame", "tls"))


class ServerCrashed(Exception):
    """The wineserver ended by itself."""


class Wine:
    """A Wine prefix with a wineserver of its own.

    Args:
        target: Where `build.sh` has put, or will put, everything.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.prefix = target / "prefix"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
            "PATH": f"/usr/lib/wine:{os.environ['PATH']}",
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": os.environ.get("WINEDEBUG", "-all"),
            "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=d",
            "PYTHONPYCACHEPREFIX": windows_path(target / "bytecode"),
            "HYPOTHESIS_STORAGE_DIRECTORY": windows_path(target / "hypothesis"),
        }

    @contextlib.contextmanager
    def server(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a wineserver, and end all of the prefix at the end."""
        self.prefix.mkdir(parents=True, exist_ok=True)
        self._end_everything()  # of a run that was killed
        server = subprocess.Popen(
            ["wineserver", "--foreground", "--persistent"], env=self.environment, start_new_session=True, **QUIET
        )
        try:
            yield server
        finally:
            self._end_everything()
            server.wait(30)

    def call(self, *command: str, limit: float = 180) -> None:
        """Run a program of Wine's to its end."""
        subprocess.run(["wine64", *command], env=self.environment, timeout=limit, check=True, **QUIET)

    def python(self, server: subprocess.Popen[bytes], arguments: Sequence[str], limit: float) -> int:
        """Run Python, its output being ours.

        Raises:
            ServerCrashed: The wineserver did not live through it.
            subprocess.TimeoutExpired: It did not end in time.
        """
        self.call("cmd", "/c", "exit")  # starts the services, which would keep our pipes open
        process = subprocess.Popen(
            ["wine64", str(self.target / "python" / "python.exe"), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [
            threading.Thread(target=pump, args=streams, daemon=True)
            for streams in ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
        ]
        for thread in pumps:
            thread.start()
        deadline = time.monotonic() + limit
        try:
            while process.poll() is None:
                if server.poll() is not None:
                    raise ServerCrashed
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(process.args, limit)
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for thread in pumps:
                thread.join(2)
        if server.poll() is not None:
            raise ServerCrashed
        return process.returncode

    def _end_everything(self) -> None:
        subprocess.run(["wineserver", "--kill"], env=self.environment, timeout=60, check=False, **QUIET)
        # What has lost its wineserver.
        mark = f"WINEPREFIX={self.prefix}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)


def windows_path(path: Path) -> str:
    """The name by which a program under Wine finds a file: the root of this system is its drive Z."""
    return "Z:" + str(path).replace("/", "\\")


def pump(source: BinaryIO, target: BinaryIO) -> None:
    """Copy what a program writes as it comes."""
    while data := os.read(source.fileno(), 65_536):
        target.write(data)
        target.flush()


def run(wine: Wine, arguments: Sequence[str], limit: float) -> int:
    """Run Python or pytest, once more if the wineserver crashed; return its status."""
    with tempfile.TemporaryDirectory(prefix="pyipc-wine-") as scratch:
        status_file = Path(scratch) / "status"
        is_pytest = arguments[:1] == ["--pytest"]
        if is_pytest:
            chosen = any(argument.startswith("tests") for argument in arguments)
            options = PYTEST_OPTIONS if chosen else PYTEST_OPTIONS + LEFT_OUT
            arguments = ["-c", RUN_PYTEST, windows_path(status_file), *options, *arguments[1:]]
        for _ in range(2):
            try:
                with wine.server() as server:
                    status = wine.python(server, arguments, limit)
            except ServerCrashed:
                say("the wineserver crashed")
                continue
            except subprocess.TimeoutExpired:
                say(f"it took longer than {limit:g} s and was ended{_where(status_file)}")
                return TOO_LATE
            if not is_pytest:
                return status
            if status_file.exists() and (text := status_file.read_text("utf-8")).isdecimal():
                return int(text)
            say(f"it ended without saying how the tests went{_where(status_file)}")
            return NO_STATUS
    return NO_STATUS


def _where(status_file: Path) -> str:
    return f", in {status_file.read_text('utf-8')}" if status_file.exists() else ""


def say(text: str) -> None:
    """Tell the person who started this."""
    print(f"wine: {text}", file=sys.stderr, flush=True)


def main() -> int:
    target = Path(sys.argv[1]).resolve()
    arguments = sys.argv[2:]
    wine = Wine(target)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that it ends what it started
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at a time would end each other
        if arguments == ["--windows-10"]:
            with wine.server():
                wine.call("wineboot", "--init")
                wine.call("winecfg", "-v", "win10")
            return 0
        return run(wine, arguments, float(os.environ.get("WINE_TIME_LIMIT", "2700")))


if __name__ == "__main__":
    sys.exit(main())
