"""``pyipc cert``: a private certificate authority, and the certificates that it vouches for."""

from __future__ import annotations

import argparse
import datetime
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyipc.cli import arguments as common
from pyipc.cli.certificates.names import client_name, domain, server_name
from pyipc.cli.exits import ExitCode, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.x509 import Certificate

    from pyipc.cli.certificates.describing import Description
    from pyipc.cli.certificates.files import Pair
    from pyipc.cli.certificates.issuing import Credential, Use
    from pyipc.cli.certificates.names import Name
    from pyipc.cli.showing.console import Console, Line

# Making and reading certificates takes `cryptography`, which is loaded only when one is made or read.

__all__ = ["add"]

_DAYS_OF_AUTHORITY: Final = 3_650
#: What public authorities may give at most, and so what all programs take.
_DAYS: Final = 397
_MAX_DAYS: Final = 36_500
_MAX_AUTHORITY_NAME: Final = 64

_Value = TypeVar("_Value")


def add(commands: Any) -> None:
    """Add the command to the command line."""
    commands = common.add_command_group(
        commands,
        "cert",
        help="make and show certificates for tls://",
        description="""
            Make a private certificate authority (CA) and the certificates of servers and clients, and show
            certificates. Whoever has the certificate of the CA can tell who is who; whoever has its key can be
            anybody, so that stays where certificates are made.
        """,
        examples="""
            pyipc cert ca certs                                     # certs/ca.pem and certs/ca-key.pem
            pyipc cert server localhost 127.0.0.1 --ca-dir certs    # localhost.pem and localhost-key.pem
            pyipc cert client ada --ca-dir certs                    # ada.pem and ada-key.pem
            pyipc cert show localhost.pem
        """,
    )
    _add_ca(commands)
    _add_server(commands)
    _add_client(commands)
    _add_show(commands)


# --- pyipc cert ca ---


def _add_ca(commands: Any) -> None:
    parser = common.add_command(
        commands,
        "ca",
        _make_authority,
        help="make a certificate authority",
        description="""
            Make a private certificate authority: DIR/ca.pem, its certificate, for all who are to trust it, and
            DIR/ca-key.pem, its key, for nobody. Where it is confined with --only, nobody can use a stolen key
            to pass for others than those.
        """,
        examples="""
            pyipc cert ca                                      # here
            pyipc cert ca certs --days 365
            pyipc cert ca certs --only example.internal --only 10.0.0.0/8
        """,
    )
    parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="where to put it (default: here)")
    parser.add_argument(
        "--name", type=_authority_name, metavar="NAME", help="what it is called (default: pyipc CA, and a number)"
    )
    parser.add_argument(
        "--only",
        type=_argument(domain),
        action="append",
        default=[],
        metavar="DOMAIN",
        help="let it vouch for names in this domain or network alone; may be repeated",
    )
    _add_days(parser, _DAYS_OF_AUTHORITY)


async def _make_authority(arguments: argparse.Namespace, console: Console) -> int:
    from pyipc.cli.certificates.issuing import make_authority

    pair = _authority_in(arguments.directory)
    pair.refuse_existing()
    name = arguments.name or f"pyipc CA {secrets.token_hex(4)}"
    authority = make_authority(name, lifetime=_lifetime(arguments), now=_now(), only=arguments.only)
    await _deliver(authority, pair, console)
    return ExitCode.OK


# --- pyipc cert server, pyipc cert client ---


def _add_server(commands: Any) -> None:
    parser = common.add_command(
        commands,
        "server",
        _make_for_server,
        help="make the certificate of a server",
        description="""
            Make a certificate and a key for a server: NAME.pem and NAME-key.pem, of its first NAME. It is for the host
            names and IP addresses that clients write in their address, and for no others; so name them all.
        """,
        examples="""
            pyipc cert server localhost 127.0.0.1 ::1
            pyipc cert server db.example.internal 10.0.0.7 --ca-dir certs --out-dir certs --days 90
        """,
    )
    parser.add_argument(
        "names", nargs="+", type=_argument(server_name), metavar="NAME", help="a host name or an IP address"
    )
    _add_places(parser)
    _add_days(parser, _DAYS)


async def _make_for_server(arguments: argparse.Namespace, console: Console) -> int:
    from pyipc.cli.certificates.issuing import Use

    return await _make(Use.SERVER, arguments.names, arguments, console)


def _add_client(commands: Any) -> None:
    parser = common.add_command(
        commands,
        "client",
        _make_for_client,
        help="make the certificate of a client",
        description="""
            Make a certificate and a key for a client: NAME.pem and NAME-key.pem. A server knows the client by
            NAME, which is what allow= takes there.
        """,
        examples="""
            pyipc cert client ada
            pyipc cert client billing.example.internal --ca-dir certs --out-dir certs --days 30
        """,
    )
    parser.add_argument("name", type=_argument(client_name), metavar="NAME", help="what the server knows it by")
    _add_places(parser)
    _add_days(parser, _DAYS)


async def _make_for_client(arguments: argparse.Namespace, console: Console) -> int:
    from pyipc.cli.certificates.issuing import Use

    return await _make(Use.CLIENT, [arguments.name], arguments, console)


