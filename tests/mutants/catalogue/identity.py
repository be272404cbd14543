"""Mistakes with who is there: users, certificates, and sources of datagrams."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: Final = (
    Mutant(
        name="uid-check-skipped",
        mistake="any user may connect where nobody is named",
        file="pyipc/admission.py",
        old="    if peer.uid not in ({own_uid} if allow is None else allow):\n",
        new="    if allow is not None and peer.uid not in allow:\n",
        caught_by="tests/test_admission.py::test_by_user_id[None-1001-False-unix:/run/app.sock]",
    ),
    Mutant(
        name="abstract-sockets-not-guarded",
        mistake="over an abstract socket, which has neither mode nor owner, the user is not checked",
        file="pyipc/admission.py",
        old="    if allow is not None or address.scheme in _USER_SCHEMES or (is_inherited and peer.uid is not None):\n",
        new="""\
    if allow is not None or (
        (address.scheme in _USER_SCHEMES or (is_inherited and peer.uid is not None)) and not address.name.startswith("@")
    ):
""",
        caught_by="tests/test_admission.py::test_by_user_id[None-1001-False-unix:@world]",
    ),
    Mutant(
        name="overflow-uid-admitted",
        mistake="the number that stands for all users of other namespaces passes for a user",
        file="pyipc/admission.py",
        old="    if peer.uid == overflow_uid:\n",
        new="    if peer.uid == overflow_uid and allow is None:\n",
        caught_by="tests/test_endpoint.py::test_who_is_admitted_on_a_local_socket",
    ),
    Mutant(
        name="unknown-user-admitted",
        mistake="a peer of which the kernel does not tell who it is may be there",
        file="pyipc/admission.py",
        old="""\
    if peer.uid is None:
        raise PeerNotAllowed(f"it could""",
        new="""\
    if peer.uid is None:
        return
        raise PeerNotAllowed(f"it could""",
        caught_by="tests/test_admission.py::test_by_user_id[None-None-False-unix:/run/app.sock]",
    ),
    Mutant(
        name="failing-check-admits",
        mistake="where the program's own function fails, the peer is admitted",
        file="pyipc/admission.py",
        old="            # What cannot be decided is denied.\n",
        new="            return\n",
        caught_by="tests/test_admission.py::test_by_certificate",
    ),
    Mutant(
        name="nobody-is-somebody",
        mistake="a socket of which the kernel knows no peer has one",
        file="pyipc/transports/credentials.py",
        old="    if uid == _NOBODY:\n",
        new="    if pid == _NOBODY:\n",
        caught_by="tests/test_credentials.py::test_a_socket_that_was_never_connected_has_no_peer",
    ),
    Mutant(
        name="server-not-checked",
        mistake="a client talks to whoever has taken the path of its server",
        file="pyipc/destinations.py",
        old="                endpoint.admit(link.peer)\n",
        new="                pass\n",
        caught_by="tests/test_client.py::test_a_server_that_is_not_allowed_is_told_at_once",
    ),
    Mutant(
        name="check-before-the-handshake",
        mistake="who it is is not looked at again once the handshake has told",
        file="pyipc/accepting.py",
        old="                self._check(link, endpoint)\n                refusal",
        new="                refusal",
        caught_by="tests/test_accepting.py::test_whoever_is_turned_away_gets_to_no_handler[not allowed-framing0]",
    ),
    Mutant(
        name="plain-text-leaves-the-host",
        mistake="plain TCP may leave this host though nobody said so",
        file="pyipc/admission.py",
        old="    if address.leaves_host and (allow is None or is_list):\n",
        new="    if address.leaves_host and is_list:\n",
        caught_by="tests/test_endpoint.py::test_plain_traffic_does_not_leave_this_host_unasked",
    ),
    Mutant(
        name="host-name-not-checked",
        mistake="a certificate for any host will do, if only the authority is right",
        file="pyipc/transports/tls_settings.py",
        old="        else:\n            _load_trusted(context, self.ca)\n",
        new="        else:\n            context.check_hostname = False\n            _load_trusted(context, self.ca)\n",
        caught_by="tests/test_tls_refusals.py::test_both_sides_are_told[the server's certificate is for another host-TLSv1_3]",
    ),
    Mutant(
        name="insecure-fallback",
        mistake="a client that was not told whom to trust trusts anybody",
        file="pyipc/transports/tls_settings.py",
        old="        if self.insecure:\n            context.check_hostname",
        new="        if self.insecure or self.ca is None:\n            context.check_hostname",
        caught_by="tests/test_tls_settings.py::test_without_a_word_the_authorities_of_the_system_are_trusted",
    ),
    Mutant(
        name="client-certificate-optional",
        mistake="a server asks for the certificate of a client, and does without",
        file="pyipc/transports/tls_settings.py",
        old="            context.verify_mode = ssl.CERT_REQUIRED\n",
        new="            context.verify_mode = ssl.CERT_OPTIONAL\n",
        caught_by="tests/test_tls_refusals.py::test_both_sides_are_told[the client has no certificate-TLSv1_3]",
    ),
    Mutant(
        name="old-tls",
        mistake="the two versions of TLS that are broken will do",
        file="pyipc/transports/tls_settings.py",
        old="    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        new="    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED\n",
        caught_by="tests/test_tls_settings.py::test_nothing_is_weaker_than_it_should_be",
    ),
    Mutant(
        name="name-passes-for-a-fingerprint",
        mistake="a name in a certificate may look like the fingerprint of another",
        file="pyipc/admission.py",
        old="if name and not name.startswith(_FINGERPRINT)}\n",
        new="if name}\n",
        caught_by="tests/test_admission.py::test_no_name_passes_for_a_fingerprint",
    ),
    Mutant(
        name="any-token-verifies",
        mistake="any echo shows that a peer is where it says",
        file="pyipc/protocol/datagram.py",
        old=" or not self._token or echo.token != self._token:\n",
        new=" or not self._token:\n",
        caught_by="tests/protocol/test_datagram.py::test_the_vectors[echo of a token that was not given]",
    ),
    Mutant(
        name="broadcast-to-strangers",
        mistake="a broadcast goes to addresses that nobody has shown to be their sender's",
        file="pyipc/broadcasting.py",
        old="            if not connection._link.verified:  # nobody may make us send to who did not ask for it\n                continue\n",
        new="",
        caught_by="tests/test_udp.py::test_a_broadcast_goes_to_whom_it_may",
    ),
    Mutant(
        name="topics-for-everybody",
        mistake="a function that fails to say who may subscribe lets everybody",
        file="pyipc/hub.py",
        old="""\
                logger.exception("whether %s may have %r could not be found out: denied", connection.peer.address, name)
            return False
""",
        new="""\
                logger.exception("whether %s may have %r could not be found out: denied", connection.peer.address, name)
            return True
""",
        caught_by="tests/test_hub.py::test_subscriptions_that_are_refused[broken-not-allowed]",
    ),
    Mutant(
        name="refusal-in-the-log",
        mistake="what a handler refuses a request with, which may be secret, is logged",
        file="pyipc/refusals.py",
        old="""        logger.debug("%s refused with the code %r (%s)", what, refusal.code, address)\n""",
        new="""        logger.debug("%s refused with the code %r (%s)", what, refusal.message, address)\n""",
        caught_by="tests/test_refusals.py::test_the_caller_gets_what_the_handler_refused_with",
    ),
)
