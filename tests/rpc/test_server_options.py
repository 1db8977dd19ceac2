"""The options of the server are such that the library knows: others it ignores without a word."""

from __future__ import annotations

from pathlib import Path

import grpc

from pilothouse_server.rpc.server import options
from pilothouse_server.settings import Settings

# Silent streams were ended by `too_many_pings`, as the option that allows clients to ask had a name of our own.


def unknown(names: list[str]) -> list[str]:
    """Those that no text of the library ends with."""
    (compiled,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")
    library = compiled.read_bytes()
    return [name for name in names if name.encode() + b"\0" not in library]


def test_every_option_is_known() -> None:
    assert unknown([name for name, _ in options(Settings())]) == []


def test_a_name_of_our_own_would_be_found() -> None:
    wrong = "grpc.http2.min_recv_ping_interval_without_data_ms"
    assert unknown(["grpc.keepalive_time_ms", wrong]) == [wrong]
