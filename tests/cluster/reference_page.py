"""The page of a cluster's settings, states, events and errors, made from what the code says of them."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from typing import Any

from pyipc import cluster
from pyipc.cluster import errors
from tests.statistics_page import meanings
from tests.test_architecture import shown

__all__ = ["page"]

_HEAD = """\
# Cluster: settings, events, errors

What [a cluster](../how-to/cluster.md) can be told, and what it tells. This page is made from the code:
`python -m tests.cluster.reference_page > docs/reference/cluster.md`.

## Settings

Keyword arguments of `Cluster(...)` and `setup_primary(...)`, for all workers that are started from then on, and of
`fork(...)` for one. Seconds may be fractions. A name that does not exist, or a value out of range, is an error at once.

| Setting | Default | Meaning |
|---|---|---|
"""

_EVENTS = """
## Events

`primary.on(type, handler)` and, for one worker, `handle.on(type, handler)` take one of these types:
%s.

The handler, plain or async, gets one `WorkerEvent`:

| | |
|---|---|
"""

_INFO = """
## The table of workers

`primary.workers` is a live mapping from ids to `WorkerHandle`, and `worker.info()` a row of it, frozen:

| | |
|---|---|
"""

_STATISTICS = """
## Statistics

Frozen snapshots, as [those of connections](statistics.md). `primary.statistics()`:

| | |
|---|---|
"""

_JOB_STATISTICS = """
Its `jobs`:

| | |
|---|---|
"""

_HANDING_STATISTICS = """
Each of its `handovers`, for an address that the primary accepts at:

| | |
|---|---|
"""

_ERRORS = """
## Errors

```text
%s
```
"""


def page() -> str:
    """The whole page."""
    said = meanings(cluster.Settings)
    parts = [_HEAD]
    fields = dataclasses.fields(cluster.Settings)
    parts += [f"| `{field.name}` | {_default(field)} | {said[field.name]} |\n" for field in fields]
    parts += [_EVENTS % ", ".join(f"`{type}`" for type in cluster.EVENTS), *_rows(cluster.WorkerEvent)]
    parts += [_INFO, *_rows(cluster.WorkerInfo)]
    parts += [_STATISTICS, *_rows(cluster.ClusterStatistics)]
    parts += [_JOB_STATISTICS, *_rows(cluster.JobStatistics)]
    parts += [_HANDING_STATISTICS, *_rows(cluster.HandingStatistics)]
    tree = inspect.cleandoc(errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    parts.append(_ERRORS % textwrap.dedent(tree))
    return "".join(parts)


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return f"{value:g} s" if isinstance(value, float) else shown(field.name, value)


def _rows(kind: type[Any]) -> list[str]:
    said = meanings(kind)
    return [f"| `{field.name}` | {said[field.name]} |\n" for field in dataclasses.fields(kind)]


if __name__ == "__main__":
    print(page(), end="")
