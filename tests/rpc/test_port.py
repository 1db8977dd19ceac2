"""The address that several processes share, and that no other program may listen on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from pilothouse_server.rpc.port import reserve
from pilothouse_server.settings.model import SettingsError
from tests.waiting import patient


@contextlib.contextmanager
def listening(port: int, *options: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Listens with these socket options; yields the port."""
    with socket.socket() as made:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((host, port))
        made.listen()
        yield int(made.getsockname()[1])


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_with_a_listener_is_refused(host: str, options: tuple[int, ...]) -> None:
    with (
        listening(0, *options) as port,
        pytest.raises(SettingsError, match=r"PILOTHOUSE_LISTEN: .*:\d+ cannot"),
    ):
        reserve(f"{host}:{port}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::]"])
def test_a_reserved_address_is_shared_only_with_so_reuseport(host: str) -> None:
    reserved = reserve(f"{host}:0")
    try:
        shared = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
        for options in ((), (socket.SO_REUSEADDR,)):
            with pytest.raises(OSError, match="in use"), listening(reserved.port, *options):
                pass
        with pytest.raises(SettingsError):
            reserve(reserved.listen)
        with listening(reserved.port, *shared), listening(reserved.port, *shared):
            with pytest.raises(SettingsError):
                reserve(reserved.listen)
            # The reserving socket never listens, so one of the two listeners gets each connection.
            for _ in range(20):
                socket.create_connection(("127.0.0.1", reserved.port), timeout=patient(10.0)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", reserved.port), timeout=patient(10.0))
    finally:
        reserved.close()
    again = reserve(reserved.listen)
    assert again.port == reserved.port
    again.close()


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1:x", "127.0.0.1:70000", "192.0.2.1:0", "unix:/run/pilothouse.sock"]
)
def test_an_address_not_of_this_machine_is_refused_by_name(listen: str) -> None:
    with pytest.raises(SettingsError, match=f"PILOTHOUSE_LISTEN: {listen}"):
        reserve(listen)
