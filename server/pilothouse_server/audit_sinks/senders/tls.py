"""TLS contexts from PEM that stands in a row: no key touches a disk."""

from __future__ import annotations

import os
import ssl

from pilothouse_server.errors import invalid


def context(authority: str, certificate: str, key: str) -> ssl.SSLContext | None:
    """Returns what a sink is trusted by, and what we show it; None where the system's authorities do.

    Raises InvalidArgument: not PEM, or the key is not the certificate's.
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
    """The library reads files only; this one is in memory, and only this process has it."""
    descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"{certificate}\n{key}\n".encode())
        # A password is never asked for at a terminal.
        made.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        raise invalid(
            "audit_sink.client_certificate",
            "must be a certificate in PEM form that credentials.client_key belongs to",
        ) from None
    finally:
        os.close(descriptor)


def system_context() -> ssl.SSLContext:
    """Returns what trusts the system's authorities."""
    return ssl.create_default_context()
