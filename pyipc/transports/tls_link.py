"""TLS over a stream socket.

Owns the shaking of hands, and moving bytes between OpenSSL and the socket. The protocol is OpenSSL's, through
``ssl.SSLObject``. Must not know where certificates come from, which is for `tls_settings`, nor who may talk.

A `trio.SSLStream` would not do: it can neither send without waiting nor end its own direction and still receive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import trio

from pyipc.errors import ConnectionLost, HandshakeFailed
from pyipc.transports.port import Certificate, Link
from pyipc.transports.tls_errors import handshake_failed, is_verdict, not_tls
from pyipc.transports.tls_settings import ALPN

if TYPE_CHECKING:
    from pyipc.transports.port import Peer

__all__ = ["TlsLink"]

#: Bytes that are read at once. What they decrypt to is handed on whole, so it is also the most that a chunk has.
_READ_SIZE: Final = 64 * 1024
_RECORD_SIZE: Final = 16 * 1024

#: Bytes that are encrypted before the kernel is asked to take them.
_SEAL_SIZE: Final = 64 * 1024

#: Bytes that TLS itself may have to say to a peer that does not read.
_MOST_ANSWERS: Final = 4 * 1024

#: Seconds for which the last words are sent. A side that refused the other also reads so often, for it to read why.
_LINGER: Final = 1.0
_LINGER_READS: Final = 16

#: The first byte of a record by which a handshake may begin: a message of the handshake, or an alert instead of one.
_FIRST_BYTES: Final = b"\x16\x15"
#: What a server says to a client that does not speak TLS: the fatal alert "unexpected message", a record by itself.
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x0a"


class TlsLink(Link):
    """TLS over a connected stream socket. Until `handshake` is done, it can only be closed.

    Args:
        sock: The socket; the link owns it from here on and makes it non-blocking.
        peer: Who is on the other side, as far as is known without TLS.
        context: What OpenSSL is to use.
        host: On a client, the name or the IP address that the server's certificate must be for; ``None`` on a server.
    """

    can_wake_receiver = True

    def __init__(self, sock: socket.socket, peer: Peer, context: ssl.SSLContext, host: str | None = None) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._descriptor = sock.fileno()  # -1 once closed
        self._peer = peer
        self._host = host
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=_verifiable(host)
        )
        self.needs_handshake: bool = True
        self._has_begun = False
        # Reading. All that has arrived is decrypted at once, so what `_incoming` keeps is less than a record.
        self._plain = b""
        self._heard = False
        self._has_ended = False
        self._failure: ssl.SSLError | None = None
        self._is_woken = False
        # Writing. What is encrypted cannot be encrypted again: it is kept until the kernel takes it, and the last byte
        # of it is not reported as taken before, so that the caller comes back. That byte, which will be offered again,
        # is owed.
        self._sealed = b""
        self._owed = 0
        self._sending = False
        self._eof_sent = False
        self._is_shut = False
        # The scope of a task that waits for room, where nobody else does.
        self._pushing: trio.CancelScope | None = None

    def __repr__(self) -> str:
        state = "closed" if self._descriptor < 0 else f"fd {self._descriptor}"
        return f"<TlsLink to {self._peer.address}, {state}, {self._tls.version() or 'no handshake yet'}>"

    @property
    def peer(self) -> Peer:
        """Who is on the other side; with its certificate, if it was asked for one and has shown it."""
        return self._peer

    # --- the handshake ---

    async def handshake(self) -> None:
        """Agree on keys, and verify who is on the other side.

        Raises:
            HandshakeFailed: There is no way to talk to the peer; the code and the sentence say why.

        Cancellation: the link can then only be closed.
        """
        if not self.needs_handshake:
            await trio.lowlevel.checkpoint()
            return
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._send_sealed()
                    await self._feed()
            verifies = self._host is None and self._tls.context.verify_mode is not ssl.CERT_NONE
            if verifies and self._tls.session_reused and not self._tls.context.num_tickets:
                # A context without tickets is one that verifies everybody anew, and up to TLS 1.2 OpenSSL remembers
                # sessions without tickets as well.
                raise HandshakeFailed(
                    "tls",
                    f"the client at {self._peer.address} resumed an old session, which was not verified anew; "
                    "let it connect without one",
                )
            await self._send_sealed()
        except ssl.SSLError as error:
            await self._linger()
            raise handshake_failed(error, self._peer.address, self._host) from error
        except (OSError, trio.ClosedResourceError) as error:
            raise self._closed_in_handshake() from error
        self._peer = dataclasses.replace(
            self._peer,
            certificate=_certificate(self._tls),
            protocol=ALPN if self._tls.selected_alpn_protocol() == ALPN else self._peer.protocol,
        )
        self.needs_handshake = False
        self._decrypt()  # what came along with the peer's last word

    async def _feed(self) -> None:
        """Wait for more of the peer's part of the handshake."""
        data = await self._read(_RECORD_SIZE)
        if not data:
            raise self._closed_in_handshake()
        if not self._has_begun and data[0] not in _FIRST_BYTES:
            if self._host is None:
                self._outgoing.write(_ALERT)
                await self._linger()
            raise not_tls(self._peer.address, self._host)
        self._has_begun = True
        self._incoming.write(data)

    async def _read(self, size: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._open_descriptor())
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                continue

    async def _send_sealed(self) -> None:
        while not self._drain():
            await trio.lowlevel.wait_writable(self._open_descriptor())

    async def _linger(self) -> None:
        """Send the alert that says why, and wait a little for the peer to read it.

        Closing while input is unread resets the connection, and what is under way to the peer may be lost by that.
        """
        with trio.move_on_after(_LINGER), contextlib.suppress(OSError, trio.ClosedResourceError):
            self._drain()
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(_LINGER_READS):
                if not await self._read(_READ_SIZE):
                    return

    def _open_descriptor(self) -> int:
        if self._descriptor < 0:
            raise trio.ClosedResourceError("the link was closed")
        return self._descriptor

    def _closed_in_handshake(self) -> HandshakeFailed:
        if self._descriptor < 0:
            return HandshakeFailed("closed", "the link was closed on this side during the TLS handshake")
        who = "client" if self._host is None else "server"
        hint = "it may not speak TLS" if self._host is None else "it may not speak TLS, or be about to stop"
        return HandshakeFailed(
            "closed", f"the {who} at {self._peer.address} closed the connection during the TLS handshake; {hint}"
        )

    # --- sending ---

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt and write what the socket's buffer takes.

        Returns:
            How many bytes were taken, from the front; ``0`` if none. What was not taken must be offered again before
            anything else: a byte of it may be on its way already.

        Raises:
            ConnectionLost: The link is broken or closed.
        """
        if self._descriptor < 0:  # though the socket may still be sending what was taken before
            raise self._lost(trio.ClosedResourceError())
        try:
            if not self._drain():
                return 0
            with memoryview(data) as whole, whole.cast("B") as view:
                return self._seal(view)
        except OSError as error:
            raise self._lost(error) from error

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write all of ``data``, waiting for room as often as it takes. Always a schedule point.

        Raises:
            ConnectionLost: The link is broken, or `aclose` was called meanwhile.

        Cancellation: an unknown part of ``data`` may have been sent, so the link can then only
        be closed.
        """
        self._sending = True
        if self._pushing is not None:
            trio.lowlevel.notify_closing(self._socket)  # only one task can wait for room
        try:
            with memoryview(data) as whole, whole.cast("B") as view:
                taken = 0
                while True:
                    await self._writable()
                    if self._drain():
                        with view[taken:] as rest:
                            taken += self._seal(rest)
                        if taken == len(view):
                            return
        except OSError as error:
            raise self._lost(error) from error
        finally:
            self._sending = False

    def _seal(self, view: memoryview) -> int:
        """Encrypt and write as much as the kernel takes; say how much that is."""
        taken, self._owed = self._owed, 0
        while taken < len(view):
            with view[taken : taken + _SEAL_SIZE] as part:
                taken += self._tls.write(part)
            if not self._drain():
                self._owed = 1
                return taken - 1
        return taken

    def _drain(self) -> bool:
        """Give the kernel what is encrypted; say whether it took everything."""
        while sealed := self._sealed or self._outgoing.read():
            self._sealed = sealed
            try:
                sent = self._socket.send(sealed)
            except BlockingIOError:
                return False
            self._sealed = sealed[sent:]
        if self._eof_sent and not self._is_shut:
            self._is_shut = True
            self._socket.shutdown(socket.SHUT_WR)
        return True

    def _push(self) -> None:
        """Give the kernel what is encrypted, now or as soon as there is room: nobody will come and offer it again.

        A broken link shows elsewhere.
        """
        with contextlib.suppress(OSError):
            if not self._drain() and not self._sending and self._pushing is None:
                self._pushing = trio.CancelScope()
                # No caller could wait for it, nor has the link a nursery. It ends with the link, or soon after.
                trio.lowlevel.spawn_system_task(self._push_on)

    async def _push_on(self) -> None:
        assert self._pushing is not None
        try:
            with contextlib.suppress(OSError), self._pushing:
                while not (self._sending and self._descriptor >= 0) and not self._drain():
                    with contextlib.suppress(trio.ClosedResourceError):  # somebody else was to be woken
                        await trio.lowlevel.wait_writable(self._socket)
        finally:
            self._pushing = None
            if self._descriptor < 0:
                self._close_socket()

    async def _writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._open_descriptor())
        except trio.ClosedResourceError as error:
            if self._descriptor < 0:
                raise self._lost(error) from error
            # It was the receiver who was to be woken.

    def send_eof(self) -> bool:
        """Send TLS's closing message and shut down the sending side.

        Returns:
            ``True``. Errors are ignored: the peer may be gone already.
        """
        if not self._eof_sent:
            self._eof_sent = True
            with contextlib.suppress(OSError):  # OpenSSL also says here that the peer has not closed yet
                self._tls.unwrap()
            self._push()
        return True

    # --- receiving ---

    async def receive(self) -> bytes:
        """Wait until something can be read and decrypted. Always a schedule point.

        Returns:
            At least one byte, or ``b""`` when the peer has finished sending and said so.

        Raises:
            ConnectionLost: The link is broken, was cut off, or `aclose` was called meanwhile. If it is the server's
                answer to our certificate, `HandshakeFailed` is the cause.
            trio.WouldBlock: `wake_receiver` was called meanwhile.

        Cancellation: loses nothing.
        """
        self._is_woken = False
        if self._plain or self._has_ended or self._failure is not None:
            await trio.lowlevel.checkpoint()
        else:
            while not await self._read_plain():
                if self._is_woken:  # by the time that a part of a record had come, which is nothing yet
                    raise trio.WouldBlock
        plain, self._plain = self._plain, b""
        if plain:
            self._heard = True
        elif self._failure is not None:
            raise self._broken(self._failure)
        return plain

    async def _read_plain(self) -> bool:
        """Wait until something can be read, and decrypt it; say whether that came to anything."""
        try:
            await trio.lowlevel.wait_readable(self._open_descriptor())
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            # The kernel may wake a task for nothing, and then `wake_receiver` has found nobody asleep.
            if self._is_woken:
                raise trio.WouldBlock from None
            return False
        except trio.ClosedResourceError as error:
            if self._descriptor < 0:
                raise self._lost(error) from error
            if self._is_woken:
                raise trio.WouldBlock from None
            return False
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            raise ConnectionLost(
                f"the link to {self._peer.address} was cut off: it ended without TLS's closing message, as when the "
                "program there is killed",
                maybe_handled=True,
            )
        self._incoming.write(data)
        self._decrypt()
        return bool(self._plain) or self._has_ended or self._failure is not None

    def _decrypt(self) -> None:
        """Decrypt every whole record that has arrived, and note the end if it is among them."""
        chunks = []
        try:
            while self._incoming.pending or self._tls.pending():
                chunk = self._tls.read(_RECORD_SIZE)
                if not chunk:
                    self._has_ended = True
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of no bytes, when our own direction has ended before
            self._has_ended = True
        except ssl.SSLError as error:
            self._failure = error
        self._plain = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._outgoing.pending:
            self._push()  # TLS itself has something to say: an alert, or that keys have changed
            if self._outgoing.pending > _MOST_ANSWERS and self._failure is None:
                # Each question for new keys is answered, and a peer that reads no answers can ask for ever.
                self._failure = ssl.SSLError("the peer asks for new keys again and again and does not read the answers")

    def wake_receiver(self) -> None:
        """Let a task that waits in `receive` raise `trio.WouldBlock` instead, having lost nothing."""
        self._is_woken = True
        trio.lowlevel.notify_closing(self._socket)

    # --- ending ---

    async def aclose(self) -> None:
        """Send TLS's closing message, and close. Wakes whoever is in `send` or `receive`.

        At once and more than once. What the kernel has no room for is sent in the background for a second at most; the
        peer's closing message is not waited for.

        Cancellation: the link is closed all the same.
        """
        if self._descriptor >= 0:
            if not self.needs_handshake:
                self.send_eof()
            self._descriptor = -1
            trio.lowlevel.notify_closing(self._socket)
            if self._pushing is None:
                self._close_socket()
            else:
                self._pushing.deadline = trio.current_time() + _LINGER
        await trio.lowlevel.checkpoint()

    def _close_socket(self) -> None:
        # While input is unread, such as the tickets for sessions that a server of TLS 1.3 sends unasked, closing would
        # reset the connection, and what is under way to the peer would be lost by that.
        with contextlib.suppress(OSError):
            for _ in range(_LINGER_READS):
                if not self._socket.recv(_READ_SIZE):
                    break
        self._socket.close()

    def _lost(self, error: Exception) -> ConnectionLost:
        # What was written before may have arrived; nobody down here can tell.
        if self._descriptor < 0:
            return ConnectionLost(f"the link to {self._peer.address} is closed on this side", maybe_handled=True)
        reason = getattr(error, "strerror", None) or str(error)
        return ConnectionLost(f"the link to {self._peer.address} is broken: {reason}", maybe_handled=True)

    def _broken(self, error: ssl.SSLError) -> ConnectionLost:
        if self._host is None or self._heard or not is_verdict(error):
            lost = self._lost(error)
            lost.__cause__ = error
            return lost
        # In TLS 1.3 a client is done before its server has seen its certificate: the first it hears is the verdict.
        refusal = handshake_failed(error, self._peer.address, self._host)
        refusal.__cause__ = error
        lost = ConnectionLost(str(refusal))
        lost.__cause__ = refusal
        return lost


def _verifiable(host: str | None) -> str | None:
    """A host as certificates have it: without the interface of an IPv6 address, or the dot that ends a whole name."""
    return None if host is None else host.partition("%")[0].removesuffix(".")


def _name(kind: str, value: str) -> str | None:
    """A DNS name or an IP address of a certificate, as people write it; ``None`` for what is neither."""
    if kind != "IP Address":
        return value if kind == "DNS" else None
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return None  # a network, in the certificate of an authority


def _certificate(tls: ssl.SSLObject) -> Certificate | None:
    """What the peer has shown and was verified."""
    fields: Any = tls.getpeercert()
    encoded = tls.getpeercert(binary_form=True)
    if not fields or encoded is None:
        return None  # none was shown, or what was shown was not verified
    subject = {name: value for group in fields.get("subject", ()) for name, value in group}
    names = (_name(kind, value) for kind, value in fields.get("subjectAltName", ()))
    return Certificate(
        subject=subject.get("commonName", ""),
        names=tuple(name for name in names if name is not None),
        fingerprint=f"sha256:{hashlib.sha256(encoded).hexdigest()}",
        not_after=ssl.cert_time_to_seconds(fields["notAfter"]),
    )
