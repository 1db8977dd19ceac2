"""Promise 9: few pending responses are stored for a caller that reads none.

Such a caller takes no memory from the others.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol import pending_responses
from pilothouse_server.flowcontrol.pending_responses import PendingResponses
from tests.conftest import Database
from tests.promises.calling import Caller
from tests.promises.environment import Environment, quiet_environment
from tests.promises.hostile import wire
from tests.promises.requests import OWN, request_for
from tests.promises.test_admission import admission_of
from tests.waiting import poll_until

_CALLS, _ANSWER_BYTES = 30, 100_000
# Concurrent calls may each see free space that the last of them uses up.
_BOUND, _MOST_AT_ONCE = 300_000, 4


async def _kept(environment: Environment) -> tuple[Caller, wire.Connection, int]:
    """Returns a caller whose connection reads none of many large responses.

    Also returns the connection, and the number of bytes stored for the caller.
    """
    eve = await environment.make_user("eve", {OWN: "viewer"})
    made = {"name": "large", "data": {"text": "x" * _ANSWER_BYTES}}
    await environment.must("CreateConfigMap", {"namespace": OWN, "configMap": made})
    rule = environment.rule("GetConfigMap")
    body = wire.message(request_for(rule, {"namespace": OWN, "name": "large"}).SerializeToString())
    token = dict(eve.metadata)["authorization"].removeprefix("Bearer ")
    admission = admission_of(environment)
    stalled = wire.Connection(environment.server.address, window=0)
    await stalled.open()
    came = admission._came
    for _ in range(_CALLS):
        stream = stalled.stream()
        stalled.write(
            wire.frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(rule.method, token))
            + wire.frame(wire.DATA, wire.END_STREAM, stream, body)
        )

    async def is_over() -> bool:
        return admission._came == came + _CALLS and admission.in_flight == 0

    await poll_until(is_over, what="the end of all calls in our hands")
    return eve, stalled, admission.pending_responses.bytes


def _narrow(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    monkeypatch.setattr(pending_responses, "_MOST_OF_ONE", _BOUND)
    return {"max_calls_per_user": _MOST_AT_ONCE}


async def test_few_responses_are_stored_for_a_caller_that_reads_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, **_narrow(monkeypatch)) as environment:
        eve, stalled, kept = await _kept(environment)
        assert _BOUND <= kept <= _BOUND + (_MOST_AT_ONCE + 1) * _ANSWER_BYTES
        refused = await environment.call("GetNamespace", {"name": OWN}, eve)
        assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
        assert (await environment.call("GetConfigMap", {"namespace": OWN, "name": "large"})).code == "OK"
        stalled.close()

        async def left() -> int:
            return admission_of(environment).pending_responses.bytes

        await poll_until(left, lambda count: count == 0, what="the end of what was kept")
        assert (await environment.call("GetConfigMap", {"namespace": OWN, "name": "large"}, eve)).code == "OK"


@pytest.mark.full
async def test_pending_responses_without_a_bound_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: no call is refused."""
    monkeypatch.setattr(PendingResponses, "check", lambda *_: None)
    async with quiet_environment(database, tmp_path, monkeypatch, **_narrow(monkeypatch)) as environment:
        _, stalled, kept = await _kept(environment)
        assert kept >= _CALLS * _ANSWER_BYTES
        stalled.close()


async def test_many_stalled_callers_have_a_smaller_bound_each() -> None:
    """Stores bytes for many callers, so that each may have fewer."""
    held = PendingResponses()
    ends = asyncio.Event()
    calls = [asyncio.create_task(ends.wait()) for _ in range(20)]
    for number, call in enumerate(calls):
        held.add(number, 8 << 20, call)
    with pytest.raises(ResourceExhausted):
        held.check(3)
    # A caller without stored answers is served.
    held.check("bob")
    ends.set()
    await asyncio.gather(*calls)
    held.check(3)
    assert (held.bytes, held.of) == (0, {})
