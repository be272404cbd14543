r"""The transport of Windows named pipes: ``pipe:``, and on Windows bare names and ``node-ipc:``.

Owns what the addresses mean, whom Windows lets in, and how a pipe is opened and its other side identified. Must not
know who may talk beyond that: it reports whom Windows says is there.

The names of pipes belong to the whole machine and whoever comes first. So a server makes sure that it is the first,
with a pipe that belongs to its user and is for that user alone; and a client, whom Windows would let into anybody's
pipe, reports the pipe's owner, and lets nobody there act in its name.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import trio

from pyipc.errors import AddressError, AddressInUse, ConnectError, ListenError
from pyipc.transports.pipe_backlog import create_instance
from pyipc.transports.pipe_claim import PipeClaim
from pyipc.transports.pipe_instance import PipeInstance
from pyipc.transports.pipe_link import PipeLink
from pyipc.transports.pipe_listener import PipeListener
from pyipc.transports.port import Peer, Place, Transport
from pyipc.transports.sockets import refuse_unknown_options
from pyipc.transports.windows_api import WindowsApi, error_code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyipc.protocol.addresses import Address
    from pyipc.transports.port import Carrier, Claim, Link, Listener
    from pyipc.transports.windows_api import Security

__all__ = ["PipeTransport"]

_PREFIX: Final = "\\\\.\\pipe\\"
_LONGEST_NAME: Final = 256

#: Seconds between attempts to connect to a server whose instances are all taken: the first and the longest.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.1
#: Seconds between attempts to take a name: clients of a server that has just ended hold it until they notice.
_TAKING_PAUSES: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.32)

_GENERIC_READ_WRITE: Final = 0xC000_0000
_OPEN_EXISTING: Final = 3
_FILE_FLAG_OVERLAPPED: Final = 0x4000_0000
# The server may find out who the client is, but not act as the client: SECURITY_SQOS_PRESENT, SECURITY_IDENTIFICATION.
_IDENTIFICATION_ONLY: Final = 0x11_0000

_ERROR_FILE_NOT_FOUND: Final = 2
_ERROR_ACCESS_DENIED: Final = 5
_ERROR_PIPE_BUSY: Final = 231
#: A client that did not ask for `SECURITY_IDENTIFICATION`, such as one of Node, is known by what was read from it.
_ERROR_CANNOT_IMPERSONATE: Final = 1368

#: All that a client needs: FILE_GENERIC_READ and FILE_GENERIC_WRITE without FILE_CREATE_PIPE_INSTANCE, by which others
#: could take clients away from the server.
_CLIENT_RIGHTS: Final = "0x12019b"
_SID: Final = re.compile(r"S-1-[0-9]+(-[0-9]+)+")


class PipeTransport(Transport):
    """Reaches and listens on named pipes.

    Args:
        windows: The calls of Windows; by default those of this system.
    """

    def __init__(self, *, windows: WindowsApi | None = None) -> None:
        if windows is None and sys.platform == "win32":
            windows = WindowsApi()
        self._windows = windows

    async def connect(self, address: Address, options: Mapping[str, object]) -> Link:
        """Open the pipe of ``address``. The peer's ``sid`` is the owner of the pipe.

        While all instances of the server are taken this waits, until it is cancelled.

        Raises:
            ConnectError: Nobody listens, or Windows does not let us in.
            AddressError: The address cannot be used on this system.
            TypeError: An option does not exist.

        Cancellation: nothing stays open.
        """
        refuse_unknown_options(options, (), f"connecting to {address}")
        windows = self._on_windows(address)
        name = _name_of(address, windows)
        await trio.lowlevel.checkpoint()
        handle = await _open(windows, address, name)
        try:
            windows.register(handle)
            pid = _process_id(windows.server_process_id, handle)
            return PipeLink(windows, handle, Peer(address=str(address), pid=pid, sid=windows.owner_sid(handle)))
        except OSError as error:
            windows.close_handle(handle)
            raise ConnectError(f"the server of {address} cannot be identified: {error.strerror}") from error
        except BaseException:
            windows.close_handle(handle)
            raise

    async def listen(self, address: Address, options: Mapping[str, object]) -> Listener:
        """Listen on the pipe of ``address``; see `claim` and `adopter`.

        Raises:
            AddressInUse, ListenError, AddressError, TypeError, ValueError: As `claim`.

        Cancellation: nothing stays open.
        """
        windows, name, security = self._prepare(address, options)
        make = functools.partial(_make_link, windows, address, _identifier(windows, address, options))
        await trio.lowlevel.checkpoint()
        first = await _take(windows, address, name, security, registers=True)
        return PipeListener(windows, address, name, security, first=first, make=make)

    async def claim(self, address: Address, options: Mapping[str, object]) -> Claim:
        """Take the pipe of ``address``.

        Option: ``allow``, security identifiers of users whom Windows is to let in beside our own. Without it every
        peer's ``sid`` is ours, as Windows lets in nobody else; with it, it is the one that Windows tells, if it does.
        Of a client that did not ask to be identified it tells that once something was read, in `Link.handshake`.

        Raises:
            AddressInUse: Somebody else has the pipe.
            ListenError: Windows refuses.
            AddressError: The address cannot be used on this system.
            TypeError, ValueError: An option does not exist, or has a wrong value.

        Cancellation: nothing stays open.
        """
        windows, name, security = self._prepare(address, options)
        await trio.lowlevel.checkpoint()
        first = await _take(windows, address, name, security, registers=False)
        try:
            return PipeClaim(windows, address, name, security, first=first)
        except BaseException:
            windows.close_handle(first)
            raise

    def adopter(self, address: Address, options: Mapping[str, object]) -> Callable[[Carrier], Link]:
        """How links are made of instances that were accepted on ``address``.

        Option: ``allow``, as for `claim`.

        Raises:
            AddressError: The address cannot be used on this system.
            TypeError, ValueError: An option does not exist, or has a wrong value.
        """
        refuse_unknown_options(options, ("allow",), f"listening on {address}")
        windows = self._on_windows(address)
        identify = _identifier(windows, address, options)

        def adopt(carrier: Carrier) -> Link:
            if not isinstance(carrier, PipeInstance):
                raise TypeError(f"what is accepted on {address} is the instance of a pipe, and not {carrier!r}")
            windows.register(carrier.handle)
            link = _make_link(windows, address, identify, carrier.handle, closed=carrier.on_close)
            carrier.detach()
            return link

        return adopt

    def places(self, address: Address) -> Sequence[Place]:
        """The pipe that ``address`` stands for.

        Raises:
            AddressError: The address cannot be used on this system.
        """
        return (Place(_name_of(address, self._on_windows(address))),)

    def _prepare(self, address: Address, options: Mapping[str, object]) -> tuple[WindowsApi, str, Security]:
        """What it takes to listen: the calls of Windows, the name of the pipe, and who may use it."""
        refuse_unknown_options(options, ("allow",), f"listening on {address}")
        windows = self._on_windows(address)
        name = _name_of(address, windows)
        own = windows.own_sid()
        # Ours by name, since a program with an administrator's rights would else make it the administrators'; and no
        # rights that the directory of pipes would hand down.
        rights = "".join(f"(A;;{_CLIENT_RIGHTS};;;{sid})" for sid in _others(windows, options))
        return windows, name, windows.security(f"O:{own}D:P(A;;GA;;;{own}){rights}")

    def _on_windows(self, address: Address) -> WindowsApi:
        if self._windows is None:
            raise AddressError(
                f"{address} cannot be used here: only Windows has named pipes; use a bare name, such as 'world', or "
                "unix:/path"
            )
        return self._windows


def _name_of(address: Address, windows: WindowsApi) -> str:
    """The full name of the pipe."""
    match address.scheme:
        case "local":
            # Of this user alone, and nobody else can be meant by it.
            name = f"{_PREFIX}pyipc-{windows.own_sid()}-{address.name}"
        case "node-ipc":
            # What node-ipc makes of its path, /tmp/app.<id>.
            name = f"{_PREFIX}tmp-app.{address.name}"
        case _:
            name = f"{_PREFIX}{address.name}"
    if len(name.encode("utf-16-le")) // 2 > _LONGEST_NAME:
        raise AddressError(f"{address} is too long: its pipe would be {name!r}, of which Windows allows 256 characters")
    return name


async def _open(windows: WindowsApi, address: Address, name: str) -> int:
    """Open a pipe, waiting while all its instances are taken."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return windows.create_file(
                name, _GENERIC_READ_WRITE, 0, _OPEN_EXISTING, _FILE_FLAG_OVERLAPPED | _IDENTIFICATION_ONLY
            )
        except OSError as error:
            code = error_code(error)
            if code == _ERROR_FILE_NOT_FOUND:
                raise ConnectError(f"nobody listens on {address}: there is no such pipe; start the server") from error
            if code == _ERROR_ACCESS_DENIED:
                raise ConnectError(
                    f"we may not use the pipe of {address}, which belongs to another user or is not for us; let its "
                    "server allow us, or use another name"
                ) from error
            if code != _ERROR_PIPE_BUSY:
                raise ConnectError(f"nobody answers on {address}: {error.strerror}; start the server") from error
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _take(windows: WindowsApi, address: Address, name: str, security: Security, *, registers: bool) -> int:
    """Create the first instance of a pipe; if there are others yet, for a moment again and again."""
    for pause in (*_TAKING_PAUSES, None):
        try:
            return create_instance(windows, name, security, registers=registers, first=True)
        except OSError as error:
            if error_code(error) not in (_ERROR_ACCESS_DENIED, _ERROR_PIPE_BUSY):
                raise ListenError(f"cannot listen on {address}: {error.strerror}; use another name") from error
            if pause is None:
                raise AddressInUse(
                    f"another program has the pipe of {address}, or is still connected to the server that had it "
                    "before; stop it, or use another name"
                ) from error
        await trio.sleep(pause)
    raise AssertionError("the last attempt has returned or raised")


