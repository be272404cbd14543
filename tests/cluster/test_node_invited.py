"""What a process concludes from the variables by which Node tells a child of their channel."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from pyipc.cluster.node.invited import take_node_invitation
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no such sockets")


def told(descriptor: int | str, **more: str) -> dict[str, str]:
    return {"NODE_CHANNEL_FD": str(descriptor), "NODE_CHANNEL_SERIALIZATION_MODE": "json", "OTHER": "x", **more}


@contextlib.contextmanager
def inherited(sock: socket.socket) -> Iterator[int]:
    """A descriptor of a socket, as whoever was started with it has it."""
    with sock:
        os.set_inheritable(sock.fileno(), True)
        yield sock.fileno()


@contextlib.contextmanager
def channel() -> Iterator[int]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with other, inherited(one) as descriptor:
        yield descriptor


@posix
def test_a_worker_of_nodes_cluster_is_told_its_id() -> None:
    with channel() as descriptor:
        environment = told(descriptor, NODE_UNIQUE_ID="3")
        invited = take_node_invitation(environment)
        assert invited is not None
        assert (invited.id, invited.descriptor, invited.is_there, invited.obstacle) == ("3", descriptor, True, "")
        assert invited.is_worker
        assert environment == {"OTHER": "x"}
        assert not os.get_inheritable(descriptor)
        assert take_node_invitation(environment) is None


@posix
def test_a_plain_child_is_no_worker() -> None:
    with channel() as descriptor:
        invited = take_node_invitation(told(descriptor))
        assert invited is not None
        assert invited.is_there
        assert not invited.is_worker


@posix
def test_a_channel_in_nodes_other_serialization_is_an_obstacle() -> None:
    with channel() as descriptor:
        environment = told(descriptor, NODE_UNIQUE_ID="1") | {"NODE_CHANNEL_SERIALIZATION_MODE": "advanced"}
        invited = take_node_invitation(environment)
        assert invited is not None
        assert invited.is_worker
        assert "'advanced', which only Node can read" in invited.obstacle


@pytest.mark.parametrize("text", ["999999", "-1", "", "x", "1.5", "٣", "9" * 30])
def test_a_descriptor_that_is_not_there_is_left_over(text: str) -> None:
    environment = told(text, NODE_UNIQUE_ID="1")
    invited = take_node_invitation(environment)
    assert environment == {"OTHER": "x"}
    if not text:
        assert invited is None
        return
    assert invited is not None
    assert not invited.is_worker
    assert "which it is not in this process" in invited.obstacle


@posix
def test_what_is_no_unix_stream_or_was_opened_here_is_no_channel(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        datagrams, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        stack.enter_context(other)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        own, another = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.enter_context(another)
        stack.enter_context(own)
        file = stack.enter_context(tempfile.TemporaryFile())
        os.set_inheritable(file.fileno(), True)
        descriptors = [
            stack.enter_context(inherited(datagrams)),
            stack.enter_context(inherited(listening)),
            stack.enter_context(inherited(socket.create_server(("127.0.0.1", 0)))),
            file.fileno(),
            own.fileno(),  # as all that Python opens it would not have been inherited
        ]
        for descriptor in descriptors:
            invited = take_node_invitation(told(descriptor, NODE_UNIQUE_ID="1"))
            assert invited is not None
            assert not invited.is_there


def test_on_windows_a_channel_is_an_obstacle() -> None:
    reading, writing = os.pipe()
    try:
        invited = take_node_invitation(told(reading, NODE_UNIQUE_ID="1"), platform="win32")
    finally:
        os.close(reading)
        os.close(writing)
    assert invited is not None
    assert invited.is_worker
    assert "cannot be spoken on Windows" in invited.obstacle
