"""The address of several processes: theirs alone, and nobody else's."""

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
    """A listener with these options of a socket; its port."""
    with socket.socket() as made:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((host, port))
        made.listen()
        yield int(made.getsockname()[1])


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_that_somebody_listens_on_is_refused(host: str, options: tuple[int, ...]) -> None:
    with (
        listening(0, *options) as port,
        pytest.raises(SettingsError, match=r"PILOTHOUSE_LISTEN: .*:\d+ cannot"),
    ):
        reserve(f"{host}:{port}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::]"])
def test_a_reserved_address_is_shared_by_those_who_share_alone(host: str) -> None:
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
            # The reserving socket never listens: each connection is one of those two's.
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
def test_what_is_no_address_of_this_machine_is_refused_by_name(listen: str) -> None:
    with pytest.raises(SettingsError, match=f"PILOTHOUSE_LISTEN: {listen}"):
        reserve(listen)
