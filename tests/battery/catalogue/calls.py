"""Requests and answers that cannot be meant, or come at the wrong time."""

from __future__ import annotations

from tests.battery.catalogue.cases import PLAIN, Chapter, closed, control, event, frame, kept, request, says

__all__ = ["CHAPTER"]

MANY = 10_000
WAIT = request(1, "wait")


def answer(call: int, data: object = None) -> tuple[str, dict[str, object]]:
    return says("reply", call=call, data=data)


def failure(call: int, code: str, data: object = None) -> tuple[str, dict[str, object]]:
    return says("error", call=call, code=code, data=data)


NUMBERS = (
    closed("the number of a request that is being handled", "control", WAIT + WAIT),
    closed("the same, for another request", "control", WAIT + request(1, "echo")),
    closed("the same, for a stream", "control", WAIT + control("stream", call=1, event="rows", data=1)),
    closed("the same number, across two reads", "control", WAIT, WAIT),
    kept("the number of a request that was answered", request(1) + request(1), told=(answer(1), answer(1))),
    kept("numbers that go backwards", request(5) + request(3), told=(answer(5), answer(3))),
    kept("the largest number but one", request(2**53 - 2), told=(answer(2**53 - 2),)),
    closed(
        "the number of a request that waits for a slot",
        "control",
        b"".join(request(number, "wait") for number in range(1, 66)) + request(65),
    ),
    kept("10,000 requests at once", b"".join(map(request, range(MANY))), told=tuple(map(answer, range(MANY)))),
    kept(
        "1,000 requests that wait, and all are cancelled",
        b"".join(request(number, "wait") for number in range(1_000)),
        b"".join(control("cancel", call=number) for number in range(1_000)),
    ),
)
ANSWERS = (
    closed("a reply to a call that was never made", "control", control("reply", call=1)),
    closed("a reply to call 0", "control", control("reply", call=0)),
    closed("a reply to a call below 0", "control", control("reply", call=-1)),
    closed("a reply to the largest number", "control", control("reply", call=2**53 - 1)),
    closed("a reply to 2^53", "control", control("reply", call=2**53)),
    closed("a reply to a request of its own", "control", WAIT + control("reply", call=1)),
    closed("an error for a call that was never made", "control", control("error", call=1, code="x")),
    closed("an item of a stream that was never asked for", "control", control("item", call=1, data=1)),
    closed("the end of a stream that was never asked for", "control", control("end", call=1)),
    closed("a reply, after a good event", "control", frame("e", 1) + control("reply", call=7), hears=(("e", 1),)),
    closed("a reply, from a plain peer", "control", control("reply", call=1), first=PLAIN),
    closed("ten thousand replies", "control", b"".join(control("reply", call=number) for number in range(1, MANY))),
)
CANCELS = (
    kept("of a call that is unknown", control("cancel", call=7)),
    kept("of the largest number", control("cancel", call=2**53 - 2)),
    kept("of a request that was answered", request(1) + control("cancel", call=1), told=(answer(1),)),
    kept("of a request that waits", WAIT + control("cancel", call=1)),
    kept("twice", WAIT + control("cancel", call=1) + control("cancel", call=1)),
    kept("before the request", control("cancel", call=1) + request(1), told=(answer(1),)),
    kept("10,000 of unknown calls", b"".join(control("cancel", call=number) for number in range(MANY))),
    kept("from a plain peer", control("cancel", call=7), first=PLAIN),
)
REQUESTS = (
    kept("nobody handles it", request(1, "nobody"), told=(failure(1, "no-handler"),)),
    kept("an empty name", request(1, ""), told=(failure(1, "no-handler"),)),
    kept("__class__, which only Python has", request(1, "__dict__"), told=(failure(1, "no-handler"),)),
    kept("a pattern instead of a name", request(1, "**"), told=(failure(1, "no-handler"),)),
    kept("data of the wrong type", request(1, "typed", "x"), told=(failure(1, "invalid-data", {"path": "$"}),)),
    kept(
        "data of the wrong type, deep inside",
        request(1, "typed", [1, "x"]),
        told=(failure(1, "invalid-data", {"path": "$[1]"}),),
    ),
    kept("no data where there must be some", request(1, "typed"), told=(failure(1, "invalid-data", {"path": "$"}),)),
    kept(
        "true where a number must be", request(1, "typed", [True]), told=(failure(1, "invalid-data", {"path": "$[0]"}),)
    ),
    kept(
        "half a character for data",
        event(b'{"call":1,"event":"echo","data":"\\ud800"}', b"pyipc.request"),
        told=(answer(1, "\ud800"),),
    ),
    kept("an answer that is too large", request(1, "huge"), told=(failure(1, "reply-too-large"),)),
    kept("the handler refuses", request(1, "fails"), told=(failure(1, "busy", {"wait": 1}),)),
    kept("a stream asked for as a request", request(1, "rows", 1), told=(failure(1, "is-a-stream"),)),
    kept("from a plain peer", request(1), first=PLAIN, told=(answer(1),)),
    kept("nobody handles it, from a plain peer", request(1, "nobody"), first=PLAIN, told=(failure(1, "no-handler"),)),
)
ENDINGS = (
    closed("a goodbye", "goodbye", control("goodbye"), has_goodbye=False),
    closed("a goodbye with a code", "tired", control("goodbye", code="tired"), has_goodbye=False),
    closed(
        "a goodbye with a code that no log should get", "�[2J", control("goodbye", code="\x1b[2J"), has_goodbye=False
    ),
    closed(
        "a goodbye with a code of 100,000 characters",
        "x" * 256,
        control("goodbye", code="x" * 100_000),
        has_goodbye=False,
    ),
    closed("a good event after a goodbye: not read", "goodbye", control("goodbye") + frame("e", 1), has_goodbye=False),
    closed("nonsense after a goodbye: not read", "goodbye", control("goodbye") + b"nonsense", has_goodbye=False),
    closed("a goodbye from a plain peer", "goodbye", control("goodbye"), first=PLAIN),
    kept("a goaway from a client", control("goaway")),
    kept("a goaway twice", control("goaway") * 2),
    kept("a goaway from a plain peer", control("goaway"), first=PLAIN),
    kept("10,000 pings", control("ping") * MANY),
    kept("10,000 goaways", control("goaway") * MANY),
    kept("an echo, which is for datagrams: ignored", control("echo", token="x")),
)

CHAPTER = Chapter(
    "Requests and answers",
    "A number belongs to one call as long as that is under way. An answer to a call that was never made is "
    "refused; one that nobody waits for any more is not.",
    {
        "Numbers of requests": NUMBERS,
        "Answers": ANSWERS,
        "Cancels": CANCELS,
        "Requests": REQUESTS,
        "Endings, and signs of life": ENDINGS,
    },
)
