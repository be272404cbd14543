"""What the tests of the cluster share with those of the command line: a directory for sockets."""

from __future__ import annotations

from tests.cli.conftest import directory as directory
