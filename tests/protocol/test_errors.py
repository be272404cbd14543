"""The tree of errors: who is under whom, and that what an error knows is in its attributes."""

from __future__ import annotations

import builtins
import inspect

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
