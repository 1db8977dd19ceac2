"""A certificate with its key, if gRPC can serve it.

gRPC accepts any files, and reports a fault (a key of another certificate, an unknown form) only when a client connects.
So both files are parsed here first, from the same bytes that gRPC gets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilothouse_server.rpc.tls import files
from pilothouse_server.settings.model import PREFIX, SettingsError

_SETTINGS = f"{PREFIX}TLS_CERTIFICATE_FILE, {PREFIX}TLS_KEY_FILE"
# No gRPC client accepts other curves or kinds of keys.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Pair:
    """The chain and the key, as PEM, valid from `not_before` to `not_after`: as long as the whole chain is."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    fingerprint: str


def load(certificate: Path, key: Path) -> Pair:
    """Returns the content of both files.

    Raises:
        SettingsError: they cannot be read, or are not a certificate with its key.
    """
    chain = files.read("TLS_CERTIFICATE_FILE", certificate)
    secret = files.read("TLS_KEY_FILE", key)
    other = SettingsError(
        f"{_SETTINGS}: {certificate} and {key} are not a certificate and its private key, both as PEM, "
        "the key unencrypted"
    )
    try:
        certificates = x509.load_pem_x509_certificates(chain)
        private = load_pem_private_key(secret, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise other from None
    if private.public_key() != certificates[0].public_key():
        raise other
    if not _is_served(private):
        raise SettingsError(f"{_SETTINGS}: the key must be RSA, or EC on the curve P-256, P-384 or P-521")
    return Pair(
        chain=chain,
        key=secret,
        not_before=max(each.not_valid_before_utc for each in certificates),
        not_after=min(each.not_valid_after_utc for each in certificates),
        fingerprint=fingerprint(certificates[0]),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` shows it."""
    return "SHA256:" + certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _is_served(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPrivateKey)
