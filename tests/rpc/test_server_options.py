"""The options of the server are known to gRPC, which silently ignores unknown ones."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.rpc.listener_shards import SHARDS
from pilothouse_server.rpc.server import options
from pilothouse_server.settings.model import Settings

# A wrong name of the option that allows clients' pings had this effect: silent streams ended with `too_many_pings`.


def unknown(names: list[str]) -> list[str]:
    """Returns the names that no string in the gRPC library ends with."""
    (compiled,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")
    library = compiled.read_bytes()
    return [name for name in names if name.encode() + b"\0" not in library]


def test_every_option_is_known() -> None:
    assert unknown([name for name, _ in options(Settings(), CallLimits())]) == []


def test_several_processes_share_a_port_and_connections_move_on() -> None:
    for address, shared in (("127.0.0.1:0", int(sys.platform == "linux")), ("unix:/run/a.sock", 0)):
        one = dict(
            options(
                Settings(
                    listen=address,
                ),
                CallLimits(),
            )
        )
        assert (one["grpc.so_reuseport"], one["grpc.max_connection_age_ms"]) == (shared, 3_600_000)
    for age in (3600, 100):
        several = dict(
            options(
                Settings(
                    processes=2,
                ),
                CallLimits(max_connection_age_seconds=age),
            )
        )
        assert several["grpc.so_reuseport"] == 1
        assert several["grpc.max_connection_age_ms"] == min(age, 300) * 1000
        # Streams may last as long as with one process.
        whole = several["grpc.max_connection_age_ms"] + several["grpc.max_connection_age_grace_ms"]
        assert whole == age * 1000 + 60_000


def test_the_queued_calls_of_all_shards_are_bounded() -> None:
    """A caller with an address for each shard fills all queues; 20,000 calls of one address must fit.

    Each queued call takes 16 KB.
    """
    given = dict(options(Settings(), CallLimits()))
    least, most = (f"grpc.server.max_pending_requests{end}" for end in ("", "_hard_limit"))
    assert 20_000 < given[least] < given[most]
    assert given[most] * SHARDS < 1_000_000


def test_an_invented_option_name_is_detected() -> None:
    wrong = "grpc.http2.min_recv_ping_interval_without_data_ms"
    assert unknown(["grpc.keepalive_time_ms", wrong]) == [wrong]
