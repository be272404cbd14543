"""The figures of a run are put together as they were noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.battery.report import BEGIN, END, table, with_section

if TYPE_CHECKING:
    from pathlib import Path


def note(test: str, seconds: float, *, passed: bool = True, **counts: int) -> dict[str, object]:
    return {"test": test, "seconds": seconds, "passed": passed, "counts": counts}


def test_figures_are_summed_by_row(tmp_path: Path) -> None:
    (tmp_path / "test_r01_kills.py").write_text('"""R1: processes are\nkilled.\n\nMore."""\n')
    (tmp_path / "test_r18_soak.py").write_text('"""On and on."""\n')
    notes = [
        note("test_r18_soak.py::test_a", 700, messages=1_000),
        note("test_r01_kills.py::test_a[tcp]", 2.2, messages=5, kills=1, lost=0),
        note("test_r01_kills.py::test_a[unix]", 3, messages=6, kills=2, lost=0),
    ]
    assert table(notes, tmp_path).splitlines()[2:] == [
        "| R1 | Processes are killed. | 3 kills, 0 lost, 11 messages | 5 s |",
        "| R18 | On and on. | 1,000 messages | 12 min |",
        "| | **all** | **3 kills, 0 lost, 1,011 messages** | **12 min** |",
    ]


def test_a_run_that_failed_is_no_evidence() -> None:
    with pytest.raises(ValueError, match=r"these failed, so there is nothing to show: test_r01\.py::test_a"):
        table([note("test_r01.py::test_a", 1, passed=False)])


def test_the_page_around_it_stays() -> None:
    page = f"# Page\n{BEGIN}\nold\n{END}\nend\n"
    assert with_section(page, "new") == f"# Page\n{BEGIN}\n\nnew\n\n{END}\nend\n"
    assert with_section(with_section(page, "new"), "new") == with_section(page, "new")
    with pytest.raises(ValueError, match="has no"):
        with_section("# Page\n", "new")
