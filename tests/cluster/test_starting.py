"""What a worker process is started with: its command line, its groups, its descriptors and where it finds modules."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyipc import cluster
from pyipc.cluster.spawning import process_options


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="cannot run here: only root has groups to lose"
)
def test_workers_of_another_user_are_in_none_of_the_superusers_groups() -> None:
    options = process_options(cluster.Settings(uid=65534, gid=65534))
    assert options["extra_groups"] == []
    assert "extra_groups" not in process_options(cluster.Settings())
    options = process_options(cluster.Settings(gid=65534)) | {"stdout": subprocess.PIPE, "text": True}
    done = subprocess.run(["/usr/bin/id", "-G"], check=True, **options)
    assert done.stdout.split() == ["65534"]
