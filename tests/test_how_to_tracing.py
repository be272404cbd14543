"""docs/how-to/tracing.md: its programs run, and print what it says."""

from __future__ import annotations

import contextlib
import contextvars
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "how-to" / "tracing.md").read_text("utf-8")
SIZES, BY_HAND, OPEN_TELEMETRY = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = re.findall(r"^```console\n\$ python examples/tracing.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


def test_the_first_instrument(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(SIZES, "tracing.md", "exec"), {"__name__": "guide"})
    frame = b'{"type":"tick","data":{"n":1}}\f'
    assert capsys.readouterr().out == f"{len(frame)} bytes\n"


async def test_a_span_given_by_hand() -> None:
    router = pyipc.Router()
    router.on("order", lambda message: message.traceparent)
    call = re.sub(r"^await ", "answer = lambda: ", BY_HAND)
    names: dict[str, Any] = {}
    async with pyipc.Server("memory:by-hand", router=router), pyipc.connect("memory:by-hand") as client:
        exec(call, names | {"client": client}, names)
        names["answer"].__globals__["client"] = client
        assert await names["answer"]() in BY_HAND


@pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: the example uses a local name, a Unix socket")
@pytest.mark.time_limit(60)
async def test_the_tree_is_as_the_guide_shows_it() -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "tracing.py")]
    result = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    assert result.stderr == b""
    assert re.sub(r", [0-9.]+ ms\)", ")", result.stdout.decode()) == SHOWN


# --- with OpenTelemetry, or what is called as it is ---------------------------------------------------------------

present: contextvars.ContextVar[str] = contextvars.ContextVar("present", default="")


class Stand:
    """Stands in the place of OpenTelemetry: the few functions that the guide calls, called as those are."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []

    @contextlib.contextmanager
    def start_as_current_span(
        self, name: str, context: str | None = None, kind: str = "", attributes: dict[str, str] | None = None
    ) -> Iterator[None]:
        parent = present.get() if context is None else context
        number = len(self.spans) + 1
        self.spans.append((kind, name, parent))
        token = present.set(f"00-{parent[3:35] or f'{number:032x}'}-{number:016x}-01")
        try:
            yield
        finally:
            present.reset(token)

    def extract(self, carrier: dict[str, str]) -> str:
        return carrier["traceparent"]

    def inject(self, carrier: dict[str, str]) -> None:
        if present.get():
            carrier["traceparent"] = present.get()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand()
    kinds = types.SimpleNamespace(CLIENT="client", SERVER="server")
    trace = types.SimpleNamespace(get_tracer=lambda name: stand, SpanKind=kinds)
    propagation = types.SimpleNamespace(TraceContextTextMapPropagator=lambda: stand)
    monkeypatch.setitem(sys.modules, "opentelemetry", types.SimpleNamespace(trace=trace))
    name = "opentelemetry.trace.propagation.tracecontext"
    monkeypatch.setitem(sys.modules, name, propagation)
    return stand


async def test_the_instrument_for_open_telemetry(stand: Stand) -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(OPEN_TELEMETRY, "tracing.md", "exec"), names)
    instrument = names["OpenTelemetry"]()
    router = pyipc.Router()

    @router.on("outer")
    async def outer(message: pyipc.Message[Any]) -> Any:
        return await message.connection.request("inner")

    router.on("inner", lambda message: message.traceparent)
    name = "memory:open-telemetry"
    server = pyipc.Server(name, router=router, instrument=instrument)
    async with server, pyipc.connect(name, router=router, instrument=instrument) as client:
        await client.request("outer")
    assert [(kind, event) for kind, event, _ in stand.spans] == [
        ("client", "outer"),
        ("server", "outer"),
        ("client", "inner"),
        ("server", "inner"),
    ]
    # Each comes from the one before it, and all are of one trace.
    assert [parent[36:52] for _, _, parent in stand.spans] == ["", f"{1:016x}", f"{2:016x}", f"{3:016x}"]
