"""R6: the malformed catalogue, over real sockets. Each case comes out as documented, and nobody else notices."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.battery.catalogue import hostile_server, plain_to_tls, runner
from tests.battery.catalogue.page import ALL, CHAPTERS, PAGE, TO_CLIENTS, TO_TLS, TO_UNIX, page
from tests.battery.leaks import leak_gate
from tests.conformance.subjects import SUBJECTS
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.catalogue.cases import Chapter
    from tests.battery.conftest import Tally
    from tests.conformance.subjects import Subject

TRANSPORTS = [name for name in ("unix", "pipe", "tcp", "tls", "memory") if sys.platform in SUBJECTS[name].platforms]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of lines about what peers did wrong would hide what went wrong here."""
    caplog.set_level(logging.CRITICAL, "pyipc")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
async def test_each_case_comes_out_as_documented(
    chapter: Chapter, transport: str, tmp_path: Path, tally: Tally
) -> None:
    def place(name: str) -> Subject:
        folder = tmp_path / name
        folder.mkdir()
        return SUBJECTS[transport](folder)

    watched = () if transport == "tls" else (tmp_path,)  # where certificates are made, which stay
    async with leak_gate(*watched):
        assert await runner.complaints(place, chapter) == []
    tally.add(cases=len(chapter.cases))


@pytest.mark.skipif(sys.platform != "linux", reason=f"{CANNOT_RUN} descriptors are passed and counted as on Linux")
async def test_descriptors_that_nobody_asked_for(tmp_path: Path, tally: Tally) -> None:
    async with leak_gate(tmp_path):
        assert await runner.complaints(lambda name: SUBJECTS["unix"](tmp_path), TO_UNIX) == []
    tally.add(cases=len(TO_UNIX.cases))


async def test_plain_text_to_a_server_that_speaks_tls(tmp_path: Path, tally: Tally) -> None:
    async with leak_gate():
        assert await plain_to_tls.complaints(SUBJECTS["tls"](tmp_path)) == []
    tally.add(cases=len(TO_TLS.cases))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_bears_any_server(transport: str, tmp_path: Path, tally: Tally) -> None:
    async with leak_gate():
        assert await hostile_server.complaints(SUBJECTS[transport](tmp_path), TO_CLIENTS) == []
    tally.add(cases=len(TO_CLIENTS.cases))


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    for chapter in ALL:
        assert len(chapter.cases) == sum(map(len, chapter.sections.values())), chapter.title
    assert sum(len(chapter.cases) for chapter in ALL) >= 520


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.battery.catalogue > docs/reference/malformed.md"
