"""Checks that a cluster and a database agree: each Pilothouse object against its desired and its reported state.

        await agree(store, cluster.kubeconfig())                       # polls, and reports differences
        found = await disagreements(store, cluster.kubeconfig())       # compares once

The desired state is read from the database with the product's own rows and manifests (other tests compare those with
recordings). The actual state is read in full from the cluster's API. The comparison itself shares no code with the
product's. A field that another manager changed may differ if the container's `Drifted` condition names it. The
database's statements about containers and volumes must also be true: that they are applied, how many pods are ready,
and whether a claim is bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.config.model import Kind, Secret
from pilothouse_server.config.objects import manifest as config_manifest
from pilothouse_server.config.operations import secrets
from pilothouse_server.config.repository import find_sealed
from pilothouse_server.config.repository import get as find_config
from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.repository import get_many as find_containers
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.namespaces.manifests import namespace_manifest
from pilothouse_server.namespaces.repository import get_many as find_namespaces
from pilothouse_server.storage import claims
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.repository import get_many as find_volumes
from pilothouse_server.store.unit_of_work import ReadTransaction, Store
from tests.waiting import poll_until

JsonObject = dict[str, Any]
Kubeconfig = Mapping[str, Any]
# Kind, namespace and name.
Place = tuple[str, str, str]

_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Deployment": "/apis/apps/v1/deployments",
    "StatefulSet": "/apis/apps/v1/statefulsets",
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "Job": "/apis/batch/v1/jobs",
    "CronJob": "/apis/batch/v1/cronjobs",
    "Service": "/api/v1/services",
    "ServiceAccount": "/api/v1/serviceaccounts",
    "ConfigMap": "/api/v1/configmaps",
    "Secret": "/api/v1/secrets",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
}
_IS_CLAIM = "AND t.type = 'persistent_volume_claim'"
# One of these labels names the owner of an object.
_OWNERS = ("pilothouse.dev/container-uid", "pilothouse.dev/config-uid", "pilothouse.dev/volume-uid")
_OURS = "pilothouse"
# The keys that identify the items of a list, for the lists whose items have keys.
_ITEM_KEYS = (("containerPort", "protocol"), ("port", "protocol"), ("mountPath",), ("name",))


class Wanted(msgspec.Struct):
    """The desired form of an object; `told` is the database's report of the fields that differ."""

    manifest: JsonObject
    uid: str = ""
    told: str = ""


async def agree(
    store: Store, kubeconfig: Kubeconfig, *, envelopes: Envelopes | None = None, seconds: float = 10.0
) -> None:
    """Returns once both agree. Raises AssertionError with the first differences if that takes too long."""
    await poll_until(
        lambda: disagreements(store, kubeconfig, envelopes=envelopes),
        lambda found: not found,
        seconds=seconds,
        what="an agreement of cluster and database",
    )


async def disagreements(
    store: Store, kubeconfig: Kubeconfig, *, envelopes: Envelopes | None = None, cluster_name: str = "local"
) -> list[str]:
    """Returns the present differences between a cluster and the database, one line each, without values.

    The values of secrets are compared if `envelopes` can open them; otherwise only their keys are compared.
    """
    async with store.system_read(snapshot=True) as transaction:
        rows = await _containers(transaction, cluster_name)
        wanted = await _wanted(transaction, cluster_name, rows, envelopes)
        ids = await _ids(transaction, "volumes", cluster_name, _IS_CLAIM)
        kept = await find_volumes(transaction, ids)
    wanted |= {_place(claims.claim(each)): Wanted(claims.claim(each), each.uid) for each in kept}
    there, pods = await _on_cluster(kubeconfig)
    found = [f"{'/'.join(place)} is missing" for place in wanted.keys() - there.keys()]
    ended = {each.uid for each in rows if _ended(each)}
    for place, each in wanted.items():
        if place in there:
            found += (f"{'/'.join(place)} {what}" for what in _differences(each, there[place]))
    uids = {each.uid for each in wanted.values()}
    for place, live in there.items():
        labels = live["metadata"].get("labels") or {}
        owner = next((labels[label] for label in _OWNERS if label in labels), None)
        if owner in uids - ended and place not in wanted:
            found.append(f"{'/'.join(place)} is there and not wanted")
    return sorted([*found, *_untrue(rows, pods), *_untrue_volumes(kept, there)])


async def _containers(transaction: ReadTransaction, cluster_name: str) -> list[Container]:
    return await find_containers(transaction, await _ids(transaction, "containers", cluster_name))


