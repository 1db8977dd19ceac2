"""Finds out by a handshake of its own why a client and a server cannot communicate.

If no connection can be made, gRPC reports a text that changes with its releases and that describes its own internals.
So the client checks once, with the standard library's `ssl`, whether any server listens, whether it speaks TLS or plain
text, and whether its certificate has a fault. Only certain findings are reported. The client sends no token, and
presents its own certificate only to a server that has a valid certificate and asks for one.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import grpc

from pilothouse_client.target import Target, Tls, is_loopback, split

SECONDS = 2.0
# The words that programs compare: `PilothouseError.connection_problem`.
TLS_REQUIRED, TLS_NOT_SPOKEN, HTTP2_NOT_SPOKEN = "TLS_REQUIRED", "TLS_NOT_SPOKEN", "HTTP2_NOT_SPOKEN"
GRPC_NOT_SPOKEN = "GRPC_NOT_SPOKEN"
SELF_SIGNED, AUTHORITY_UNKNOWN = "SELF_SIGNED", "AUTHORITY_UNKNOWN"
NAME_MISMATCH, NOT_VALID_NOW = "NAME_MISMATCH", "NOT_VALID_NOW"
CERTIFICATE_CHANGED, CERTIFICATE_REFUSED = "CERTIFICATE_CHANGED", "CERTIFICATE_REFUSED"
CLIENT_CERTIFICATE_NEEDED, CLIENT_CERTIFICATE_REFUSED = (
    "CLIENT_CERTIFICATE_NEEDED",
    "CLIENT_CERTIFICATE_REFUSED",
)

# OpenSSL's verification error codes, which are part of its interface.
_SELF_SIGNED = 18
_UNKNOWN = (2, 19, 20, 21)
_NOT_YET, _EXPIRED = 9, 10
_NAMES = (62, 64)
# The first bytes that an HTTP/2 client sends; a plain-text HTTP/2 server replies with a frame of type 4 (SETTINGS).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# The type of a SETTINGS frame, the offset of the type in the frame's header, and the length of the header.
_SETTINGS, _KIND, _FRAME = 4, 3, 9
_GRPC_ROOTS = "_cython/_credentials/roots.pem"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


class HandshakeFinding(NamedTuple):
    """The fault: an UPPER_SNAKE word, and a text for a person."""

    problem: str
    message: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that a server presents.

    `self_signed`: no authority has signed it. `trusted`: an authority that the client trusts has signed it for this
    address."""

    der: bytes
    trusted: bool
    self_signed: bool

    @property
    def pem(self) -> str:
        """The certificate as PEM text."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def fingerprint(self) -> str:
        """SHA-256, as `openssl x509 -fingerprint -sha256` shows it."""
        return fingerprint_of(self.der)


def fingerprint_of(certificate: bytes | str) -> str:
    """Returns the fingerprint of a certificate (DER, or PEM as text).

    Raises ValueError if it is not a certificate."""
    der = certificate if isinstance(certificate, bytes) else ssl.PEM_cert_to_DER_cert(certificate)
    digest = hashlib.sha256(der).hexdigest().upper()
    return "SHA256:" + ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def same_fingerprint(one: str, other: str) -> bool:
    """Returns whether two fingerprints are the same, with or without colons, in any case."""
    return _digits(one) == _digits(other)


def _digits(fingerprint: str) -> str:
    text = fingerprint.strip().upper()
    return text.removeprefix("SHA256:").replace(":", "")


def shown_by(address: str, tls: Tls, seconds: float = SECONDS) -> Shown | None:
    """Returns the certificate that the server at HOST:PORT presents.

    None if no server listens there or it does not speak TLS.
    """
    try:
        with _handshake(address, _unchecked(), "", seconds) as made:
            der = made.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return None
    if der is None:
        return None
    code = _refusal(address, tls, seconds)
    # A server that asks for a certificate has already presented a trusted one of its own.
    return Shown(der, trusted=code in (None, _ASKED), self_signed=code == _SELF_SIGNED)


def name_in(certificate: str, address: str, seconds: float = SECONDS) -> str:
    """Returns the first name in a server's certificate; '' if it has none.

    `certificate` (PEM) is the only one that is trusted.
    """
    return next(iter(_names(address, certificate, seconds)), "")


def find_problem(target: Target, seconds: float = SECONDS) -> HandshakeFinding | None:
    """Returns why no connection to a target's servers is made.

    None if that is uncertain or no server listens.

    `seconds` bound each of at most four connections to each server.
    """
    if _by_proxy(target):
        return None
    for address in target.address.split(","):
        try:
            finding = _of_one(address, target.tls, seconds)
        except (OSError, ValueError):
            continue
        if finding is not None:
            return finding
    return None


def _by_proxy(target: Target) -> bool:
    """Returns whether gRPC connects by a proxy or a Unix socket, which this module does not check."""
    if target.address.startswith("unix:"):
        return True
    proxies = any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES)
    return proxies and not is_loopback(target.address)


def _of_one(address: str, tls: Tls | None, seconds: float) -> HandshakeFinding | None:
    if tls is None:
        try:
            with _handshake(address, _unchecked(), "", seconds):
                return HandshakeFinding(TLS_REQUIRED, f"{address} speaks TLS, and was called in plain text")
        except OSError:
            return _not_grpc(address) if _answer(address, seconds) == _OTHER else None
    code = _refusal(address, tls, seconds)
    if code is None:
        return None
    if code == _NO_TLS:
        answer = _answer(address, seconds)
        if answer == _HTTP2:
            return HandshakeFinding(TLS_NOT_SPOKEN, f"{address} speaks plain text, and was called by TLS")
        return _not_grpc(address) if answer == _OTHER else None
    if code == _ASKED:
        if tls.client_certificate is None:
            return HandshakeFinding(
                CLIENT_CERTIFICATE_NEEDED,
                f"{address} requires a client certificate (--client-cert and --client-key)",
            )
        if not _refuses_own(address, tls, seconds) or _refusal(address, tls, seconds) != _ASKED:
            return None
        return HandshakeFinding(
            CLIENT_CERTIFICATE_REFUSED,
            (
                f"{address} requires a client certificate and refuses yours: check that its authority is "
                "trusted there, that it is for clients, and that it is valid now"
            ),
        )
    if code == _NO_HTTP2:
        return HandshakeFinding(
            HTTP2_NOT_SPOKEN,
            f"{address} speaks TLS, but not HTTP/2 in it, which gRPC needs: is it another port?",
        )
    return _of_certificate(code, address, tls, seconds)


def _of_certificate(code: int, address: str, tls: Tls, seconds: float) -> HandshakeFinding:
    with _handshake(address, _unchecked(), "", seconds) as made:
        der = made.getpeercert(binary_form=True) or b""
    shown = fingerprint_of(der)
    if tls.pinned and tls.root_certificates is not None:
        known = fingerprint_of(tls.root_certificates.decode("ascii"))
        if known != shown:
            return HandshakeFinding(
                CERTIFICATE_CHANGED,
                (
                    f"{address} presents a different certificate than the trusted one: {shown} instead of "
                    f"{known}; the server has a new one, or somebody intercepts the connection"
                ),
            )
    if code == _SELF_SIGNED:
        return HandshakeFinding(SELF_SIGNED, f"{address} presents a self-signed certificate: {shown}")
    if code in _UNKNOWN:
        return HandshakeFinding(
            AUTHORITY_UNKNOWN,
            f"{address} presents a certificate of an authority that is not trusted here: {shown}",
        )
    if code in (_NOT_YET, _EXPIRED):
        when = "has expired" if code == _EXPIRED else "is not valid yet: is the clock of this machine right?"
        return HandshakeFinding(NOT_VALID_NOW, f"the certificate of {address} {when}")
    if code in _NAMES:
        wanted = tls.server_name or split(address)[0]
        names = ", ".join(_names(address, _roots(tls), seconds)) or "no name"
        return HandshakeFinding(
            NAME_MISMATCH, f"the certificate of {address} is not for {wanted}, but for {names}"
        )
    return HandshakeFinding(
        CERTIFICATE_REFUSED, f"the certificate of {address} is refused (OpenSSL's error {code})"
    )


# This module's own codes; OpenSSL's codes are not negative.
_NO_TLS, _NO_HTTP2, _ASKED = -1, -2, -3
# The server's alert for a client without a certificate, after a handshake that the client considers complete.
_REQUIRED = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def _refusal(address: str, tls: Tls, seconds: float) -> int | None:
    """Returns the code of a failed handshake; None if it succeeds.

    Raises OSError if no server listens."""
    context = _context(_roots(tls))
    name = tls.server_name or split(address)[0]
    opened = _connect_for_tls(address, context, name, seconds)
    try:
        with opened as made:
            made.do_handshake()
            if made.selected_alpn_protocol() != "h2":
                return _NO_HTTP2
            return _ASKED if _is_asked(made) else None
    except ssl.SSLCertVerificationError as error:
        return error.verify_code
    except OSError:
        return _NO_TLS


def _is_asked(made: ssl.SSLSocket) -> bool:
    """Returns whether the server ends a connection without a client's certificate: by an alert, or, as gRPC does,
    silently.

    A server that accepts it sends its HTTP/2 settings immediately.
    """
    try:
        return made.recv(1) == b""
    except ssl.SSLError as error:
        return error.reason == _REQUIRED
    except OSError:
        return False


def _refuses_own(address: str, tls: Tls, seconds: float) -> bool:
    """Returns whether a server that asks for a certificate closes a connection that presents the client's own.

    The check uses gRPC, because the standard library reads keys from files only. gRPC's timeout for the attempt is
    longer than the wait here: so a failure comes from the server, and a slow server is not reported.
    """
    seen: SimpleQueue[bool] = SimpleQueue()

    def look(state: grpc.ChannelConnectivity) -> None:
        if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
            seen.put(state is grpc.ChannelConnectivity.TRANSIENT_FAILURE)

    patient = ("grpc.min_reconnect_backoff_ms", int(2_000 * seconds))
    with grpc.secure_channel(
        address, tls.credentials(), [*Target(address, tls).options(), patient]
    ) as channel:
        channel.subscribe(look, try_to_connect=True)
        try:
            return seen.get(timeout=seconds)
        except Empty:
            return False


def _names(address: str, roots: str | None, seconds: float) -> Sequence[str]:
    """Returns the names in the server's certificate; none if it is not trusted.

    `roots`: the trusted certificates (PEM); None: those of the system.
    """
    context = _context(roots)
    context.check_hostname = False
    try:
        with _handshake(address, context, "", seconds) as made:
            certificate: Mapping[str, Any] = made.getpeercert() or {}
    except (OSError, ValueError):
        return ()
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    subject = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names or subject


def _context(roots: str | None) -> ssl.SSLContext:
    """Returns a context that verifies as gRPC does: less strictly than newer releases of Python."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if roots is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=roots)
    return context


