"""Listener shards: calls of one address have their own queue.

They do not wait behind calls of other addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.launch.embedded.certificate import self_signed
from pilothouse_server.rpc import listener_shards, server
from pilothouse_server.rpc.health import SERVING, Health
from pilothouse_server.rpc.listener_shards import SHARDS, ListenerShards, shard_count
from pilothouse_server.rpc.port import ReservedPort, reserve
from pilothouse_server.rpc.server import GrpcServer
from pilothouse_server.rpc.tls.serving import Serving
from pilothouse_server.settings.model import Settings, SettingsError
from tests.promises.hostile import wire
from tests.waiting import patient, poll_until

pytestmark = [
    pytest.mark.usefixtures("promised_lines"),
    pytest.mark.skipif(
        sys.platform != "linux",
        reason="other kernels do not spread connections over those who share an address",
    ),
]
_CONNECTIONS, _CALLS_OF_EACH = 4, 100
_CALLS = _CONNECTIONS * _CALLS_OF_EACH
_SHARED: Sequence[tuple[str, int]] = (("grpc.so_reuseport", 1),)
# By default, gRPC servers begin to drop queued calls at 1,000, and drop all beyond 3,000.
_MANY_CONNECTIONS = 15


class _Order(grpc.aio.ServerInterceptor):
    """Records the methods that were called, in the order in which gRPC handed the calls over."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Records the method."""
        self.methods.append(details.method)
        return await continuation(details)


@contextlib.contextmanager
def _sending(
    port: int, source: str, method: str, calls: int, *, taken_back: bool = False
) -> Iterator[tuple[socket.socket, bytes]]:
    """Opens a connection from `source` and sends calls that all reach gRPC.

    gRPC has acknowledged a ping after them. Also yields the bytes received until then. If `taken_back`, each call is
    reset immediately.

    The function blocks the event loop, so the server accepts none of the calls during that time.
    """
    block = wire.header_block(method)
    with socket.create_connection(
        ("127.0.0.1", port), timeout=patient(20.0), source_address=(source, 0)
    ) as connection:
        sent = bytearray(wire.PREFACE + wire.settings())
        for number in range(calls):
            stream = 2 * number + 1
            sent += wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block)
            if taken_back:
                sent += wire.frame(wire.RST_STREAM, 0, stream, wire.CANCEL)
            else:
                sent += wire.frame(wire.DATA, wire.END_STREAM, stream, wire.message(b""))
        ping = b"all came"
        connection.sendall(bytes(sent) + wire.frame(wire.PING, 0, 0, ping))
        came = b""
        while wire.frame(wire.PING, wire.ACK, 0, ping) not in came:
            received = connection.recv(65536)
            assert received, "the server has closed the connection"
            came += received
        yield connection, came


def _read_until_ended(connection: socket.socket, came: bytes, calls: int) -> None:
    """Reads until the server has ended `calls` calls of a connection."""
    ended: set[int] = set()
    while True:
        while len(came) >= 9 and len(came) >= (whole := 9 + int.from_bytes(came[:3])):
            kind, flags, stream = came[3], came[4], int.from_bytes(came[5:9])
            came = came[whole:]
            if kind == wire.RST_STREAM or (kind == wire.HEADERS and flags & wire.END_STREAM):
                ended.add(stream)
        if len(ended) == calls:
            return
        received = connection.recv(65536)
        assert received, "the server has closed the connection"
        came += received


async def _dropped(options: Sequence[tuple[str, int]]) -> int:
    """Returns how many of 1,500 calls in one queue of a server with these options end without being handed over."""
    async with _serving(Settings(listen="127.0.0.1:0"), 1, options=options) as (port, order):
        with contextlib.ExitStack() as stack:
            sent = [
                stack.enter_context(_sending(port, "127.0.0.1", "/burst/Call", _CALLS_OF_EACH))
                for _ in range(_MANY_CONNECTIONS)
            ]
            assert order.methods == []
            for connection, came in sent:
                await asyncio.to_thread(_read_until_ended, connection, came, _CALLS_OF_EACH)
        return _MANY_CONNECTIONS * _CALLS_OF_EACH - len(order.methods)


async def _place_behind_a_burst(count: int) -> int:
    """Returns how many calls are handed over before the call of another address, which called last.

    There are `count` servers.
    """
    async with _serving(Settings(listen="127.0.0.1:0"), count) as (port, order):
        with contextlib.ExitStack() as stack:
            for _ in range(_CONNECTIONS):
                stack.enter_context(_sending(port, "127.0.0.1", "/burst/Call", _CALLS_OF_EACH))
            stack.enter_context(_sending(port, "127.0.0.2", "/other/Call", 1))
            assert order.methods == []

            async def handed_over() -> int:
                return len(order.methods)

            await poll_until(handed_over, lambda number: number == _CALLS + 1, what="all are handed over")
    return order.methods.index("/other/Call")


