"""Certificates for tests: two authorities that do not know each other, and whatever they sign."""

from __future__ import annotations

import datetime
import functools
from typing import TYPE_CHECKING, Final, Literal

import trustme

if TYPE_CHECKING:
    from pathlib import Path

    Validity = Literal["now", "past", "future"]

_DAY: Final = datetime.timedelta(days=1)


def authority(name: str = "ours") -> trustme.CA:
    """An authority of the whole session."""
    return _authority(name)


@functools.cache
def _authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@functools.cache
def leaf(
    *names: str, signer: str = "ours", common_name: str | None = None, valid: Validity = "now"
) -> trustme.LeafCert:
    """A certificate for some hosts; made once, as that takes a while."""
    now = datetime.datetime.now(datetime.UTC)
    begins = {"now": now - _DAY, "past": now - 3 * _DAY, "future": now + _DAY}[valid]
    return authority(signer).issue_cert(*names, common_name=common_name, not_before=begins, not_after=begins + 2 * _DAY)


def authority_file(folder: Path, name: str = "ours") -> Path:
    """The file of an authority's certificate."""
    path = folder / f"authority-{name}.pem"
    authority(name).cert_pem.write_to_path(path)
    return path


def leaf_file(path: Path, certificate: trustme.LeafCert) -> Path:
    """A file of a certificate with its key."""
    path.touch(0o600)
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    return path
