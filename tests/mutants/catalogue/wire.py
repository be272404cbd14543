"""Mistakes with the bytes: what is taken for a message, and what is said to whom."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="half-a-frame-at-the-end",
        mistake="what has arrived of a frame when the connection ends is taken for all of it",
        file="pyipc/digesting.py",
        old="    if not chunk and connection._link.reliable:\n",
        new="""\
    if not chunk and connection._conversation.partial_size:
        chunk = b"\\f"
    if not chunk and connection._link.reliable:
""",
        caught_by="tests/test_reader.py::test_the_connection_ends_while_an_asker_reads[unix-_send_half_an_answer_and_close-eof-0.0]",
    ),
    Mutant(
        name="rest-of-a-chunk-dropped",
        mistake="what was read of the next frame is dropped with the frame before it",
        file="pyipc/protocol/frames.py",
        old="            self._pieces = [chunk[end:]]\n",
        new='            self._pieces = [b""]\n',
        caught_by="tests/protocol/test_frames.py::test_what_comes_out_is_what_went_in_up_to_the_last_delimiter",
    ),
    Mutant(
        name="nan-accepted",
        mistake="NaN and Infinity, which are not JSON, are read in a frame that goes the slow way",
        file="pyipc/protocol/codec.py",
        old="json.loads(text, parse_constant=_no_constant, parse_float=_finite_float)\n",
        new="json.loads(text)\n",
        caught_by="tests/protocol/test_codec.py::test_inbound[NaN with a surrogate-Role.CLIENT]",
    ),
    Mutant(
        name="nan-refused",
        mistake="data with NaN in it cannot be sent where its text has half characters",
        file="pyipc/protocol/codec.py",
        old="            return value if math.isfinite(value) else None\n",
        new="            return value\n",
        caught_by="tests/protocol/test_codec.py::test_outbound[surrogate with NaN and dataclass-Role.CLIENT]",
    ),
    Mutant(
        name="two-frames-on-a-line",
        mistake="a batch is read at once although a value may span two of its frames",
        file="pyipc/protocol/codec.py",
        old="""    if complete[:1] != b"{" or complete.count(b"}" + delimiter + b"{") != count - 1 or complete[-2:-1] != b"}":\n""",
        new="""    if complete[:1] != b"{":\n""",
        caught_by="tests/protocol/test_codec.py::test_the_batch_is_left_where_it_could_differ",
    ),
    Mutant(
        name="reserved-name-heard",
        mistake="a peer may call a handler by one of the protocol's own names",
        file="pyipc/protocol/framed.py",
        old="""\
        if name.startswith(CONTROL_PREFIX):
            raise RemoteProtocolError("name", f"the peer used""",
        new="""\
        if name == CONTROL_PREFIX:
            raise RemoteProtocolError("name", f"the peer used""",
        caught_by="tests/protocol/test_control_frames.py::test_a_request_may_not_teach_us_a_reserved_name",
    ),
    Mutant(
        name="answer-to-nobody",
        mistake="a peer may answer calls that were never made",
        file="pyipc/protocol/framed.py",
        old="        elif type(body) is not Cancel and not 0 < body.call <= self._last_call:\n",
        new="        elif type(body) is not Cancel and body.call < 0:\n",
        caught_by="tests/protocol/test_control_frames.py::test_an_answer_to_a_call_that_was_never_made",
    ),
    Mutant(
        name="heard-after-an-error",
        mistake="what a peer sends after its fatal mistake is heard",
        file="pyipc/protocol/framed.py",
        old="""\
        self._failed = True
        events.append(Malformed(error, fatal=True))
""",
        new="        events.append(Malformed(error, fatal=True))\n",
        caught_by="tests/protocol/test_conversation.py::test_nothing_is_heard_after_a_fatal_error",
    ),
    Mutant(
        name="hello-to-node-ipc",
        mistake="a client says hello to a program of node-ipc, though it was told not to",
        file="pyipc/protocol/introducing.py",
        old="        if self._role is Role.SERVER or not self._hello:\n",
        new="        if self._role is Role.SERVER:\n",
        caught_by="tests/protocol/test_control_frames.py::test_without_hello_a_side_keeps_quiet",
    ),
    Mutant(
        name="ping-to-node-ipc",
        mistake="frames of the protocol's own go to a peer that does not know them",
        file="pyipc/protocol/outgoing.py",
        old="""        return self._control(body) if self.protocol != "plain" else b""\n""",
        new="        return self._control(body)\n",
        caught_by="tests/protocol/test_control_frames.py::test_a_plain_peer_gets_nothing_unasked",
    ),
    Mutant(
        name="id-on-top",
        mistake="a frame of the protocol's own has a field that node-ipc takes for one of its own",
        file="pyipc/protocol/outgoing.py",
        old="""_REPLY_START = b'{"type":"pyipc.reply","data":{"call":%d,"data":'\n""",
        new="""_REPLY_START = b'{"type":"pyipc.reply","data":{"id":%d,"data":'\n""",
        caught_by="tests/protocol/test_control_frames.py::test_no_frame_of_ours_has_what_node_ipc_takes_for_its_own",
    ),
    Mutant(
        name="deadly-names-sent",
        mistake="an event goes out by a name that ends a program of node-ipc",
        file="pyipc/protocol/outgoing.py",
        old="        if self.is_risky(event):\n            raise InvalidEventName(\n",
        new="        if self.is_risky(event) and not event:\n            raise InvalidEventName(\n",
        caught_by="tests/protocol/test_conversation.py::test_names_that_node_ipc_does_not_survive",
    ),
    Mutant(
        name="too-large-for-the-peer",
        mistake="a message is measured by this side's limit alone, and the peer ends the connection for it",
        file="pyipc/protocol/introducing.py",
        old="        self._send_limit = min(options.max_frame_size, limit)\n",
        new="        self._send_limit = options.max_frame_size\n",
        caught_by="tests/protocol/test_conversation.py::test_the_send_limit_is_the_smaller_of_both",
    ),
    Mutant(
        name="escapes-on-the-terminal",
        mistake="what a peer says in parting reaches logs and terminals with its control characters",
        file="pyipc/protocol/framed.py",
        old="                events.append(Goodbye(one_line(code), one_line(message)))\n",
        new="                events.append(Goodbye(code, message))\n",
        caught_by="tests/protocol/test_control_frames.py::test_what_a_peer_says_in_parting_is_one_line_with_an_end",
    ),
)
