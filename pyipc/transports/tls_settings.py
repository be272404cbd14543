"""What TLS is given: certificates, keys, and whom to trust.

Owns reading the files, the rules every connection keeps (`TLS` has no way to switch them off but one, which is named
for what it is), and reading the files again when they change. Must not know sockets or handshakes.

``ssl`` is imported where a context is made, so that programs without TLS do without it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

import trio

from pyipc.errors import CertificateFileError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["ALPN", "TLS", "AnyTLS", "check_tls", "client_context", "server_context"]

logger: logging.Logger = logging.getLogger("pyipc.transports")

#: What both sides offer as the application protocol. Whoever agrees on it introduces itself.
ALPN: Final = "pyipc/1"

#: For ``tls=``: files, or a context that was made elsewhere.
AnyTLS: TypeAlias = "TLS | ssl.SSLContext"

#: Seconds for which a look at the files is good.
_LOOK_INTERVAL: Final = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TLS:
    """Certificates and whom to trust, as PEM files.

    One object serves both roles: a server shows ``cert`` and asks for certificates of ``client_ca``; a client trusts
    ``ca`` and shows ``cert`` if it is asked. TLS 1.2 is the least, and the other side's certificate and host name are
    verified, by our clients for every connection anew.

    The files are read at once, and again when they have changed: each handshake uses what is there then, while
    connections that are established go on. Files that cannot be used are told in the log, and what was read before
    is kept.

    Args:
        cert: Our certificate, followed by those of the authorities between it and one that the other side trusts.
            A server needs it; a client where the server asks for it.
        key: The private key of ``cert``, unencrypted; by default it is in the same file.
        ca: The certificates that a client trusts, of authorities or of servers themselves; by default those that
            this system trusts.
        client_ca: The certificates of authorities that a client's must be signed by. With it a server requires one
            of every client.
        insecure: A client talks to whoever is there: neither certificate nor host name is verified. Anybody on the
            way can read and change everything. For experiments; it is logged as a warning.

    Raises:
        CertificateFileError: A file is missing or cannot be used.
        TypeError, ValueError: The arguments contradict each other.
    """

    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    client_ca: str | os.PathLike[str] | None = None
    insecure: bool = False
    _server: _Renewed = dataclasses.field(init=False, repr=False, compare=False)
    _client: _Renewed = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("cert", "key", "ca", "client_ca"):
            object.__setattr__(self, name, _absolute(name, getattr(self, name)))
        if self.key is not None and self.cert is None:
            raise ValueError("key= is the key of a certificate, and there is none; give cert= as well")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca= is for servers, which need a certificate; give cert= as well")
        if self.insecure:
            if self.ca is not None:
                raise ValueError("ca= says whom to trust and insecure=True to trust anybody; leave out one of them")
            logger.warning(
                "insecure=True: the certificate of the server is not verified, so anybody on the way can read and "
                "change what is sent; give ca= with the certificate of its authority instead"
            )
        own = [self.cert, self.key]
        object.__setattr__(self, "_server", _Renewed(self._make_server, [*own, self.client_ca]))
        object.__setattr__(self, "_client", _Renewed(self._make_client, [*own, self.ca]))
        self.reload()

    def reload(self) -> None:
        """Read the files again, for the handshakes that come. Connections that are established go on.

        Nobody has to call this: files that have changed are noticed within a second.

        Raises:
            CertificateFileError: A file is missing or cannot be used; what was read before is kept.
        """
        renewed = [
            *([self._server] if self.cert is not None else ()),
            # What the system trusts takes a while to load, and a server never needs it.
            *([self._client] if self.ca is not None or self._client.is_made else ()),
        ]
        made = [one.make() for one in renewed]
        for one, context in zip(renewed, made, strict=True):
            one.use(context)

    def _make_server(self) -> ssl.SSLContext:
        import ssl

        context = _context(ssl.Purpose.CLIENT_AUTH)
        # Clients of ours resume no sessions, and those of others are verified anew, too: with TLS 1.3, always.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        assert self.cert is not None
        _load_own(context, self.cert, self.key)
        _warn_of_readable_key(self.key or self.cert)
        if self.client_ca is not None:
            _load_trusted(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _make_client(self) -> ssl.SSLContext:
        import ssl

        context = _context(ssl.Purpose.SERVER_AUTH)
        if self.cert is not None:
            _load_own(context, self.cert, self.key)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _load_trusted(context, self.ca)
        return context


class _Renewed:
    """A context made of files, and made anew when they have changed.

    Args:
        make: Makes it.
        files: What it is made of; ``None`` among them stands for none.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: list[str | os.PathLike[str] | None]) -> None:
        self._make = make
        self._files = [file for file in files if file is not None]
        self._context: ssl.SSLContext | None = None
        self._seen: object = None
        self._told_of: object = None
        self._looked_at = -_LOOK_INTERVAL

    @property
    def is_made(self) -> bool:
        return self._context is not None

    def make(self) -> ssl.SSLContext:
        # What changes while they are read is noticed at the next look.
        self._seen = self._look()
        return self._make()

    def use(self, context: ssl.SSLContext) -> None:
        self._context = context

    def get(self) -> ssl.SSLContext:
        """The context of the files as they are, or were a second ago."""
        now = trio.current_time()
        if self._context is None:
            self._context = self.make()
        elif 0.0 <= now - self._looked_at < _LOOK_INTERVAL:  # in another run of trio, time begins anew
            return self._context
        elif self._look() != self._seen:
            try:
                self._context = self.make()
            except CertificateFileError as error:
                # Tried again at every look, since not all that was in the way can be seen by looking; told once.
                if self._told_of != self._seen:
                    logger.error("the changed files of TLS cannot be used, so the old ones are kept: %s", error)
                self._told_of, self._seen = self._seen, None
            else:
                logger.info("TLS uses the changed files: %s", ", ".join(map(str, self._files)))
        self._looked_at = now
        return self._context

    def _look(self) -> object:
        return [_look(file) for file in self._files]


