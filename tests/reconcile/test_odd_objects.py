"""Unexpected content of a cluster: one such object does not keep the others from being observed.

Each observed field is given each odd value. Then the object is left out, or its state is written. It never fails the
observer, which serves all tenants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from pilothouse_server.containers.messages import CONTAINER
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.observation import observe
from pilothouse_server.kubernetes import events
from pilothouse_server.kubernetes.client import ClusterClient, object_key
from pilothouse_server.kubernetes.errors import Unreachable
from pilothouse_server.kubernetes.fingerprints import read
from pilothouse_server.kubernetes.objects import (
    DEPLOYMENTS,
    EVENTS,
    PODS,
    REPLICA_SETS,
    Deployment,
    ObjectMeta,
    Resource,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.kubernetes.watch_stream import cut_line, decode_event, split_lines
from pilothouse_server.outbound import destinations
from pilothouse_server.reconcile.observe.cluster_view import ClusterView
from pilothouse_server.reconcile.observe.images import running_images
from pilothouse_server.reconcile.observe.imported_pods import ImportedPods
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.repository import container_status
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.storage import claims
from pilothouse_server.storage.model import CLAIM, Volume
from tests.clusters import hostile
from tests.clusters.hostile import hostile_server
from tests.harness import NOWHERE
from tests.kubernetes.containers import SHOP
from tests.kubernetes.containers import container as smallest
from tests.reconcile.environment import Environment
from tests.reconcile.tampering import left_out, tampering
from tests.waiting import poll_until

Json = dict[str, Any]
Path = tuple[str | int, ...]
NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
TIME = "2026-11-24T14:29:00Z"
# As JSON. An API server would write only few of them.
ODD = {
    "2^31": b"2147483648",
    "2^63": b"9223372036854775808",
    "2^70": b"1180591620717411303424",
    "minus one": b"-1",
    "minus 2^70": b"-1180591620717411303424",
    "fraction": b"1.5",
    "without end": b"1e400",
    "no number": b"NaN",
    "null": b"null",
    "truth": b"true",
    "text": b'"x"',
    "nothing": b'""',
    "NUL": rb'"a\u0000b"',
    "half of a surrogate pair": rb'"\ud800"',
    "no UTF-8": b'"\xff"',
    "a megabyte": b'"' + b"x" * 1_000_000 + b'"',
    "list": b"[]",
    "list of null": b"[null]",
    "object": b"{}",
    "no zone": b'"2026-11-24T14:29:00"',
    "before the first year": b'"0001-01-01T00:00:00+14:00"',
    "after the last year": b'"9999-12-31T23:59:59-14:00"',
}


def meta(name: str, **more: Any) -> Json:
    owner = {"kind": "ReplicaSet", "name": "web-1", "uid": "r", "controller": True}
    return {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "generation": 1,
        "labels": {"a": "b"},
        "annotations": {"deployment.kubernetes.io/revision": "1"},
        "ownerReferences": [owner],
        "creationTimestamp": TIME,
        **more,
    }


def condition(kind: str, status: str) -> Json:
    return {"type": kind, "status": status, "reason": "Why", "message": "because", "lastTransitionTime": TIME}


def ended(code: int) -> Json:
    words = {"reason": "Error", "message": "it ended"}
    return {"terminated": {"exitCode": code, "signal": 9, "startedAt": TIME, "finishedAt": TIME, **words}}


def container_status_of(name: str, state: Json) -> Json:
    return {
        "name": name,
        "ready": False,
        "started": True,
        "restartCount": 3,
        "image": "nginx:1.27",
        "imageID": "docker.io/library/nginx@sha256:" + "a" * 64,
        "state": state,
        "lastState": ended(1),
    }


POD = {
    "metadata": meta("web-1-x"),
    "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "nginx:1.27"}]},
    "status": {
        "phase": "Running",
        "reason": "",
        "message": "",
        "podIP": "10.0.0.1",
        "hostIP": "10.0.0.2",
        "startTime": TIME,
        "conditions": [condition("Ready", "False"), condition("PodScheduled", "True")],
        "initContainerStatuses": [container_status_of("first", ended(0))],
        "containerStatuses": [
            container_status_of("main", {"running": {"startedAt": TIME}}),
            container_status_of("side", {"waiting": {"reason": "CrashLoopBackOff", "message": "wait"}}),
        ],
    },
}
DEPLOYMENT = {
    "metadata": meta("web"),
    "spec": {
        "replicas": 1,
        "paused": False,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}},
    },
    "status": {
        "observedGeneration": 1,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "conditions": [condition("Progressing", "False"), condition("ReplicaFailure", "True")],
    },
}
REPLICA_SET = {
    "metadata": meta("web-1"),
    "spec": {"replicas": 1},
    "status": {"replicas": 1, "readyReplicas": 1, "conditions": [condition("ReplicaFailure", "True")]},
}
EVENT = {
    "metadata": meta("web.1"),
    "involvedObject": {
        "kind": "Pod",
        "namespace": "shop",
        "name": "web-1-x",
        "uid": "uid-web-1-x",
        "fieldPath": "",
    },
    "type": "Warning",
    "reason": "Unhealthy",
    "message": "Container main failed liveness probe",
    "count": 2,
    "firstTimestamp": TIME,
    "lastTimestamp": TIME,
    "eventTime": TIME,
    "series": {"count": 2, "lastObservedTime": TIME},
}
CLAIM_OBJECT = {
    "metadata": meta("data"),
    "spec": {
        "resources": {"requests": {"storage": "2Gi"}},
        "volumeName": "pv-1",
        "storageClassName": "quick",
    },
    "status": {
        "phase": "Bound",
        "capacity": {"storage": "1Gi"},
        "conditions": [condition("Resizing", "True")],
    },
}
OBSERVED: dict[str, tuple[Resource[Any], Json]] = {
    "deployment": (DEPLOYMENTS, DEPLOYMENT),
    "replica set": (REPLICA_SETS, REPLICA_SET),
    "pod": (PODS, POD),
    "event": (EVENTS, EVENT),
}


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yields the path of each value in an object."""
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in within:
        yield (*at, key)
        yield from paths(each, (*at, key))


