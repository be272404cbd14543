"""What is counted, and how. Workers, clients and the check all use this, so that they mean the same by a word."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

# One file is one message, and a message may take 1 MiB on the wire unless both sides raise max_frame_size.
MAX_FILE_SIZE = 512 * 1024
WORD = re.compile(r"\w+")


class Count(TypedDict):
    """What there is in one file, or in several."""

    files: int
    characters: int
    words: Mapping[str, int]


def source_files(limit: int | None = None) -> list[Path]:
    """The source files of Python's standard library, as far as they are installed here."""
    library = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages"}
    found = (path for path in library.rglob("*.py") if foreign.isdisjoint(path.parts))
    return sorted(path for path in found if path.stat().st_size <= MAX_FILE_SIZE)[:limit]


def read(path: Path) -> str:
    # Some files of Python's own test suite are broken text on purpose.
    return path.read_text("utf-8", errors="replace")


def count(text: str) -> Count:
    return {"files": 1, "characters": len(text), "words": Counter(WORD.findall(text))}


class Tally:
    """The sum of counts."""

    def __init__(self) -> None:
        self.files = 0
        self.characters = 0
        self.words: Counter[str] = Counter()

    def add(self, counted: Count) -> None:
        self.files += counted["files"]
        self.characters += counted["characters"]
        self.words.update(counted["words"])

    def sum(self) -> Count:
        return {"files": self.files, "characters": self.characters, "words": self.words}

    def totals(self) -> dict[str, int]:
        return {
            "files": self.files,
            "characters": self.characters,
            "words": self.words.total(),
            "different words": len(self.words),
        }