def check_tls(tls: object) -> None:
    """Refuse what cannot be given as ``tls=``.

    Raises:
        TypeError: It is neither `TLS` nor an ``ssl.SSLContext``.
    """
    import ssl

    if not isinstance(tls, TLS | ssl.SSLContext):
        raise TypeError(f"tls must be pyipc.TLS(...) or an ssl.SSLContext, not {tls!r}")


def server_context(tls: AnyTLS) -> ssl.SSLContext:
    """The context for the next handshake of a server. One that was made elsewhere is used as it is.

    Raises:
        ValueError: There is no certificate for a server, or the context was made for clients.
    """
    if not isinstance(tls, TLS):
        import ssl

        if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("the ssl.SSLContext was made for clients; make one with ssl.PROTOCOL_TLS_SERVER")
        return tls
    if tls.cert is None:
        raise ValueError("a server needs a certificate; give tls=pyipc.TLS(cert=..., key=...)")
    return tls._server.get()


def client_context(tls: AnyTLS) -> ssl.SSLContext:
    """The context for the next handshake of a client. One that was made elsewhere is used as it is.

    Raises:
        ValueError: The context was made for servers; or (`CertificateFileError`) a file that was not needed before
            cannot be used.
    """
    if not isinstance(tls, TLS):
        import ssl

        if tls.protocol == ssl.PROTOCOL_TLS_SERVER:
            raise ValueError("the ssl.SSLContext was made for servers; make one with ssl.PROTOCOL_TLS_CLIENT")
        return tls
    return tls._client.get()


def _context(purpose: ssl.Purpose) -> ssl.SSLContext:
    """What holds for both sides, whatever this Python's defaults are."""
    import ssl

    is_client = purpose is ssl.Purpose.SERVER_AUTH
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_client else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Who gives the certificate of a server, or of an authority below a root, means that one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_alpn_protocols([ALPN])
    return context


def _absolute(name: str, path: object) -> str | None:
    """Where a file is, also for a process that changes its directory later."""
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a PEM file, not {path!r}")
    return os.path.abspath(os.fsdecode(path))


def _look(path: str | os.PathLike[str]) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


def _load_own(context: ssl.SSLContext, cert: str | os.PathLike[str], key: str | os.PathLike[str] | None) -> None:
    import ssl

    _require(cert, b"-----BEGIN CERTIFICATE-----", "a certificate")
    secret = cert if key is None else key
    hint = "" if key is not None else "; if it is in a file of its own, give key= as well"
    _require(secret, b"PRIVATE KEY-----", f"the private key of the certificate{hint}")

    def refuse_password() -> NoReturn:
        # OpenSSL would ask at the terminal, and a service wait there for ever.
        raise CertificateFileError(
            str(secret), f"the private key in {str(secret)!r} is encrypted; decrypt it, or give an ssl.SSLContext"
        )

    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except OSError as error:  # those of OpenSSL are among them
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateFileError(
                str(secret),
                f"the private key in {str(secret)!r} is not that of the certificate in {str(cert)!r}; "
                "give the two that were made together",
            ) from error
        raise _unusable(cert if key is None else key, error) from error


def _load_trusted(context: ssl.SSLContext, path: str | os.PathLike[str]) -> None:
    _require(path, b"-----BEGIN CERTIFICATE-----", "the certificate of an authority")
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _require(path: str | os.PathLike[str], mark: bytes, what: str) -> None:
    """Make sure that a file can be read and has something of the kind, as OpenSSL does not say what is missing."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise CertificateFileError(
            str(path), f"{str(path)!r} cannot be read: {error.strerror}; give the path of a PEM file"
        ) from error
    if mark not in content:
        raise CertificateFileError(str(path), f"{str(path)!r} does not hold {what}, in PEM form")


def _unusable(path: str | os.PathLike[str], error: OSError) -> CertificateFileError:
    reason = (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
    return CertificateFileError(str(path), f"{str(path)!r} cannot be used ({reason}); is it damaged, or cut short?")


def _warn_of_readable_key(path: str | os.PathLike[str]) -> None:
    # What Windows makes up as a mode says nothing.
    if os.name == "posix" and (mode := stat.S_IMODE(os.stat(path).st_mode)) & (stat.S_IROTH | stat.S_IWOTH):
        logger.warning(
            "every user of this machine can use the private key in %r (mode %#o); chmod 600 it", str(path), mode
        )