def _unchecked() -> ssl.SSLContext:
    """Returns a context that reads the certificate without trusting it: nothing is sent over such a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _roots(tls: Tls) -> str | None:
    """Returns the authorities that gRPC trusts: the given ones, those of its environment, or its own list."""
    if tls.root_certificates is not None:
        return tls.root_certificates.decode("ascii")
    if path := os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        return Path(path).read_text("ascii")
    own = pkgutil.get_data("grpc", _GRPC_ROOTS)
    return None if own is None else own.decode("ascii")


def _connect(address: str, seconds: float) -> socket.socket:
    host, port = split(address)
    return socket.create_connection((host, int(port)), seconds)


def _connect_for_tls(address: str, context: ssl.SSLContext, name: str, seconds: float) -> ssl.SSLSocket:
    """Returns a connected socket before its handshake.

    Raises OSError if no server listens.

    The socket is wrapped before it connects: `wrap_socket` leaks a connected socket that its peer has already reset.
    """
    host, port = split(address)
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM):
        made = context.wrap_socket(
            socket.socket(family, kind, protocol), server_hostname=name or None, do_handshake_on_connect=False
        )
        made.settimeout(seconds)
        try:
            made.connect(place)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


def _handshake(address: str, context: ssl.SSLContext, name: str, seconds: float) -> ssl.SSLSocket:
    """Returns a socket after its handshake.

    Raises OSError if no server listens or the handshake fails."""
    made = _connect_for_tls(address, context, name, seconds)
    try:
        made.do_handshake()
    except BaseException:
        made.close()
        raise
    return made


# The replies of a plain-text server to an HTTP/2 client: none, HTTP/2, or another protocol.
_SILENCE, _HTTP2, _OTHER = "", "HTTP/2", "another protocol"


def _answer(address: str, seconds: float) -> str:
    """Returns the reply of a server that is called in plain text.

    Raises OSError if no server listens any more."""
    with _connect(address, seconds) as opened:
        opened.sendall(_HELLO)
        answer = opened.recv(_FRAME)
    if not answer:
        return _SILENCE
    return _HTTP2 if len(answer) > _KIND and answer[_KIND] == _SETTINGS else _OTHER


def _not_grpc(address: str) -> HandshakeFinding:
    return HandshakeFinding(
        GRPC_NOT_SPOKEN,
        (
            f"the server at {address} does not speak gRPC: it is another program's port, or that of a "
            "proxy which does not pass gRPC on"
        ),
    )
