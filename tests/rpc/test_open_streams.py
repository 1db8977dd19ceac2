"""One timer checks open streams, once for all streams of a token.

Each stream ends for its own reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.errors import (
    NotFound,
    PermissionDenied,
    PilothouseError,
    Unauthenticated,
    Unavailable,
)
from pilothouse_server.rpc.call import AuditFacts, Call
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import virtual_time
from tests.waiting import patient, poll_until

PERMISSION = "container.view"


def principal(*namespaces: str) -> Principal:
    return Principal(
        1, "somebody", tuple(Grant("viewer", name, 1, frozenset({PERMISSION})) for name in namespaces)
    )


class Tokens:
    """Returns a principal for each token, or raises."""

    def __init__(self) -> None:
        self.answers: dict[str, Principal | Exception] = {}
        self.namespaces = {"shop": 1, "mill": 2}
        self.asked: Counter[str] = Counter()

    async def authenticate(self, token: str, address: str = "") -> Principal:
        self.asked[token] += 1
        answer = self.answers[token]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def why_foreign(self, namespace: str) -> str:
        return ""

    async def namespace_id(self, name: str) -> int | None:
        return self.namespaces.get(name)


class Streams:
    """Streams that last until the layer ends them."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.layer = AuthorizationLayer(self.tokens, recheck_seconds=0.02)
        self.tasks: list[asyncio.Task[bytes]] = []
        # Streams, by their token, whose caller has other grants now.
        self.renewed: Counter[str] = Counter()

    async def open(self, token: str, namespace: str, *, shape: str = "unary_stream") -> asyncio.Task[bytes]:
        began = asyncio.Event()

        async def inner(_call: Call) -> bytes:
            began.set()
            await asyncio.Event().wait()
            return b""

        rule = SimpleNamespace(
            access=options.ACCESS_PERMISSION,
            scope=options.SCOPE_NAMESPACE,
            session_only=False,
            shape=shape,
            streams=True,
            permission=PERMISSION,
            namespace_field="namespace",
            mutates=False,
            permission_scope=lambda _namespace: "there",
        )
        call = SimpleNamespace(
            refusal=None,
            parse_error=None,
            facts=AuditFacts(),
            principal=await self.tokens.authenticate(token),
            rule=rule,
            namespace=namespace,
            token=token,
            shown=token,
            resume_token="",
            needs=(),
            on_renewed=lambda: self.renewed.update([token]),
        )
        run = self.layer(cast("Rule", rule), inner)
        task = asyncio.ensure_future(run(cast("Call", call)))
        self.tasks.append(task)
        beginning = asyncio.ensure_future(began.wait())
        await asyncio.wait([task, beginning], return_when=asyncio.FIRST_COMPLETED)
        assert began.is_set(), task
        return task

    async def looked(self, token: str, times: int) -> None:
        """Waits until a token was checked `times` more times."""
        wanted = self.tokens.asked[token] + times

        async def asked() -> int:
            return self.tokens.asked[token]

        await poll_until(asked, lambda times: times >= wanted, what="a look at the grants")


@asynccontextmanager
async def streams() -> AsyncIterator[Streams]:
    opened = Streams()
    try:
        yield opened
    finally:
        await cancel_and_wait(*opened.tasks)


async def reason(task: asyncio.Task[bytes]) -> PilothouseError:
    """Returns the error that a stream ended with."""
    with pytest.raises(PilothouseError) as ended:
        await asyncio.wait_for(task, patient(5.0))
    return ended.value


async def test_one_check_serves_all_streams_of_a_token() -> None:
    async with streams() as opened:
        opened.tokens.answers = {"often": principal("shop"), "once": principal("shop")}
        await opened.open("once", "shop")
        for _ in range(50):
            await opened.open("often", "shop")
        opened.tokens.asked.clear()
        await opened.looked("once", 5)
        assert abs(opened.tokens.asked["often"] - opened.tokens.asked["once"]) <= 1


