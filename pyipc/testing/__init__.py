"""What helps to test programs that use pyipc: pairs in memory, and links that misbehave when told to.

::

    from pyipc.testing import Faults, FaultyTransport

    transport = FaultyTransport(Faults(seed=7, delay=(0.0, 0.2), split=1))
    async with pyipc.connect(pyipc.Endpoint("world", transport=transport)) as client:
        ...
        transport.links[-1].blackhole()

Nothing is registered anywhere: only the endpoint that was given the transport is affected, be it of
a client or of a server.
"""

from __future__ import annotations

from pyipc.testing.faults import Faults as Faults
from pyipc.testing.faults import FaultStatistics as FaultStatistics
from pyipc.testing.faults import Traffic as Traffic
from pyipc.testing.faulty_link import FaultyLink as FaultyLink
from pyipc.testing.faulty_transport import FaultyTransport as FaultyTransport
from pyipc.testing.pairs import pair as pair

__all__ = ["FaultStatistics", "Faults", "FaultyLink", "FaultyTransport", "Traffic", "pair"]
