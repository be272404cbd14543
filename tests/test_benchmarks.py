"""The harness of the benchmarks: what it computes and shows, and a very small run of everything that it measures.

How fast anything is, no test says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
import textwrap
import time
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

import compare
from harness import measuring, processes
from harness.charts import bar_chart
from harness.contender import NODE_IPC, Contender, NotMeasured
from harness.contenders import CONTENDERS, by_key, other_pyipc
from harness.measuring import costs, measure, run_rounds
from harness.processes import Child, Usage, workers_of
from harness.report import Run
from harness.results import Result, Spread, ratios
from harness.tables import number, result_table, target_table, with_spread
from harness.targets import TARGETS, Target, judge
from harness.transports import CHANNEL, MUTUAL_TLS, TCP, TLS, TRANSPORTS, UDP, UNIX, Transport
from harness.workloads import CLUSTER_WORKS, OWN_WORKS, WORKLOADS, WORKS, Workload

if TYPE_CHECKING:
    from tests.conftest import NodeModules

BEGIN, END = compare.MARKS.begin, compare.MARKS.end
BY_NAME = {workload.name: workload for workload in WORKLOADS}
PYIPC, NODE, ZMQ, BARE = (by_key(key) for key in ("pyipc", "node-ipc", "zmq", "bare-sockets"))

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="cannot run here: the peers need Unix sockets")
linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="cannot run here: only Linux pins processes and tells what they use"
)


def result_of(workload: str, rounds: dict[str, list[float]], **failures: str) -> Result:
    """What a run would give in which the contenders had these values, one for each round."""
    keys = [*rounds, *failures]
    result = Result(BY_NAME[workload], dict(BY_NAME[workload].params), [by_key(key) for key in keys])
    for key, values in rounds.items():
        for turn, value in enumerate(values, 1):
            result.add(turn, key, {result.workload.figure: value, "count": 10.0})
    result.failures.update(failures)
    return result


# --- figures ----------------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_with_the_extremes() -> None:
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)
    assert Spread.of([]) is None
    assert Spread(3.0, 1.0, 5.0) / 2 == Spread(1.5, 0.5, 2.5)


def test_ratios_compare_figures_of_one_round() -> None:
    # The second round was twice as slow for both, which says nothing about either.
    assert ratios({1: 10.0, 2: 20.0}, {1: 5.0, 2: 10.0}) == Spread(2.0, 2.0, 2.0)
    assert ratios({1: 10.0, 3: 30.0}, {2: 1.0, 3: 10.0}) == Spread(3.0, 3.0, 3.0)
    assert ratios({1: 10.0}, {2: 5.0}) is None


def test_the_best_comes_first() -> None:
    rates = result_of("events-64", {"node-ipc": [10, 12, 11], "pyipc": [99, 1, 50]})
    assert rates.ranking() == [PYIPC, NODE]
    laps = result_of("request", {"node-ipc": [10, 12, 11], "pyipc": [99, 1, 50]})
    assert laps.ranking() == [NODE, PYIPC]


def test_costs_are_for_each_message() -> None:
    mib = 1024**2
    before = Usage(cpu=1.0, memory=10 * mib, peak=10 * mib), Usage(cpu=5.0, memory=mib, peak=mib)
    after = Usage(cpu=1.5, memory=12 * mib, peak=20 * mib), Usage(cpu=5.25, memory=mib, peak=2 * mib)
    assert costs(before, after, 1_000) == {
        "server_cpu_us": 500.0,
        "server_peak_mib": 20.0,
        "driver_cpu_us": 250.0,
        "driver_peak_mib": 2.0,
        "cpu_us": 750.0,
    }
    assert costs(before, after, 1_024, connections=True)["kib_each"] == 2.0
    assert costs((None, None), (None, None), 1) == {}


@linux_only
def test_the_workers_of_a_process_are_known_and_counted_together() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        assert worker.pid in workers_of(os.getpid())
        one, both = Usage.of(worker.pid), Usage.of_all([worker.pid, os.getpid()])
        assert one is not None
        assert both is not None
        assert both.memory > one.memory
        assert worker.stdin is not None
        worker.stdin.close()
    assert worker.pid not in workers_of(os.getpid())
    assert Usage.of_all([]) == Usage(0.0, 0, 0)


@linux_only
def test_what_a_process_has_used_is_known() -> None:
    before = Usage.of(os.getpid())
    sum(range(1_000_000))
    after = Usage.of(os.getpid())
    assert before is not None
    assert after is not None
    assert 0 < after.cpu - before.cpu < 60
    assert after.peak >= after.memory > 1024**2
    with pytest.raises(NotMeasured, match="ended before its time"):
        Usage.of(2**22 + 1)  # no process id is as large


# --- tables and charts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234567.8, "1,234,568")]
)
def test_numbers_have_the_digits_that_mean_something(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_spread_is_shown_where_there_is_one() -> None:
    assert with_spread(Spread(3.0, 1.0, 5.0)) == "3.00 (1.00-5.00)"
    assert with_spread(Spread(3.0, 3.0, 3.0)) == "3.00"


def test_a_table_shows_figures_multiples_and_reasons() -> None:
    result = result_of("events-64", {"pyipc": [800, 600, 700], "node-ipc": [100, 100, 100]}, zmq="no | such package")
    table = result_table(result)
    assert table.text() == [
        "One-way events of 64 B",
        "----------------------",
        "                     events/s  x node-ipc 9.2.1",
        "pyipc           700 (600-800)  7.00 (6.00-8.00)",
        "node-ipc 9.2.1            100              1.00",
        "  pyzmq: not measured: no | such package",
    ]
    assert table.markdown() == [
        "### One-way events of 64 B",
        "",
        "|  | events/s | x node-ipc 9.2.1 |",
        "| --- | ---: | ---: |",
        "| pyipc | 700 (600-800) | 7.00 (6.00-8.00) |",
        "| node-ipc 9.2.1 | 100 | 1.00 |",
        "",
        "* pyzmq: not measured: no | such package",
    ]


def test_a_cell_does_not_end_a_markdown_table() -> None:
    table = dataclasses.replace(result_table(result_of("events-64", {"pyipc": [1]})), rows=[["a|b", "c"]])
    assert "| a\\|b | c |" in table.markdown()


def test_titles_tell_how_much_work_there_was() -> None:
    large, broadcast = BY_NAME["large"], BY_NAME["broadcast"]
    assert large.titled(large.params) == "One message of 64 MB"
    assert broadcast.titled({"count": 1, "clients": 2_500}) == "Broadcast to 2,500 clients"


def test_a_chart_is_well_formed_and_to_scale() -> None:
    odd = dataclasses.replace(by_key("bare-sockets"), name='<b> & "co"')
    workload = BY_NAME["events-64"]
    result = Result(workload, dict(workload.params), [PYIPC, odd])
    for turn, (ours, theirs) in enumerate([(100.0, 20.0), (200.0, 50.0), (400.0, 60.0)], 1):
        result.add(turn, PYIPC.key, {workload.figure: ours})
        result.add(turn, odd.key, {workload.figure: theirs})
    chart = ET.fromstring(bar_chart(result))
    svg = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in chart.iter(f"{svg}rect") if "bar" in rect.attrib["class"]]
    assert [bar.attrib["class"] for bar in bars] == ["bar ours", "bar"]
    first, second = (float(bar.attrib["width"]) for bar in bars)
    assert first / second == pytest.approx(200 / 50, rel=0.01)
    assert '<b> & "co"' in [text.text for text in chart.iter(f"{svg}text")]
    spreads = [(float(line.attrib["x1"]), float(line.attrib["x2"])) for line in chart.iter(f"{svg}line")]
    width = float(chart.attrib["width"])
    assert all(0 < low < high < width for low, high in spreads)


def test_a_chart_of_nothing_says_so() -> None:
    assert "Nothing was measured." in "".join(ET.fromstring(bar_chart(result_of("idle", {}))).itertext())


# --- targets ----------------------------------------------------------------------------------------------------


def test_targets_are_held_against_medians() -> None:
    results = [
        result_of("events-64", {"pyipc": [70, 50, 65], "node-ipc": [10, 10, 10]}, zmq="it is not here"),
        result_of("requests", {"pyipc": [30, 30, 30]}),
        result_of("echo", {"node-ipc": [10, 20, 30]}),
    ]
    targets = [
        Target(workload="events-64", claim="at least 6 x node-ipc", other="node-ipc", at_least=6),
        Target(workload="events-64", claim="at most 6 x node-ipc", other="node-ipc", at_most=6),
        Target(workload="events-64", claim="above pyzmq", other="zmq", at_least=1),
        Target(workload="events-64", claim="above pynng", other="nng", at_least=1),
        Target(workload="requests", claim="2 x its echo", other="node-ipc", other_workload="echo", at_least=2),
        Target(workload="requests", claim="2 x", other="node-ipc", other_workload="large", at_least=2),
        Target(workload="events-64", claim="60 at least", other=None, at_least=60, unit="events/s"),
        Target(workload="idle", claim="of what was left out", other="asyncio", at_least=1),
    ]
    verdicts = judge(results, targets)
    assert [(verdict.met, verdict.why) for verdict in verdicts] == [
        (True, ""),
        (False, ""),
        (None, "it is not here"),
        (None, "pynng was left out"),
        (False, ""),
        (None, "large was not measured"),
        (True, ""),
    ]
    assert verdicts[0].measured == Spread(6.5, 5.0, 7.0)
    assert verdicts[4].measured == Spread(1.5, 1.0, 3.0)
    rows = target_table(verdicts, results).rows
    assert rows[0] == ["One-way events of 64 B", "pyipc at least 6 x node-ipc", "6.50 (5.00-7.00) x", "met"]
    assert rows[1][-1] == "not met"
    assert rows[2][2:] == ["", "not measured: it is not here"]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.workload}: {target.claim}")
def test_every_target_can_be_measured(target: Target) -> None:
    assert (target.at_most is None) != (target.at_least is None)
    assert BY_NAME[target.workload].work in by_key(target.who).works
    if target.other is not None:
        assert BY_NAME[target.other_workload or target.workload].work in by_key(target.other).works


# --- contenders and workloads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.key)
def test_a_contender_can_do_a_work_or_says_why_not(contender: Contender) -> None:
    assert (processes.PEERS / contender.peer).is_file()
    assert contender.promises
    assert contender.works <= {*WORKS, *OWN_WORKS, *CLUSTER_WORKS}
    assert not contender.works & set(contender.cannot)
    starts_workers = bool(contender.works & set(CLUSTER_WORKS))
    if UNIX in contender.transports and not (contender.variant or starts_workers or contender.key == "msgspec"):
        # A topic is compared with a broadcast, both of pyipc.
        assert (contender.works | set(contender.cannot) | {"topic"}) - set(OWN_WORKS) == set(WORKS)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_workload_compares_with_somebody_who_can_do_it(workload: Workload) -> None:
    reference = by_key(workload.reference)
    assert reference.takes_part(workload)
    assert workload.work in reference.works
    assert workload.titled(workload.params)


def test_who_is_measured_over_one_transport_is_in_the_tables_of_transports_alone() -> None:
    for workload in WORKLOADS:
        alone = {who.takes_part(workload) for who in CONTENDERS if who.alone_over is not None}
        others = {who.takes_part(workload) for who in CONTENDERS if who.alone_over is None}
        assert (True in others, True in alone) == (workload.transport is not None, workload.transport is None)
    together = [who for who in CONTENDERS if who.takes_part(BY_NAME["each-request"])]
    assert {who.transport_at(BY_NAME["each-request"]) for who in together} == set(TRANSPORTS)
    assert PYIPC.transport_at(BY_NAME["tls-request"]) is TLS


def test_keys_are_unique() -> None:
    assert len({contender.key for contender in CONTENDERS}) == len(CONTENDERS)
    assert len(BY_NAME) == len(WORKLOADS)


def test_a_missing_package_is_a_reason() -> None:
    absent = dataclasses.replace(ZMQ, needs={"no_such_package": "no-such-package"})
    with pytest.raises(NotMeasured, match="no-such-package is not installed"):
        absent.check("events")
    with pytest.raises(NotMeasured, match="does not greet"):
        ZMQ.check("idle")


def test_a_missing_node_ipc_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYIPC_NODE_DIR", str(tmp_path))
    with pytest.raises(NotMeasured, match=r"node is not installed|node-ipc 9\.2\.1 is not installed"):
        NODE.check("events")


# --- transports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda transport: transport.name)
def test_an_address_has_its_scheme_and_nothing_left_to_fill_in(transport: Transport, tmp_path: Path) -> None:
    address = transport.prepare(tmp_path)
    assert address.startswith(f"{transport.name}:")
    assert "{" not in address
    assert (tmp_path / "ca.pem").exists() == transport.has_certificates


def test_certificates_pass_a_strict_look_from_either_side(tmp_path: Path) -> None:
    MUTUAL_TLS.prepare(tmp_path)
    files = {side: (tmp_path / f"{side}.pem", tmp_path / f"{side}-key.pem") for side in ("server", "client")}
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    for side, context in (("server", server), ("client", client)):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(tmp_path / "ca.pem")
        context.load_cert_chain(*files[side])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in (*ends, *ends):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    seen = [x509.load_der_x509_certificate(end.getpeercert(True) or b"") for end in ends]
    assert [certificate.subject.rfc4514_string() for certificate in seen] == ["CN=server", "CN=client"]


# --- processes --------------------------------------------------------------------------------------------------

#: A peer in a few lines: it says what it has to, and does what a test wants.
PEER = """
    import os, signal, sys, time
    signal.alarm(30)  # ends, whatever becomes of the test
    if sys.argv[1] == "serve":
        print("ready", sys.argv[3], flush=True)
        {serve}
        sys.stdin.read()
    else:
        print("begin", flush=True)
        os.read(0, 1)
        {drive}
        print('{{"count": 1, "per_second": 1.0}}', flush=True)
        sys.stdin.read()
