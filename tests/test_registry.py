"""Which transport serves which scheme: the table, third parties, and the sentences of refusal."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pyipc.errors import AddressError
from pyipc.transports import Transport, registry
from pyipc.transports.memory import MemoryTransport
from pyipc.transports.registry import transport_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Install = Callable[..., None]

BUILT_IN = ", ".join(sorted(registry._BUILT_IN))
MODULE = """
    from pyipc.transports import Transport

    class Carrier(Transport):
        async def connect(self, address, options): raise NotImplementedError
        async def listen(self, address, options): raise NotImplementedError

    class Demanding(Carrier):
        def __init__(self, question): pass

    class Abstract(Transport): pass

    carrier = Carrier()
    not_a_transport = "pigeon"

    class NotATransport:
        def __init__(self): raise ZeroDivisionError("nobody should make one to find out")
"""


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    transport_for.cache_clear()
    yield
    transport_for.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with entry points on the path, the way an installer leaves it there."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, entry_points: dict[str, str], *, source: str = MODULE) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{scheme} = {value}" for scheme, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pyipc.transports]", *lines, ""]))
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return install


# --- built in ---------------------------------------------------------------------------------------------------


def test_a_built_in_scheme() -> None:
    transport = transport_for("memory")
    assert isinstance(transport, MemoryTransport)
    assert transport_for("memory") is transport


@pytest.mark.parametrize("scheme", sorted(registry._BUILT_IN))
def test_every_built_in_transport_loads(scheme: str) -> None:
    assert isinstance(transport_for(scheme), Transport)


@pytest.mark.parametrize("scheme", sorted(registry._RESERVED))
def test_a_scheme_that_is_still_to_come(scheme: str) -> None:
    with pytest.raises(AddressError) as caught:
        transport_for(scheme)
    assert str(caught.value).startswith(f"'{scheme}' addresses are not available in this version of pyipc; ")
    assert str(caught.value).endswith(f"; the schemes with a transport are {BUILT_IN}")


def test_an_unknown_scheme_is_told_what_there_is() -> None:
    with pytest.raises(AddressError) as caught:
        transport_for("pigeon")
    assert str(caught.value) == (
        f"there is no transport for 'pigeon' addresses; the schemes with a transport are {BUILT_IN}"
    )


def test_transports_are_imported_when_they_are_used() -> None:
    program = """
        import sys
        from pyipc.transports.registry import transport_for
        heavy = {"pyipc.transports.tcp", "pyipc.transports.unix", "importlib.metadata"}
        before = heavy & set(sys.modules)
        transport_for("tcp")
        print(before or "nothing", heavy & set(sys.modules))
    """
    # Without pyipc/__init__.py, which would import what the public names need.
    package = "import sys, types; p = types.ModuleType('pyipc'); p.__path__ = sys.argv[1:]; sys.modules['pyipc'] = p\n"
    path = registry.__file__.removesuffix("/transports/registry.py").removesuffix("\\transports\\registry.py")
    command = [sys.executable, "-c", package + textwrap.dedent(program), path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "nothing {'pyipc.transports.tcp'}\n"


def test_one_that_cannot_be_imported_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyipc.transports.tcp", None)  # makes the import fail
    with pytest.raises(AddressError, match=r"cannot be loaded here.*the schemes with a transport are") as caught:
        transport_for("tcp")
    assert isinstance(caught.value.__cause__, ImportError)
    monkeypatch.undo()
    assert isinstance(transport_for("tcp"), Transport)  # the failure was not remembered


# --- of third parties -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Carrier", "carrier"])
def test_a_class_or_an_instance_from_another_distribution(install: Install, name: str) -> None:
    install("pyipc-pigeon", {"pigeon": f"pyipc_pigeon:{name}"})
    transport = transport_for("pigeon")
    assert type(transport).__name__ == "Carrier"
    assert transport_for("pigeon") is transport


def test_installed_schemes_are_named_and_not_imported(install: Install) -> None:
    install("pyipc-pigeon", {"pigeon": "pyipc_pigeon:Carrier"}, source="raise SystemExit('imported')")
    with pytest.raises(AddressError, match=f"are {', '.join(sorted({*registry._BUILT_IN, 'pigeon'}))}$"):
        transport_for("owl")
    assert "pyipc_pigeon" not in sys.modules


def test_built_in_and_reserved_schemes_cannot_be_taken(install: Install) -> None:
    install("pyipc-pigeon", {"memory": "pyipc_pigeon:Carrier", "amqp": "pyipc_pigeon:Carrier"})
    assert isinstance(transport_for("memory"), MemoryTransport)
    with pytest.raises(AddressError, match=f"'amqp' addresses are not available.* {BUILT_IN}$"):
        transport_for("amqp")
    assert "pyipc_pigeon" not in sys.modules


def test_entry_points_are_not_looked_at_for_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_be_called(**_: object) -> None:
        raise AssertionError("the entry points were searched")

    monkeypatch.setattr(importlib.metadata, "entry_points", must_not_be_called)
    assert isinstance(transport_for("memory"), MemoryTransport)


@pytest.mark.parametrize("name", ["not_a_transport", "NotATransport"])
def test_something_that_is_no_transport(install: Install, name: str) -> None:
    install("pyipc-pigeon", {"pigeon": f"pyipc_pigeon:{name}"})
    with pytest.raises(AddressError, match=f"pyipc_pigeon:{name}, is neither a pyipc Transport nor a class of them"):
        transport_for("pigeon")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("Demanding", TypeError), ("Abstract", TypeError), ("missing", AttributeError)],
)
def test_a_transport_that_cannot_be_made(install: Install, name: str, cause: type[Exception]) -> None:
    install("pyipc-pigeon", {"pigeon": f"pyipc_pigeon:{name}"})
    with pytest.raises(AddressError, match=f"pyipc_pigeon:{name}, cannot be loaded here") as caught:
        transport_for("pigeon")
    assert isinstance(caught.value.__cause__, cause)


def test_a_module_that_fails(install: Install) -> None:
    install("pyipc-pigeon", {"pigeon": "pyipc_pigeon:Carrier"}, source="1 / 0")
    with pytest.raises(AddressError, match="ZeroDivisionError: division by zero") as caught:
        transport_for("pigeon")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_two_distributions_that_disagree(install: Install) -> None:
    install("pyipc-pigeon", {"pigeon": "pyipc_pigeon:Carrier"})
    install("pyipc-dove", {"pigeon": "pyipc_dove:Carrier"})
    with pytest.raises(AddressError, match=r"\(pyipc_dove:Carrier, pyipc_pigeon:Carrier\); uninstall all but one"):
        transport_for("pigeon")
