"""R6: the malformed catalogue, over real sockets. Each case comes out as documented, and nobody else notices."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.battery.catalogue import (
    calls,
    delimiters,
    envelope,
    handshake,
    json_text,
    parts,
    records,
    topics,
    truncation,
)
from tests.battery.catalogue.runner import complaints
from tests.conformance.subjects import SUBJECTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.battery.catalogue.cases import Chapter
    from tests.conformance.subjects import Subject

CHAPTERS = [
    module.CHAPTER for module in (records, delimiters, truncation, json_text, envelope, calls, handshake, parts, topics)
]
TRANSPORTS = [name for name in ("unix", "pipe", "tcp", "tls", "memory") if sys.platform in SUBJECTS[name].platforms]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
async def test_each_case_comes_out_as_documented(chapter: Chapter, transport: str, tmp_path: Path) -> None:
    def place(name: str) -> Subject:
        folder = tmp_path / name
        folder.mkdir()
        return SUBJECTS[transport](folder)

    assert await complaints(place, chapter.cases) == []
