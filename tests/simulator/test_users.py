"""Authentication and rights, as recorded, word for word."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_RIGHTS = "07b-authentication-and-rbac"
_VIEWER = "user viewer (no rights unless bound)"
# The exchange that binds a role; replaced by giving the user rights, because the simulator has no roles.
_BINDING = 18
_OTHER_SCHEME, _RULES, _MAY_NOT_WRITE = 1, 24, 23
# The rights of the impersonated user.
_APPS: JsonObject = {"verbs": ["get", "list", "watch"], "apiGroups": ["apps"], "resources": ["deployments"]}


async def _bind(run: Replay) -> None:
    recorded = run.recording["exchanges"][_RULES]["response"]["body"]["status"]["resourceRules"]
    run.cluster.users.add("seen", "viewer", recorded[2:])


async def _in_the_same_words(run: Replay) -> None:
    number = max(run.answers)
    recorded = run.recording["exchanges"][number]["response"]["body"]
    if "message" in recorded:
        assert run.answers[number]["message"] == recorded["message"], number


@virtual_time
async def test_identities_and_rights_are_as_recorded() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        cluster.users.add("seen", "viewer", [])
        after = dict.fromkeys(range(28), _in_the_same_words)
        differences = await replay(
            cluster,
            _RIGHTS,
            Options(
                skip=frozenset({_BINDING}),
                after=after | {_BINDING - 1: _bind},
                identities={
                    "unknown bearer token": "Bearer nonsense",
                    _OTHER_SCHEME: "Basic dmlld2VyOng=",
                    _VIEWER: "Bearer seen",
                },
                pace=False,
            ),
        )
    check(_RIGHTS, differences)


@virtual_time
async def test_an_administrator_may_do_everything_and_impersonate() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        cluster.users.add("seen", "viewer", [_APPS])
        headers = {"authorization": f"Bearer {cluster.token}"}
        async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
            path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
            async with session.post(path, json={"spec": {"namespace": "default"}}) as response:
                (*_, rule) = (await response.json())["status"]["resourceRules"]
            assert rule == {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            as_viewer = {"impersonate-user": "viewer"}
            for kind, status in (("deployments", 200), ("replicasets", 403), ("gadgets", 403)):
                path = f"/apis/apps/v1/namespaces/default/{kind}"
                async with session.get(path, headers=as_viewer) as response:
                    assert response.status == status, kind
            # A user with all rights gets 404 for an unknown resource.
            async with session.get("/apis/apps/v1/namespaces/default/gadgets") as response:
                assert response.status == 404
            async with session.get("/nosuch") as response:
                assert response.status == 404
