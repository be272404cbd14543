"""Which handlers a name reaches, in which order, and which one answers."""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import operator
import weakref
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyipc.message
from pyipc.errors import InvalidEventName, LocalProtocolError
from pyipc.protocol.patterns import Pattern
from pyipc.router import Handler, Router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyipc.message import Message

    NotAtRunTime = int

T = TypeVar("T")


def calls(handlers: tuple[Handler, ...]) -> list[object]:
    return [handler.call for handler in handlers]


def handler(name: str) -> Callable[[Message[Any]], None]:
    def call(message: Message[Any]) -> None: ...

    call.__qualname__ = name
    return call


first, second, third = handler("first"), handler("second"), handler("third")


@pytest.fixture
def router() -> Router:
    return Router()


# --- registration -----------------------------------------------------------------------------------------------


def test_on_returns_the_handler_both_ways(router: Router) -> None:
    assert router.on("a", first) is first
    assert router.on("b")(first) is first
    assert router.once("c", first) is first

    @router.once("d")
    def decorated(message: Message[Any]) -> None: ...

    assert [(found.call, found.once) for name in "abcd" for found in router.handlers_for(name)] == [
        (first, False),
        (first, False),
        (first, True),
        (decorated, True),
    ]


def test_every_matching_handler_in_order_of_registration(router: Router) -> None:
    router.on("**", third)
    router.on("a.b", first)
    router.on("x", first)
    router.on("a.*", second)
    router.on("a.b", first)
    assert calls(router.handlers_for("a.b")) == [third, first, second, first]
    assert calls(router.handlers_for("a")) == [third]


def test_nobody_for_a_name() -> None:
    router = Router()
    assert router.handlers_for("a") == ()
    assert router.responder_for("a") is None
    assert router.responder_for("a") is None


@pytest.mark.parametrize("pattern", ["", "a*b", "**.a", 3])
def test_a_pattern_must_be_valid(router: Router, pattern: Any) -> None:
    for register in (router.on, router.once, router.off):
        with pytest.raises(InvalidEventName):
            register(pattern, first)
    with pytest.raises(InvalidEventName):
        router.on(pattern)  # not only when the decorator is applied


def test_a_decorator_without_a_name_is_told(router: Router) -> None:
    with pytest.raises(InvalidEventName, match="text, such as"):
        router.on(first)  # type: ignore[call-overload]


@pytest.mark.parametrize("pattern", ["pyipc.hello", "pyipc.*", "pyipc.**", "pyipc."])
def test_the_names_of_the_protocol_are_refused(router: Router, pattern: str) -> None:
    with pytest.raises(InvalidEventName, match="protocol's own") as caught:
        router.on(pattern, first)
    assert caught.value.event == pattern
    router.on("pyipc", first)
    router.on("pyipcs.x", first)


class Things:
    def method(self, message: Message[str]) -> None: ...

    def __call__(self, message: Message[int]) -> None: ...

    @classmethod
    def of_class(cls, message: Message[bytes]) -> None: ...

    @staticmethod
    def static(message: Message[float]) -> None: ...


async def coroutine(message: Message[int]) -> None: ...


async def generator(message: Message[int]) -> AsyncIterator[int]:
    yield 1


def with_more(prefix: str, message: Message[int], *, suffix: str = "") -> None: ...


def no_argument() -> None: ...


def two_arguments(message: object, socket: object) -> None: ...


def keyword_only(*, message: object) -> None: ...


def keyword_needed(message: object, *, database: object) -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        coroutine,
        generator,
        Things().method,
        Things(),
        Things.of_class,
        Things.static,
        functools.partial(with_more, "x"),
        lambda *messages: None,
        lambda message, other=1: None,
        [].append,
        print,
        operator.itemgetter("x"),
        min,  # tells nothing about its arguments
        str.upper,
    ],
)
def test_whatever_takes_one_argument_is_a_handler(router: Router, call: Any) -> None:
    router.on("a", call)
    (registered,) = router.handlers_for("a")
    assert registered.function is call
    assert registered.data_type in (None, int, str, bytes, float)
    assert registered.name


@pytest.mark.parametrize(
    "call", [no_argument, two_arguments, keyword_only, keyword_needed, Things.method, functools.partial(no_argument)]
)
def test_a_handler_takes_one_argument(router: Router, call: Any) -> None:
    with pytest.raises(TypeError, match="cannot be called with the message alone") as caught:
        router.on("a", call)
    name = getattr(call, "__qualname__", "no_argument")
    assert f"{__name__}.{name} " in str(caught.value)
    assert router.handlers_for("a") == ()


def yields(message: Any) -> Any:
    yield message


class Yielding:
    def __call__(self, message: Any) -> Any:
        yield message


