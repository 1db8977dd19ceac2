"""TLS: the server's certificate is checked, and plain text is never sent in its place."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse_client import AsyncClient, RetryPolicy, Tls, UnavailableError
from tests.client.conftest import PASSWORD
from tests.client.fake_server import FakeServer

_ONCE = RetryPolicy(attempts=1)


def _certificate(address: str) -> tuple[bytes, bytes]:
    """A self-signed certificate for an address, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pilothouse test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


async def test_a_trusted_certificate_and_no_other() -> None:
    fake = FakeServer()
    certificate, key = _certificate("127.0.0.1")
    await fake.start(credentials=grpc.ssl_server_credentials([(key, certificate)]))
    try:
        tls = Tls(root_certificates=certificate)
        async with AsyncClient(fake.address, username="admin", password=PASSWORD, tls=tls) as client:
            assert (await client.identity.who_am_i()).user.username == "admin"
        seen = len(fake.calls)
        others = [
            Tls(root_certificates=_certificate("127.0.0.1")[0]),
            Tls(),
            Tls(root_certificates=certificate, server_name="elsewhere.example"),
        ]
        for other in others:
            async with AsyncClient(fake.address, token="key", tls=other, retry=_ONCE) as client:
                with pytest.raises(UnavailableError):
                    await client.identity.who_am_i()
        async with AsyncClient(fake.address, token="key", retry=_ONCE) as client:  # plain text to a TLS port
            with pytest.raises(UnavailableError):
                await client.identity.who_am_i()
        assert len(fake.calls) == seen
    finally:
        await fake.stop()


async def test_plain_text_is_not_an_answer_to_tls(fake: FakeServer) -> None:
    async with AsyncClient(fake.address, token="key", insecure=False, retry=_ONCE) as client:
        with pytest.raises(UnavailableError):
            await client.identity.who_am_i()
    assert fake.calls == []
