"""What a worker of a Node program refuses to send, as it would not arrive there as a message."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

import pyipc
from pyipc.cluster.node.worker import _check


@dataclasses.dataclass
class Command:
    cmd: str


class Frame(msgspec.Struct):
    type: str


@pytest.mark.parametrize(
    "data", [{"cmd": "NODE_X", "more": 1}, Command("NODE_CLUSTER"), {"type": "pyipc.reply"}, Frame("pyipc.event")]
)
def test_messages_that_node_would_take_for_its_own_are_refused(data: Any) -> None:
    with pytest.raises(pyipc.LocalProtocolError, match="give that field another name or value"):
        _check(data)


@pytest.mark.parametrize(
    "data",
    [None, 1, "NODE_X", ["NODE_X"], {"cmd": "NODE_"}, {"cmd": 1}, {"x": {"cmd": "NODE_X"}}, Command("x"), Frame("x")],
)
def test_all_others_are_not(data: Any) -> None:
    _check(data)
