"""A denied right is shown on the container in the cluster's words.

The container recovers once the right is granted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.reconcile.queue import backoff
from tests.clusters.given import QUICK, another_cluster, by_kubeconfig, kubeconfig, place, role, runs
from tests.conftest import Database
from tests.harness import running_server
from tests.waiting import poll_until

_TOKEN = "narrow-token"
_DENIED = "patch deployments.apps"
_WORDS = (
    'deployments.apps "web" is forbidden: User "narrow" cannot patch resource "deployments" in API group "apps" '
    'in the namespace "shop"'
)


def _applied(container: containers.Container) -> resource.Condition | None:
    return next((each for each in container.conditions if each.type == "Applied"), None)


async def test_a_denial_is_shown_in_the_clusters_words_and_recovers(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a refusal the retry waits long for a change of the rights; the test shortens this.
    monkeypatch.setattr(backoff, "TRANSIENT_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(backoff, "MENDED_ELSEWHERE_MOST_SECONDS", 0.5)
    async with (
        another_cluster() as cluster,
        running_server(database, tmp_path, with_cluster=False, reconciler=QUICK) as server,
    ):
        cluster.users.add(_TOKEN, "narrow", role())
        await server.admin.namespaces.register_cluster(
            cluster=pb.Cluster(name="narrow"),
            credentials=by_kubeconfig(kubeconfig(cluster, token=_TOKEN)),
        )
        cluster.users.add(_TOKEN, "narrow", role(_DENIED))
        await place(server, "narrow", "shop", wait=False)

        async def denied() -> containers.Container | None:
            found = await server.admin.containers.get(namespace="shop", name="web")
            condition = _applied(found)
            return found if condition and condition.status == resource.CONDITION_STATUS_FALSE else None

        shown = await poll_until(denied, seconds=60.0, what="Applied=False")
        assert shown is not None
        condition = _applied(shown)
        assert condition is not None
        assert (condition.reason, condition.message) == ("Forbidden", _WORDS)
        assert shown.status == containers.CONTAINER_STATUS_FAILED
        assert (shown.reason, shown.message) == ("Forbidden", _WORDS)

        cluster.users.add(_TOKEN, "narrow", role())
        await runs(server, "shop")

        # The status may be written before the worker's result ends the refusal.
        async def healed() -> containers.Container | None:
            found = await server.admin.containers.get(namespace="shop", name="web")
            condition = _applied(found)
            return found if condition and condition.status == resource.CONDITION_STATUS_TRUE else None

        again = await poll_until(healed, what="Applied=True")
        assert again is not None
        assert "forbidden" not in again.message
