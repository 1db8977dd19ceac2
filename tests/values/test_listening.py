"""Addresses to listen on: what is one, who reaches it, and how it is called."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pilothouse_server.embedded.certificate import self_signed
from pilothouse_server.rpc.transport import check_transport
from pilothouse_server.settings import Settings, SettingsError, load
from pilothouse_server.values import listening


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        ("localhost:50051", "localhost", 50051),
        (":50051", "", 50051),
        ("unix:/run/a.sock", "unix:/run/a.sock", 0),
    ],
)
def test_what_is_an_address(address: str, host: str, port: int) -> None:
    assert listening.split(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:99999",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:x",
        "127.0.0.1",
        "::1:80",
        "ipv4:0.0.0.0:80",
        "0:80",
        "0177.0.0.1:80",
        "0x7f.1:80",
        "2130706433:80",
        "127.1:80",
        "256.0.0.1:80",
    ],
)
def test_what_is_none_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValueError):
        listening.split(address)
    for variable in ("PILOTHOUSE_LISTEN", "PILOTHOUSE_METRICS_LISTEN"):
        with pytest.raises(SettingsError, match=f"{variable}: "):
            load({variable: address})


@pytest.mark.parametrize(
    ("address", "others", "called", "plain"),
    [
        ("127.0.0.1:0", False, "127.0.0.1:7", True),
        ("127.9.9.9:0", False, "127.9.9.9:7", True),
        ("localhost:0", False, "localhost:7", True),
        ("unix:/a", False, "unix:/a", True),
        ("0.0.0.0:0", True, "127.0.0.1:7", True),
        (":0", True, "127.0.0.1:7", True),
        ("[::]:0", True, "localhost:7", True),
        ("192.0.2.1:0", True, "192.0.2.1:7", False),
        ("[2001:db8::1]:0", True, "[2001:db8::1]:7", False),
        # As a C library reads it: everywhere.
    ],
)
def test_who_reaches_it(tmp_path: Path, address: str, others: bool, called: str, plain: bool) -> None:
    assert listening.is_reached_by_others(address) is others
    assert listening.called_by(address, 7) == called
    assert listening.is_called_in_plain_text(address) is plain
    settings = {"PILOTHOUSE_LISTEN": address}
    pair = self_signed(tmp_path, "")
    tls = {"PILOTHOUSE_TLS_CERTIFICATE_FILE": str(pair[0]), "PILOTHOUSE_TLS_KEY_FILE": str(pair[1])}
    for allowed in ({"PILOTHOUSE_INSECURE": "true"}, tls):
        check_transport(load({**settings, **allowed}))
    if others:
        with pytest.raises(SettingsError, match=r"reached by other machines.*PILOTHOUSE_INSECURE=true"):
            check_transport(load(settings))
    else:
        check_transport(load(settings))


def test_a_name_is_what_it_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def led(*addresses: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)

    led("127.0.0.1", "127.0.1.1")
    assert not listening.is_reached_by_others("here:1")
    led("127.0.0.1", "192.0.2.7")
    with pytest.raises(SettingsError):
        check_transport(Settings(listen="here:1"))
