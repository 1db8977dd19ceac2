"""Authentication and rights, as recorded, word for word; rules reviews, impersonation and anonymous access are off."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from pilothouse_server.cluster.simulated import SimulatedCluster
from pilothouse_server.cluster.simulated.resources import NAMESPACES
from tests.virtual_time import virtual_time

from .recordings import load
from .waiting import until

JsonObject = dict[str, Any]

_RIGHTS = "07b-authentication-and-rbac"
_BAD_TOKEN = (0, 3)
_WITHOUT_RIGHTS = (*range(4, 14), 17)
# A RoleBinding came between: the viewer may see what the role `view` shows.
_WITH_VIEW = (19, 20, 21, 22, 23)
_VIEW: JsonObject = {
    "verbs": ["get", "list", "watch"],
    "apiGroups": ["", "apps"],
    "resources": ["configmaps", "deployments", "pods", "pods/log", "services"],
}


async def _ask(session: aiohttp.ClientSession, exchange: JsonObject, token: str) -> tuple[int, JsonObject]:
    request = exchange["request"]
    headers = {**request["headers"], "authorization": f"Bearer {token}"}
    body = request.get("body")
    async with session.request(
        request["method"],
        request["path"],
        params=request["query"],
        headers=headers,
        data=None if body is None else json.dumps(body),
    ) as response:
        return response.status, await response.json()


def _without_chance(body: JsonObject) -> JsonObject:
    """Versions differ, and so does the reason why a right is there."""
    copied: JsonObject = json.loads(json.dumps(body))
    copied["metadata"].pop("resourceVersion", None)
    if isinstance(copied.get("status"), dict):
        copied["status"].pop("reason", None)
    return copied


@virtual_time
async def test_bad_tokens_and_missing_rights_are_answered_as_recorded() -> None:
    exchanges = load(_RIGHTS)["exchanges"]
    async with SimulatedCluster(nodes=1) as cluster, aiohttp.ClientSession(cluster.url) as session:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "rec-rbac"}})
        await until(cluster, lambda: cluster.store.get(NAMESPACES, None, "rec-rbac") is not None)
        steps = [("nonsense", None, _BAD_TOKEN), ("seen", [], _WITHOUT_RIGHTS), ("seen", [_VIEW], _WITH_VIEW)]
        for token, rules, numbers in steps:
            if rules is not None:
                cluster.users.add(token, "viewer", rules)
            for number in numbers:
                status, body = await _ask(session, exchanges[number], token)
                recorded = exchanges[number]["response"]
                assert status == recorded["status"], (number, body)
                assert _without_chance(body) == _without_chance(recorded["body"]), number
