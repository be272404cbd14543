"""All mutants, by what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.mutants.catalogue import (
    asking,
    bounds,
    clustering,
    confirming,
    identity,
    jobs,
    lasting,
    moving,
    node,
    places,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.mutants.mutant import Mutant

__all__ = ["CATALOGUE", "MUTANTS"]

CATALOGUE: Final[Mapping[str, Sequence[Mutant]]] = {
    "Events that are confirmed": confirming.MUTANTS,
    "What is sent, and connections that come and go": moving.MUTANTS,
    "Requests and streams": asking.MUTANTS,
    "Limits": bounds.MUTANTS,
    "Who is there": identity.MUTANTS,
    "Socket files and pipes": places.MUTANTS,
    "Silence and endings": lasting.MUTANTS,
    "Bytes": wire.MUTANTS,
    "Jobs": jobs.MUTANTS,
    "Workers of a cluster": clustering.MUTANTS,
    "Workers that are Node programs": node.MUTANTS,
}
MUTANTS: Final[Sequence[Mutant]] = [mutant for mutants in CATALOGUE.values() for mutant in mutants]
