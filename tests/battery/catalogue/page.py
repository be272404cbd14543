"""The page of the catalogue: what is sent, and what comes of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.battery.catalogue import (
    calls,
    delimiters,
    descriptors,
    envelope,
    from_server,
    handshake,
    json_text,
    parts,
    plain_to_tls,
    records,
    topics,
    truncation,
)
from tests.battery.catalogue.cases import HELLO, PLAIN, Case, House

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALL", "CHAPTERS", "PAGE", "TO_CLIENTS", "TO_TLS", "TO_UNIX", "page"]

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "reference" / "malformed.md"
#: What is sent to servers, over every transport that is a stream.
CHAPTERS: Final = tuple(
    module.CHAPTER for module in (records, delimiters, truncation, json_text, envelope, calls, handshake, parts, topics)
)
#: What is sent to servers at Unix sockets.
TO_UNIX: Final = descriptors.CHAPTER
#: What is sent to servers that speak TLS.
TO_TLS: Final = plain_to_tls.CHAPTER
#: What is sent to clients.
TO_CLIENTS: Final = from_server.CHAPTER
ALL: Final = (*CHAPTERS, TO_UNIX, TO_TLS, TO_CLIENTS)

_HEAD = """\
# What a peer may do wrong

The catalogue of malformed input: {count} cases, and what comes of each. All of them are sent over real sockets to a
server by `tests/battery/test_r06_malformed.py` (those of the last chapter to a client). It looks at why the connection
ends, what the peer is told, what handlers get, whether the connection still answers, and that another client of the
server notices nothing. The rules behind it are in [the wire protocol](protocol.md).

| Outcome | Means |
|---|---|
| Closed: `code` | The connection ends for this reason, which a peer that has introduced itself is told |
| Dropped | The stream ended within a frame or record: the reason is `eof`, and no handler gets a part of it |
| Heard | Handlers get it, and the connection lives on |
| Answered | The peer is told this, and the connection lives on |
| Ignored | Nothing at all, and the connection lives on |

*pyipc*: the peer has introduced itself before; *plain*: it has not. Where the options of the server are not the default
ones, that stands behind it.
"""
_FOOT = """
This page is made by `python -m tests.battery.catalogue > docs/reference/malformed.md`; a test fails when it is not up
to date.
"""


def _outcome(case: Case) -> str:
    """What comes of a case, in words."""
    said = []
    if case.hears or case.unheard:
        said.append("heard" if case.hears else "heard, though nobody handles it")
    if case.told:
        said.append(f"answered {_answers(case)}")
    if case.finishes:
        said.append("the rest dropped" if said else "dropped")
    elif case.code:
        said.append(f"closed: `{case.code if len(case.code) <= 20 else case.code[:20] + '…'}`")
    text = ", then ".join(said) or "ignored"
    return text[0].upper() + text[1:]


def _answers(case: Case) -> str:
    """The kinds of frames that the peer is told, each once."""
    kinds = dict.fromkeys(f"`{kind}`{_code_of(fields)}" for kind, fields in case.told)
    return " and ".join(kinds)


def _code_of(fields: dict[str, object]) -> str:
    return f" `{fields['code']}`" if fields.get("code") else ""


def _peer(case: Case) -> str:
    """Who sends it, and to whom."""
    kind = "plain" if case.first == PLAIN else "pyipc"
    if case.first not in (PLAIN, HELLO, from_server.WELCOME_FRAME):
        kind = "pyipc, of its own kind"
    return kind if case.house is House.DEFAULT else f"{kind}; {case.house.value}"


def _rows(title: str, cases: tuple[Case, ...]) -> Iterator[str]:
    yield f"| **{title}** | | |\n"
    for _, alike in itertools.groupby(cases, key=lambda case: (case.family or case.name, case.code)):
        case, *others = alike
        name = f"{case.family}: {1 + len(others)} places" if case.family else case.name
        yield f"| {_escaped(name)} | {_peer(case)} | {_outcome(case)} |\n"


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")
    return "".join(each if each.isprintable() else f"U+{ord(each):04X}" for each in text.replace("<", "&lt;"))


def page() -> str:
    """The page as it should be."""
    text = [_HEAD.format(count=f"{sum(len(chapter.cases) for chapter in ALL):,}")]
    for chapter in ALL:
        text.append(f"\n## {chapter.title}\n\n{chapter.about} {len(chapter.cases)} cases.\n\n")
        text.append("| What is sent | By | Outcome |\n|---|---|---|\n")
        for title, cases in chapter.sections.items():
            text += _rows(title, cases)
    return "".join([*text, _FOOT])
