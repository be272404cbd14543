"""What a cluster counts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyipc.cluster.handing import HandingStatistics
    from pyipc.cluster.handle import WorkerInfo
    from pyipc.cluster.jobs import JobStatistics

__all__ = ["ClusterStatistics"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatistics:
    """A cluster, as of now.

    Attributes:
        workers: The table of workers, in the order in which they were forked.
        jobs: The jobs that were submitted.
        handovers: What became of connections, by the address at which the primary has accepted them.
    """

    workers: tuple[WorkerInfo, ...]
    jobs: JobStatistics
    handovers: Mapping[str, HandingStatistics]