def with_odd(value: Json, path: Path, odd: bytes | None) -> bytes:
    """Returns the object as JSON, with another value at a path; None removes the value."""
    copied: Any = json.loads(json.dumps(value))
    *parents, last = path
    at = copied
    for key in parents:
        at = at[key]
    if odd is None:
        del at[last]
        return json.dumps(copied).encode()
    at[last] = "@odd@"
    return json.dumps(copied).encode().replace(b'"@odd@"', odd)


def shown_beside(kind: str, body: bytes) -> dict[str, Any]:
    """Returns the objects of a container, with one of them from `body`, or without it if it cannot be read."""
    found: dict[str, Any] = {}
    for name, (resource, value) in OBSERVED.items():
        try:
            found[name] = read(body if name == kind else json.dumps(value).encode(), resource)
        except Unreachable:
            assert name == kind
    return found


async def written(here: Environment, container: Container, kind: str, body: bytes, done: set[int]) -> None:
    """Writes the observed state, unless it is in `done`, and reads the row, as an observer and a service do."""
    found = shown_beside(kind, body)
    pods = [found["pod"]] if "pod" in found else []
    told = [found["event"]] if "event" in found else []
    replica_sets = [found["replica set"]] if "replica set" in found else []
    observation = observe(container, found.get("deployment"), replica_sets, pods, told, now=NOW)
    warnings = events.warnings(told, ["uid-web-1-x"], beside="", now=NOW)
    events.newest(told, [events.EventSubject("Pod", "web-1-x")])
    running_images(container, pods)
    if (shown := hash(msgspec.json.encode((observation, warnings)))) in done:
        return
    done.add(shown)
    async with here.store.system_write("test") as transaction:
        change = Change(
            container,
            observation.observed,
            container.observed_generation,
            observed_replicas=observation.spec_replicas,
            pods=observation.pods,
            warnings=warnings,
        )
        for each in await container_status.write(transaction, [change], "kubernetes"):
            CONTAINER.to_proto(each).SerializeToString()
    row = await here.seen()
    assert row is not None
    CONTAINER.to_proto(row).SerializeToString()


@pytest.mark.full
@pytest.mark.parametrize("kind", list(OBSERVED))
async def test_no_value_of_an_object_fails_an_observation(here: Environment, kind: str) -> None:
    await here.namespace()
    container = await here.create()
    _, value = OBSERVED[kind]
    places, done = list(paths(value)), set[int]()
    for name, odd in {**ODD, "missing": None}.items():
        for path in places:
            try:
                await written(here, container, kind, with_odd(value, path, odd), done)
            except Exception as error:
                raise AssertionError(
                    f"{kind} with {name} at {path}: {type(error).__name__} {error}"
                ) from error
    assert len(done) > 5


