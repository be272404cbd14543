"""What went wrong in a TLS handshake, in sentences that say what to do.

Owns the translation of OpenSSL's errors, and of the alerts by which the other side says that it is refusing, into
`HandshakeFailed`. Must not know how a handshake is done.
"""

from __future__ import annotations

import ssl
from typing import Final

from pyipc.errors import HandshakeFailed

__all__ = ["handshake_failed", "is_verdict", "not_tls"]

#: Of OpenSSL's verdicts on a certificate (``X509_V_ERR_...``), those that have a name here.
_VERDICTS: Final = {
    2: "unknown-ca",  # unable to get issuer certificate
    9: "not-yet-valid",
    10: "expired",
    18: "unknown-ca",  # self-signed certificate
    19: "unknown-ca",  # self-signed certificate in certificate chain
    20: "unknown-ca",  # unable to get local issuer certificate
    21: "unknown-ca",  # unable to verify the first certificate
    62: "wrong-host",  # host name
    64: "wrong-host",  # IP address
}

#: What the other side thinks of our certificate, by the end of the name of its alert.
_ALERTS: Final = {
    "BAD_CERTIFICATE": "bad-certificate",
    "CERTIFICATE_EXPIRED": "expired",
    "CERTIFICATE_REQUIRED": "certificate-required",
    "CERTIFICATE_REVOKED": "bad-certificate",
    "CERTIFICATE_UNKNOWN": "bad-certificate",
    "UNKNOWN_CA": "unknown-ca",
    "UNSUPPORTED_CERTIFICATE": "bad-certificate",
}

_VERDICT_ALERTS: Final = frozenset({*_ALERTS, "ACCESS_DENIED", "HANDSHAKE_FAILURE"})

_OF_CLIENT: Final = {
    "expired": "has expired; renew it on the client",
    "not-yet-valid": "is not valid yet; look at the clocks of both machines",
    "unknown-ca": "is signed by nobody who is trusted here ({why}); add the certificate of its authority to client_ca=",
    "bad-certificate": "cannot be accepted ({why}); give the client another",
}

_OF_SERVER: Final = {
    "expired": "has expired; renew it on the server",
    "not-yet-valid": "is not valid yet; look at the clocks of both machines",
    "wrong-host": "is not for {host!r}; connect to a name that it is for, or give the server one for this name",
    "unknown-ca": "is signed by nobody who is trusted here ({why}); give ca= with the certificate of its authority",
    "bad-certificate": "cannot be accepted ({why}); give the server another",
}

_TOLD_BY_SERVER: Final = {
    "expired": "says that our certificate has expired; renew the one given as cert=",
    "unknown-ca": "does not trust the authority that signed our certificate; give cert= with one that it trusts",
    "certificate-required": "requires a certificate of its clients; give cert= and key=",
    "bad-certificate": "does not accept our certificate ({why}); give cert= with another, and see the server's log",
}

_TOLD_BY_CLIENT: Final = {
    "expired": "says that the certificate of this server has expired; renew the one given as cert=",
    "unknown-ca": (
        "does not trust the authority that signed the certificate of this server; give the client ca= with the "
        "certificate of that authority"
    ),
    "bad-certificate": (
        "does not accept the certificate of this server ({why}): it is not valid yet, or not for the name that the "
        "client connects to; see the client's log"
    ),
}

#: OpenSSL's names of what else goes wrong often enough to be explained.
_EXPLAINED: Final = {
    "NO_PROTOCOLS_AVAILABLE": "no version of TLS is enabled here",
    "NO_SHARED_CIPHER": (
        "the two have no cipher in common; an ssl.SSLContext without a certificate has none: load_cert_chain() gives "
        "it one"
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "they agree on nothing, or a certificate of the client is required: give the client cert= and key="
    ),
    "TLSV1_ALERT_PROTOCOL_VERSION": "they have no version of TLS in common; 1.2 is the least",
    "UNSUPPORTED_PROTOCOL": "they have no version of TLS in common; 1.2 is the least",
}


def is_verdict(error: ssl.SSLError) -> bool:
    """Whether the other side says by an alert what it thinks of our certificate, rather than of bytes we sent."""
    return _alert_of(error) in _VERDICT_ALERTS


def _alert_of(error: ssl.SSLError) -> str | None:
    """The alert that the other side has sent, by the end of its name in OpenSSL; ``None`` if it is none."""
    _, is_alert, name = (error.reason or "").partition("ALERT_")
    return name if is_alert else None


def handshake_failed(error: ssl.SSLError, address: str, host: str | None) -> HandshakeFailed:
    """Say why a handshake has failed.

    Args:
        error: What OpenSSL says.
        address: Where the other side is.
        host: On a client, what its server was to be called; ``None`` on a server.
    """
    is_client = host is not None
    peer = f"the {'server' if is_client else 'client'} at {address}"
    why = (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        code = _VERDICTS.get(error.verify_code, "bad-certificate")
        text = (_OF_SERVER if is_client else _OF_CLIENT)[code].format(host=host, why=error.verify_message)
        return HandshakeFailed(code, f"the certificate of {peer} {text}")
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return HandshakeFailed(
            "certificate-required", f"{peer} showed no certificate, which client_ca= requires; give it cert= and key="
        )
    told = _TOLD_BY_SERVER if is_client else _TOLD_BY_CLIENT
    alert = _alert_of(error)
    code = _ALERTS.get(alert or "", "")
    if code in told:
        why = (alert or "").lower().replace("_", " ")
        return HandshakeFailed(code, f"{peer} {told[code].format(why=why)}")
    explained = _EXPLAINED.get(error.reason or "", "see the log of the other side")
    return HandshakeFailed("tls", f"the TLS handshake with {peer} failed ({why}): {explained}")


def not_tls(address: str, host: str | None) -> HandshakeFailed:
    """Say that whoever is there does not speak TLS; the arguments are those of `handshake_failed`."""
    if host is None:
        return HandshakeFailed(
            "not-tls", f"the client at {address} does not speak TLS; let it connect to a tls:// address"
        )
    return HandshakeFailed(
        "not-tls",
        f"the server at {address} does not speak TLS; write tcp:// if it is meant to be plain, or check the port",
    )
