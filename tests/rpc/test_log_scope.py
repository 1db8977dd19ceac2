"""Each log line of a call names the call, and its caller."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
import structlog

from pilothouse.container.v1 import container_pb2
from pilothouse_server.authorization.access import Principal
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.headers import Headers
from pilothouse_server.rpc.interceptors.outer import outer
from pilothouse_server.rpc.method_rules import load
from pilothouse_server.store.clock import RecordClock
from pilothouse_server.store.unit_of_work import Store
from tests.server_logs import logging_as_served

METHOD = "/pilothouse.container.v1.ContainerService/GetContainer"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Reads the lines that were logged, as JSON."""
    with logging_as_served("INFO", "json") as written:
        yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]


@pytest.mark.parametrize("username", ["", "somebody"])
async def test_log_lines_within_a_call_name_it_and_other_lines_do_not(
    lines: Callable[[], list[dict[str, str]]], username: str
) -> None:
    rules = load([container_pb2.DESCRIPTOR.services_by_name["ContainerService"]])
    call = Call(rules[METHOD], cast("Store", SimpleNamespace(clock=RecordClock())), Headers({}))
    call.principal = Principal(7, username, ()) if username else None

    async def inner(_call: Call) -> bytes:
        structlog.get_logger("test").info("within", method="its own")
        logging.getLogger("pilothouse.test").warning("of a library")
        return b"answer"

    structlog.get_logger("test").info("before")
    assert await outer(call.rule, inner)(call) == b"answer"
    structlog.get_logger("test").info("after")
    before, within, library, after = lines()
    assert UUID(within["operation_id"]) == call.operation_id
    assert within["method"] == "its own"
    assert (library["method"], library["operation_id"]) == (METHOD, within["operation_id"])
    for line in (within, library):
        assert line.get("username", "") == username
    for line in (before, after):
        assert not {"operation_id", "method", "username"} & line.keys()