@pytest.mark.parametrize("call", [yields, functools.partial(yields), Yielding(), Yielding().__call__])
def test_a_generator_function_that_is_not_async_is_no_handler(router: Router, call: Any) -> None:
    """None of its lines would run, and what it was called with would count as handled, and be confirmed."""
    with pytest.raises(TypeError, match=r"is a generator function, .* write 'async def' before it"):
        router.on("a", call)
    assert router.handlers_for("a") == ()


@pytest.mark.parametrize("call", ["text", 3, object()])
def test_a_handler_can_be_called(router: Router, call: Any) -> None:
    with pytest.raises(TypeError, match="a handler is a function"):
        router.on("a", call)


# --- removal ----------------------------------------------------------------------------------------------------


def test_off_removes_one_handler_or_all(router: Router) -> None:
    for call in (first, second, first, third):
        router.on("a", call)
    router.once("a", first)
    router.on("a.*", first)
    router.off("a", first)
    assert calls(router.handlers_for("a")) == [second, third]
    router.off("a")
    assert router.handlers_for("a") == ()
    assert calls(router.handlers_for("a.b")) == [first]


def test_off_compares_patterns_and_does_not_match_them(router: Router) -> None:
    router.on("a.*", first)
    router.on("a.b", second)
    with pytest.raises(LocalProtocolError):
        router.off("a.b", first)
    with pytest.raises(LocalProtocolError):
        router.off("a.**")
    router.off("a.*")
    assert calls(router.handlers_for("a.b")) == [second]


def test_off_knows_methods_again(router: Router) -> None:
    things = Things()
    router.on("a", things.method)
    with pytest.raises(LocalProtocolError):
        router.off("a", Things().method)
    router.off("a", things.method)
    assert router.handlers_for("a") == ()


def test_off_of_what_is_not_there_is_an_error(router: Router) -> None:
    other = Router()
    other.on("a", first)
    router.include(other)
    version = router.version
    with pytest.raises(LocalProtocolError, match=r"no handler is registered here for 'a'"):
        router.off("a")
    with pytest.raises(LocalProtocolError, match=r"the handler .*\.first is not registered here for 'a'"):
        router.off("a", first)
    assert calls(router.handlers_for("a")) == [first]
    assert router.version == version


def test_discard_tells_one_caller_alone_that_it_was_there(router: Router) -> None:
    inner, innermost = Router(), Router()
    router.include(inner)
    inner.include(innermost)
    for place in (router, innermost):
        place.once("a", first)
        place.once("a", first)
    one, two, three, four = router.handlers_for("a")
    assert [router.discard(three), router.discard(three)] == [True, False]
    assert router.handlers_for("a") == (one, two, four)
    assert [inner.discard(one), router.discard(one)] == [False, True]
    assert router.handlers_for("a") == (two, four)
    assert inner.handlers_for("a") == (four,)


def test_a_removal_during_dispatch_skips_nobody(router: Router) -> None:
    called: list[str] = []

    def removes_itself(message: object) -> None:
        called.append("itself")
        router.off("a", removes_itself)

    def removes_the_next(message: object) -> None:
        called.append("next")
        router.off("a", last)

    def last(message: object) -> None:
        called.append("last")

    for call in (removes_itself, removes_the_next, last):
        router.on("a", call)
    for found in router.handlers_for("a"):
        found.call(None)
    assert called == ["itself", "next", "last"]
    assert calls(router.handlers_for("a")) == [removes_the_next]


# --- the one that answers ---------------------------------------------------------------------------------------


def test_a_request_goes_to_the_most_specific(router: Router) -> None:
    router.on("a.*", second)
    router.on("a.b", first)
    router.on("**", third)
    answers = {name: router.responder_for(name) for name in ("a.b", "a.c", "a.b.c")}
    assert {name: found and found.call for name, found in answers.items()} == {
        "a.b": first,
        "a.c": second,
        "a.b.c": third,
    }


def test_two_that_could_answer_are_an_error_that_names_both(router: Router) -> None:
    router.on("a.*", first)
    router.on("a.*", second)
    router.on("a.*", third)
    for _ in range(2):
        with pytest.raises(LocalProtocolError) as caught:
            router.responder_for("a.b")
        for part in ("'a.b'", f"{__name__}.first", f"{__name__}.second", "'a.*'"):
            assert part in str(caught.value)
    assert calls(router.handlers_for("a.b")) == [first, second, third]


def test_less_specific_doubles_do_not_matter(router: Router) -> None:
    router.on("**", first)
    router.on("**", first)
    router.on("a", second)
    router.on("*", third)
    router.on("*", third)
    answer = router.responder_for("a")
    assert answer is not None
    assert answer.call is second


def test_the_answer_follows_the_changes(router: Router) -> None:
    router.on("a", first)
    before = router.responder_for("a")
    assert router.responder_for("a") is before
    router.on("a", second)
    with pytest.raises(LocalProtocolError):
        router.responder_for("a")
    router.off("a", first)
    after = router.responder_for("a")
    assert after is not None
    assert after.call is second


