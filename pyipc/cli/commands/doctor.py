"""``pyipc doctor``: what an address means here, who listens there, and what is in the way."""

from __future__ import annotations

import dataclasses
import os
import stat
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import pyipc
from pyipc.cli import arguments as common
from pyipc.cli.examining.address import examine_place, examine_socket
from pyipc.cli.examining.encryption import examine_encryption
from pyipc.cli.examining.findings import Finding, Level, ok, problem, warning
from pyipc.cli.examining.machine import examine_environment
from pyipc.cli.examining.visit import visit
from pyipc.cli.exits import ExitCode
from pyipc.transports import transport_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator

    from pyipc.cli.showing.console import Console

__all__ = ["add", "run"]

#: Stands for all bare names: their directories are what is looked for.
_ANY_NAME: Final = pyipc.parse_address("world")
#: Sockets of the default directories that are visited.
_MAX_VISITS: Final = 100


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = common.add_command(
        commands,
        "doctor",
        run,
        help="tell what an address means here, and what is wrong",
        description="""
            Tell what an address means on this machine, whether somebody listens there and who it is, and
            what is in the way, with what to do about it. Without ADDRESS: versions and limits, and the
            servers in the default directories.

            Nothing is changed. A server is visited by one connection, on which nothing is said but a hello; over
            TLS by one more, to see its certificate. The exit status is 1 if there is a problem.
        """,
        examples="""
            pyipc doctor                       # this machine, and your servers on it
            pyipc doctor world                 # where is it, and who serves it?
            pyipc doctor tls://localhost:8000 --ca certs/ca.pem
            pyipc doctor world --json | jq 'select(.level != "ok")'
        """,
    )
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS", help="what to look at")
    common.add_connect_options(parser)
    common.add_framing_options(parser, raw=False)
    common.add_tls_options(parser, connects=True)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Look at everything and tell what was found.

    Cancellation: leaves at once.
    """
    worst = ExitCode.OK
    for subject in arguments.addresses or (None,):
        title = subject or "environment"
        if not console.json:
            await console.line([(title, "bold")])
        findings = _environment(arguments) if subject is None else _address(subject, arguments)
        async with aclosing(findings):
            async for finding in findings:
                if finding.level is Level.PROBLEM:
                    worst = ExitCode.REFUSED
                await console.record(finding.record(title), finding.line())
    return worst


async def _address(text: str, arguments: argparse.Namespace) -> AsyncGenerator[Finding, None]:
    try:
        address = pyipc.parse_address(text)
        for finding in examine_place(address):
            yield finding
        endpoint = common.endpoint(arguments, text, *arguments.addresses)
        transport_for(address.scheme)
    except pyipc.InsecureAddress as error:
        yield problem("allow", str(error), "to look there all the same, add --allow-anyone", allow_needed=True)
        return
    except pyipc.AddressError as error:
        yield problem("address", str(error))
        return
    if (reason := _why_not_visited(address)) is not None:
        yield ok("connect", reason)
        return
    if address.scheme == "tls":
        for finding in await examine_encryption(address, arguments, arguments.connect_timeout):
            yield finding
    visiting = visit(endpoint, arguments.connect_timeout)
    async with aclosing(visiting):
        async for finding in visiting:
            yield finding


def _why_not_visited(address: pyipc.Address) -> str | None:
    match address.scheme:
        case "fd" | "systemd":
            return "nobody is visited: on an inherited socket that would be taken for the program that it was passed to"
        case "tcp" | "tls" | "udp" if not address.port:
            return "port 0 means any free one, so there is nobody to visit"
    return None


async def _environment(arguments: argparse.Namespace) -> AsyncGenerator[Finding, None]:
    for finding in examine_environment():
        yield finding
    try:
        places = transport_for(_ANY_NAME.scheme).places(_ANY_NAME)
    except pyipc.AddressError as error:
        yield problem("places", str(error))
        return
    for place in places:
        directory = os.path.dirname(place.name)
        if place.obstacle is not None:
            yield _unused(directory, place.obstacle)
            continue
        sockets = _sockets(directory)
        visited = "" if len(sockets) <= _MAX_VISITS else f", {_MAX_VISITS} of which are looked at"
        text = f"{directory} is for your servers; sockets in it: {len(sockets)}{visited}"
        yield ok("directory", text, path=directory, sockets=len(sockets))
        for path in sockets[:_MAX_VISITS]:
            for found in examine_socket(path):
                yield found
            visiting = visit(common.endpoint(arguments, f"unix:{path}"), arguments.connect_timeout)
            async with aclosing(visiting):
                async for found in visiting:
                    # Nobody asked about this one, so whatever is wrong with it may not matter.
                    is_problem = found.level is Level.PROBLEM
                    yield dataclasses.replace(found, level=Level.WARNING) if is_problem else found


def _unused(directory: str, obstacle: str) -> Finding:
    """A default directory in which servers of ours do not listen."""
    text = f"{directory} is not used: {obstacle}"
    # Most machines lack one of them; that is what the others are for.
    return (warning if os.path.lexists(directory) else ok)("directory", text, path=directory)


def _sockets(directory: str) -> list[str]:
    """The sockets in a directory, in order."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if _is_socket(entry))
    except FileNotFoundError:
        return []


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:  # its server has just ended
        return False
