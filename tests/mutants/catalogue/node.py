"""Mistakes with Node's channel, and with Node programs as workers."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="spelled-past-the-gate",
        mistake="what is Node's own reaches programs when a letter of it is written as an escape",
        file="pyipc/cluster/node/lines.py",
        old='_SUSPECTS: Final = (b"NODE_", b"pyipc.", b"\\\\u00")\n',
        new='_SUSPECTS: Final = (b"NODE_", b"pyipc.")\n',
        caught_by="tests/cluster/test_node_lines.py::test_what_is_nodes_own_is_no_message_in_any_spelling",
    ),
    Mutant(
        name="a-prefix-is-internal",
        mistake="a message whose cmd is NODE_ and nothing more, which Node delivers, is delivered to nobody",
        file="pyipc/cluster/node/lines.py",
        old="command.startswith(_INTERNAL_PREFIX) and command != _INTERNAL_PREFIX\n",
        new="command.startswith(_INTERNAL_PREFIX)\n",
        caught_by="tests/cluster/test_node_lines.py::test_what_only_looks_like_it_is_a_message",
    ),
    Mutant(
        name="orders-from-programs",
        mistake="what a program sends may be an order to Node",
        file="pyipc/cluster/node/lines.py",
        old="            if not (any(word in text for word in _SUSPECTS) and is_internal(_read(text))):\n",
        new="            if text:\n",
        caught_by="tests/cluster/test_node_lines.py::test_what_node_would_take_for_its_own_is_never_written",
    ),
    Mutant(
        name="two-sockets-under-way",
        mistake="a socket is sent before the one before was acknowledged, and Node mixes them up",
        file="pyipc/cluster/node/handles.py",
        old="        if self._under_way is None:\n",
        new="        if handle:\n",
        caught_by="tests/cluster/test_node_channel.py::"
        "test_a_socket_goes_along_and_the_next_one_when_it_was_acknowledged",
    ),
    Mutant(
        name="sent-again-for-ever",
        mistake="a socket that does not arrive is sent again without end, and nobody else gets the connection",
        file="pyipc/cluster/node/handles.py",
        old="            if handle.attempts < _MAX_ATTEMPTS:\n",
        new="            if handle.attempts:\n",
        caught_by="tests/cluster/test_node_channel.py::"
        "test_a_socket_that_does_not_arrive_is_sent_again_and_given_up_after_four_times",
    ),
    Mutant(
        name="lines-without-end",
        mistake="a line that never ends is gathered until memory is full",
        file="pyipc/cluster/node/channel.py",
        old="        if self._partial_size <= self._max_message_size:\n",
        new="        if self._partial_size:\n",
        caught_by="tests/cluster/test_node_channel.py::"
        "test_a_line_that_is_too_long_is_a_frame_that_is_too_long_and_is_not_gathered_for_ever",
    ),
    Mutant(
        name="only-as-far-as-programs-listen",
        mistake="while a handler takes its time nothing is read that Node itself says behind messages",
        file="pyipc/cluster/node/channel.py",
        old="            nursery.start_soon(self._read_ahead)\n",
        new="",
        caught_by="tests/cluster/test_node_channel.py::"
        "test_what_is_nodes_own_is_told_although_what_is_before_it_was_not_received",
    ),
    Mutant(
        name="answers-to-who-does-not-read",
        mistake="answers pile up for somebody who asks again and again, and reads nothing",
        file="pyipc/cluster/node/channel.py",
        old="        return self._own_size > _MAX_UNWRITTEN\n",
        new="        return self._own_size < 0\n",
        caught_by="tests/cluster/test_node_channel.py::"
        "test_who_asks_again_and_again_and_does_not_read_is_read_no_further",
    ),
    Mutant(
        name="refused-and-left-alone",
        mistake="a connection that a Node worker would not take waits for ever",
        file="pyipc/cluster/node/courier.py",
        old="""\
            else:
                self._note({"refused": [number]})
""",
        new="",
        caught_by="tests/cluster/test_node_listening.py::"
        "test_one_that_has_as_many_as_it_takes_refuses_and_another_gets_them",
    ),
    Mutant(
        name="connections-that-never-end",
        mistake="every connection that a Node worker has had counts as open for as long as it lives",
        file="pyipc/cluster/node/process.py",
        old="            self._node_courier.heard_of()\n",
        new="",
        caught_by="tests/cluster/test_load.py::test_a_connection_of_a_worker_counts_no_more_once_it_has_ended[node]",
    ),
    Mutant(
        name="told-to-leave-too-soon",
        mistake="a Node worker is told to leave before it has what it was sent",
        file="pyipc/cluster/node/process.py",
        old="                await self.messages.flush()\n",
        new="                await trio.lowlevel.checkpoint()\n",
        caught_by="tests/cluster/test_node_messages.py::"
        "test_what_was_sent_to_a_worker_that_is_about_to_leave_by_itself_arrives",
    ),
)