# --- including --------------------------------------------------------------------------------------------------


def test_included_handlers_keep_the_order_of_registration(router: Router) -> None:
    inner = Router()
    router.on("a", first)
    inner.on("a", second)
    router.on("a", third)
    router.include(inner)
    inner.on("a", first)
    assert calls(router.handlers_for("a")) == [first, second, third, first]
    assert calls(inner.handlers_for("a")) == [second, first]


def test_included_twice_runs_once(router: Router) -> None:
    left, right, shared = Router(), Router(), Router()
    shared.on("a", first)
    for side in (left, right):
        side.include(shared)
        router.include(side)
    router.include(shared)
    version = router.version
    router.include(shared)
    assert router.version == version
    assert calls(router.handlers_for("a")) == [first]
    answer = router.responder_for("a")
    assert answer is not None
    assert answer.call is first
    shared.on("a", second)
    assert calls(router.handlers_for("a")) == [first, second]


def test_circles_are_refused(router: Router) -> None:
    middle, inner = Router(), Router()
    router.include(middle)
    middle.include(inner)
    for outer in (router, middle, inner):
        version = inner.version
        with pytest.raises(LocalProtocolError, match="cannot include itself"):
            inner.include(outer)
        assert inner.version == version


def test_only_routers_are_included(router: Router) -> None:
    with pytest.raises(TypeError, match="takes a Router"):
        router.include(first)  # type: ignore[arg-type]


def test_a_router_does_not_keep_alive_who_included_it() -> None:
    shared, server = Router(), Router()
    server.include(shared)
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None
    shared.on("a", first)
    assert calls(shared.handlers_for("a")) == [first]


def test_many_diamonds_cost_no_more_than_routers() -> None:
    # Were every way walked, this would be 2**40 steps.
    bottom = top = Router()
    for _ in range(40):
        left, right, above = Router(), Router(), Router()
        for side in (left, right):
            side.include(top)
            above.include(side)
        top = above
    bottom.on("a", first)
    (found,) = top.handlers_for("a")
    assert top.discard(found)
    assert top.handlers_for("a") == ()


def test_the_version_changes_with_what_matches(router: Router) -> None:
    middle, inner = Router(), Router()
    seen = [router.version]

    def changed() -> bool:
        seen.append(router.version)
        return seen[-1] not in seen[:-1]

    router.on("a", first)
    assert changed()
    router.include(middle)
    assert changed()
    middle.include(inner)
    assert changed()
    inner.once("a", first)
    assert changed()
    assert inner.discard(inner.handlers_for("a")[0])
    assert changed()
    router.off("a")
    assert changed()
    version = inner.version
    router.on("b", first)
    assert inner.version == version
    assert router.handlers_for("b") == router.handlers_for("b")
    assert changed()
    assert not changed()


def test_repr_shows_state(router: Router) -> None:
    router.on("a", first)
    router.include(Router())
    assert repr(router) == "<Router: 1 handlers, 1 included routers>"


# --- the cache --------------------------------------------------------------------------------------------------


def test_what_is_remembered_about_names_is_bounded(router: Router) -> None:
    router.on("**", first)
    names = [f"name-{number}" for number in range(3_000)]
    for name in names:
        assert len(router.handlers_for(name)) == 1
        assert router.responder_for(name) is not None
        assert max(len(router._matches), len(router._responders)) <= 1_024
    assert router.handlers_for(names[-1]) is router.handlers_for(names[-1])


PATTERNS = st.sampled_from(["a", "a.b", "*", "a.*", "**", "*.b", "a.**"])
ACTIONS = st.lists(st.tuples(st.sampled_from(["on", "once", "off", "discard"]), st.booleans(), PATTERNS), max_size=20)


@given(ACTIONS)
def test_the_cache_is_never_seen(actions: list[tuple[str, bool, str]]) -> None:
    outer, inner = Router(), Router()
    outer.include(inner)
    model: list[tuple[bool, str]] = []  # where, pattern
    for action, inside, pattern in actions:
        router = inner if inside else outer
        if action in ("on", "once"):
            getattr(router, action)(pattern, first)
            model.append((inside, pattern))
        elif action == "off":
            remaining = [one for one in model if one != (inside, pattern)]
            if remaining == model:
                with pytest.raises(LocalProtocolError):
                    router.off(pattern)
            else:
                router.off(pattern)
            model = remaining
        elif found := outer.handlers_for("a.b"):
            assert outer.discard(found[0])
            model.remove(next(one for one in model if Pattern(one[1]).matches("a.b")))
        for name in ("a", "a.b", "b"):
            expected = [one for one in model if Pattern(one[1]).matches(name)]
            assert [found.pattern.text for found in outer.handlers_for(name)] == [text for _, text in expected]
            assert [found.pattern.text for found in inner.handlers_for(name)] == [text for ins, text in expected if ins]


