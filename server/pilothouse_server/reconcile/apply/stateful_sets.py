"""Steps that only StatefulSets need.

replace        Some settings require a new object. The former object is deleted without its pods and claims
               (`Orphan`), and the next apply creates another one, which takes them in by its selector. The retention
               of claims is set to `Retain` before.
before_scale   A stop scales to 0, which with `whenScaled: Delete` would delete the claims: `Retain` is set first. A
               held rollout is held for additional pods before they are created.
explained      A refusal by the cluster names the fields that may change. Ours names the field that may not.
release_stuck  Kubernetes continues a rollout once each pod is ready. A pod that a broken template has stopped is
               never replaced, even when the template is good again (kubernetes#67250): it is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pilothouse_manifests.workloads import DELETE, PARALLEL, RETAIN
from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import StatefulSetSettings
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.errors import Invalid
from pilothouse_server.kubernetes.events import Warned
from pilothouse_server.kubernetes.objects import (
    PODS,
    SERVICES,
    Manifest,
    Pod,
    WorkloadObject,
)
from pilothouse_server.kubernetes.pod_observation import observe_pod
from pilothouse_server.kubernetes.set_objects import STATEFUL_SETS, StatefulSet
from pilothouse_server.reconcile.apply.drift import FIXED_PATHS, REMEDY, Drift
from pilothouse_server.reconcile.queue.leased_client import LeasedClient

STUCK_POD_DELETED: Final = "StuckPodDeleted"
REPLACED: Final = "Replaced"
REPLACE_NEEDED: Final = "ReplaceNeeded"
_LOOKS, _LOOK_SECONDS = 30, 0.1


async def missing_service(client: LeasedClient, container: Container) -> str:
    """Returns the name of the Service that names the pods, if it is missing, else ''."""
    if not isinstance(container.spec.workload, StatefulSetSettings):
        return ""
    name = str(manifests.workload(container)["spec"]["serviceName"])
    owned = {each["metadata"]["name"] for each in manifests.services(container)}
    if not name or name in owned or await client.find(SERVICES, container.kubernetes_namespace, name):
        return ""
    return name


async def replace(
    client: LeasedClient, container: Container, present: WorkloadObject | None, drift: Drift
) -> tuple[WorkloadObject | None, tuple[Warned, ...]]:
    """Deletes a StatefulSet whose immutable settings the caller replaces.

    Returns the object that exists afterwards, which may still be deleting, and lines of the history. Another server may
    have deleted the former object before it was killed.
    """
    name, home = container.kubernetes_name, container.namespace_ref
    if container.observed_generation >= container.spec.replaced_generation or (
        workload_type(container).resource is not STATEFUL_SETS
    ):
        return present, ()
    line = f"StatefulSet {name} was deleted without its pods and claims, and created again"
    drift.note_deleted(STATEFUL_SETS.kind, name)
    if not isinstance(present, StatefulSet) or await _is_made_again(client, container):
        return present, (Warned(REPLACED, line),)
    retention = present.spec.persistent_volume_claim_retention_policy
    if DELETE in (retention.when_deleted, retention.when_scaled):
        kept = {"whenDeleted": RETAIN, "whenScaled": RETAIN}
        await client.merge_patch(
            STATEFUL_SETS, home, name, {"spec": {"persistentVolumeClaimRetentionPolicy": kept}}
        )
        await _followed(client, container)
    await client.delete(STATEFUL_SETS, home, name, uid=present.metadata.uid, propagation="Orphan")
    found: WorkloadObject | None = present
    for _ in range(_LOOKS):
        found = await client.find(STATEFUL_SETS, container.kubernetes_namespace, name)
        if found is None:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return found, (Warned(REPLACED, line),)


async def _is_made_again(client: LeasedClient, container: Container) -> bool:
    """Returns whether a killed server already created the object of this replacement."""
    live = await client.read(STATEFUL_SETS, container.kubernetes_namespace, container.kubernetes_name)
    annotations = live["metadata"].get("annotations") or {}
    return bool(annotations.get(manifests.REPLACED_AT) == str(container.spec.replaced_generation))


async def explained(client: LeasedClient, manifest: Manifest, refusal: Invalid) -> Invalid:
    """Returns a refusal that names the differing immutable field; else `refusal`."""
    kind, metadata = manifest["kind"], manifest["metadata"]
    live = await client.read(STATEFUL_SETS, metadata["namespace"], metadata["name"])
    paths = [path for path in field_paths.differing(manifest, manifest, live) if path.startswith(FIXED_PATHS)]
    if not paths:
        return refusal
    path = paths[0]
    there, ours = field_paths.value_at(live, path), field_paths.value_at(manifest, path)
    value = f' is "{there}" in place of "{ours}"' if isinstance(ours, str) else " differs"
    message = f"{kind} {metadata['name']} {path}{value}: it is immutable: {REMEDY}"
    return Invalid(message, code=refusal.code, status_reason=REPLACE_NEEDED)


async def before_scale(
    client: LeasedClient, container: Container, present: WorkloadObject, replicas: int, drift: Drift
) -> None:
    """Applies the settings that must be in place before the number of pods changes.

    A stop must keep the claims. While the rollout is held, additional pods must get the former template.
    """
    if not isinstance(present, StatefulSet):
        return
    retention = present.spec.persistent_volume_claim_retention_policy
    stops = replicas == 0 and container.replicas > 0 and retention.when_scaled == DELETE
    if not stops and not (container.hold_rollout and replicas > present.partition):
        return
    # Without the annotation `replicas-set`: if this server is killed here, the number is still set later.
    manifest = await own_replicas(client, container, manifests.workload(container))
    kept = list(drift.kept)
    await drift.apply(client, STATEFUL_SETS, manifest, present=True)
    # The next apply finds these differences again.
    drift.kept = kept


async def own_replicas(client: LeasedClient, container: Container, manifest: Manifest) -> Manifest:
    """Returns the manifest with the number of pods, while our apply owns that field.

    Without the field the number would become 1. A write through the scale subresource takes the field from our apply.
    """
    live = await client.read(STATEFUL_SETS, container.kubernetes_namespace, container.kubernetes_name)
    return manifests.with_own_replicas(manifest, live)


async def release_stuck(
    client: LeasedClient, container: Container, present: WorkloadObject
) -> tuple[Warned, ...]:
    """Deletes pods that are not ready and have neither the present template nor the last one rolled out.

    Only pods that the rollout replaces are deleted: none while the rollout is held.
    """
    if not isinstance(present, StatefulSet) or present.spec.pod_management_policy == PARALLEL:
        return ()
    if (
        not present.to_update
        or present.status.ready_replicas == present.status.updated_replicas == present.replicas
    ):
        return ()
    found = await _followed(client, container)
    if found is None or not found.status.update_revision:
        return ()
    known = {found.status.update_revision, found.status.current_revision}
    lines = []
    for pod in await _pods(client, container, found):
        seen = observe_pod(pod, container.spec.pod_container_name)
        is_known = seen.revision in known or not seen.revision
        if seen.ready or seen.deleting or is_known or found.keeps_former(seen.name):
            continue
        await client.delete(PODS, container.namespace_ref, seen.name, uid=seen.uid, propagation="Background")
        why = f" ({seen.reason})" if seen.reason else ""
        lines.append(
            Warned(
                STUCK_POD_DELETED,
                f"Pod {seen.name} was deleted: it was not ready{why} with a former template, and the rollout waited "
                "for it",
            )
        )
    return tuple(lines)


async def _pods(client: LeasedClient, container: Container, owner: StatefulSet) -> Sequence[Pod]:
    selector = ",".join(f"{key}={value}" for key, value in owner.selected.items())
    pods = await client.list(PODS, container.kubernetes_namespace, selector)
    uid = owner.metadata.uid
    return [pod for pod in pods if any(each.uid == uid for each in pod.metadata.owner_references)]


async def _followed(client: LeasedClient, container: Container) -> StatefulSet | None:
    """Returns the StatefulSet once its controller has observed it, or its state after three seconds."""
    found = None
    for _ in range(_LOOKS):
        found = await client.find(STATEFUL_SETS, container.kubernetes_namespace, container.kubernetes_name)
        if found is None or found.followed:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return found