@asynccontextmanager
async def _serving(
    settings: Settings,
    count: int = SHARDS,
    tls: Serving | None = None,
    options: Sequence[tuple[str, int]] = _SHARED,
) -> AsyncIterator[tuple[int, _Order]]:
    """Yields the port of such a server, and the order of its calls.

    The server serves health checks, and refuses all other calls.
    """
    order, health = _Order(), Health()
    servers = [grpc.aio.server(interceptors=(order,), options=options) for _ in range(count)]
    for each in servers:
        health_pb2_grpc.add_HealthServicer_to_server(health, each)
    nobody: Any = None
    both = ListenerShards(servers, settings.processes)
    made = GrpcServer(both, health, (), settings, nobody, tls)
    port = made.bind()
    await made.start()
    try:
        await made.serving(True)
        yield port, order
    finally:
        await both.stop(0.0)


async def test_a_call_is_accepted_before_a_burst_of_another_address() -> None:
    # One call of each other shard, and the calls that the event loop had already begun.
    assert await _place_behind_a_burst(SHARDS) < 8


async def test_a_call_in_the_same_shard_comes_last() -> None:
    assert await _place_behind_a_burst(1) == _CALLS


async def test_queued_calls_are_not_dropped() -> None:
    assert await _dropped(server.options(Settings(), CallLimits())) == 0


async def test_some_queued_calls_are_dropped_by_default_options() -> None:
    assert await _dropped(_SHARED) > 0


@pytest.mark.parametrize(("at_once", "handed_over"), [(100, 100), (1_000, 300)])
async def test_reset_calls_count_while_they_are_queued(at_once: int, handed_over: int) -> None:
    """Otherwise a connection could queue any number of calls, and each takes 16 KB."""
    settings = Settings(listen="127.0.0.1:0")
    options = server.options(settings, CallLimits(max_calls_per_connection=at_once))
    async with _serving(settings, 1, options=options) as (port, order):
        with (
            _sending(port, "127.0.0.1", "/burst/Call", 300, taken_back=True),
            _sending(port, "127.0.0.2", "/last/Call", 1),
        ):

            async def last_came() -> bool:
                return "/last/Call" in order.methods

            await poll_until(last_came, what="the last one is handed over")
        assert order.methods.count("/burst/Call") == handed_over


