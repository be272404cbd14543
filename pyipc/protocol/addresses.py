"""Addresses: the text that says where a server is, and what it means.

Owns the grammar of every scheme and the sentences that refuse what does not fit. Knows no
platform, file or network: whether an address can be used here and now is for the transports.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import TYPE_CHECKING

from pyipc.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Address", "is_loopback", "parse_address"]

_NETWORK = frozenset({"tcp", "tls", "udp"})
_AMQP_PORTS = {"amqp": 5672, "amqps": 5671}
_ON_THIS_HOST = frozenset({"local", "unix", "pipe", "memory", "node-ipc"})
#: Nothing after these is a user name or a password, so an ``@`` in it hides nothing.
_WITHOUT_CREDENTIALS = _ON_THIS_HOST | {"fd", "systemd"}

_PIPE_PREFIX = "\\\\.\\pipe\\"
_MAX_PIPE_LENGTH = 256
_MAX_DESCRIPTOR = 2**31 - 1
_MAX_QUOTE = 120

_BARE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]+")
_DRIVE = re.compile(r"[A-Za-z]:.*", re.DOTALL)
_DIGITS = re.compile(r"[0-9]+")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
#: What the C library reads as a number where a host name is expected: ``127.1``, ``0x7f000001``.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_DESCRIPTOR_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Python spells a byte of a path that is not UTF-8 as one of U+DC80 to U+DCFF; those are welcome.
_NO_PATH_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a server is. Made by `parse_address`; ``str()`` gives the text back.

    Two addresses are equal if they are the same place by their spelling: host names are in small
    letters and IPv6 addresses in their shortest form.

    Attributes:
        scheme: ``"local"`` for a bare name, else what stands before the colon.
        name: What follows the scheme: a name, a path, ``"@name"``, the number of a descriptor;
            for ``amqp`` and ``amqps`` everything after ``//``, user and password included.
        host: Name or IP address, without brackets; empty where the scheme has none.
        port: 0 where the scheme has none, or where any free port will do.
    """

    scheme: str
    name: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "local":
            return f"{self.name}"
        if self.scheme in _NETWORK:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{self.scheme}://{host}:{self.port}"
        if self.scheme in _AMQP_PORTS:
            return f"{self.scheme}://{self.name}"
        return f"{self.scheme}:{self.name}"

    def __repr__(self) -> str:
        return f"<Address {self.redacted!r}>"

    @property
    def redacted(self) -> str:
        """The text with user name and password blotted out, fit for logs. Not an address any more."""
        return _redacted(str(self))

    @property
    def is_local(self) -> bool:
        """Whether whoever answers there is surely on this host.

        ``False`` for what cannot be told: inherited sockets and schemes of third parties.
        """
        if self.scheme in _NETWORK or self.scheme in _AMQP_PORTS:
            return is_loopback(self.host)
        return self.scheme in _ON_THIS_HOST

    @property
    def leaves_host(self) -> bool:
        """Whether plain traffic, neither encrypted nor authenticated, may leave this host.

        That is ``tcp`` and ``udp`` with a host that is not loopback; the wildcards ``0.0.0.0`` and
        ``::`` leave it. ``tls`` never does by this measure. A host name other than ``localhost``
        counts as leaving, since only a resolver could say otherwise.
        """
        return self.scheme in ("tcp", "udp") and not is_loopback(self.host)


def parse_address(text: str | Address) -> Address:
    """Read an address.

    Args:
        text: The text of an address, such as ``"world"``, ``"unix:/run/app.sock"`` or
            ``"tcp://127.0.0.1:8000"``. An `Address` is checked and returned as it is.

    Returns:
        The address. A scheme that pyipc does not have itself is accepted if it is well formed,
        with everything after the colon as its name: third parties may have registered it.

    Raises:
        AddressError: The text is not an address. The message quotes it, without the password if
            there is one, and says what to write instead.
    """
    if isinstance(text, Address):
        # Whoever builds one by hand, or changes the port of one, gets the same checks.
        if parse_address(str(text)) != text:
            raise AddressError(f"{text!r} was put together wrongly; make it with parse_address()")
        return text
    if not isinstance(text, str):
        kind = type(text).__name__
        raise AddressError(f"an address is text, such as 'world' or 'unix:/run/app.sock', and not of type {kind}")
    if not text:
        raise AddressError("'' is not an address: it is empty; give the server a name, such as 'world'")
    scheme, colon, rest = text.partition(":")
    _refuse_hidden(text, _NO_PATH_BYTE if scheme == "unix" else _SURROGATE)
    if not colon:
        return Address("local", _bare_name(text))
    if (parser := _PARSERS.get(scheme)) is not None:
        return parser(text, scheme, rest)
    return _foreign(text, scheme, rest)


def _refuse_hidden(text: str, surrogates: re.Pattern[str]) -> None:
    """Refuse what cannot be seen: it is a slip of the hand, or meant to deceive a reader of logs."""
    if _CONTROL.search(text):
        raise _refusal(text, "it contains a control character; leave it out")
    if surrogates.search(text):
        raise _refusal(text, "it contains a lone surrogate, which is no character; leave it out")
    if text != text.strip():
        raise _refusal(text, "it begins or ends with a space; leave that out")


