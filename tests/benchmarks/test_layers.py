"""The layer that a stack belongs to."""

from __future__ import annotations

import pytest
from benchmarks.layers import Frame

from benchmarks import layers

pytestmark = pytest.mark.full

_SERVER = "/somewhere/server/pilothouse_server"
_LIBRARIES = "/somewhere/site-packages"
_LOOP: list[Frame] = [("/lib/asyncio/events.py", "Handle._run"), ("/lib/asyncio/runners.py", "run")]
_PIPELINE: Frame = (f"{_SERVER}/rpc/pipeline.py", "Pipeline._run")
_AUDIT: Frame = (f"{_SERVER}/rpc/interceptors/audit.py", "AuditLayer._unary")
_HANDLER: Frame = (f"{_SERVER}/containers/service.py", "ContainerService.GetContainer")
_UNIT: Frame = (f"{_SERVER}/store/unit_of_work.py", "Store.read")
_ASYNCPG: Frame = (f"{_LIBRARIES}/asyncpg/connection.py", "Connection.fetch")
_READ: Frame = ("/lib/asyncio/selector_events.py", "_SelectorSocketTransport._read_ready")
_JSON: Frame = ("/lib/json/encoder.py", "JSONEncoder.encode")


@pytest.mark.parametrize(
    ("stack", "layer", "asked_by"),
    [
        ([], layers.LOOP, ""),
        ([_PIPELINE], "pipeline and other layers", ""),
        ([_HANDLER, _AUDIT, _PIPELINE], "handler and rules", ""),
        ([_JSON, _AUDIT, _PIPELINE], "audit", ""),
        ([_ASYNCPG, _UNIT, _HANDLER, _AUDIT, _PIPELINE], layers.ASYNCPG, "handler and rules"),
        ([_UNIT, _AUDIT, _PIPELINE], layers.STORE, "audit"),
        ([_READ], layers.ASYNCPG, "answers that arrive"),
        (
            [(f"{_LIBRARIES}/sqlalchemy/engine/base.py", "execute")],
            layers.SQLALCHEMY,
            "nobody in its greenlet",
        ),
        ([("<converter of a.B>", "fill"), _HANDLER], "converter and messages", ""),
        ([(f"{_SERVER}/values/quantity.py", "parse"), _HANDLER], "handler and rules", ""),
        ([(f"{_SERVER}/containers/messages/container.py", "f"), _HANDLER], "converter and messages", ""),
        (
            [(f"{_SERVER}/identity/authenticator/token_authenticator.py", "f"), _PIPELINE],
            "authentication",
            "",
        ),
    ],
)
def test_the_innermost_layer_decides(stack: list[Frame], layer: str, asked_by: str) -> None:
    found = layers.layer_of([*stack, *_LOOP])
    if layer != layers.SQLALCHEMY:
        assert found == (layer, asked_by)
    assert layers.layer_of(stack or _LOOP)[0] == layer


def test_a_function_is_named_by_its_path_in_the_server() -> None:
    assert layers.function_of([_JSON, _AUDIT, *_LOOP]) == "rpc/interceptors/audit.py AuditLayer._unary"
    assert layers.function_of(_LOOP) == "asyncio/events.py Handle._run"


def test_the_calling_functions_are_named() -> None:
    found = layers.functions_of([_ASYNCPG, _UNIT, _AUDIT, _AUDIT, *_LOOP])
    assert found == {"store/unit_of_work.py Store.read", "rpc/interceptors/audit.py AuditLayer._unary"}