async def test_each_stream_ends_for_its_own_reason() -> None:
    async with streams() as opened:
        tokens = opened.tokens
        tokens.answers = {name: principal("shop", "mill") for name in ("narrowed", "gone", "away", "kept")}
        shop, mill = await opened.open("narrowed", "shop"), await opened.open("narrowed", "mill")
        gone, away, kept = [await opened.open(name, "shop") for name in ("gone", "away", "kept")]
        tokens.answers["narrowed"] = principal("mill")
        tokens.answers["gone"] = Unauthenticated("revoked", reason="INVALID_TOKEN")
        tokens.answers["away"] = Unavailable("no database", reason="DATABASE_UNAVAILABLE")
        denied = await reason(shop)
        assert (type(denied), denied.reason) == (PermissionDenied, "PERMISSION_REVOKED")
        assert (await reason(gone)).reason == "INVALID_TOKEN"
        await opened.looked("away", 2)
        assert [task.done() for task in (mill, away, kept)] == [False] * 3


async def test_a_failure_for_one_caller_ends_no_stream_of_another() -> None:
    async with streams() as opened:
        opened.tokens.answers = {"broken": principal("shop"), "kept": principal("shop")}
        broken, kept = await opened.open("broken", "shop"), await opened.open("kept", "shop")
        opened.tokens.answers["broken"] = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(broken, patient(5.0))
        await opened.looked("kept", 2)
        assert not kept.done()


@virtual_time
async def test_a_stream_that_opens_while_the_server_drains_is_sent_elsewhere() -> None:
    async with streams() as opened:
        opened.tokens.answers = {"kept": principal("shop")}
        before = await opened.open("kept", "shop")
        talking = await opened.open("kept", "shop", shape="stream_stream")
        opened.layer.drain(0.4)
        after = await opened.open("kept", "shop")
        for task in (before, after):
            assert (await reason(task)).reason == "SHUTTING_DOWN"
        assert not talking.done()
        assert (await reason(talking)).reason == "SHUTTING_DOWN"


async def test_the_checks_stop_when_the_last_stream_has_ended() -> None:
    # Streams of earlier tests may still be ending.
    others = asyncio.all_tasks()

    async def timers() -> list[str]:
        mine = asyncio.all_tasks() - others
        return [task.get_name() for task in mine if task.get_name() == "recheck open streams"]

    async with streams() as opened:
        opened.tokens.answers = {"kept": principal("shop")}
        first, second = await opened.open("kept", "shop"), await opened.open("kept", "shop")
        assert len(await timers()) == 1
        first.cancel()
        await opened.looked("kept", 1)
        second.cancel()
        await poll_until(timers, lambda running: not running, what="the end of the timer")
        await opened.open("kept", "shop")
        await opened.looked("kept", 1)


async def test_streams_of_a_caller_with_changed_grants_are_renewed() -> None:
    async with streams() as opened:
        opened.tokens.answers = {"changed": principal("shop", "mill"), "kept": principal("shop", "mill")}
        for token in ("changed", "changed", "kept"):
            await opened.open(token, "shop")
        await opened.looked("kept", 2)
        assert not opened.renewed
        opened.tokens.answers["changed"] = principal("shop")
        await opened.looked("changed", 3)
        assert opened.renewed == {"changed": 2}


async def test_a_stream_whose_namespace_is_deleted_reports_that() -> None:
    async with streams() as opened:
        opened.tokens.answers = {"tenant": principal("shop"), "revoked": principal("mill")}
        stream, other = await opened.open("tenant", "shop"), await opened.open("revoked", "mill")
        del opened.tokens.namespaces["shop"]
        opened.tokens.answers = {"tenant": principal(), "revoked": principal()}
        assert (await reason(other)).reason == "PERMISSION_REVOKED"
        asked = opened.tokens.asked["tenant"]
        error = await reason(stream)
        assert (type(error), error.reason) == (NotFound, "NAMESPACE_NOT_FOUND")
        assert opened.tokens.asked["tenant"] >= min(asked + 1, 3)