async def _ids(transaction: ReadTransaction, table: str, cluster_name: str, more: str = "") -> list[int]:
    """Returns the ids of rows that are not being deleted."""
    query = (
        f"SELECT t.id FROM {table} AS t JOIN namespaces AS n ON n.id = t.namespace_id "
        "WHERE n.cluster_name = :cluster_name AND n.deletion_requested_at IS NULL AND n.deleted_at IS NULL "
        f"AND t.deletion_requested_at IS NULL {more} ORDER BY t.id"
    )
    rows = await transaction.connection.execute(text(query), {"cluster_name": cluster_name})
    return [row.id for row in rows]


async def _wanted(
    transaction: ReadTransaction, cluster_name: str, rows: list[Container], envelopes: Envelopes | None
) -> dict[Place, Wanted]:
    found: list[Wanted] = []
    query = text(
        "SELECT id FROM namespaces WHERE cluster_name = :cluster_name AND deleted_at IS NULL "
        "AND deletion_requested_at IS NULL"
    )
    ids = [row.id for row in await transaction.connection.execute(query, {"cluster_name": cluster_name})]
    found += [Wanted(namespace_manifest(each)) for each in await find_namespaces(transaction, ids)]
    for container in rows:
        told = "; ".join(c.message for c in container.observed.conditions if c.type == "Drifted")
        if _ended(container):
            # The Job of an ended run stays as it is, or its TTL deletes it.
            continue
        workload = manifests.workload(container, replicas_set=container.wanted_replicas)
        if container.workload_kind in ("deployment", "stateful_set"):
            workload["spec"]["replicas"] = container.wanted_replicas
        if container.workload_kind == "deployment":
            workload["spec"].setdefault("paused", False)
        if container.workload_kind == "job":
            # The cluster sets the selector, with labels that it adds to the pods.
            workload["spec"].pop("selector", None)
        found.append(Wanted(workload, container.uid, told))
        found += [Wanted(each, container.uid, told) for each in manifests.services(container)]
        # A service account that Pilothouse does not own is used as it is.
        if container.spec.service_account:
            metadata = {"name": container.spec.service_account, "namespace": container.kubernetes_namespace}
            found.append(Wanted({"kind": "ServiceAccount", "metadata": metadata}))
    kinds: tuple[Kind, ...] = ("config_map", "secret")
    for kind in kinds:
        found += await _configs(transaction, cluster_name, kind, envelopes)
    return {_place(each.manifest): each for each in found}


def _ended(container: Container) -> bool:
    """Returns whether the newest run of a Job has ended."""
    ends = {("Complete", "True"), ("Failed", "True")}
    return container.workload_kind == "job" and any(
        (each.type, each.status) in ends for each in container.observed.conditions
    )


async def _configs(
    transaction: ReadTransaction, cluster_name: str, kind: Kind, envelopes: Envelopes | None
) -> list[Wanted]:
    found = []
    for config_id in await _ids(transaction, f"{kind}s", cluster_name):
        config = await find_config(transaction, kind, config_id)
        if config is None:
            continue
        values: dict[str, bytes] = {}
        if isinstance(config, Secret) and envelopes is not None:
            sealed = await find_sealed(transaction, config.id)
            assert sealed is not None
            values = secrets.opened(config, sealed, envelopes)
        manifest = config_manifest(config, values)
        if isinstance(config, Secret) and envelopes is None:
            manifest.pop("data", None)
        found.append(Wanted(manifest, config.uid))
    return found


async def _on_cluster(kubeconfig: Kubeconfig) -> tuple[dict[Place, JsonObject], list[JsonObject]]:
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def items(path: str) -> list[JsonObject]:
            async with session.get(server + path) as answer:
                assert answer.status == 200, f"{path}: {answer.status}"
                return list(orjson.loads(await answer.read())["items"] or ())

        there: dict[Place, JsonObject] = {}
        for kind, path in _PATHS.items():
            there |= {_place({**each, "kind": kind}): each for each in await items(path)}
        return there, await items("/api/v1/pods")


def _place(manifest: JsonObject) -> Place:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _differences(wanted: Wanted, live: JsonObject) -> Iterator[str]:
    """Yields unreported differences from the desired state, and fields that Pilothouse owns but does not desire."""
    if wanted.manifest["kind"] == "ServiceAccount":
        # Only its existence is checked: another manager may own it.
        return
    said = {name: value for name, value in wanted.manifest.items() if name not in ("apiVersion", "kind")}
    for path in _unlike(said, live, ""):
        if path not in wanted.told and not (path == ".spec.replicas" and f"{path} (" in wanted.told):
            yield f"{path} is not as wanted"
    for entry in live["metadata"].get("managedFields") or ():
        if entry["manager"] == _OURS and entry["operation"] == "Apply" and not entry.get("subresource"):
            for path in _left_over(entry["fieldsV1"], said, ""):
                yield f"{path} is ours and not wanted"
    if wanted.manifest["kind"] in ("ConfigMap", "Secret"):
        for part in ("data", "binaryData"):
            if part in said and (live.get(part) or {}).keys() - said[part].keys():
                yield f".{part} has keys of others"


