"""Promise 13: hundreds of concurrent calls of one caller do not delay others."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from pilothouse_server.flowcontrol import burst_gate
from pilothouse_server.flowcontrol.burst_gate import BurstGate
from tests.conftest import Database
from tests.promises.environment import Environment, quiet_environment
from tests.promises.hostile import wire
from tests.promises.hostile.wire import Connection, frame, header_block
from tests.promises.requests import OWN, request_for
from tests.promises.test_admission import admission_of
from tests.waiting import poll_until, within

_CONNECTIONS, _CALLS_OF_EACH = 5, 100
_CALLS = _CONNECTIONS * _CALLS_OF_EACH
# The first calls of a caller pass, and so do some calls of a burst that lasts. A slower machine lets more pass.
_HELD_AT_LEAST = _CALLS // 2


async def _held_behind_others(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> int:
    """Returns how many calls of a burst are held while another caller is served.

    The burst has been accepted completely by then.
    """
    eve = await environment.make_user("eve", {OWN: "viewer"})
    bob = await environment.make_user("bob", {OWN: "viewer"})
    application = environment.server.application
    application.authenticator._cache_seconds = 3600.0
    application.feed.on_grants_changed = lambda: None
    application.authenticator.invalidate()
    for user in (eve, bob):
        # A caller whose token the server does not know is held by its address, which both users share.
        await environment.must("GetNamespace", {"name": OWN}, user)
    rule = environment.rule("GetNamespace")
    head = header_block(rule.method, dict(eve.metadata)["authorization"].removeprefix("Bearer "))
    body = wire.message(request_for(rule, {"name": OWN}).SerializeToString())
    held = admission_of(environment).burst_gate
    # The duration of accepting the burst does not matter: the gate forgets passed calls once more, and then not
    # again.
    monkeypatch.setattr(burst_gate, "_FORGOTTEN_SECONDS", 3600.0)
    with ExitStack() as stack:
        streams: list[tuple[Connection, int]] = []
        for _ in range(_CONNECTIONS):
            connection = Connection(environment.server.address)
            stack.callback(connection.close)
            await connection.open()
            streams += [(connection, connection.stream()) for _ in range(_CALLS_OF_EACH)]
        for connection, number in streams:
            connection.write(
                frame(wire.HEADERS, wire.END_HEADERS, number, head)
                + frame(wire.DATA, wire.END_STREAM, number, body)
            )

        async def taken_in() -> int:
            return held.waiting + sum(each.ended(number).is_set() for each, number in streams)

        await poll_until(taken_in, lambda count: count == _CALLS, what="the burst is taken in")
        answer = await environment.call("GetNamespace", {"name": OWN}, bob)
        assert answer.code == "OK", answer
        waiting = held.waiting
        held.end()
        async with within(30):
            for connection, number in streams:
                await connection.all_ended([number])
    assert held.waiting == 0
    return waiting


@pytest.fixture(autouse=True)
def never_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates that gRPC always has another call.

    The duration of handing calls over therefore does not matter.
    """
    for name in ("_CALM_SECONDS", "_CALM_AFTER_MANY_SECONDS"):
        monkeypatch.setattr(burst_gate, name, 3600.0)


async def test_a_call_overtakes_an_earlier_burst(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        assert await _held_behind_others(environment, monkeypatch) in range(_HELD_AT_LEAST, _CALLS)


@pytest.mark.full
async def test_a_burst_that_is_served_in_order_of_arrival_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BurstGate, "passes", lambda *_: True)
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        assert await _held_behind_others(environment, monkeypatch) == 0
