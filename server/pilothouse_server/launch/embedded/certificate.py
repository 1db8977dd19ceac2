"""A self-signed certificate, to try TLS: created once, and stored with its key in the data folder.

It has this machine's names, and is valid for ten years: clients store it, and would refuse another one. It is not an
authority: clients accept nothing that is signed with it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse_server.runtime.child_program import EmbeddedProgramError

_LIFE = timedelta(days=3650)
# Clocks of clients may be behind.
_EARLIER = timedelta(days=1)
_LONGEST_NAME = 64


class GeneratedPair(NamedTuple):
    """The paths of a certificate and its key, as PEM."""

    certificate: Path
    key: Path


def self_signed(folder: Path, host: str) -> GeneratedPair:
    """Returns the pair in the folder; creates one for this machine and `host` if there is none, or if it has expired.

    Raises:
        EmbeddedProgramError: the files exist, but are not such a pair.
        OSError: they cannot be written.
    """
    pair = GeneratedPair(folder / "certificate.pem", folder / "key.pem")
    if not pair.certificate.exists() or _has_expired(pair):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(pair.key, private)
        _write(pair.certificate, _certificate(key, host).public_bytes(serialization.Encoding.PEM))
    return pair


def fingerprint(certificate: Path) -> str:
    """Returns the SHA-256 of a PEM file's first certificate, in the form of `openssl x509 -fingerprint -sha256`."""
    digest = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256())
    return "SHA256:" + digest.hex(":").upper()


def _has_expired(pair: GeneratedPair) -> bool:
    try:
        kept = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        if kept.public_key() == key.public_key():
            return kept.not_valid_after_utc <= datetime.now(UTC)
    except (OSError, ValueError):
        pass
    raise EmbeddedProgramError(
        f"{pair.certificate} and {pair.key.name} next to it cannot be read, or are not a certificate and its private "
        "key: remove both, or name others by the settings"
    )


def _certificate(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pilothouse, self-signed")])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName(list(_names(host)))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _LIFE)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _names(host: str) -> Iterator[x509.GeneralName]:
    """Yields this machine's names and addresses; `host` is its configured listening address."""
    own = socket.gethostname()
    found = {"127.0.0.1", "::1", *_addresses(own), *_addresses(host)}
    for name in dict.fromkeys(("localhost", own, host)):
        if name and not _is_address(name) and len(name) <= _LONGEST_NAME and name.isascii():
            yield x509.DNSName(name)
    for address in sorted(found):
        yield x509.IPAddress(ipaddress.ip_address(address))


def _addresses(name: str) -> set[str]:
    """Returns the addresses of a name, without link-local ones, which are ambiguous."""
    if not name:
        return set()
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()
    return {each for each in found if "%" not in each and not ipaddress.ip_address(each).is_unspecified}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """Replaces a file as a whole; only its owner may read it."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
