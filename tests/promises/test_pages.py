"""Pages of large lists are bounded, and together they are the whole list."""

from __future__ import annotations

import pytest

from pilothouse_server.rpc import encoding
from pilothouse_server.store import paging
from tests.promises.environment import Environment
from tests.promises.requests import OWN

_COUNT, _BYTES = 8, 800_000


async def faults_of_large_pages(environment: Environment) -> list[str]:
    """Lists config maps that are larger together than a client's message limit.

    Returns the pages that are too large, and missing resources.
    """
    names = [f"large-{number}" for number in range(_COUNT)]
    for name in names:
        config_map = {"name": name, "data": {"key": "x" * _BYTES}}
        await environment.must("CreateConfigMap", {"namespace": OWN, "configMap": config_map})
    listed: list[str] = []
    found: list[str] = []
    token = ""
    for _ in names:
        page = {"namespace": OWN, "pageSize": 1000, "orderBy": "name", "pageToken": token}
        outcome = await environment.call("ListConfigMaps", page)
        if outcome.code != "OK":
            return [f"{outcome.code} {outcome.message}"]
        size = outcome.answer.ByteSize()
        found += [f"a page of {size} bytes"] * (size > paging.LARGEST_PAGE_BYTES + 1000)
        listed += [item.name for item in outcome.answer.config_maps]
        token = outcome.answer.next_page_token
        if not token:
            break
    return [*found, *([] if listed == names else [f"the pages together list {listed}"])]


async def test_pages_of_large_resources_are_bounded_and_complete(environment: Environment) -> None:
    assert await faults_of_large_pages(environment) == []


@pytest.mark.full
async def test_a_page_without_a_bound_is_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "LARGEST_PAGE_BYTES", 10**9)
    monkeypatch.setattr(paging, "LARGEST_PAGE_BYTES", 10**9)
    assert await faults_of_large_pages(environment) != []
