"""The hostile tests of ``./run hostile``, small: what must hold for pyipc, and that every other library gives facts.

What the others do, no test says.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import hostile
from harness.contender import NotMeasured
from scenarios.battery import SCENARIOS, play
from scenarios.libraries import LIBRARIES, Library, by_key
from scenarios.report import Outcome, Run
from scenarios.scenario import Facts, Scenario, counted, seconds
from scenarios.stage import MIB, VICTIMS, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}
OTHERS = [library for library in LIBRARIES if not library.key.startswith("pyipc")]

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="cannot run here: only Linux tells how much memory another process has"
)
#: As little of everything as shows that a scenario can be played with a library.
TINY: dict[str, dict[str, float]] = {
    "slow-reader": {"count": 100, "bytes": 4_096, "rate": 1_000, "bystanders": 1, "patience": 1},
    "silent": {"few": 5, "many": 10, "patience": 1, "wait": 0.2},
    "theft": {"wait": 30},
    "killed-worker": {"jobs": 8, "work": 0.001, "patience": 3},
    "huge-frame": {"mebibytes": 1},
    "nested": {"levels": 100_000, "small": 10_000, "large": 100_000},
    "torn-send": {"kills": 2},
}


def figures(key: str, size: Mapping[str, float], library: str = "pyipc") -> dict[str, Any]:
    """What is seen of pyipc in a scenario."""
    return dict(BY_KEY[key].play(by_key(library), size).figures)


# --- what must hold for pyipc -----------------------------------------------------------------------------------


@linux_only
def test_a_slow_reader_costs_nobody_else_a_message_and_the_server_little_memory() -> None:
    # More than max_outbox_size and the kernel take together, so slowly that a busy machine can keep up.
    size = {"count": 2_400, "bytes": 4_096, "rate": 800, "bystanders": 1, "patience": 6}
    seen = figures("slow-reader", size)
    assert seen["got"] == [2_400]
    assert not seen["stands_still"]
    # One copy was dropped, upon which the connection was closed, once it had had close_timeout to hear why.
    assert seen["told"] == {"it did not get a message": 1, "a connection was closed: slow": 1}
    assert seen["grown"] < 16 * MIB


@linux_only
def test_silent_connections_keep_nobody_from_an_answer() -> None:
    seen = figures("silent", {"few": 20, "many": 200, "patience": 20, "wait": 0})
    assert seen["answered_20"]
    assert seen["answered_200"]


@linux_only
def test_who_must_introduce_itself_and_does_not_is_closed() -> None:
    seen = figures("silent", {"few": 20, "many": 20, "patience": 20, "wait": 30}, "pyipc-strict")
    assert seen["connected_20"] == seen["closed"] == 20


@linux_only
def test_a_live_socket_is_not_stolen() -> None:
    assert figures("theft", {"wait": 30}) == {
        "second_listens": False,
        "why": "AddressInUse",
        "early_reaches": "first",
        "new_reaches": "first",
        "ended": True,
        "path_left": False,
        "stolen": False,
    }


@linux_only
def test_a_killed_worker_costs_no_confirmed_job() -> None:
    seen = figures("killed-worker", {"jobs": 20, "work": 0.001, "patience": 40})
    assert seen["answered"] == 20
    assert seen["answered_lost"] == 0
    assert seen["asked_errors"] == []
    assert seen["begun_twice"] == 1  # the one that was in hand
    assert seen["handled_twice"] == 0
    assert seen["replaced"]


@linux_only
def test_a_huge_message_is_refused_before_it_takes_memory() -> None:
    seen = figures("huge-frame", {"mebibytes": 16})
    for kind in ("claim", "endless"):
        assert seen[f"{kind}_closed"]
        assert seen[f"{kind}_alive"]
        assert seen[f"{kind}_errors"] == []
        assert seen[f"{kind}_grown"] < 8 * MIB


@linux_only
def test_nested_json_ends_its_connection_alone() -> None:
    # So few levels that it is max_depth that refuses them, and not the decoder.
    seen = figures("nested", {"levels": 500, "small": 100_000, "large": 2_000_000})
    for kind in ("deep", "small_bomb", "large_bomb"):
        assert seen[f"{kind}_alive"]
        assert seen[f"{kind}_errors"] == []
    assert not seen["deep_handled"]
    assert seen["small_bomb_handled"]
    assert not seen["large_bomb_handled"]


@linux_only
def test_a_peer_that_is_killed_while_it_sends_leaves_whole_messages() -> None:
    seen = figures("torn-send", {"kills": 4})
    assert seen["whole_handled"] == 4
    assert seen["torn_handled"] == 0
    assert len(seen["noticed"]) == 4
    assert set(seen["noticed"]) <= {"eof", "lost"}
    assert seen["alive"]
    assert seen["errors"] == []


# --- the others -------------------------------------------------------------------------------------------------


@linux_only
@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.time_limit(120)
@pytest.mark.parametrize("key", BY_KEY)
def test_every_library_gives_facts(key: str) -> None:
    small = dataclasses.replace(BY_KEY[key], quick=TINY[key])
    [outcome] = play([small], OTHERS, quick=True, at_once=3)
    for library in OTHERS:
        if why := outcome.not_measured.get(library.key):
            assert "not installed" in why, library.name
        elif key in library.cannot:
            assert outcome.does_not_apply[library.key] == library.cannot[key]
        else:
            facts = outcome.facts[library.key]
            assert len(facts.cells) == len(small.columns)
            if key == "nested":
                assert facts.figures["small_bomb_handled"], f"{library.name} does not take the bytes for its own"


# --- the harness ------------------------------------------------------------------------------------------------


def made_up(*, fails: str = "") -> Scenario:
    def play(library: Library, size: Mapping[str, float]) -> Facts:
        if library.key == fails:
            raise NotMeasured("it fell over")
        return Facts([f"{size['count']} | seen"], {"seen": library.key})

    return Scenario(
        key="made-up",
        title="Made up",
        about="It is done {count:,} times.",
        columns=("after {count:,}",),
        play=play,
        size={"count": 2_000},
        quick={"count": 3},
    )


def test_what_was_seen_is_shown_in_the_order_of_the_libraries() -> None:
    cannot = dataclasses.replace(by_key("rpyc"), needs={}, cannot={"made-up": "it has no such thing"})
    absent = dataclasses.replace(by_key("zmq"), needs={"no_such_package": "no-such-package"})
    libraries = [by_key("asyncio"), cannot, absent, by_key("multiprocessing"), by_key("pyipc")]
    said: list[str] = []
    [outcome] = play([made_up(fails="multiprocessing")], libraries, progress=said.append, at_once=2)
    assert sorted(said) == sorted(f"Made up: {library.name}" for library in libraries)
    missing = "pyzmq: not measured: no-such-package is not installed (./run hostile does that, or pip install "
    assert outcome.text() == [
        "Made up",
        "-------",
        "It is done 2,000 times.",
        "pyipc",
        "  after 2,000: 2000 | seen",
        "asyncio streams",
        "  after 2,000: 2000 | seen",
        "RPyC: does not apply: it has no such thing",
        "multiprocessing.connection: not measured: it fell over",
        f"{missing}no-such-package)",
    ]
    assert outcome.markdown() == [
        "#### Made up",
        "",
        "It is done 2,000 times.",
        "",
        "|  | after 2,000 |",
        "| --- | --- |",
        "| pyipc | 2000 \\| seen |",
        "| asyncio streams | 2000 \\| seen |",
        "",
        "* RPyC: does not apply: it has no such thing",
        "* multiprocessing.connection: not measured: it fell over",
        f"* {missing}no-such-package)",
    ]
    assert outcome.as_json() == {
        "name": "made-up",
        "size": {"count": 2_000},
        "facts": {"asyncio": {"seen": "asyncio"}, "pyipc": {"seen": "pyipc"}},
        "does_not_apply": {"rpyc": "it has no such thing"},
        "not_measured": {
            "multiprocessing": "it fell over",
            "zmq": outcome.not_measured["zmq"],
        },
    }


def test_a_variant_takes_part_in_its_scenarios_alone() -> None:
    [outcome] = play([made_up()], [by_key("pyipc-strict")])
    assert (outcome.facts, outcome.does_not_apply, outcome.not_measured) == ({}, {}, {})


def test_a_run_tells_when_and_on_what_it_was() -> None:
    run = Run("./run hostile", "2026-01-02", {"Python": "3"}, 61, [Outcome(made_up(), {"count": 1})])
    told = "2026-01-02, in 1 min 1 s; Python 3."
    assert run.text().startswith(f"{told}\n\nMade up\n")
    assert run.markdown().startswith(f"```console\n$ ./run hostile\n```\n\n{told}\n\n#### Made up\n")
    assert run.as_json()["date"] == "2026-01-02"


def test_facts_are_counted_and_times_are_for_people() -> None:
    assert counted(["a", "b", "a"]) == "2 x a, 1 x b"
    assert counted([]) == "nothing"
    assert [seconds(value) for value in (0.0123, 0.9994, 1.26)] == ["12 ms", "999 ms", "1.3 s"]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.key)
def test_a_library_has_a_program_and_names_scenarios_that_there_are(library: Library) -> None:
    assert (VICTIMS / library.program).is_file()
    assert {*library.cannot, *(library.only or ())} <= set(BY_KEY)


def test_names_and_sizes_fit() -> None:
    assert len({library.key for library in LIBRARIES}) == len(LIBRARIES)
    assert len(BY_KEY) == len(SCENARIOS)
    assert TINY.keys() == BY_KEY.keys()
    for scenario in SCENARIOS:
        assert scenario.size.keys() == scenario.quick.keys() == TINY[scenario.key].keys()
        for text in (scenario.about, *scenario.columns):
            assert text.format(**scenario.size)


@linux_only
def test_whoever_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenarios.stage.MOST_MEMORY", MIB)
    with Stage(by_key("asyncio")) as stage:
        greedy = stage.start("serve")
        assert greedy.wait(30)


@linux_only
def test_all_processes_end_with_their_stage() -> None:
    with Stage(by_key("asyncio")) as stage:
        actors = [stage.serve(), stage.ask()]
        assert [actor.is_alive for actor in actors] == [True, True]
    assert [actor.is_alive for actor in actors] == [False, False]


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "nothing"], "there is no scenario 'nothing'; there are slow-reader, "),
        (["--libraries", "nobody"], "there is no library 'nobody'; there are pyipc, "),
    ],
)
def test_a_wrong_argument_is_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit) as caught:
        hostile.main(arguments)
    assert sentence in str(caught.value)


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    hostile.main(["--list"])
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in [*BY_KEY, *(library.key for library in LIBRARIES)])


def test_a_run_writes_tables_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hostile, "SCENARIOS", (made_up(),))
    page, data = tmp_path / "page.md", tmp_path / "data.json"
    page.write_text(f"before\n{hostile.MARKS.begin}old\n{hostile.MARKS.end}\nafter\n", "utf-8")
    hostile.main(["--quick", "--libraries", "pyipc", "--json", str(data), "--markdown", str(page)])
    assert json.loads(data.read_text("utf-8"))["scenarios"][0]["facts"] == {"pyipc": {"seen": "pyipc"}}
    assert "after 3: 3 | seen" in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| pyipc | 3 \\| seen |" in text
    assert "$ ./run hostile --quick --libraries pyipc " in text
