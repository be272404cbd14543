"""The page of a cluster's settings and events says what the code does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pyipc import cluster
from tests.cluster.reference_page import page
from tests.conftest import ROOT
from tests.statistics_page import meanings


def test_the_page_is_the_one_that_the_code_makes() -> None:
    written = (ROOT / "docs" / "reference" / "cluster.md").read_text("utf-8")
    assert written == page(), "python -m tests.cluster.reference_page > docs/reference/cluster.md"


@pytest.mark.parametrize(
    "kind",
    [
        *[cluster.Settings, cluster.WorkerEvent, cluster.WorkerInfo],
        *[cluster.ClusterStatistics, cluster.JobStatistics, cluster.HandingStatistics],
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_field_says_what_it_means(kind: type[Any]) -> None:
    assert list(meanings(kind)) == [field.name for field in dataclasses.fields(kind)]


def test_the_settings_can_be_given_by_name() -> None:
    from pyipc.cluster.settings import SettingOverrides

    assert set(SettingOverrides.__annotations__) == {field.name for field in dataclasses.fields(cluster.Settings)}
