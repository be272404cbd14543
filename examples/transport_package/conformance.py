"""Lets the conformance suite of pyipc run over this transport.

In a clone of pyipc, with this package installed:
``PYTHONPATH=examples/transport_package PYIPC_CONFORMANCE=conformance:Deflate ./run test tests/conformance``
"""

from __future__ import annotations

from pyipc import Endpoint
from tests.conformance.subjects import STREAM, Feature, Subject

__all__ = ["Deflate"]


class Deflate(Subject):
    name = "deflate"
    promises = STREAM | {Feature.HOST}

    def server_endpoint(self) -> Endpoint:
        return Endpoint(f"deflate:{self.anywhere}")