"""


def peer(directory: Path, monkeypatch: pytest.MonkeyPatch, *, serve: str = "pass", drive: str = "pass") -> Contender:
    (directory / "peer.py").write_text(textwrap.dedent(PEER).format(serve=serve, drive=drive))
    monkeypatch.setattr(processes, "PEERS", directory)
    return dataclasses.replace(BARE, peer="peer.py")


def measured(contender: Contender) -> dict[str, float]:
    return measure(contender, BY_NAME["events-64"], {"count": 1})


@unix_only
def test_a_measurement_is_the_driver_s_figures_and_what_they_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = measured(peer(tmp_path, monkeypatch, drive="sum(range(100_000))"))
    assert (figures["count"], figures["per_second"]) == (1, 1.0)
    if sys.platform == "linux":
        assert figures["driver_cpu_us"] > 0
        assert figures["server_peak_mib"] > 1


@unix_only
@pytest.mark.parametrize(
    ("serve", "drive", "reason"),
    [
        ("raise SystemExit('no such socket')", "sys.stdin.read()", "the server ended: no such socket"),
        ("pass", "raise RuntimeError('a wrong answer')", "it ended: RuntimeError: a wrong answer"),
        ("pass", "os._exit(7)", "it ended: exit code 7, without a word"),
        ("pass", "print('hello', flush=True)", "it said 'hello' instead of '{'"),
    ],
)
def test_a_peer_that_fails_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: str, drive: str, reason: str
) -> None:
    with pytest.raises(NotMeasured) as caught:
        measured(peer(tmp_path, monkeypatch, serve=serve, drive=drive))
    assert str(caught.value) == reason


@unix_only
def test_a_peer_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tmp_path / "ids"
    ids.touch()

    class Impatient(Child):
        """One whose time is up as soon as both processes hang, however long they took to start."""

        def go(self) -> None:
            super().go()
            patience = time.monotonic() + 30
            while len(ids.read_text().splitlines()) < 2 and time.monotonic() < patience:
                time.sleep(0.01)
            self._deadline = time.monotonic()

    monkeypatch.setattr(measuring, "Child", Impatient)
    monkeypatch.setattr(processes, "GRACE", 0.1)
    hanging = f"open({str(ids)!r}, 'a').write(str(os.getpid()) + chr(10)); time.sleep(60)"
    with pytest.raises(NotMeasured, match="it took too long"):
        measured(peer(tmp_path, monkeypatch, serve=hanging, drive=hanging))
    left = ids.read_text().split()
    assert len(left) == 2
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@unix_only
def test_who_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = peer(tmp_path, monkeypatch, drive="raise RuntimeError('no')")
    said: list[str] = []
    [result] = run_rounds([BY_NAME["events-64"]], [failing], 3, quick=True, progress=said.append)
    assert said == ["round 1 of 3: events-64: bare sockets"]
    assert result.failures == {BARE.key: "it ended: RuntimeError: no"}


# --- contenders at work -----------------------------------------------------------------------------------------

#: As little of each work as shows that a contender does it.
TINY = {
    "request": {"count": 20},
    "requests": {"count": 20, "tasks": 5},
    "echo": {"count": 20, "tasks": 5},
    "events": {"count": 50},
    "large": {"count": 1, "size": 1_000_000},
    "broadcast": {"count": 3, "clients": 20},
    "topic": {"count": 3, "clients": 20},
    "idle": {"clients": 200},
    "items": {"count": 50, "size": 64},
    "bytes": {"count": 1, "size": 1_000_000},
    "worker-request": {"count": 20, "workers": 1},
    "worker-events": {"count": 50, "workers": 1},
    "primary-events": {"count": 50, "workers": 1},
    "start": {"count": 1, "workers": 2},
    "jobs": {"count": 20, "tasks": 5, "workers": 2},
    "handover": {"count": 20, "tasks": 5, "workers": 2},
}


def plain(work: str, transport: Transport | None) -> Workload | None:
    """A workload of a work over a transport, on any processor where there is such a one."""
    found = [each for each in WORKLOADS if (each.work, each.transport) == (work, transport)]
    return min(found, key=lambda each: each.pinned, default=None)


def at_work() -> list[object]:
    """Every contender at all that it says it can do over its first transport, and at one thing over each other."""
    cases: list[tuple[Contender, Workload]] = []
    for each in CONTENDERS:
        over: list[Transport | None] = [found for found in (CHANNEL, *TRANSPORTS) if found in each.transports]
        over = over or [None]
        works = [work for work in (*WORKS, *OWN_WORKS, *CLUSTER_WORKS) if work in each.works]
        first = [next(found for transport in over if (found := plain(work, transport))) for work in works]
        others = [next(found for work in works if (found := plain(work, transport))) for transport in over]
        cases += [(each, workload) for workload in {found.name: found for found in (*first, *others)}.values()]
    return [
        pytest.param(
            contender,
            workload,
            id=f"{contender.key}-{workload.name}",
            marks=[
                *([pytest.mark.interop] if contender.runs_node or contender.peer.endswith(".js") else []),
                *([linux_only] if workload.work == "idle" or workload.pinned else []),
            ],
        )
        for contender, workload in cases
    ]


def require(contender: Contender, node_modules: NodeModules) -> None:
    """Skip the test of a contender that cannot run here."""
    if contender.runs_node or contender.peer.endswith(".js"):
        node_modules(NODE_IPC)
    for module in contender.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"cannot run here: {module} comes with the dependency group 'bench' alone")


@unix_only
@pytest.mark.parametrize(("contender", "workload"), at_work())
def test_a_contender_does_its_work(contender: Contender, workload: Workload, node_modules: NodeModules) -> None:
    require(contender, node_modules)
    params = TINY[workload.work]
    figures = measure(contender, workload, params)
    assert figures[workload.figure] > 0
    assert figures["count"] == params.get("count", 1) * params.get("clients", 1)


@unix_only
@pytest.mark.parametrize(
    "contender",
    [
        pytest.param(each, id=each.key, marks=[pytest.mark.interop] if each is NODE else [])
        for each in CONTENDERS
        if TLS in each.transports and not each.variant
    ],
)
def test_who_talks_over_tls_verifies_the_server(
    contender: Contender, node_modules: NodeModules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require(contender, node_modules)
    TLS.prepare(tmp_path)

    class Betrayed(Child):
        """A driver that trusts somebody else than who vouches for the server."""

        def __init__(
            self, contender: Contender, file: str, arguments: list[str], directory: Path, deadline: float
        ) -> None:
            if arguments[0] == "drive":
                (directory / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
            super().__init__(contender, file, arguments, directory, deadline)

    monkeypatch.setattr(measuring, "Child", Betrayed)
    with pytest.raises(NotMeasured):
        measure(contender, BY_NAME["tls-request"], TINY["request"])
    # Each says why in words of its own. That it was the certificate shows where that is the right one.
    monkeypatch.undo()
    assert measure(contender, BY_NAME["tls-request"], TINY["request"])["count"] == 20


@linux_only
def test_a_contender_does_its_work_on_one_processor() -> None:
    before = os.sched_getaffinity(0)
    assert measure(PYIPC, BY_NAME["request-pinned"], TINY["request"])["count"] == 20
    assert os.sched_getaffinity(0) == before


def test_what_a_contender_needs_is_in_the_group() -> None:
    pyproject = tomllib.loads((processes.PEERS.parent.parent / "pyproject.toml").read_text("utf-8"))
    group = {re.split("[^a-z0-9-]", entry.lower())[0] for entry in pyproject["dependency-groups"]["bench"]}
    assert {package.lower() for each in CONTENDERS for package in each.needs.values()} == group


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "nothing"], "there is no workload 'nothing'; there are request-pinned, "),
        (["--peers", "nobody"], "there is no contender 'nobody'; there are pyipc, "),
        (["--only", "large", "--peers", "msgspec"], "none of these contenders takes part in any of these workloads"),
        (["--against", "before"], "--against takes NAME=DIRECTORY"),
        (["--against", "zmq=."], "--against: 'zmq' is the name of another contender"),
        (["--against", "before=no/such/place"], "there is no pyipc/__init__.py in"),
    ],
)
def test_a_wrong_argument_is_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit) as caught:
        compare.main(arguments)
    assert sentence in str(caught.value)


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(["--list"])
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in [*BY_NAME, *(contender.key for contender in CONTENDERS)])
    assert "{" not in output


@unix_only
def test_a_run_writes_tables_charts_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = dataclasses.replace(ZMQ, needs={"no_such_package": "no-such-package"})
    monkeypatch.setattr(compare, "CONTENDERS", [PYIPC, BARE, absent])
    counts = {"events-64": 500, "request": 50}
    tiny = [dataclasses.replace(BY_NAME[name], quick={"count": count}) for name, count in counts.items()]
    monkeypatch.setattr(compare, "WORKLOADS", tiny)
    page, data, charts = tmp_path / "page.md", tmp_path / "data.json", tmp_path / "charts"
    compare.main(["--quick", "--rounds", "2", "--json", str(data), "--markdown", str(page), "--svg", str(charts)])

    told = json.loads(data.read_text("utf-8"))
    assert told["rounds"] == 2
    assert told["seconds"] > 0
    assert [workload["name"] for workload in told["workloads"]] == ["events-64", "request"]
    for workload in told["workloads"]:
        assert workload["not_measured"].keys() == {"zmq"}
        for key in ("pyipc", "bare-sockets"):
            assert [turn["round"] for turn in workload["rounds"][key]] == [1, 2]
            assert all(turn[workload["figure"]] > 0 for turn in workload["rounds"][key])
    assert {target["met"] for target in told["targets"]} <= {True, False, None}

    missing = "pyzmq: not measured: no-such-package is not installed"
    text = capsys.readouterr().out
    assert missing in text
    assert max(map(len, text.partition("What each promises")[2].splitlines())) <= 120
    markdown = page.read_text("utf-8")
    assert missing in markdown
    assert "```console\n$ ./run bench --quick --rounds 2 --json " in markdown
    assert "![One-way events of 64 B](charts/events-64.svg)" in markdown
    for contender in (PYIPC, BARE, absent):
        assert contender.promises in markdown
        assert contender.promises in " ".join(text.split())
    for name in ("events-64", "request"):
        ET.fromstring((charts / f"{name}.svg").read_text("utf-8"))


def test_the_pyipc_of_another_checkout_is_a_contender() -> None:
    other = other_pyipc("before", Path(compare.__file__).parent.parent)
    assert (other.key, other.name) == ("before", "pyipc of before")


def test_a_page_without_charts_has_none() -> None:
    run = Run("./run bench", {"Python": "3"}, 1, 42.3, [result_of("echo", {"pyipc": [1]})], [PYIPC])
    assert "![" not in run.markdown()


@pytest.mark.parametrize(
    ("rounds", "seconds", "told"),
    [(1, 42.3, "1 round in 42 s; Python 3."), (5, 1_859.6, "5 rounds in 31 min 0 s; Python 3.")],
)
def test_a_run_tells_how_long_it_took(rounds: int, seconds: float, told: str) -> None:
    run = Run("./run bench", {"Python": "3"}, rounds, seconds, [result_of("echo", {"pyipc": [1]})], [PYIPC])
    assert told in run.text()
    assert told in run.markdown()
    assert run.as_json()["seconds"] == seconds


def test_tables_stand_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    compare.MARKS.place("tables\n", page)
    assert page.read_text("utf-8") == f"{BEGIN}\ntables\n\n{END}\n"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n", "utf-8")
    for tables in ("new\n", "newer\n"):
        compare.MARKS.place(tables, page)
        assert page.read_text("utf-8") == f"before\n{BEGIN}\n{tables}\n{END}\nafter\n"


@pytest.mark.parametrize(
    "text",
    [
        f"before\n{BEGIN}old\nafter\n",
        f"before\nold\n{END}\nafter\n",
        f"{END}\n{BEGIN}",
        f"{BEGIN}{END}{BEGIN}",
        "a page of somebody\n",
    ],
    ids=["no end", "no begin", "changed places", "two begins", "neither"],
)
def test_a_page_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    with pytest.raises(SystemExit, match=r"page\.md is there but does not have both marks"):
        compare.main(["--markdown", str(page)])
    assert page.read_text("utf-8") == text


def test_every_work_is_there_over_all_that_streams_and_pinned() -> None:
    usual = compare.chosen_workloads(None, quick=False)
    everything = compare.chosen_workloads(None, quick=False, every=True)
    assert usual == everything[: len(usual)] != everything
    kinds = {(each.work, each.params.get("size"), each.transport, each.pinned) for each in everything}
    for each in usual:
        if each.transport is UNIX:
            for transport, pinned in ((UNIX, False), (TCP, False), (UNIX, True)):
                assert (each.work, each.params.get("size"), transport, pinned) in kinds
    over_tls = {each.work for each in everything if each.transport is TLS}
    assert over_tls == {*WORKS, *OWN_WORKS} - {"broadcast", "topic", "idle"}
    assert compare.chosen_workloads(["tcp-large"], quick=False)[0].transport is TCP


def test_over_udp_no_more_is_outstanding_than_a_socket_has_room_for() -> None:
    for each in WORKLOADS:
        if each.transport is UDP:
            assert each.work in ("request", "echo")
            assert each.params.get("tasks", 1) <= 32
