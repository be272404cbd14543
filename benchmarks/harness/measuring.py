"""One measurement, and the rounds of all."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contender import Contender, NotMeasured
from harness.processes import Child, Usage, forget_peak, only_on, pinning_processor, workers_of
from harness.results import Figures, Result
from harness.workloads import WORKER_WORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.workloads import Workload

__all__ = ["measure", "run_rounds"]

#: Seconds that one measurement may take.
PATIENCE = 60.0
#: A server is at rest when it has used no CPU time for so long, in seconds; it is waited for so long at most.
AT_REST = 0.2
REST_PATIENCE = 5.0
MIB = 1024**2
KIB = 1024


def measure(contender: Contender, workload: Workload, params: dict[str, int]) -> Figures:
    """Run one contender once, in fresh processes.

    Args:
        contender: Whom.
        workload: At what.
        params: How much of it.

    Returns:
        What its driver reported, and what it cost both processes meanwhile.

    Raises:
        NotMeasured: There are no figures.
    """
    work = workload.work
    contender.check(work)
    processor = pinning_processor() if workload.pinned else None
    told = {**params, "variant": contender.variant}
    if work in contender.at_most:
        told["count"] = min(params["count"], contender.at_most[work])
    deadline = time.monotonic() + PATIENCE
    # Not where TMPDIR says: the path of a socket has to be short.
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="pyipc-") as name,
        contextlib.ExitStack() as stack,
        only_on(processor),
    ):

        def start(file: str, role: str, address: str, params: dict[str, object]) -> Child:
            child = Child(contender, file, [role, work, address, json.dumps(params)], Path(name), deadline)
            stack.callback(child.end)
            return child

        address = contender.transport_at(workload).prepare(Path(name))
        server = None
        if work not in WORKER_WORKS:
            server = start(contender.peer, "serve", address, {**told})
            address = server.read("ready")
        if work == "idle" and server is not None:
            told["server_pid"] = server.pid
        driver = start(contender.driver(work), "drive", address, {**told})

        def serving() -> list[int]:
            return workers_of(driver.pid) if server is None else [server.pid, *workers_of(server.pid)]

        driver.read("begin", server)
        for pid in (*serving(), driver.pid):
            forget_peak(pid)
        before = Usage.of_all(serving()), Usage.of(driver.pid)
        driver.go()
        figures = driver.read_figures(server)
        if work == "idle" and server is not None:
            wait_until_at_rest(server.pid)
        after = Usage.of_all(serving()), Usage.of(driver.pid)
        return {**figures, **costs(before, after, figures["count"], connections=work == "idle")}


Pair = tuple[Usage | None, Usage | None]


def costs(before: Pair, after: Pair, count: float, *, connections: bool = False) -> Figures:
    """What both processes used between two looks at them, for each of ``count`` messages or connections."""
    if None in before or None in after:
        return {}
    figures: Figures = {}
    for side, then, now in zip(("server", "driver"), before, after, strict=True):
        assert then is not None
        assert now is not None
        figures[f"{side}_cpu_us"] = (now.cpu - then.cpu) / count * 1e6
        figures[f"{side}_peak_mib"] = now.peak / MIB
        if connections and side == "server":
            figures["kib_each"] = (now.memory - then.memory) / count / KIB
    figures["cpu_us"] = figures["server_cpu_us"] + figures["driver_cpu_us"]
    return figures


def wait_until_at_rest(pid: int) -> None:
    """Wait until a process has nothing to do, but not for ever."""
    deadline = time.monotonic() + REST_PATIENCE
    usage, last = Usage.of(pid), None
    while time.monotonic() < deadline and (last is None or usage is None or usage.cpu - last.cpu > AT_REST / 100):
        last = usage
        time.sleep(AT_REST)
        usage = Usage.of(pid)


def run_rounds(
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    rounds: int,
    *,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Measure all contenders at all workloads, one after the other, again and again.

    A contender that fails at something is not tried at it again.

    Args:
        workloads: At what.
        contenders: Whom.
        rounds: How often.
        quick: Whether to do less of everything.
        progress: Told what is measured next.
    """
    results = []
    for workload in workloads:
        params = workload.quick if quick and workload.quick is not None else workload.params
        taking_part = [contender for contender in contenders if contender.takes_part(workload)]
        results.append(Result(workload, dict(params), taking_part))
    for number in range(1, rounds + 1):
        for result in results:
            for contender in result.contenders:
                if contender.key not in result.failures:
                    progress(f"round {number} of {rounds}: {result.workload.name}: {contender.name}")
                    try:
                        result.add(number, contender.key, measure(contender, result.workload, result.params))
                    except NotMeasured as reason:
                        result.failures[contender.key] = str(reason)
    return results
