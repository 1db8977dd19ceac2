"""Every declared method has one handler, whichever objects serve the service."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pilothouse.metrics.v1 import metrics_pb2
from pilothouse_server.rpc.declarations import DeclarationError
from pilothouse_server.rpc.server import rules_and_handlers

SERVICE = metrics_pb2.DESCRIPTOR.services_by_name["MetricsService"]
NAMES = [method.name for method in SERVICE.methods]


def serving(*names: str) -> object:
    return SimpleNamespace(**{name: lambda _request, _call: None for name in names})


def test_methods_of_several_objects_are_served_by_each() -> None:
    first, rest = serving(NAMES[0]), serving(*NAMES[1:])
    _, handlers = rules_and_handlers({SERVICE: [first, rest]})
    assert handlers[f"/{SERVICE.full_name}/{NAMES[0]}"] is getattr(first, NAMES[0])
    assert handlers[f"/{SERVICE.full_name}/{NAMES[1]}"] is getattr(rest, NAMES[1])


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ([NAMES[1:]], "is declared but not served"),
        ([NAMES, NAMES[:1]], "is declared but served by more than one object"),
    ],
)
def test_a_method_without_its_one_handler_is_refused(served: list[list[str]], words: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        rules_and_handlers({SERVICE: [serving(*names) for names in served]})
    assert refused.value.faults == (f"{SERVICE.full_name}.{NAMES[0]} {words}",)