def test_no_value_of_a_claim_fails_an_observation() -> None:
    volume = Volume(name="data", type=CLAIM, namespace_ref=SHOP, kubernetes_name="data", size="2Gi")
    widths = {"capacity": 20, "claim_uid": 64, "persistent_volume": 253, "storage_class": 253, "reason": 100}
    left_out = 0
    for odd in (*ODD.values(), None):
        for path in paths(CLAIM_OBJECT):
            try:
                found = read(with_odd(CLAIM_OBJECT, path, odd), claims.PERSISTENT_VOLUME_CLAIMS)
            except Unreachable:
                left_out += 1
                continue
            observed = claims.observe_claim(volume, found, now=NOW).observed
            for name, width in widths.items():
                text = getattr(observed, name)
                assert len(text) <= width, (path, name)
                assert "\0" not in text
            assert all(len(each.message) <= 4096 for each in observed.conditions)
    assert left_out


def test_ordinary_objects_are_read_with_their_values() -> None:
    """The control: without an odd value, all objects are read."""
    found = shown_beside("", b"")
    assert found.keys() == OBSERVED.keys()
    container = smallest()
    seen = observe(
        container, found["deployment"], [found["replica set"]], [found["pod"]], [found["event"]], now=NOW
    )
    assert seen.observed.restart_count == 9
    assert (seen.pods[0].pod_ip, seen.pods[0].node_name) == ("10.0.0.1", "node-1")
    assert seen.pods[0].started_at is not None


def test_restart_counts_are_summed_up_to_the_column_limit() -> None:
    most = 2**31 - 1
    pods = []
    for name in ("one", "two"):
        value = json.loads(json.dumps(POD))
        value["metadata"] |= {"name": name, "uid": name}
        for each in value["status"]["containerStatuses"]:
            each["restartCount"] = most
        pods.append(read(json.dumps(value).encode(), PODS))
    seen = observe(smallest(), None, [], pods, [], now=NOW)
    assert (seen.observed.restart_count, [pod.restart_count for pod in seen.pods]) == (most, [most, most])


def test_only_a_few_of_very_many_conditions_are_stored_and_they_are_cut() -> None:
    value = json.loads(json.dumps(DEPLOYMENT))
    value["status"]["conditions"] = [condition(f"{number}-" + "x" * 1000, "True") for number in range(4000)]
    seen = observe(smallest(), read(json.dumps(value).encode(), DEPLOYMENTS), [], [], [], now=NOW)
    kept = [each.type for each in seen.observed.conditions if each.type.endswith("x")]
    assert 10 < len(kept) < 30
    assert max(map(len, kept)) == 100


def of_odd_pods(monkeypatch: pytest.MonkeyPatch, field: str, odd: bytes) -> None:
    """Replaces a field in the status of the pods of the container `odd`."""

    def changed(body: bytes) -> bytes:
        try:
            found = json.loads(body)
        except ValueError:
            return body
        for each in (*(found.get("items") or ()), found, found.get("object") or {}):
            if "containerStatuses" in each.get("status", {}) and each["metadata"]["name"].startswith("odd-"):
                each["status"]["containerStatuses"][0][field] = "@odd@"
        return json.dumps(found).encode().replace(b'"@odd@"', odd)

    tampering(monkeypatch, changed)


