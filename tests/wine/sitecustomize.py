"""Run by every Python that `./run wine` starts: lets trio work under Wine.

Trio asks Windows for the socket below another one in two ways and compares the answers, to find out about programs
that get in between. Wine knows only one of the ways, and no such programs.
"""

from __future__ import annotations

from typing import Any

import trio._core._io_windows as io_windows

_ask: Any = getattr(io_windows, "_get_underlying_socket")  # noqa: B009 - type checkers see no Windows here
_ways: Any = getattr(io_windows, "WSAIoctls")  # noqa: B009


def _get_underlying_socket(sock: Any, *, which: Any = _ways.SIO_BASE_HANDLE) -> Any:
    if which == _ways.SIO_BSP_HANDLE_SELECT:
        which = _ways.SIO_BASE_HANDLE
    return _ask(sock, which=which)


setattr(io_windows, "_get_underlying_socket", _get_underlying_socket)  # noqa: B010
