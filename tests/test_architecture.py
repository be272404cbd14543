"""The shape of the house, read from the source: layers, size, exports, docstrings, the table of defaults.

Each rule is a function from source text to complaints, so that the same function can be shown a planted violation.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyipc.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pyipc"
MAX_LINES = 500


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


# --- layers -----------------------------------------------------------------------------------------------------

# What the pure layer may use of the standard library: nothing that touches a socket, a file, a clock or chance, and
# nothing that depends on the machine.
PURE_STDLIB = frozenset(
    "__future__ abc array base64 binascii bisect codecs collections contextlib copy dataclasses enum fractions "  # noqa: SIM905
    "functools hashlib heapq hmac ipaddress itertools json keyword math numbers operator re string struct textwrap "
    "types typing unicodedata urllib.parse warnings weakref".split()
)
APPLICATIONS = ("pyipc.cli", "pyipc.cluster", "pyipc.manager", "pyipc.node_ipc", "pyipc.testing", "pyipc.__main__")
# All that the transports may know of the layer below: how to read an address and how to fail.
BELOW_TRANSPORTS = ("pyipc.errors", "pyipc.options", "pyipc.protocol.addresses")
PUBLIC_TO_APPLICATIONS = ("pyipc", "pyipc.errors", "pyipc.nursery", "pyipc.transports")
# What one application may know of another: the cluster is what the manager and the command line start.
OPEN_APPLICATIONS = ("pyipc.cluster",)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def layer(module: str) -> int:
    if within(module, "pyipc.errors", "pyipc.options", "pyipc.protocol"):
        return 0
    if within(module, "pyipc.transports"):
        return 1
    return 3 if within(module, *APPLICATIONS) else 2


def imports(module: str, tree: ast.AST, known: set[str] | None = None) -> Iterator[tuple[int, str]]:
    """Line and full name of every module imported anywhere, under TYPE_CHECKING and in functions too."""
    known = set(SOURCES) if known is None else known
    package = module if module in known and SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            for alias in node.names:
                # `from package import module` imports the module.
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known else base


def layer_violations(module: str, source: str) -> list[str]:
    found = []
    for line, name in imports(module, ast.parse(source)):
        reason = _why_not(module, name)
        if reason:
            found.append(f"{module}:{line}: imports {name}: {reason}")
    return found


def _why_not(module: str, name: str) -> str | None:
    here = layer(module)
    if within(name, "msgspec") and module != "pyipc.protocol.codec":
        return "msgspec belongs to the codec alone"
    if within(name, "asyncio"):
        return "pyipc runs on trio"
    if here == 3:
        # `python -m pyipc` is the door of the command line.
        own = "pyipc.cli" if module == "pyipc.__main__" else ".".join(module.split(".")[:2])
        public = (*PUBLIC_TO_APPLICATIONS, *OPEN_APPLICATIONS)
        if within(name, "pyipc") and name not in public and not within(name, own):
            return "applications are built from the public names of " + ", ".join(PUBLIC_TO_APPLICATIONS)
        return None
    if within(name, "pyipc"):
        if layer(name) > here:
            return f"it is above (layer {layer(name)} over layer {here})"
        if here == 1 and layer(name) == 0 and name not in BELOW_TRANSPORTS:
            return "transports know nothing of messages"
    elif here == 0 and name not in PURE_STDLIB and not within(name, "collections", "msgspec"):
        return "the pure layer may not use it"
    return None


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    assert layer_violations(module, SOURCES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyipc.protocol.frames", "import trio"),
        ("pyipc.protocol.frames", "import socket"),
        ("pyipc.protocol.frames", "def f():\n    import time"),
        ("pyipc.protocol.frames", "from random import random"),
        ("pyipc.protocol.frames", "import logging.config"),
        ("pyipc.protocol.frames", "import msgspec"),
        ("pyipc.protocol.frames", "from pyipc.transports import Link"),
        ("pyipc.protocol.frames", "from pyipc import connect"),
        ("pyipc.protocol.frames", "from .. import transports"),
        ("pyipc.protocol.frames", "if TYPE_CHECKING:\n    from pyipc.client import Client"),
        ("pyipc.errors", "import ssl"),
        ("pyipc.transports.tcp", "from pyipc.router import Router"),
        ("pyipc.transports.tcp", "from pyipc.protocol.codec import Event"),
        ("pyipc.transports.tcp", "from pyipc.protocol import codec"),
        ("pyipc.transports.tcp", "import pyipc"),
        ("pyipc.transports.tcp", "import asyncio"),
        ("pyipc.client", "import pyipc.testing"),
        ("pyipc.client", "from msgspec import json"),
        ("pyipc.testing", "from pyipc.transports.port import Link"),
        ("pyipc.testing", "from pyipc.router import Router"),
        ("pyipc.testing", "from pyipc import router"),
        ("pyipc.cluster.pool", "from pyipc.manager import Manager"),
        ("pyipc.cli.run", "from pyipc.cluster.keeper import Keeper"),
    ],
)
def test_an_import_that_points_up_is_caught(module: str, source: str) -> None:
    assert layer_violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyipc.protocol.codec", "import msgspec, msgspec.json, collections.abc, pyipc.errors"),
        ("pyipc.transports.tcp", "import trio, socket, ssl\nfrom pyipc.protocol.addresses import Address"),
        ("pyipc.client", "from pyipc.transports.registry import connect\nfrom pyipc.protocol import codec"),
        ("pyipc.testing", "import pyipc\nfrom pyipc import Router\nfrom pyipc.transports import Link"),
        ("pyipc.cluster.pool", "from pyipc.cluster.worker import Worker\nfrom . import worker"),
    ],
)
def test_an_import_that_points_down_is_not(module: str, source: str) -> None:
    assert layer_violations(module, source) == []


# --- other rules of the source ----------------------------------------------------------------------------------

# Standard modules that exist on some operating systems only.
PLATFORM_MODULES = {"_winapi", "fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "tty", "pty", "winreg"}


def private_trio(module: str, source: str) -> list[str]:
    tree = ast.parse(source)
    names = [(line, name) for line, name in imports(module, tree) if within(name, "trio")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.ImportFrom) and within(node.module or "", "trio"):
            names += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return [f"{module}:{line}: {name}" for line, name in names if re.match(r"trio\.(\w+\.)*_", name)]


# Modules that know what the clock on the wall says. Somebody may set it at any time, so that nothing which waits may
# look there: what needs the time below the applications has it from trio.
WALL_CLOCKS = ("calendar", "datetime", "time")


def wall_clocks(module: str, source: str) -> list[str]:
    """Imports of what tells the time of day."""
    if layer(module) == 3:
        return []
    return [f"{module}:{line}: {name}" for line, name in imports(module, ast.parse(source)) if name in WALL_CLOCKS]


def unguarded_platform_imports(module: str, source: str) -> list[str]:
    """Imports that would make ``import pyipc`` fail on some operating system."""
    found: list[str] = []

    def look(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found.extend(
                    f"{module}:{line}: {name}" for line, name in imports(module, node) if name in PLATFORM_MODULES
                )
            elif isinstance(node, ast.If) and "sys.platform" not in ast.unparse(node.test):
                look(node.body)
                look(node.orelse)
            elif isinstance(node, ast.With):
                look(node.body)

    look(ast.parse(source).body)
    return found


# What makes objects or runs code from bytes or text.
REVIVERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "xmlrpc", "yaml", "ctypes.util", "runpy", "code"}
RUNNERS = {"eval", "exec", "compile", "__import__", "import_module", "load"}
# Names here come from what is installed, or from a table in the module; never from a peer.
MAY_IMPORT_BY_NAME = {"pyipc.transports.registry", "pyipc.cli.main", "pyipc.cluster.__main__"}


def revived_code(module: str, source: str) -> list[str]:
    """Ways in which what arrived could become code."""
    tree = ast.parse(source)
    found = [(line, name) for line, name in imports(module, tree) if any(within(name, each) for each in REVIVERS)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")
            is_known = isinstance(node.func, ast.Name) or name[0] in ("importlib", "builtins")
            if name[2] in RUNNERS and is_known and module not in MAY_IMPORT_BY_NAME:
                found.append((node.lineno, ast.unparse(node.func)))
    return [f"{module}:{line}: {name}" for line, name in found]


@pytest.mark.parametrize(
    "source", ["import pickle", "from marshal import loads", "eval(x)", "importlib.import_module(x)"]
)
def test_code_that_revives_what_arrived_is_caught(source: str) -> None:
    assert revived_code("pyipc.client", source) != []
    assert revived_code("pyipc.client", "import re\nre.compile('x')\njson.load(file)") == []


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_that_arrived_becomes_code(module: str) -> None:
    assert revived_code(module, SOURCES[module].read_text("utf-8")) == []


@pytest.mark.parametrize("module", SOURCES)
def test_source_rules(module: str) -> None:
    source = SOURCES[module].read_text("utf-8")
    assert private_trio(module, source) == []
    assert unguarded_platform_imports(module, source) == []
    assert wall_clocks(module, source) == []
    assert len(source.splitlines()) <= MAX_LINES, f"{module} is too long to hold in the head; split it"


@pytest.mark.parametrize(
    "source",
    [
        "import trio._core",
        "from trio import _core",
        "from trio._util import final",
        "import trio\ntrio._core.current_task()",
        "import trio\ntrio.lowlevel._x()",
    ],
)
def test_private_trio_is_caught(source: str) -> None:
    assert private_trio("pyipc.client", source) != []
    assert private_trio("pyipc.client", "import trio.lowlevel\ntrio.lowlevel.checkpoint()") == []


@pytest.mark.parametrize("source", ["import time", "def f():\n    from time import monotonic", "import datetime as dt"])
def test_a_clock_on_the_wall_is_caught(source: str) -> None:
    assert wall_clocks("pyipc.vigil", source) != []
    assert wall_clocks("pyipc.cli.certificates.issuing", source) == []


@pytest.mark.parametrize("source", ["import fcntl", "from msvcrt import getch", "if True:\n    import pwd"])
def test_an_unguarded_platform_import_is_caught(source: str) -> None:
    assert unguarded_platform_imports("pyipc.client", source) != []


@pytest.mark.parametrize("source", ["if sys.platform != 'win32':\n    import fcntl", "def f():\n    import fcntl"])
def test_a_guarded_platform_import_is_not(source: str) -> None:
    assert unguarded_platform_imports("pyipc.client", source) == []


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    """No thread, no log handler, no optional or heavy dependency, no file, no output."""
    program = """
        import logging, sys, threading
        import pyipc
        assert threading.active_count() == 1, threading.enumerate()
        assert not logging.root.handlers, logging.root.handlers
        named = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("pyipc")]
        handlers = [each for log in named for each in log.handlers if not isinstance(each, logging.NullHandler)]
        assert not handlers, handlers
        unwanted = "asyncio cryptography multiprocessing pamqp psutil pytest rich watchfiles".split()
        if sys.platform == "win32":
            unwanted.remove("asyncio")  # trio itself needs it there
        loaded = sorted(set(unwanted) & set(sys.modules))
        assert not loaded, f"import pyipc loads {loaded}"
    """
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "TEMP", "TMP"), str(tmp_path))
    environment = {**os.environ, **places, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# --- exports and docstrings -------------------------------------------------------------------------------------


def exported(source: str) -> list[str] | None:
    """The names in ``__all__``."""
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign))
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def binds_anything(source: str) -> bool:
    """Whether a module is more than its docstring."""
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in ast.parse(source).body
    )


def reexported(source: str) -> set[str]:
    """The public names that a package binds by importing them."""
    return {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    }


def public_things(module: types.ModuleType) -> Iterator[tuple[str, object, str | None]]:
    """Name, object and docstring of what a module exports, and of the public methods of its classes."""
    for public in module.__all__:
        thing, name = getattr(module, public), f"{module.__name__}.{public}"
        if inspect.isfunction(thing):
            yield name, thing, thing.__doc__
        elif inspect.isclass(thing) and within(thing.__module__, "pyipc", module.__name__):
            # A dataclass without a docstring is given its signature for one.
            yield name, thing, None if (thing.__doc__ or "").startswith(f"{public}(") else thing.__doc__
            for key, member in vars(thing).items():
                if not key.startswith("_") and _is_code(member):
                    yield f"{name}.{key}", member, inspect.getdoc(getattr(thing, key))


def _is_code(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))


def undocumented(module: types.ModuleType) -> list[str]:
    return [
        *([] if module.__doc__ else [module.__name__]),
        *(name for name, _, doc in public_things(module) if not doc),
    ]


def silent_on_cancellation(module: types.ModuleType) -> list[str]:
    """Public coroutine functions that do not say what cancelling them does."""
    return [
        name
        for name, thing, doc in public_things(module)
        if inspect.iscoroutinefunction(thing) and "cancel" not in (doc or "").lower()
    ]


@pytest.mark.parametrize("module", SOURCES)
def test_exports_and_docstrings(module: str) -> None:
    source = SOURCES[module].read_text("utf-8")
    if module.endswith(".__main__") or not binds_anything(source):
        return
    names = exported(source)
    assert names is not None, f"{module} has no __all__"
    assert len(names) == len(set(names)), "a name stands twice in __all__"
    loaded = importlib.import_module(module)
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert undocumented(loaded) == []
    if module in PUBLIC_TO_APPLICATIONS or layer(module) == 3:
        assert silent_on_cancellation(loaded) == []


def test_the_package_exports_what_it_imports() -> None:
    source = SOURCES["pyipc"].read_text("utf-8")
    assert set(exported(source) or ()) - {"__version__"} == reexported(source)


def test_a_missing_docstring_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = types.ModuleType("planted")
    monkeypatch.setitem(sys.modules, "planted", planted)  # dataclasses look it up there
    source = """
        import dataclasses
        __all__ = ["Bare", "silent", "Data", "Heir"]
        class Bare:
            def method(self): ...
        async def silent():
            "Does something."
        @dataclasses.dataclass
        class Data:
            x: int
        class Parent:
            def method(self):
                "Inherited by Heir."
        class Heir(Parent):
            "Good."
            def method(self): ...
            def _private(self): ...
    """
    exec(textwrap.dedent(source), vars(planted))
    assert undocumented(planted) == [
        "planted",
        "planted.Bare",
        "planted.Bare.method",
        "planted.Data",
    ]
    assert silent_on_cancellation(planted) == ["planted.silent"]


# --- the table of defaults --------------------------------------------------------------------------------------


def shown(name: str, value: object) -> str:
    """A default as docs/reference/options.md writes it."""
    if name.endswith("_size") and isinstance(value, int):
        for unit, bytes_ in (("MiB", 1024**2), ("KiB", 1024)):
            if value % bytes_ == 0:
                return f"{value // bytes_} {unit}"
        return f"{value} B"
    if name.endswith(("_timeout", "_interval")) and isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value!r}`".replace("'", '"')


def documented_defaults(page: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| `(\w+)` \| ([^|]+?) \| [^|]+ \|$", page, re.MULTILINE)


def test_the_documented_defaults_are_those_of_the_code() -> None:
    page = (ROOT / "docs/reference/options.md").read_text("utf-8")
    in_code = [(field.name, shown(field.name, field.default)) for field in dataclasses.fields(Options)]
    assert documented_defaults(page) == in_code


def test_the_table_of_defaults_is_read_as_written() -> None:
    page = "| Option | Default | Meaning |\n|---|---|---|\n| `a_size` | 8 MiB | that |\n| `b` | `None` | this |\n"
    assert documented_defaults(page) == [("a_size", "8 MiB"), ("b", "`None`")]
    assert [shown("a_size", 8 * 1024**2), shown("b", None), shown("c", 1000)] == ["8 MiB", "`None`", "1,000"]
    assert [shown("d_timeout", 0.5), shown("e", "close"), shown("f", True)] == ["0.5 s", '`"close"`', "`True`"]


def rooms(page: str) -> set[str]:
    """The modules that the table of the page on architecture names."""
    found = set()
    for row in re.findall(r"^\|.*\| (`.*?) \|.*\|.*\|$", page, re.MULTILINE):
        package = ""
        for name in re.findall(r"`([^`]+)`", row):
            package = name.rpartition("/")[0] if "/" in name else package
            found.add(".".join(filter(None, ("pyipc", package, name.rpartition("/")[2]))))
    return found


def test_the_page_on_architecture_has_a_place_for_every_module() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    whole = ("pyipc.cli", "pyipc.cluster", "pyipc.node_ipc", "pyipc.testing")  # rooms that are shown as one
    modules = {
        module for module, path in SOURCES.items() if not path.name.startswith("__") and not within(module, *whole)
    }
    assert rooms(page) == modules | set(whole)


def test_rooms_are_read_as_written() -> None:
    page = "| Floor | Room | Owns | Not |\n|---|---|---|---|\n| L0 | `protocol/a`, `b` | x | `y` |\n| | `c` | `z` | |\n"
    assert rooms(page) == {"pyipc.protocol.a", "pyipc.protocol.b", "pyipc.c"}
