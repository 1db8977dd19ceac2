"""TLS contexts from PEM that is stored in a row of the database; no key is written to a disk."""

from __future__ import annotations

import ssl

from pilothouse_server.errors import invalid
from pilothouse_server.outbound.destinations import key_pair_file


def context(authority: str, certificate: str, key: str) -> ssl.SSLContext | None:
    """Returns a context with the authorities that verify a sink, and our client certificate.

    Returns None if the system's authorities are enough. Raises InvalidArgument if a text is not PEM, or the key is not
    the certificate's.
    """
    if not (authority or certificate or key):
        return None
    try:
        made = ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError):
        raise invalid("audit_sink.certificate_authority", "must be certificates in PEM form") from None
    if bool(certificate) != bool(key):
        field = "credentials.client_key" if certificate else "audit_sink.client_certificate"
        raise invalid(field, "must be given: certificate and key belong together", reason="REQUIRED")
    if certificate:
        _load(made, certificate, key)
    return made


def _load(made: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        with key_pair_file(certificate.encode(), key.encode()) as path:
            made.load_cert_chain(path)
    except (OSError, ValueError):
        raise invalid(
            "audit_sink.client_certificate",
            "must be a certificate in PEM form that credentials.client_key belongs to",
        ) from None


def system_context() -> ssl.SSLContext:
    """Returns a context that trusts the system's authorities."""
    return ssl.create_default_context()
