"""A client that takes its server from environment variables, as a pipeline job does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_client import AsyncClient, Client
from tests.client.fake_server import FakeServer


async def test_a_client_takes_server_and_key_from_the_environment(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.api_keys["key-1"] = "robot"
    monkeypatch.setenv("PILOTHOUSE_SERVER", fake.address)
    monkeypatch.setenv("PILOTHOUSE_TOKEN", " key-1\n")
    monkeypatch.setenv("PILOTHOUSE_NAMESPACE", "shop")
    async with AsyncClient.from_environment() as client:
        assert (await client.identity.who_am_i()).user.username == "robot"
        assert client.namespace == "shop"
    # An explicit argument overrides the environment.
    fake.api_keys["key-2"] = "other"
    async with AsyncClient.from_environment(token="key-2") as client:
        assert (await client.identity.who_am_i()).user.username == "other"


@pytest.mark.parametrize("server", ["", "  "])
def test_a_missing_server_variable_is_named(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("PILOTHOUSE_SERVER", server)
    with pytest.raises(ValueError, match="PILOTHOUSE_SERVER names no server"):
        Client.from_environment()


def test_a_missing_ca_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PILOTHOUSE_SERVER", "pilothouse.example.org")
    monkeypatch.setenv("PILOTHOUSE_CA_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ValueError, match=r"PILOTHOUSE_CA_FILE: .*none\.pem cannot be read"):
        Client.from_environment()
    with Client.from_environment(insecure=True) as client:
        assert not client.by_tls
