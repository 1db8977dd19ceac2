"""Watches begin by the hundred, so each SQL statement is built only once."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_server.store import paging
from tests.promises.calling import Caller
from tests.promises.environment import Environment
from tests.promises.requests import OWN, request_for
from tests.waiting import within

_WATCHES = [
    ("WatchContainers", {"namespace": OWN}),
    ("WatchContainers", {"namespace": OWN, "name": "web", "status": "CONTAINER_STATUS_RUNNING"}),
    ("WatchContainers", {}),
    ("WatchVolumes", {"namespace": OWN}),
    ("WatchConfigs", {"namespace": OWN}),
    ("WatchNamespaces", {}),
]


async def _begins(
    environment: Environment, method: str, fields: dict[str, Any], caller: Caller | None = None
) -> None:
    rule = environment.rule(method)
    watching = (caller or environment.admin).watching(rule, request_for(rule, fields))
    async with within(20), watching as answers:
        async for answer in answers:
            if answer.resume_token:
                return
    raise AssertionError("it ended before it was synced")


async def test_a_first_state_is_read_by_a_cached_statement(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    whole_rows = paging._whole_rows

    def noted(*arguments: Any) -> Any:
        made.append(arguments)
        return whole_rows(*arguments)

    monkeypatch.setattr(paging, "_whole_rows", noted)
    eve = await environment.make_user("eve", {OWN: "viewer"})
    for method, fields in _WATCHES:
        await _begins(environment, method, fields)
        made.clear()
        await _begins(environment, method, fields)
        assert made == [], method
        # Another caller's statement differs only in its values.
        await _begins(environment, method, fields, eve)
        made.clear()
        await _begins(environment, method, fields, eve)
        assert made == [], method
        # The control: the text of a statement with a selector depends on the selector.
        await _begins(environment, method, {**fields, "labelSelector": "app=web"})
        assert made, method
