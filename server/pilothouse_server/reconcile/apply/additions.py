"""Additions by others to one of our workloads or Services.

The template of a Deployment and the spec of a Service are ours as a whole: a field in them that is neither in the
manifest nor from our earlier apply is drift, such as a second program, a variable, a limit, an external address.
Server-side apply alone does not show it, because a field that only one manager sets causes no conflict.

    candidates  (pure) the fields that are there, are not ours, and are not defaults of the table. Most objects have
                none, so most checks cost no request
    find        makes a dry run with our manifest in place of the whole object, and drops the fields that its result
                has too: defaults, and additions by webhooks of the cluster

The values decide, not `managedFields`, because a record in it can be cleared; the record only names the manager. The
annotation of `kubectl rollout restart`, a name of the template, and additions that the settings permit
(`PermittedAdditions`) are not drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from pilothouse_manifests.paths import defaults
from pilothouse_manifests.table import usual_pull_policy
from pilothouse_server.containers import manifests
from pilothouse_server.containers.workloads import WORKLOAD_KINDS
from pilothouse_server.kubernetes import field_paths, managed_fields
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.errors import Refused
from pilothouse_server.kubernetes.objects import Manifest, Resource
from pilothouse_server.reconcile.apply import managed_fields_diff
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.permitted_additions import PermittedAdditions

RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"
# Fields of a template that have no effect, but whose removal would replace the pods.
_WITHOUT_EFFECT: Final = frozenset({
    f".spec.template.metadata.annotations.{RESTARTED_AT}",
    ".spec.template.metadata.name",
    ".spec.template.metadata.generateName",
})  # fmt: skip
_WHOLE: Final[Mapping[str, tuple[str, ...]]] = {
    **{kind: type_.template for kind, type_ in WORKLOAD_KINDS.items()},
    "Service": ("spec",),
}
_VERSIONS: Final = frozenset({"v1", "apps/v1", "batch/v1"})
# The API sets `enableServiceLinks` by default in pods, but not in templates: applies and imports carry it if it is set.
_DEFAULTS: Final[dict[str, list[object]]] = {**defaults(), "enableServiceLinks": [True]}
# Fields that an API server allocates, and keeps regardless of an update.
_ALLOTTED: Final = frozenset({"clusterIP", "clusterIPs", "ipFamilies", "healthCheckNodePort", "nodePort"})
# Fields in which false is not the same as absence: true is the default, or is set at another level.
_TRUE: Final = frozenset({
    "allocateLoadBalancerNodePorts", "automountServiceAccountToken", "enableServiceLinks", "hostUsers", "runAsNonRoot",
})  # fmt: skip
# The cluster writes these into the template of each Job (recording 20).
_LABELS_OF_A_JOB: Final = frozenset({
    "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name",
})  # fmt: skip
_SERVICE_ACCOUNT: Final = ".template.spec.serviceAccount"


def concern(manifest: Manifest) -> bool:
    """Returns whether additions to the object are drift.

    A custom resource may share the kind, but not the version.
    """
    return manifest["kind"] in _WHOLE and manifest["apiVersion"] in _VERSIONS


def candidates(manifest: Manifest, live: Manifest, permitted: PermittedAdditions) -> list[str]:
    """Returns the paths of fields that others may have added to an object."""
    steps = _WHOLE[manifest["kind"]] if concern(manifest) else ()
    there, said = _at(live, steps), _at(manifest, steps)
    prefix = "".join(f".{step}" for step in steps)
    paths = (prefix + path for path in field_paths.differing(there, there, said))
    return [path for path in paths if steps and _is_candidate(path, manifest, live, permitted)]


async def find(
    client: LeasedClient,
    resource: Resource[Any],
    manifest: Manifest,
    live: Manifest,
    permitted: PermittedAdditions,
) -> list[tuple[str, str]]:
    """Returns the fields that others have added, each with its manager.

    The manager is empty if the cluster records none. Raises ClusterError.
    """
    found = candidates(manifest, live, permitted)
    if not found:
        return []
    steps, metadata = _WHOLE[manifest["kind"]], manifest["metadata"]
    managers = {path: managed_fields.holder(live, path, apart_from=FIELD_MANAGER) for path in found}
    try:
        ours = await client.dry_run_replaced(
            resource, metadata.get("namespace"), metadata["name"], steps, _at(manifest, steps)
        )
    except Refused:
        # The cluster refuses our manifest, so its result is unknown; fields with a manager were set by that manager.
        return [(path, manager) for path, manager in managers.items() if manager]
    return [
        (path, managers[path])
        for path in found
        if field_paths.value_at(live, path) != field_paths.value_at(ours, path)
    ]


def with_restart_of(live: Manifest, manifest: Manifest) -> Manifest:
    """Returns the manifest with the time of the last `kubectl rollout restart`, if ours has an older one.

    The annotation is ours if an import or a caller set it. Setting the older time again would restart the pods again.
    """
    said = _annotations(manifest)
    restarted = _annotations(live).get(RESTARTED_AT)
    if RESTARTED_AT not in said or restarted in (None, said[RESTARTED_AT]):
        return manifest
    changed = deepcopy(manifest)
    _annotations(changed)[RESTARTED_AT] = restarted
    return changed


def left_by_rolling_updates(manifest: Manifest, live: Manifest) -> list[str]:
    """Returns the settings of rolling updates that a Deployment has and that `Recreate` does not permit.

    The API server set most of them by default, so no manager owns them: an apply keeps them and is refused.
    """
    if not manifests.recreates(manifest):
        return []
    found = (live["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    return [f".spec.strategy.rollingUpdate.{key}" for key in found]


def _is_candidate(path: str, manifest: Manifest, live: Manifest, permitted: PermittedAdditions) -> bool:
    if path in _WITHOUT_EFFECT:
        return False
    if field_paths.find(manifest, path) is not None or _is_default(path, manifest, live):
        return False
    if managed_fields_diff.is_ours(path, live, live):
        # The field is from our earlier apply and no longer desired.
        return False
    return not permitted.permit(managed_fields.holder(live, path, apart_from=FIELD_MANAGER), path)


def _is_default(path: str, manifest: Manifest, live: Manifest) -> bool:
    value = field_paths.value_at(live, path)
    if value is None:
        return True
    if ".spec.template.metadata." in path:
        return manifest["kind"] == "Job" and path.rpartition(".labels.")[2] in _LABELS_OF_A_JOB
    if path.endswith("]"):
        return False
    key = path.rpartition(".")[2]
    if value is False or value in ("", [], {}):
        return key not in _TRUE
    if manifest["kind"] == "Service" and key in _ALLOTTED:
        return True
    if path.endswith(_SERVICE_ACCOUNT):
        # The older name of the same field, which the API also writes.
        return bool(value == field_paths.value_at(live, f"{path}Name"))
    if key == "imagePullPolicy":
        program = field_paths.value_at(live, path.removesuffix(f".{key}"))
        return bool(value == usual_pull_policy(program))
    return any(type(value) is type(each) and value == each for each in _DEFAULTS.get(key, ()))


def _at(document: Manifest, steps: tuple[str, ...]) -> Any:
    found: Any = document
    for step in steps:
        found = found[step]
    return found


def _annotations(document: Manifest) -> dict[str, Any]:
    template = document.get("spec", {}).get("template") or {}
    found: dict[str, Any] = (template.get("metadata") or {}).get("annotations") or {}
    return found
