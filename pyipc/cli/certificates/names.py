"""The names that certificates are for: host names, IP addresses, and what clients are called."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

__all__ = ["Domain", "Name", "client_name", "domain", "is_within", "server_name"]

#: A host name in small letters, or an IP address. Clients have names of the same form, in any letters.
Name: TypeAlias = "str | ipaddress.IPv4Address | ipaddress.IPv6Address"
#: What a certificate authority may be confined to: a host name with all below it, or a network.
Domain: TypeAlias = "str | ipaddress.IPv4Network | ipaddress.IPv6Network"

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAX_HOST_SIZE: Final = 253
#: The most characters of a common name.
_MAX_CLIENT_SIZE: Final = 64


def server_name(text: str) -> Name:
    """What clients call a server by: a host name or an IP address.

    Raises:
        ValueError: It is neither; the message says what to write instead.
    """
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return _dotted(text, "the name of a host").lower()
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} names an interface of one host; leave out {'%' + address.scope_id!r}")
    return address


def client_name(text: str) -> str:
    """What a server knows a client by.

    Raises:
        ValueError: It cannot be that; the message says what to write instead.
    """
    if len(text) > _MAX_CLIENT_SIZE:
        raise ValueError(
            f"the name of a client has at most {_MAX_CLIENT_SIZE} characters and this has {len(text):,}; shorten it"
        )
    return _dotted(text, "the name of a client")


def domain(text: str) -> Domain:
    """What a certificate authority may be confined to.

    Raises:
        ValueError: It is neither a domain nor a network; the message says what to write instead.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text:
            raise ValueError(
                f"{text!r} is not a network; write its first address and the bits that are fixed, as in '10.0.0.0/8'"
            ) from None
    return _dotted(text.removeprefix("."), "a domain").lower()


def is_within(name: Name, confines: Domain) -> bool:
    """Whether a domain or a network has this name in it; the domain ``""`` has all."""
    if isinstance(name, str):
        return isinstance(confines, str) and f".{name}".lower().endswith(f".{confines}".lower().rstrip("."))
    return not isinstance(confines, str) and name in confines


def _dotted(text: str, what: str) -> str:
    """Check labels that are joined by dots."""
    if "*" in text:
        raise ValueError(
            f"{text!r} stands for many hosts, which would all share one key; give each host a certificate with its "
            "own names"
        )
    if "/" in text or ":" in text:
        raise ValueError(f"{text!r} is not {what}; write the name alone, without a scheme, a port or a path")
    if not text.isascii():
        raise ValueError(f"{text!r} is not in ASCII; write an international name in its 'xn--' form")
    labels = text.split(".")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} is not an IP address; write four numbers from 0 to 255, as in '127.0.0.1'")
    if len(text) > _MAX_HOST_SIZE or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            f"{text!r} is not {what}; write letters, digits, '_' and '-' in parts of 1 to 63, joined by dots"
        )
    return text
