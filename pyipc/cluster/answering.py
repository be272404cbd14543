"""What the primary does about what its workers say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyipc
from pyipc.cluster import control

if TYPE_CHECKING:
    from pyipc.cluster.claiming import Claims
    from pyipc.cluster.introducing import Introductions
    from pyipc.cluster.switchboard import Switchboard

__all__ = ["answer_workers"]


def answer_workers(switchboard: Switchboard, claims: Claims, introductions: Introductions) -> None:
    """Have each thing that a worker says over its control connection handled by whom it concerns."""
    router, process_of = switchboard.router, switchboard.process_of
    router.on(control.LISTEN, lambda message: claims.listen(process_of(message), message.data))
    router.on(control.LINK, lambda message: introductions.introduce(process_of(message), message.data))
    router.on(control.LINKED, lambda message: introductions.taken(process_of(message), message.data))
    router.on(control.UNLISTEN, lambda message: claims.close(process_of(message), message.data))
    router.on(control.ONLINE, lambda message: process_of(message).on_online())
    router.on(control.TAKING, lambda message: process_of(message).taking.told(message.data))
    router.on(control.ASKING, lambda message: process_of(message).is_listened_to.set())
    router.on(control.READY, lambda message: process_of(message).on_ready())
    router.on(control.PULSE, lambda message: process_of(message).on_pulse(message.data))
    router.on(control.FAILED, lambda message: process_of(message).on_failed(str(message.data)))
    router.on(control.LEAVE, lambda message: process_of(message).on_leave(voluntary=bool(message.data)))
    router.on(
        control.LISTENING,
        lambda message: process_of(message).on_listening(pyipc.parse_address(message.data)),
    )