def _bare_name(text: str) -> str:
    if _BARE_NAME.fullmatch(text):
        return text
    if "/" in text:
        path = text if text.startswith("/") else "/path"
        raise _refusal(text, f"a bare name has no slash; for the path of a socket write {_quoted('unix:' + path)}")
    if "\\" in text:
        raise _refusal(text, "a bare name has no backslash; for a named pipe write 'pipe:name'")
    if len(text) > 64:
        raise _refusal(text, f"a bare name has at most 64 characters and this has {len(text):,}; shorten it")
    if text[0] in ".-":
        raise _refusal(text, f"a bare name does not begin with {text[0]!r}; begin it with a letter or a digit")
    raise _refusal(
        text, "a bare name has only the letters a to z and A to Z, digits, '.', '_' and '-'; leave out what is not"
    )


def _foreign(text: str, scheme: str, rest: str) -> Address:
    """A scheme that is not ours, or no scheme at all."""
    if _DRIVE.fullmatch(text):
        raise _refusal(
            text, "it looks like a Windows path; use a name such as 'world', or 'pipe:name' for a named pipe"
        )
    if scheme.lower() in _PARSERS:
        raise _refusal(text, f"schemes are in small letters; write '{scheme.lower()}:' in front")
    if scheme == "local":
        raise _refusal(text, "'local' is not written; write the bare name alone")
    if scheme == "localhost":
        raise _refusal(text, "the scheme is missing; write 'tcp://localhost:' and the port")
    if not _SCHEME.fullmatch(scheme):
        raise _refusal(
            text,
            "what stands before the colon is not a scheme; write a bare name without a colon, "
            "'unix:/path' for a socket, or 'tcp://host:port' for a network address",
        )
    return Address(scheme, rest)


def _unix(text: str, scheme: str, rest: str) -> Address:
    if rest.startswith("@"):
        if rest == "@":
            raise _refusal(text, "the abstract socket has no name; write 'unix:@name'")
        return Address(scheme, rest)
    if rest.startswith("///"):
        # The spelling of a URL without a host.
        rest = "/" + rest.lstrip("/")
    if rest.startswith("//"):
        raise _refusal(text, f"a path begins with one slash; write {_quoted('unix:/' + rest.lstrip('/'))}")
    if not rest.startswith("/"):
        raise _refusal(text, "the path is relative; write the whole path, such as 'unix:/run/app.sock'")
    if rest.endswith("/"):
        raise _refusal(text, "it names a directory; add the name of the socket, such as 'unix:/run/app.sock'")
    return Address(scheme, rest)


def _pipe(text: str, scheme: str, rest: str) -> Address:
    name = _name(text, scheme, rest)
    if "\\" in name or "/" in name:
        # Windows turns a slash into a backslash, so it must not get through either.
        raise _refusal(text, r"the name of a pipe has no slash or backslash; write 'pipe:name' without '\\.\pipe\'")
    if name.endswith("."):
        # Windows drops dots at the end; ".." would even climb out of the pipes.
        raise _refusal(text, "the name of a pipe does not end with a dot; leave it out")
    length = len((_PIPE_PREFIX + name).encode("utf-16-le")) // 2
    if length > _MAX_PIPE_LENGTH:
        most = _MAX_PIPE_LENGTH - len(_PIPE_PREFIX)
        raise _refusal(text, f"the name of a pipe has at most {most} characters; shorten it")
    return Address(scheme, name)


def _memory(text: str, scheme: str, rest: str) -> Address:
    return Address(scheme, _name(text, scheme, rest))


def _node_ipc(text: str, scheme: str, rest: str) -> Address:
    name = _name(text, scheme, rest)
    if "/" in name or "\\" in name:
        # It becomes part of a file name in /tmp and must not climb out of there.
        raise _refusal(text, "the id of a node-ipc program has no slash; for a socket elsewhere write 'unix:/path'")
    return Address(scheme, name)


def _name(text: str, scheme: str, rest: str) -> str:
    if not rest:
        raise _refusal(text, f"the name is missing; write '{scheme}:name'")
    if rest.startswith("//"):
        raise _refusal(text, f"there are no slashes after '{scheme}:'; write '{scheme}:name'")
    if rest[0].isspace():
        raise _refusal(text, f"a space follows '{scheme}:'; leave it out")
    return rest


def _fd(text: str, scheme: str, rest: str) -> Address:
    # The length is looked at first: int() of endless digits is slow, and refused by Python itself.
    if not _DIGITS.fullmatch(rest) or len(rest) > 10 or int(rest) > _MAX_DESCRIPTOR:
        raise _refusal(text, "it needs the number of an open descriptor, such as 'fd:3'")
    return Address(scheme, str(int(rest)))


def _systemd(text: str, scheme: str, rest: str) -> Address:
    if rest and not _DESCRIPTOR_NAME.fullmatch(rest):
        raise _refusal(
            text,
            "the name of a systemd socket has at most 255 ASCII characters, no space and no colon; "
            "write the FileDescriptorName= of the unit, or 'systemd:' alone",
        )
    return Address(scheme, rest)


