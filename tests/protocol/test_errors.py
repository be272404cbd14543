"""The tree of errors: who is under whom, and that what an error knows is in its attributes."""

from __future__ import annotations

import builtins
import inspect
import re
from pathlib import Path

import pytest

from pyipc import errors


def classes() -> dict[str, type]:
    return {
        name: thing
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and thing.__module__ == errors.__name__
    }


def test_every_error_has_one_root_and_shadows_no_builtin() -> None:
    assert set(errors.__all__) == set(classes())
    for name, kind in classes().items():
        assert issubclass(kind, errors.IPCError)
        assert not hasattr(builtins, name)
        assert kind.__doc__


def test_the_drawing_is_the_tree() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    above = [errors.IPCError.__name__]
    for line in lines:
        before, _, after = line.partition("── ")
        level = len(before) // 4 - 1
        name = after.split()[0]
        del above[level + 1 :]
        assert above[-1] in {base.__name__ for base in classes()[name].__bases__}, name
        above.append(name)
    assert len(lines) == len(errors.__all__) - 1


@pytest.mark.parametrize(
    ("error", "attributes", "words"),
    [
        (errors.PeerRefused("full", "no room"), {"code": "full", "message": "no room"}, "(full): no room"),
        (errors.PeerNotAllowed("no", peer=5), {"peer": 5}, "no"),
        (errors.ConnectionLost("gone"), {"maybe_handled": False}, "gone"),
        (errors.ConnectionLost("gone", maybe_handled=True), {"maybe_handled": True}, "gone"),
        (errors.Undelivered(3, "three"), {"count": 3}, "three"),
        (errors.InvalidEventName(5, "no"), {"event": 5}, "no"),
        (errors.MessageTooLarge(2_000, 1_000), {"size": 2_000, "limit": 1_000}, "takes 2,000 bytes on the wire"),
        (errors.PeerLacksFeature("stream", "no"), {"feature": "stream"}, "no"),
        (errors.RemoteProtocolError("json", "no"), {"code": "json"}, "no"),
        (errors.NoHandler("e", "no"), {"event": "e"}, "no"),
        (errors.InvalidData("no"), {"path": "$"}, "no"),
        (errors.InvalidData("no", "$.a"), {"path": "$.a"}, "no"),
        (
            errors.RequestTimeout("e", 5.0, "; hint"),
            {"event": "e", "timeout": 5.0},
            "no answer to 'e' within 5 s; hint",
        ),
        (errors.Refused("c", "m"), {"code": "c", "message": "m", "data": None}, "c: m"),
        (errors.Refused("c/4", "m", [1]), {"code": "c/4", "message": "m", "data": [1]}, "c/4: m"),
        (errors.RemoteError("c", "m", [1]), {"code": "c", "message": "m", "data": [1]}, "c: m"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_an_error_knows(error: errors.IPCError, attributes: dict[str, object], words: str) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert words in str(error)


def test_errors_that_are_builtin_ones_too() -> None:
    assert issubclass(errors.AddressError, ValueError)
    assert issubclass(errors.RequestTimeout, TimeoutError)


@pytest.mark.parametrize("code", ["", " ", "no such account", "new\nline", "x" * 65, "\u00e4", "a\x7f", "a\ud800"])
def test_a_refusal_needs_a_code(code: str) -> None:
    with pytest.raises(ValueError, match="no code; take a short name of 1 to 64"):
        errors.Refused(code, "no")


@pytest.mark.parametrize(
    "code",
    [
        *("no-handler", "invalid-data", "handler-failed", "reply-too-large"),
        *("not-a-stream", "is-a-stream", "too-many", "bad-pattern"),
    ],
)
def test_a_refusal_does_not_pass_for_one_of_the_protocol(code: str) -> None:
    with pytest.raises(ValueError, match=f"the protocol itself says '{code}'"):
        errors.Refused(code, "no")


@pytest.mark.parametrize(("code", "message"), [(404, "no"), (None, "no"), (b"no", "no"), ("no", None), ("no", ["no"])])
def test_a_refusal_is_of_texts(code: object, message: object) -> None:
    with pytest.raises(TypeError, match="both text"):
        errors.Refused(code, message)  # type: ignore[arg-type]


def test_every_code_in_the_specification_is_one_of_the_protocol() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "reference" / "protocol.md").read_text("utf-8")
    tables = re.findall(r"^\| Code \| Of an error.*?\n\n|^\| Code of an error.*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert len(tables) == 2
    rows = [line.split("|")[1] for table in tables for line in table.splitlines()[2:] if line]
    codes = {code for row in rows for code in re.findall(r"`([^`]+)`", row)}
    assert codes == errors._CODES_OF_THE_PROTOCOL | {"not-allowed"}
