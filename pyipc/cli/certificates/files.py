"""Certificates and keys in files: keys that only their owner may read, and nothing ever overwritten."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from pyipc.cli.certificates.issuing import Credential
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.showing.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

__all__ = ["Pair", "read_authority", "read_certificates"]

_KEY_MODE: Final = 0o600
_CERTIFICATE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700
#: Bytes of a file that are read: a thousand certificates, say.
_MAX_SIZE: Final = 4 * 1024 * 1024
_KINDS_OF_KEYS: Final = (
    ec.EllipticCurvePrivateKey,
    ed25519.Ed25519PrivateKey,
    ed448.Ed448PrivateKey,
    rsa.RSAPrivateKey,
)


class Pair(NamedTuple):
    """The files of a certificate and of its key.

    Attributes:
        certificate: The path of the certificate.
        key: The path of the key.
    """

    certificate: str
    key: str

    @classmethod
    def of(cls, directory: str, name: str) -> Pair:
        """Those of this name in a directory."""
        # IPv6 addresses have colons, which are not for names of files on Windows.
        stem = os.path.normpath(os.path.join(directory, f"ipv6{name.replace(':', '-')}" if ":" in name else name))
        return cls(f"{stem}.pem", f"{stem}-key.pem")

    def refuse_existing(self) -> None:
        """Check that neither file is there, before anything is made for them.

        Raises:
            Failed: One is.
        """
        for path in self:
            if os.path.lexists(path):
                raise _exists(path)

    def write(self, credential: Credential) -> None:
        """Write both files, or neither, whole from the first moment that they can be seen.

        The directory is made if it is missing. Nobody else can read the key at any time.

        Raises:
            Failed: One is there already, or cannot be written.
        """
        directory = os.path.dirname(self.key) or "."
        try:
            os.makedirs(directory, _DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            raise _cannot("make", directory, error) from None
        with (
            _written(self.key, credential.key_pem(), _KEY_MODE) as key,
            _written(self.certificate, credential.certificate_pem(), _CERTIFICATE_MODE) as certificate,
        ):
            _publish(key, self.key)
            try:
                _publish(certificate, self.certificate)
            except BaseException:
                os.unlink(self.key)
                raise


@contextlib.contextmanager
def _written(path: str, data: bytes, mode: int) -> Iterator[str]:
    """A file beside ``path`` with all of the data, on the disk; it is gone afterwards."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        # Nobody but the owner to begin with, whatever it becomes.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), _KEY_MODE)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if sys.platform != "win32":
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise _cannot("write", path, error) from None


def _publish(temporary: str, path: str) -> None:
    """Give a file its name, unless there is one of that name."""
    try:
        if sys.platform == "win32":
            os.rename(temporary, path)  # which overwrites nothing there
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise _cannot("write", path, error) from None


def read_certificates(path: str) -> list[x509.Certificate]:
    """All certificates in a PEM file.

    Raises:
        Failed: It cannot be read, or there is none in it.
    """
    data = _read(path)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        what = "a private key and no certificate" if b"PRIVATE KEY-----" in data else "no certificate in PEM form"
        raise Failed(ExitCode.USAGE, f"{printable(path)} has {what}; name the file of a certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise Failed(ExitCode.USAGE, f"{printable(path)} is damaged: what it has is no certificate") from None


def read_authority(pair: Pair) -> Credential:
    """A certificate authority from its files.

    Raises:
        Failed: They are missing, unreadable or damaged, or do not belong together.
    """
    directory = os.path.dirname(pair.certificate) or "."
    for path in pair:
        if not os.path.lexists(path):
            raise Failed(
                ExitCode.IO,
                f"there is no CA in {printable(directory)}: {printable(path)} is missing; make one with: pyipc cert ca "
                f"{printable(directory)}, or name the directory where it is with --ca-dir",
            )
    certificate = read_certificates(pair.certificate)[0]
    key = _read_key(pair.key)
    if not _belong_together(certificate, key):
        raise Failed(
            ExitCode.USAGE,
            f"{printable(pair.key)} is not the key of {printable(pair.certificate)}; put together again what belongs "
            "together",
        )
    return Credential(certificate, key)


def _belong_together(certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> bool:
    try:
        return key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):  # it certifies a key of a kind that none of ours is
        return False


def _read_key(path: str) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except TypeError:
        why = (
            "is protected by a pass phrase, which nobody is asked for here; use a copy without one, and remove it after"
        )
    except (ValueError, UnsupportedAlgorithm):
        why = "has no private key that can be read"
    else:
        if isinstance(key, _KINDS_OF_KEYS):
            return key
        why = "has a key that cannot sign; use the key of the CA"
    raise Failed(ExitCode.USAGE, f"{printable(path)} {why}") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise _cannot("read", path, error) from None
    if len(data) > _MAX_SIZE:
        raise Failed(ExitCode.USAGE, f"{printable(path)} is far too large for certificates; name another file")
    return data


def _exists(path: str) -> Failed:
    return Failed(
        ExitCode.IO,
        f"{printable(path)} is there already, and nothing is overwritten; move it away, or choose another directory",
    )


def _cannot(do: str, path: str, error: OSError) -> Failed:
    return Failed(ExitCode.IO, f"cannot {do} {printable(path)}: {error.strerror}")
