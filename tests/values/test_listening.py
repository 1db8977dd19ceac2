"""Listen addresses: their syntax, whether other machines reach them, and their names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import grpc.aio
import pytest

from pilothouse_server.launch.embedded.certificate import self_signed
from pilothouse_server.rpc.transport import check_transport
from pilothouse_server.settings.model import Settings, SettingsError, load
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
def test_an_address_is_split_into_host_and_port(address: str, host: str, port: int) -> None:
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
def test_an_invalid_address_is_refused_with_its_setting(address: str) -> None:
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
    ],
)
def test_an_address_reached_by_others_needs_tls_or_insecure(
    tmp_path: Path, address: str, others: bool, called: str, plain: bool
) -> None:
    assert listening.is_reached_by_others(address) is others
    assert listening.called_by(address, 7) == called
    assert listening.is_called_in_plain_text(address) is plain
    settings = {"PILOTHOUSE_LISTEN": address}
    pair = self_signed(tmp_path, "")
    tls = {"PILOTHOUSE_TLS_CERTIFICATE_FILE": str(pair[0]), "PILOTHOUSE_TLS_KEY_FILE": str(pair[1])}
    for allowed in ({"PILOTHOUSE_INSECURE": "true"}, tls):
        check_transport(load({**settings, **allowed}))
    if others:
        with pytest.raises(SettingsError, match=r"other machines reach .*PILOTHOUSE_INSECURE=true"):
            check_transport(load(settings))
    else:
        check_transport(load(settings))


def test_a_host_name_counts_as_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def led(*addresses: str) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)

    led("127.0.0.1", "127.0.1.1")
    assert not listening.is_reached_by_others("here:1")
    led("127.0.0.1", "192.0.2.7")
    with pytest.raises(SettingsError):
        check_transport(Settings(listen="here:1"))


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("METRICS_LISTEN", {}, "must be HOST:PORT"),
        ("AUDIT_TILES_LISTEN", {}, "must be HOST:PORT"),
        ("LISTEN", {"PILOTHOUSE_PROCESSES": "2"}, "cannot be shared by processes"),
        ("TLS_CLIENT_LISTEN", {"PILOTHOUSE_PROCESSES": "2"}, "cannot be shared by processes"),
    ],
)
def test_a_unix_socket_is_refused_where_unsupported(name: str, more: dict[str, str], words: str) -> None:
    """The settings are refused before anything is created."""
    address = "unix:/run/a.sock"
    with pytest.raises(SettingsError, match=f"PILOTHOUSE_{name}: {address} {words}"):
        load({f"PILOTHOUSE_{name}": address, **more})
    assert load({"PILOTHOUSE_LISTEN": address}).listen == address


def _cannot_be_had(folder: Path) -> dict[str, str]:
    (folder / "file").write_text("kept")
    (folder / "leads").symlink_to(folder / "file")
    return {
        "unix:": "its path must",
        f"unix:{folder / ('x' * 108)}": "its path must",
        "unix-abstract:": "its path must",
        f"unix://{folder.name}/a.sock": "its path must",
        f"unix:{folder / 'file'}": "not a socket",
        f"unix://{folder / 'leads'}": "not a socket",
        f"unix:{folder}": "not a socket",
        f"unix:{folder / 'none' / 'a.sock'}": "folder",
        f"unix:{folder / 'file' / 'a.sock'}": "folder",
    }


def test_an_unusable_unix_socket_is_reported(tmp_path: Path) -> None:
    for address, words in _cannot_be_had(tmp_path).items():
        assert words in listening.unix_problem(address), address
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("kind", ["unix:", "unix://", "unix-abstract:"])
async def test_a_unix_socket_is_taken_over_only_after_its_server_ended(tmp_path: Path, kind: str) -> None:
    place = str(tmp_path / "a.sock")
    address, path = f"{kind}{place}", f"\0{place}" if kind == "unix-abstract:" else place
    assert listening.unix_problem(address) == ""
    with socket.socket(socket.AF_UNIX) as serves:
        serves.bind(path)
        # Bound without listening, as left by a server that has ended or is about to start.
        assert listening.unix_problem(address) == ""
        serves.listen(0)
        # The second connection finds a full backlog: it must still count as a running server.
        for _ in range(2):
            assert "another program listens" in listening.unix_problem(address)
    assert os.path.lexists(place) == (kind != "unix-abstract:")
    assert listening.unix_problem(address) == ""
    server = grpc.aio.server()
    assert server.add_insecure_port(address)
    await server.start()
    assert "another program listens" in listening.unix_problem(address)
    await server.stop(None)