def _unlike(said: Any, live: Any, path: str) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(live, dict):
        for key, value in said.items():
            if key in live:
                yield from _unlike(value, live[key], f"{path}.{key}")
            elif value not in ("", None, False):
                yield f"{path}.{key}"
    elif isinstance(said, list) and isinstance(live, list):
        yield from _unlike_items(said, live, path)
    elif said != live:
        yield path


def _unlike_items(said: list[Any], live: list[Any], path: str) -> Iterator[str]:
    if keys := _keys(said):
        by_key = {_identity(item, keys): item for item in live}
        for item in said:
            identity = _identity(item, keys)
            words = ",".join(f"{key}={orjson.dumps(item[key]).decode()}" for key in keys if key in item)
            at = f"{path}[{words}]"
            if identity in by_key:
                yield from _unlike(item, by_key[identity], at)
            else:
                yield at
    elif len(said) == len(live) and _are_objects(said):
        for number, pair in enumerate(zip(said, live, strict=True)):
            yield from _unlike(*pair, f"{path}[{number}]")
    elif said != live:
        yield path


def _are_objects(items: list[Any]) -> bool:
    """Returns whether the items are whole objects, such as claim templates: the cluster adds defaults to each."""
    return bool(items) and all(isinstance(item, dict) and "metadata" in item for item in items)


def _left_over(owned: JsonObject, said: Any, path: str) -> Iterator[str]:
    for step, below in owned.items():
        kind, _, name = step.partition(":")
        if step == "." or kind == "v":
            continue
        if kind == "f":
            value = said.get(name) if isinstance(said, dict) else None
            at = f"{path}.{name}"
        else:
            keys = orjson.loads(name)
            value = next((item for item in said or () if _has(item, keys)), None)
            at = f"{path}[{name}]"
        if value is None:
            yield at
        else:
            yield from _left_over(below, value, at)


def _has(item: JsonObject, keys: JsonObject) -> bool:
    return all(item.get(key, "TCP" if key == "protocol" else None) == value for key, value in keys.items())


def _keys(items: list[Any]) -> tuple[str, ...]:
    if not items or not all(isinstance(item, dict) for item in items):
        return ()
    return next((keys for keys in _ITEM_KEYS if all(keys[0] in item for item in items)), ())


def _identity(item: JsonObject, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _untrue_volumes(kept: Iterable[Volume], there: Mapping[Place, JsonObject]) -> Iterator[str]:
    """Yields the database's false statements about volumes."""
    for volume in kept:
        live = there.get(_place(claims.claim(volume)))
        is_bound = live is not None and live.get("status", {}).get("phase") == "Bound"
        if (volume.observed.status == "bound") != is_bound:
            yield f"volume {volume.namespace}/{volume.name} is {volume.observed.status}"


def _untrue(rows: Iterable[Container], pods: Iterable[JsonObject]) -> Iterator[str]:
    """Yields the database's false statements about containers."""
    ready: dict[str, int] = {}
    for pod in pods:
        uid = (pod["metadata"].get("labels") or {}).get(_OWNERS[0], "")
        conditions = pod.get("status", {}).get("conditions") or ()
        is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        if is_ready and "deletionTimestamp" not in pod["metadata"]:
            ready[uid] = ready.get(uid, 0) + 1
    for row in rows:
        where = f"container {row.namespace}/{row.name}"
        applied = next((each for each in row.observed.conditions if each.type == "Applied"), None)
        if row.reconciling:
            yield f"{where} is reconciling"
        if applied is None or applied.status != "True":
            yield f"{where} is not applied: {applied}"
        if row.observed.stale_since is not None:
            yield f"{where} is stale"
        # Pods of imported Deployments do not have our label.
        if not row.imported and row.observed.ready_replicas != ready.get(row.uid, 0):
            yield f"{where} has another number of ready pods"
        if row.imported or row.wanted_replicas == 0 or row.workload_kind in ("job", "cron_job"):
            continue
        is_up = row.observed.ready_replicas >= row.wanted_replicas
        if (row.observed.status == "running") != is_up:
            yield f"{where} is {row.observed.status}"
