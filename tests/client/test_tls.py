"""TLS: the server's certificate is checked, and plain text is never sent in its place."""

from __future__ import annotations

import grpc
import pytest

from pilothouse_client import AsyncClient, RetryPolicy, Tls, UnavailableError
from tests.audit.receivers import self_signed
from tests.client.conftest import PASSWORD
from tests.client.fake_server import FakeServer

_ONCE = RetryPolicy(attempts=1)


def _certificate(address: str) -> tuple[bytes, bytes]:
    certificate, key = self_signed(address)
    return certificate.encode(), key.encode()


async def test_only_a_trusted_certificate_is_accepted() -> None:
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


async def test_a_plain_text_server_is_refused_when_tls_is_required(fake: FakeServer) -> None:
    async with AsyncClient(fake.address, token="key", insecure=False, retry=_ONCE) as client:
        with pytest.raises(UnavailableError):
            await client.identity.who_am_i()
    assert fake.calls == []