# --- the declared type ------------------------------------------------------------------------------------------


def declared(call: Callable[..., Any]) -> Any:
    router = Router()
    router.on("a", call)
    (found,) = router.handlers_for("a")
    assert found.data_type is found.data_type
    return found.data_type


def takes_point(message: Message[Point]) -> NotAtRunTime:  # Point stands below, the result is for type checkers
    return 0


def takes_quoted(message: Message["list[Point]"]) -> None: ...  # noqa: UP037 - quoted twice on purpose


def takes_annotated(message: Annotated[Message[Annotated[int, "above zero"]], "note"]) -> None: ...


def takes_nothing_much(message: Message) -> None: ...  # type: ignore[type-arg]


def takes_any(message: Message[Any]) -> None: ...


def takes_none(message: Message[None]) -> None: ...


def takes_variable(message: Message[T]) -> None: ...


def takes_another(message: Other[int]) -> None: ...


def takes_no_message(message: int) -> None: ...


def takes_unannotated(message) -> None: ...  # type: ignore[no-untyped-def]


def takes_many(*messages: Message[int]) -> None: ...


def takes_optional(message: Message[int | None]) -> None: ...


@functools.wraps(takes_point)
def wrapped(*arguments: Any, **keywords: Any) -> Any: ...


@functools.cache
def cached(message: Message[int]) -> None: ...


class Other(Generic[T]):
    pass


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("call", "data_type"),
    [
        (takes_point, Point),
        (takes_quoted, list[Point]),
        (takes_annotated, Annotated[int, "above zero"]),
        (takes_optional, int | None),
        (takes_none, type(None)),
        (takes_many, int),
        (wrapped, Point),
        (cached, int),
        (coroutine, int),
        (generator, int),
        (Things().method, str),
        (Things(), int),
        (Things.of_class, bytes),
        (Things.static, float),
        (functools.partial(with_more, "x"), int),
        (functools.partial(functools.partial(with_more, "x"), suffix="y"), int),
        (takes_nothing_much, None),
        (takes_any, None),
        (takes_variable, None),
        (takes_another, None),
        (takes_no_message, None),
        (takes_unannotated, None),
        (lambda message: None, None),
        (print, None),
        (min, None),
    ],
)
def test_the_type_of_the_data(call: Any, data_type: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert declared(call) == data_type
    assert caplog.records == []


def test_the_type_of_the_data_without_quotes() -> None:
    def call(message: object) -> None: ...

    call.__annotations__["message"] = pyipc.message.Message[int]
    assert declared(call) is int


def unresolvable(message: Message[NotAtRunTime]) -> None: ...


def broken(message: 1 / 0) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(("call", "reason"), [(unresolvable, "NameError"), (broken, "ZeroDivisionError")])
def test_a_type_that_cannot_be_found_is_no_type_and_is_told_once(
    call: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pyipc.router"):
        assert declared(call) is None
    (record,) = caplog.records
    assert f"{__name__}.{call.__name__}" in record.getMessage()
    assert reason in record.getMessage()


def test_the_type_is_looked_up_no_earlier_than_asked_for(router: Router) -> None:
    namespace: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef call(message: Message[Later]) -> None: ...", namespace)
    router.on("a", namespace["call"])
    namespace["Later"] = Point
    (found,) = router.handlers_for("a")
    assert found.data_type is Point


def test_a_decorator_from_elsewhere_does_not_hide_where_the_names_are() -> None:
    namespace: dict[str, Any] = {"call": takes_point, "functools": functools}
    exec("@functools.wraps(call)\ndef wrapper(*arguments): ...", namespace)
    assert "Point" not in namespace
    assert declared(namespace["wrapper"]) is Point


def test_a_module_that_has_its_own_message_means_that_one() -> None:
    namespace: dict[str, Any] = {"Message": Other}
    exec("from __future__ import annotations\ndef call(message: Message[int]) -> None: ...", namespace)
    assert declared(namespace["call"]) is None


def test_handlers_are_what_they_are_and_not_what_they_hold(router: Router) -> None:
    router.on("a", first)
    router.on("a", first)
    one, two = router.handlers_for("a")
    assert one != two
    assert len({one, two}) == 2
    assert one.order < two.order
    assert not hasattr(one, "__dict__")
    assert one.name == f"{__name__}.first"


def test_names_for_people(router: Router) -> None:
    handlers: list[Any] = [Things(), functools.partial(with_more, "x"), [].append, str.upper]
    for call in handlers:
        router.on("a", call)
    assert [found.name for found in router.handlers_for("a")] == [
        f"{__name__}.Things",
        f"{__name__}.with_more",
        "list.append",
        "str.upper",
    ]