def _listener(family: socket.AddressFamily, host: str, port: int = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family is socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind((host, port))
    made.listen()
    made.setblocking(False)
    return made


def _taken(listeners: Sequence[socket.socket]) -> list[int]:
    """Returns the numbers of the listeners that had connections, one number for each.

    The connections are closed.
    """
    found = []
    for number, each in enumerate(listeners):
        with contextlib.suppress(BlockingIOError):
            while True:
                each.accept()[0].close()
                found.append(number)
    return found


def _has(host: str) -> bool:
    """Returns whether this machine has the address: many containers have no IPv6 address."""
    with socket.socket(socket.AF_INET6) as made:
        try:
            made.bind((host, 0))
        except OSError:
            return False
    return True


def _line_of(word: int) -> int:
    """Returns the shard of an IPv4 address, or of an IPv6 network whose halves are combined into one word."""
    return (word * 2_654_435_769 % 2**32) >> 27


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")],
)
@pytest.mark.parametrize("processes", [1, 3])
def test_connections_of_an_address_belong_to_one_shard(
    family: socket.AddressFamily, host: str, processes: int
) -> None:
    sources = [f"127.0.0.{number}" for number in range(1, 40)] + ["127.1.2.3", "127.255.255.254"]
    expected = {each: _line_of(int(ipaddress.IPv4Address(each))) for each in sources}
    if family is socket.AF_INET6 and _has("::1"):
        expected["::1"] = 0
    used: set[int] = set()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(_listener(family, host))
        port = first.getsockname()[1]
        listeners = [first]
        listeners += [
            stack.enter_context(_listener(family, host, port)) for _ in range(processes * SHARDS - 1)
        ]
        listener_shards.steer(port, processes)
        # Another listener that joins the group receives no connection.
        listeners.append(stack.enter_context(_listener(family, host, port)))
        for source, line in expected.items():
            for _ in range(3):
                target = "::1" if source == "::1" else "127.0.0.1"
                socket.create_connection((target, port), patient(10.0), (source, 0)).close()
            taken = _taken(listeners)
            assert len(taken) == 3
            # One shard of each process receives the connections of that address.
            assert {each % SHARDS for each in taken} == {line}, source
            assert max(taken) < processes * SHARDS
            used.update(each // SHARDS for each in taken)
    assert used == set(range(processes))
    # The addresses are spread over the shards, also neighbouring ones.
    assert len(set(expected.values())) > SHARDS / 2


async def test_another_server_cannot_listen_there_by_accident() -> None:
    async with _serving(Settings(listen="127.0.0.1:0")) as (port, _):
        taken = Settings(listen=f"127.0.0.1:{port}")
        with pytest.raises(SettingsError, match=f"PILOTHOUSE_LISTEN: 127.0.0.1:{port}"):
            async with _serving(taken):
                pass
    # A server that has stopped leaves nothing behind.
    async with _serving(taken):
        pass


async def test_several_processes_share_a_reserved_address() -> None:
    held = reserve("127.0.0.1:0")
    try:
        settings = Settings(listen=held.listen, processes=2)
        async with _serving(settings) as (first, one), _serving(settings) as (second, other):
            assert first == second == held.port
            with contextlib.ExitStack() as stack:
                # With 60 connections, each process almost certainly gets some.
                for _ in range(60):
                    stack.enter_context(_sending(first, "127.0.0.1", "/some/Call", 1))

                async def each() -> tuple[int, int]:
                    return len(one.methods), len(other.methods)

                await poll_until(each, lambda numbers: sum(numbers) == 60, what="all are handed over")
            assert one.methods
            assert other.methods
    finally:
        held.close()


@pytest.mark.parametrize("lacks", ["the option", "the folder"])
async def test_calls_are_served_if_the_kernel_accepts_no_program(
    lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks == "the option":
        # No socket option has that number.
        monkeypatch.setattr(listener_shards, "_SO_ATTACH_REUSEPORT_CBPF", 4095)
    else:
        monkeypatch.setattr(listener_shards, "_OWN_FILES", "/proc/self/no-such")
    with capture_logs() as logged:
        async with (
            _serving(Settings(listen="127.0.0.1:0")) as (port, _),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=patient(10.0))
            assert answer.status == SERVING
    assert [each["event"] for each in logged if each["log_level"] == "warning"] == [listener_shards.BY_CHANCE]


async def test_each_shard_has_the_renewed_certificate(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "localhost")
    tls = Serving(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])

    def shown(port: int, source: str) -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", port), patient(10.0), (source, 0)) as opened,
            context.wrap_socket(opened) as secured,
        ):
            return secured.getpeercert(binary_form=True)

    sources = [f"127.0.0.{number}" for number in range(1, 6)]
    async with _serving(Settings(listen="127.0.0.1:0"), SHARDS, tls) as (port, _):
        before = {await asyncio.to_thread(shown, port, each) for each in sources}
        (tmp_path / "next").mkdir()
        for old, new in zip((certificate, key), self_signed(tmp_path / "next", "localhost"), strict=True):
            os.replace(new, old)
        await asyncio.to_thread(tls.look)
        after = {await asyncio.to_thread(shown, port, each) for each in sources}
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.skipif(
    sys.platform != "linux", reason="other kernels do not spread connections over those who share"
)
@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (Settings(), SHARDS),
        (Settings(processes=2), SHARDS),
        (Settings(listen="unix:/run/a.sock"), 1),
    ],
)
def test_the_number_of_shards_follows_the_settings(settings: Settings, count: int) -> None:
    assert shard_count(settings) == count


async def test_an_address_that_cannot_be_bound_by_all_shards_is_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[socket.socket] = []

    def reserved(listen: str, name: str) -> ReservedPort:
        held.append(socket.socket())
        return ReservedPort("127.0.0.1", 1, held)

    def add(_server: grpc.aio.Server, _address: str) -> int:
        raise RuntimeError("it was taken meanwhile")

    monkeypatch.setattr(listener_shards, "reserve", reserved)
    both = ListenerShards([grpc.aio.server(options=_SHARED) for _ in range(2)])
    with pytest.raises(RuntimeError):
        both.bind("127.0.0.1:1", "LISTEN", add)
    # A closed socket has the file number -1.
    assert [each.fileno() for each in held] == [-1]


async def test_an_address_is_released_with_a_server_that_never_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = [socket.socket()]
    monkeypatch.setattr(listener_shards, "reserve", lambda *_: ReservedPort("127.0.0.1", 1, held))
    both = ListenerShards([grpc.aio.server(options=_SHARED) for _ in range(2)])
    both.bind("127.0.0.1:1", "LISTEN", lambda *_: 1)
    assert held[0].fileno() >= 0
    del both
    gc.collect()
    assert held[0].fileno() == -1
