"""The pulse of a worker: how it tells that it is alive, and what its primary concludes from it, or from silence."""

from __future__ import annotations

import importlib.util
import logging
import random
from typing import TYPE_CHECKING, Any

import trio

import pyipc
from pyipc.cluster import control
from pyipc.cluster.errors import ClusterError
from pyipc.cluster.events import WorkerEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyipc.cluster.events import EventQueue
    from pyipc.cluster.process import WorkerProcess
    from pyipc.cluster.settings import Settings

__all__ = ["Watch", "check_memory_known", "memory_reader", "send_pulses"]

logger: logging.Logger = logging.getLogger("pyipc.cluster")


async def send_pulses(control_client: pyipc.Client, interval: float) -> None:
    """Tell the primary, again and again, that this event loop turns, and how late it is.

    Args:
        control_client: The client by which this worker is ruled.
        interval: Seconds between two pulses.

    Cancellation: the last one may have been sent.
    """
    lag = 0.0
    try:
        while True:
            await control_client.emit(control.PULSE, {"lag": round(lag, 6)})
            due = trio.current_time() + interval
            await trio.sleep_until(due)
            lag = trio.current_time() - due
    except pyipc.ConnectionClosed:
        return  # whoever wanted to know is gone


class Watch:
    """Watches over one process that has become ready.

    Silence is counted in ticks of this event loop, and judged a whole tick after it has become too long: a primary that
    stood still itself, or was late, has read by then what arrived meanwhile.

    Args:
        process: The process.
        queue: Where is told what is wrong with it.
        renew_soon: Called with the process and a reason when it is to be replaced, again with each tick.
        chance: A random number of at least 0 and less than 1.
    """

    def __init__(
        self,
        process: WorkerProcess,
        queue: EventQueue,
        renew_soon: Callable[[WorkerProcess, str], None],
        chance: random.Random | None = None,
    ) -> None:
        self._process = process
        self._settings: Settings = process.settings
        self._queue = queue
        self._renew_soon = renew_soon
        # By up to a tenth earlier, so that workers that were started together are not replaced together.
        self._lifetime = (self._settings.max_age_timeout or 0) * (1 - (chance or random.Random()).random() / 10)
        self._read_memory = memory_reader(process.pid)
        self._was_too_large = False

    async def run(self) -> None:
        """Watch over it until it is judged to hang, which ends it.

        Cancellation: it is watched no more.
        """
        process, tick = self._process, self._settings.heartbeat_interval
        silence, heard = 0.0, process.pulses
        while not self._is_too_long(silence):
            process.memory = self._read_memory()
            self._judge_age_and_size()
            await trio.sleep(tick)
            silence = silence + tick if process.pulses == heard else 0.0
            heard = process.pulses
        reason = f"it hangs: its event loop has not been heard of for {silence:g} s"
        logger.error("worker %r: %s; it is killed", process.handle.id, reason)
        self._queue.report(WorkerEvent(type="unhealthy", worker=process.handle, reason=reason))
        process.fail(reason)

    def _is_too_long(self, silence: float) -> bool:
        timeout = self._settings.hang_timeout
        return timeout is not None and silence - self._settings.heartbeat_interval >= timeout

    def _judge_age_and_size(self) -> None:
        process, most = self._process, self._settings.max_memory_size
        age = trio.current_time() - process.started
        if most is not None and process.memory is not None and process.memory > most:
            reason = f"it has {process.memory:,} bytes of memory, and max_memory_size is {most:,}"
            if not self._was_too_large:
                self._queue.report(WorkerEvent(type="unhealthy", worker=process.handle, reason=reason))
            self._was_too_large = True
            self._renew_soon(process, reason)
        elif self._lifetime and age > self._lifetime:
            most_age = self._settings.max_age_timeout
            self._renew_soon(process, f"it is {age:.0f} s old, and max_age_timeout is {most_age:g} s")


def check_memory_known(settings: Settings) -> None:
    """See whether what the settings say of memory can be kept.

    Raises:
        ClusterError: It takes psutil, which is not there.
    """
    if settings.max_memory_size is not None and importlib.util.find_spec("psutil") is None:
        raise ClusterError(
            "max_memory_size takes the package psutil, which is not installed; install pyipc-sockets[cluster]"
        )


def memory_reader(pid: int | None) -> Callable[[], int | None]:
    """What tells the resident bytes of a process each time; ``None`` if nobody can tell, or it is gone."""
    try:
        import psutil
    except ImportError:
        return lambda: None
    try:
        process: Any = psutil.Process(pid)
    except psutil.Error:
        return lambda: None

    def read() -> int | None:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return None

    return read
