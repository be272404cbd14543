"""Workers whose interpreters take long to start, as on a machine that is busy."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from pyipc import Options, cluster
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: Wine has a sitecustomize of its own")
async def test_a_worker_may_start_for_longer_than_a_peer_may_be_silent(tmp_path: Path) -> None:
    patience = Options().handshake_timeout
    assert patience is not None
    # Python looks for a module of this name before it runs anything else.
    (tmp_path / "sitecustomize.py").write_text(f"import time\ntime.sleep({patience + 1.5})\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    async with cluster.Cluster("tests.cluster.job_program:main", workers=1, env=env) as primary:
        (worker,) = primary.workers.values()
        assert worker.restarts == 0
        assert await worker.request("words", "one two") == 2