async def _make(use: Use, names: Sequence[Name], arguments: argparse.Namespace, console: Console) -> int:
    from pyipc.cli.certificates.files import Pair, read_authority
    from pyipc.cli.certificates.issuing import CannotIssue, issue

    source = _authority_in(arguments.ca_dir)
    pair = Pair.of(arguments.out_dir, str(names[0]))
    pair.refuse_existing()
    authority = read_authority(source)
    try:
        credential = issue(authority, use, list(dict.fromkeys(names)), lifetime=_lifetime(arguments), now=_now())
    except CannotIssue as error:
        raise Failed(ExitCode.USAGE, f"the CA of {source.certificate} cannot vouch for this: {error}") from None
    if credential.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc:
        console.note("pyipc: it ends with the CA, which is earlier than asked for; make a new CA in time")
    await _deliver(credential, pair, console)
    return ExitCode.OK


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ca-dir", default=".", metavar="DIR", help="where the CA is (default: here)")
    parser.add_argument("--out-dir", default=".", metavar="DIR", help="where to put the files (default: here)")


def _add_days(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--days", type=_days, default=default, metavar="N", help=f"let it be valid for so long (default: {default:,})"
    )


def _authority_in(directory: str) -> Pair:
    from pyipc.cli.certificates.files import Pair

    return Pair.of(directory, "ca")


async def _deliver(credential: Credential, pair: Pair, console: Console) -> None:
    """Write a certificate and its key, and say so."""
    from pyipc.cli.certificates.describing import describe

    pair.write(credential)
    description, now = describe(credential.certificate), _now()
    where = {"file": pair.certificate, "key_file": pair.key}
    await _tell(description, now, where, [(f"{pair.certificate}, with its key in {pair.key}", "bold")], console)


# --- pyipc cert show ---


def _add_show(commands: Any) -> None:
    parser = common.add_command(
        commands,
        "show",
        _show,
        help="show certificates",
        description="""
            Show whom certificates are for, who vouches for that, how long they are valid, and the fingerprint that
            allow= takes. The exit status is 1 if one is not valid now.
        """,
        examples="""
            pyipc cert show localhost.pem certs/ca.pem
            pyipc cert show ada.pem --json | jq -r .fingerprint
        """,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a PEM file of one certificate or several")


async def _show(arguments: argparse.Namespace, console: Console) -> int:
    from pyipc.cli.certificates.files import read_certificates

    status = ExitCode.OK
    for path in arguments.files:
        try:
            for certificate in read_certificates(path):
                if not await _show_one(certificate, path, console):
                    status = status or ExitCode.REFUSED
        except Failed as failed:
            # Nothing to show here; but what `*.pem` means has keys among it.
            console.error(f"pyipc: {failed.sentence}")
            status = failed.code
    return status


async def _show_one(certificate: Certificate, path: str, console: Console) -> bool:
    """Show a certificate; return whether it is valid now."""
    from pyipc.cli.certificates.describing import State, describe

    try:
        description, now = describe(certificate), _now()
    except ValueError as error:
        raise Failed(ExitCode.USAGE, f"{path} has a certificate that is damaged: {error}") from None
    await _tell(description, now, {"file": path}, [(path, "bold")], console)
    state = description.state(now)
    sentence = f"pyipc: the certificate for {description.title!r} in {path} {description.validity(now)}"
    if state in (State.EXPIRED, State.NOT_YET_VALID):
        console.error(sentence)
        return False
    if state is State.EXPIRING:
        console.note(sentence)
    return True


async def _tell(
    description: Description, now: datetime.datetime, where: dict[str, str], title: Line, console: Console
) -> None:
    """Write what there is to tell of a certificate."""
    await console.record({"kind": "certificate", **where, **description.facts(now)}, title)
    if console.json:
        return
    confines = f", confined to {', '.join(description.confines)}" if description.confines else ""
    purposes = " and ".join(description.purposes) or "anything"
    usage = f", for {', '.join(description.key_usage)}" if description.key_usage else ""
    for field, text in (
        ("subject", description.subject),
        ("names", ", ".join(description.names)),
        ("issuer", description.issuer),
        ("validity", description.validity(now)),
        ("fingerprint", description.fingerprint),
        ("purpose", f"vouching for others{confines}" if description.authority else purposes),
        ("key", f"{description.key}{usage}"),
    ):
        if text:
            await console.line(f"  {field:<13}{text}")


# --- types of arguments, and the time ---


def _argument(read: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """A reader of text as the type of an argument, whose sentences are shown as they are."""

    def read_argument(text: str) -> _Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_argument


def _authority_name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _MAX_AUTHORITY_NAME:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a CA; write 1 to {_MAX_AUTHORITY_NAME} characters that can be printed"
        )
    return text


def _days(text: str) -> int:
    days = common.positive(text)
    if days > _MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {_MAX_DAYS:,} days, which is a hundred years")
    return days


def _lifetime(arguments: argparse.Namespace) -> datetime.timedelta:
    return datetime.timedelta(days=arguments.days)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
