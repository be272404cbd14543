"""Topics of a cluster: what its primary publishes to workers, and hears of what they publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyipc
    from pyipc.cluster.job import Attachment
    from pyipc.cluster.switchboard import Switchboard

__all__ = ["Publishing"]


class Publishing:
    """The part of a `Cluster` that is about topics."""

    _switchboard: Switchboard

    async def publish(
        self,
        topic: str,
        data: object = None,
        *,
        retain: bool = False,
        attachments: Iterable[Attachment] = (),
        traceparent: str = "",
    ) -> pyipc.BroadcastReport:
        """Publish under a topic, to workers that have subscribed. See `pyipc.Server.publish`.

        Cancellation: a cancelled publish has sent nothing.
        """
        return await self._switchboard.messages.publish(
            topic, data, retain=retain, attachments=list(attachments), traceparent=traceparent
        )

    def subscribe(
        self,
        pattern: str,
        *,
        max_buffered: int = 1_024,
        max_buffered_size: int = 8 * 1024 * 1024,
        policy: Literal["drop_oldest", "drop_newest", "close"] = "drop_oldest",
        retained: bool = True,
    ) -> pyipc.Subscription:
        """Subscribe to what workers publish. See `pyipc.Server.subscribe`."""
        return self._switchboard.messages.subscribe(
            pattern,
            max_buffered=max_buffered,
            max_buffered_size=max_buffered_size,
            policy=policy,
            retained=retained,
        )