def _network(text: str, scheme: str, rest: str) -> Address:
    if not rest.startswith("//"):
        raise _refusal(text, f"two slashes are missing; write '{scheme}://host:port'")
    authority = rest[2:]
    if "@" in authority:
        raise _refusal(text, f"'{scheme}' takes no user name or password; write '{scheme}://host:port'")
    if any(mark in authority for mark in "/?#"):
        raise _refusal(text, f"nothing may follow the port; write '{scheme}://host:port'")
    host, port = _host_and_port(text, authority)
    if port is None:
        raise _refusal(text, f"the port is missing; write '{scheme}://host:port', with port 0 for any free one")
    return Address(scheme, "", host, port)


def _amqp(text: str, scheme: str, rest: str) -> Address:
    form = f"'{scheme}://host/service' or '{scheme}://user:password@host:port/vhost/service'"
    if not rest.startswith("//"):
        raise _refusal(text, f"two slashes are missing; write {form}")
    name = rest[2:]
    if any(character.isspace() for character in name):
        raise _refusal(text, "it contains a space; write it as '%20'")
    authority, _, path = name.partition("/")
    host, port = _host_and_port(text, authority.rpartition("@")[2])
    segments = path.partition("?")[0].split("/")
    if len(segments) > 2:
        raise _refusal(text, f"it has too many slashes; write {form}, and a slash inside the vhost as '%2F'")
    if not segments[-1]:
        raise _refusal(text, f"the name of the service is missing; write {form}")
    if not _BARE_NAME.fullmatch(segments[-1]):
        raise _refusal(
            text,
            "the name of the service, which comes last, has 1 to 64 letters, digits, '.', '_' and '-', "
            "and begins with a letter or a digit; choose such a name",
        )
    return Address(scheme, name, host, _AMQP_PORTS[scheme] if port is None else port)


def _host_and_port(text: str, authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        inside, bracket, after = authority[1:].partition("]")
        if not bracket:
            raise _refusal(text, "the bracket is never closed; write an IPv6 address as '[::1]'")
        if after and not after.startswith(":"):
            raise _refusal(text, "only a port may follow the bracket; write it as '[::1]:8000'")
        host = _ipv6(text, inside)
        port = after[1:] if after else None
    else:
        named, colon, digits = authority.partition(":")
        if ":" in digits:
            raise _refusal(text, "it has too many colons; write an IPv6 address in brackets, as '[::1]:8000'")
        host = _host(text, named)
        port = digits if colon else None
    if port is None:
        return host, None
    if not _DIGITS.fullmatch(port) or len(port) > 5 or int(port) > 65_535:
        raise _refusal(text, "the port is not a number from 0 to 65535; write it in the digits 0 to 9")
    return host, int(port)


def _ipv6(text: str, inside: str) -> str:
    try:
        address = ipaddress.IPv6Address(inside)
    except ValueError:
        address = None
    if address is None or (address.scope_id is not None and not _ZONE.fullmatch(address.scope_id)):
        raise _refusal(text, "what stands in brackets is not an IPv6 address; write one such as '[::1]'")
    return str(address)


def _host(text: str, host: str) -> str:
    if host in ("", "*"):
        raise _refusal(
            text, "the host is missing; write '127.0.0.1' for this machine, '0.0.0.0' or '[::]' for every interface"
        )
    if not host.isascii():
        raise _refusal(text, "the host is not in ASCII; write an international name in its 'xn--' form")
    labels = host.removesuffix(".").split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise _refusal(
                text, "the host is not an IPv4 address; write four numbers from 0 to 255, as in '127.0.0.1'"
            ) from None
    if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise _refusal(
            text, "the host is not a host name; write letters, digits and '-' in parts of 1 to 63, joined by dots"
        )
    return host.lower()


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address is surely this host's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python 3.13 looks through IPv4 addresses mapped into IPv6, older ones do not.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _redacted(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme in _WITHOUT_CREDENTIALS or "@" not in rest:
        return text
    # Up to the last "@": a password may contain one, and hiding too much is the safe mistake.
    slashes = "//" if rest.startswith("//") else ""
    return f"{scheme}:{slashes}***@{rest.rpartition('@')[2]}"


def _quoted(text: str) -> str:
    quoted = repr(_redacted(text))
    return quoted if len(quoted) <= _MAX_QUOTE else f"{quoted[:_MAX_QUOTE]}...{quoted[0]}"


def _refusal(text: str, why: str) -> AddressError:
    return AddressError(f"{_quoted(text)} is not an address: {why}")


_PARSERS: dict[str, Callable[[str, str, str], Address]] = {
    "unix": _unix,
    "pipe": _pipe,
    "memory": _memory,
    "node-ipc": _node_ipc,
    "fd": _fd,
    "systemd": _systemd,
    "tcp": _network,
    "tls": _network,
    "udp": _network,
    "amqp": _amqp,
    "amqps": _amqp,
}