@pytest.mark.parametrize("odd", ["2^70", "text", "half of a surrogate pair"])
async def test_a_malformed_object_hides_no_other(
    here: Environment, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    of_odd_pods(monkeypatch, "restartCount", ODD[odd])
    before = await left_out("Pod")
    await here.namespace()
    async with here.reconciling():
        await here.create("odd")
        await here.create("web")
        await here.running("web")
        await poll_until(lambda: left_out("Pod"), lambda count: count > before)
        row = await here.until(lambda row: bool(row.observed.deployment_name), "odd")
    # Its Deployment is observed, but not its pods, whose restart count cannot be read.
    assert (row.observed.status, row.observed.restart_count) == ("pending", 0)
    # The same after a new list.
    async with here.reconciling():
        await here.update("web", replicas=2)
        await here.until(lambda row: row.observed.ready_replicas == 2, "web")


async def test_objects_that_users_made_too_dense_hide_no_other(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client gives two Deployments half a million empty arguments each."""
    read = destinations.read
    dense = b"[" + b'"",' * 500_000 + b'""]'

    def changed(body: bytes) -> bytes:
        try:
            found = json.loads(body)
        except ValueError:
            return body
        for each in (*(found.get("items") or ()), found, found.get("object") or {}):
            if each.get("metadata", {}).get("name") in ("odd-1", "odd-2") and "template" in each.get(
                "spec", {}
            ):
                each["spec"]["template"]["spec"]["containers"][0]["args"] = "@dense@"
        return json.dumps(found).encode().replace(b'"@dense@"', dense)

    async def reading(*arguments: Any) -> bytes:
        return changed(await read(*arguments))

    async def split(*arguments: Any) -> Any:
        async for line in split_lines(*arguments):
            yield changed(line)

    monkeypatch.setattr(destinations, "read", reading)
    monkeypatch.setattr("pilothouse_server.kubernetes.client.split_lines", split)
    before = await left_out("Deployment")
    await here.namespace()
    async with here.reconciling():
        for name in ("odd-1", "odd-2", "web"):
            await here.create(name)
        await here.running("web")
        for name in ("odd-1", "odd-2"):
            await here.until(lambda row: "TooManyValues" in _reasons(row), name)
        # It can be deleted.
        await here.delete("odd-1")
        await poll_until(lambda: here.seen("odd-1"), lambda row: row is None)
    assert await left_out("Deployment") > before
    # The same after a new list.
    async with here.reconciling():
        await here.update("web", replicas=2)
        await here.until(lambda row: row.observed.ready_replicas == 2, "web")


def _reasons(row: Container) -> set[str]:
    return {condition.reason for condition in row.observed.conditions}


async def test_a_state_that_cannot_be_written_does_not_delay_the_others(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observed(container: Container, *arguments: Any, **named: Any) -> Any:
        found = observe(container, *arguments, **named)
        if container.name != "odd":
            return found
        return msgspec.structs.replace(
            found, observed=msgspec.structs.replace(found.observed, pod_ip="x" * 100)
        )

    monkeypatch.setattr("pilothouse_server.reconcile.observe.container_observer.observe", observed)
    await here.namespace()
    async with here.reconciling():
        await here.create("odd")
        await here.create("web")
        await here.running("web")
    row = await here.seen("odd")
    assert row is not None
    assert row.observed.pod_ip == ""


@pytest.mark.parametrize(
    ("kind", "becomes"), [("ADDED", "BOOKMARK"), ("MODIFIED", "BOOKMARK"), ("DELETED", "DELETED")]
)
def test_a_watch_reports_an_unreadable_object_only_when_it_is_deleted(kind: str, becomes: str) -> None:
    told: list[tuple[str, tuple[str, str]]] = []
    metadata = {"name": "odd", "namespace": "shop", "resourceVersion": "9"}
    line = cut_line(json.dumps({"type": kind, "object": {"metadata": metadata, "status": 5}}).encode())
    event = decode_event(line, PODS, lambda resource, key: told.append((resource, key)))
    assert (event.type, object_key(event.object), event.resource_version) == (becomes, ("shop", "odd"), "9")
    assert told == [("Pod", ("shop", "odd"))]


async def test_half_a_surrogate_pair_in_a_watch_line_is_replaced() -> None:
    line = rb'{"type": "MODIFIED", "object": {"metadata": {"name": "web", "labels": {"a": "\ud800"}}}}'
    async with hostile_server(hostile.saying(line + b"\n")) as server:
        client = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="odd")
        try:
            async with aclosing(client.watch(PODS, resource_version="1")) as events:
                event = await anext(events)
        finally:
            await client.close()
    assert event.object.metadata.labels == {"a": "\ufffd"}


async def test_two_pods_with_the_same_uid_are_written_as_one(here: Environment) -> None:
    await here.namespace()
    container = await here.create()
    found = shown_beside("", b"")
    pod = found["pod"]
    twin = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, name="twin"))
    seen = observe(container, found["deployment"], [], [pod, twin], [], now=NOW)
    assert len(seen.pods) == 2
    async with here.store.system_write("test") as transaction:
        change = Change(container, seen.observed, 0, observed_replicas=1, pods=seen.pods)
        await container_status.write(transaction, [change], "kubernetes")
    assert len(await here.rows("SELECT pod_name FROM container_pods")) == 1


async def test_an_image_with_an_invalid_digest_hides_no_other(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_odd_pods(monkeypatch, "imageID", b'"docker.io/library/nginx@sha256:' + b"a" * 1000 + b'"')
    await here.namespace()

    async def digests() -> dict[str, str | None]:
        found = await here.rows(
            "SELECT c.name, i.digest FROM containers AS c JOIN container_images AS i ON i.id = c.image_id"
        )
        return {row["name"]: row["digest"] for row in found}

    async with here.reconciling():
        await here.create("odd")
        await here.create("web")
        await here.running("odd")
        found = await poll_until(digests, lambda found: found["web"])
    assert found["odd"] is None


@pytest.mark.parametrize("odd", [b"-5", b"9223372036854775808"])
async def test_an_invalid_image_size_is_not_stored(
    here: Environment, monkeypatch: pytest.MonkeyPatch, odd: bytes
) -> None:
    asked: list[str] = []

    def changed(body: bytes) -> bytes:
        try:
            found = json.loads(body)
        except ValueError:
            return body
        if found.get("kind") != "Node":
            return body
        asked.append(found["metadata"]["name"])
        for image in found["status"]["images"]:
            image["sizeBytes"] = "@odd@"
        return json.dumps(found).encode().replace(b'"@odd@"', odd)

    tampering(monkeypatch, changed)
    await here.namespace()

    async def digests() -> list[Any]:
        rows = await here.rows("SELECT digest, size_bytes FROM container_images WHERE name = 'nginx'")
        return [(row["digest"] is not None, row["size_bytes"]) for row in rows]

    async with here.reconciling():
        await here.create("web")
        await here.running("web")
        found = await poll_until(digests, lambda found: any(has for has, _ in found))
    assert asked
    assert [size for _, size in found if size is not None] == []


@pytest.mark.parametrize("odd", [b"1" + b"0" * 400, b'"much"', rb'"\ud800"'])
async def test_unreadable_pod_usage_hides_no_other(
    here: Environment, monkeypatch: pytest.MonkeyPatch, odd: bytes
) -> None:
    def changed(body: bytes) -> bytes:
        try:
            found = json.loads(body)
        except ValueError:
            return body
        for each in found.get("pods") or ():
            if each["podRef"]["name"].startswith("odd-"):
                each["containers"][0]["cpu"]["usageNanoCores"] = "@odd@"
        return json.dumps(found).encode().replace(b'"@odd@"', odd)

    tampering(monkeypatch, changed)
    before = await left_out("PodStats")

    async def measured(since: int = 0) -> set[int]:
        return {sample.container_id for batch in here.samples.batches[since:] for sample in batch}

    await here.namespace()
    async with here.reconciling():
        strange = await here.create("odd")
        # It has a pod on every node. If a node's report were lost, no container with a pod there would be measured.
        made = await here.create("web", replicas=6)
        await here.running("odd")
        await here.running("web")
        # Any number is accepted, however large.
        if odd.startswith(b'"'):
            await poll_until(lambda: left_out("PodStats"), lambda count: count > before)
        else:
            await poll_until(measured, lambda found: int(strange.id) in found)
            assert await left_out("PodStats") == before
        # `web` is measured with the report that holds the odd value, or with a later one.
        since = len(here.samples.batches)
        await poll_until(lambda: measured(since), lambda found: int(made.id) in found)


async def test_two_deployments_with_the_same_uid_fail_no_observation() -> None:
    view = ClusterView(AppliedGenerations(), lambda: None)
    client = await ClusterClient.from_kubeconfig(NOWHERE, name="nowhere")
    imported = ImportedPods(client, view, lambda _error: None)
    owned, theirs = (
        Deployment(metadata=ObjectMeta(name="web", namespace=namespace, uid="u", labels=labels))
        for namespace, labels in (("shop", {CONTAINER_UID: str(uuid4())}), ("other", None))
    )
    for each in (owned, theirs, owned):
        imported.workload_changed(None, each)
    imported.workload_changed(theirs, None)
    imported.workload_changed(owned, None)
    assert imported._containers == {}
    await client.close()
