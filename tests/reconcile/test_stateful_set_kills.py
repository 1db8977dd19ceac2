"""A server killed after any write to the cluster leaves no StatefulSet that the next server cannot finish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import pytest

from pilothouse_server.containers.model import Container, ContainerSpec, Port
from pilothouse_server.containers.operations import change as change_container
from pilothouse_server.containers.operations import pause as pause_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.containers.workload_rules import replacing
from pilothouse_server.containers.workload_settings import ClaimRetention, ClaimTemplate, StatefulSetSettings
from pilothouse_server.guard.model import UNGUARDED
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.values.volumes import VolumeMount
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from tests.reconcile.environment import Environment
from tests.reconcile.test_kills import die_at, next_server, on_cluster, settled
from tests.waiting import poll_until

_SETTINGS: Final = StatefulSetSettings(
    claim_templates=(ClaimTemplate(name="data", size="1Gi", access_modes=("ReadWriteOnce",)),),
    claim_retention=ClaimRetention(when_deleted="Delete", when_scaled="Delete"),
)


async def make(here: Environment) -> None:
    await here.create(
        replicas=2,
        ports=(Port(container_port=80, service_name="web", service_port=80, service_type="Headless"),),
        volume_mounts=(VolumeMount(volume="data", mount_path="/data"),),
        spec=ContainerSpec(workload=_SETTINGS),
    )


async def updated(here: Environment) -> None:
    await here.update(image="nginx:1.28")


async def scaled_down(here: Environment) -> None:
    await here.update(replicas=1)


async def stopped(here: Environment) -> None:
    await here.move(stop_container)


async def held(here: Environment) -> None:
    await here.change(lambda tx: pause_container(tx, "shop", "web", "hold_rollout"))


async def held_and_changed(here: Environment) -> None:
    await held(here)
    await updated(here)


async def held_and_scaled(here: Environment) -> None:
    await here.update(replicas=3)


async def replaced(here: Environment) -> None:
    parallel = msgspec.structs.replace(_SETTINGS, pod_management="Parallel")

    def merge(stored: Container) -> Container:
        spec = msgspec.structs.replace(stored.spec, workload=parallel)
        return msgspec.structs.replace(stored, spec=spec)

    await here.change(
        lambda tx: change_container(
            tx,
            "shop",
            "web",
            replacing(merge, replace=True),
            lambda _: None,
            keys=UNGUARDED,
            may=lambda permission: permission == "config.use",
        )
    )


async def deleted(here: Environment) -> None:
    await here.delete()


# For each operation: the least number of its writes, and its steps, of which the last is the operation.
OPERATIONS: Final[dict[str, tuple[int, tuple[Callable[[Environment], Awaitable[None]], ...]]]] = {
    "scale down": (2, (make, scaled_down)),
    "stop": (3, (make, stopped)),
    "scale while held": (3, (make, held_and_changed, held_and_scaled)),
    "replace": (3, (make, replaced)),
}


def named(here: Environment, resource: Any) -> dict[str, str]:
    """Returns the uids of the objects of a kind, by name."""
    found = here.cluster.store.list(resource, "shop")
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}


def partition_of(stateful_set: dict[str, Any]) -> int:
    """Returns the partition of the rolling update."""
    return int(stateful_set["spec"]["updateStrategy"]["rollingUpdate"]["partition"])


async def _history(here: Environment) -> set[str]:
    """Returns the reasons in the container's history that are about whole objects."""
    rows = await here.rows(
        "SELECT h.reason FROM container_status_history AS h JOIN containers AS c ON c.id = h.container_id "
        "WHERE h.reason IN ('Recreated', 'Replaced', 'StuckPodDeleted')"
    )
    return {row["reason"] for row in rows}


async def _finished(here: Environment, client: ClusterClient) -> None:
    """Waits until a server and the controllers of the cluster have nothing left to do."""

    async def look() -> bool:
        live = here.cluster.store.get(STATEFUL_SETS, "shop", "web")
        if live is None:
            return False
        status, wanted = live.get("status", {}), live["spec"]["replicas"]
        return bool(
            status.get("observedGeneration") == live["metadata"]["generation"]
            and len(named(here, PODS)) == status.get("readyReplicas", 0) == wanted
            and (partition_of(live) or status.get("updatedReplicas", 0) == wanted)
        )

    async with next_server(here, client):
        await settled(here)
        await poll_until(look)


async def _outcome(here: Environment, client: ClusterClient, before: dict[str, str]) -> dict[str, Any]:
    """Finishes the work, returns the objects and the pods that were kept, and deletes everything."""
    await _finished(here, client)
    pods = here.cluster.store.list(PODS, "shop")
    found = {
        "objects": await on_cluster(client),
        "images": {each["metadata"]["name"]: each["spec"]["containers"][0]["image"] for each in pods},
        "kept": {name for name, uid in named(here, PODS).items() if before.get(name) == uid},
        "claims": set(named(here, PERSISTENT_VOLUME_CLAIMS)),
        "history": await _history(here),
    }
    await here.delete()
    async with next_server(here, client):
        await poll_until(here.seen, lambda row: row is None)

    async def pods_left() -> dict[str, str]:
        return named(here, PODS)

    await poll_until(pods_left, lambda left: not left)
    for name in named(here, PERSISTENT_VOLUME_CLAIMS):
        here.cluster.store.delete(PERSISTENT_VOLUME_CLAIMS, "shop", name)
    return found


@pytest.mark.full
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_every_write(here: Environment, operation: str) -> None:
    """The next server finishes: objects, claims, history and kept pods are the same as without a kill."""
    client = await here.connect("local")
    await here.namespace()
    async with next_server(here, client):
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
    least, (*first, last) = OPERATIONS[operation]

    async def prepared() -> dict[str, str]:
        for each in first:
            await each(here)
            await _finished(here, client)
        before = named(here, PODS)
        await last(here)
        return before

    undisturbed = await _outcome(here, client, await prepared())
    if operation == "replace":
        assert undisturbed["kept"] == {"web-0", "web-1"}
        assert undisturbed["history"] == {"Replaced"}
    if operation == "scale while held":
        assert set(undisturbed["images"].values()) == {"nginx:1.27"}
    step = 0
    while True:
        before = await prepared()
        died = await die_at(here, step)
        assert await _outcome(here, client, before) == undisturbed, f"killed at write {step}"
        if not died:
            break
        step += 1
    # The check is not empty: there were writes to be killed at.
    assert step >= least