def _identifier(windows: WindowsApi, address: Address, options: Mapping[str, object]) -> Callable[[int], Peer | None]:
    """What finds out who the client of an instance is; it returns ``None`` if that takes reading something first."""
    own = windows.own_sid()
    has_others = bool(_others(windows, options))

    def identify(handle: int) -> Peer | None:
        sid: str | None = own
        if has_others:
            try:
                sid = windows.client_sid(handle)
            except OSError as error:
                if error_code(error) == _ERROR_CANNOT_IMPERSONATE:
                    return None
                sid = None  # it did not let itself be identified, or has gone; who cannot be known is not let in
        return Peer(address=str(address), pid=_process_id(windows.client_process_id, handle), sid=sid)

    return identify


def _make_link(
    windows: WindowsApi,
    address: Address,
    identify: Callable[[int], Peer | None],
    handle: int,
    closed: Callable[[], None] | None = None,
) -> PipeLink:
    """A link over an instance that a client has, and that is registered with trio."""
    peer = identify(handle)
    if peer is None:
        return PipeLink(windows, handle, Peer(address=str(address)), identify=identify, closed=closed)
    return PipeLink(windows, handle, peer, closed=closed)


def _others(windows: WindowsApi, options: Mapping[str, object]) -> list[str]:
    """Whom Windows is to let in beside our own user."""
    own = windows.own_sid()
    return [sid for sid in _users(options.get("allow")) if sid != own]


def _users(allow: object) -> tuple[str, ...]:
    """The option ``allow``, checked: it becomes part of a text in which everything has a meaning."""
    if allow is None:
        return ()
    if isinstance(allow, str) or not isinstance(allow, Collection):
        raise TypeError(f"allow must be security identifiers of users, such as {{'S-1-5-18'}}, not {allow!r}")
    for sid in allow:
        if not isinstance(sid, str) or not _SID.fullmatch(sid):
            raise ValueError(
                f"{sid!r} is no security identifier of a user, such as 'S-1-5-18'; `whoami /user` shows one's own"
            )
    return tuple(sorted(allow))


def _process_id(ask: Callable[[int], int], handle: int) -> int | None:
    try:
        return ask(handle)
    except OSError:
        return None  # it has gone already, but what it wrote can be read
