"""Carried objects: made, applied, shown, changed, deleted, listed, watched; and their kinds."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from datetime import UTC
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_client.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from pilothouse_client.streams import ChangeKind
from pilothouse_server.kubernetes.ownership import OBJECT_UID
from pilothouse_simulator.values.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    POD_DISRUPTION_BUDGETS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from tests.client.certificates import made
from tests.objects.conftest import ACCOUNT, BUDGET, INGRESS, POLICY, Place, budget, condition_of, ingress
from tests.waiting import poll_until

ACTIVE, PENDING = pb.OBJECT_STATUS_ACTIVE, pb.OBJECT_STATUS_PENDING
HEALTHY, DEGRADED = pb.OBJECT_HEALTH_HEALTHY, pb.OBJECT_HEALTH_DEGRADED
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "stores.data.example.com"},
    "spec": {
        "group": "data.example.com",
        "scope": "Namespaced",
        "names": {"kind": "Store", "plural": "stores", "singular": "store"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
STORE: dict[str, Any] = {"api_version": "data.example.com/v1", "kind": "Store"}


async def test_an_object_is_applied_to_its_cluster_as_written(place: Place) -> None:
    document = {"metadata": {"labels": {"tier": "back"}}, "automountServiceAccountToken": False}
    made = await place.make(ACCOUNT, document)
    assert (made.api_version, made.kind, made.name) == ("v1", "ServiceAccount", "web")
    assert dict(made.labels) == {"tier": "back"}
    carried = await place.settled(ACCOUNT)
    found = place.on_cluster(SERVICE_ACCOUNTS)
    assert found["metadata"]["labels"].items() >= {"tier": "back", OBJECT_UID: made.uid}.items()
    assert found["automountServiceAccountToken"] is False
    assert carried.health == HEALTHY
    assert json.loads(carried.document) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "web", "labels": {"tier": "back"}},
        "automountServiceAccountToken": False,
    }
    basic = await place.get(ACCOUNT, view=pb.OBJECT_VIEW_BASIC)
    assert (basic.document, basic.document_digest) == ("", carried.document_digest)
    changed = await place.change(ACCOUNT, labels={"tier": "front"})
    assert json.loads(changed.document)["metadata"]["labels"] == {"tier": "front"}
    await place.seen(SERVICE_ACCOUNTS, lambda each: each["metadata"]["labels"].get("tier") == "front")
    await place.delete(ACCOUNT)
    await place.gone(ACCOUNT)
    assert place.store.get(SERVICE_ACCOUNTS, place.name, "web") is None


async def test_a_new_object_needs_one_request_and_takes_no_name_of_others(place: Place) -> None:
    theirs = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", **budget()}
    named = {"name": "taken", "namespace": place.name}
    before = place.store.create(POD_DISRUPTION_BUDGETS, {**theirs, "metadata": named})
    asked: list[str] = []
    place.cluster.faults.on_request = lambda method, path: asked.append(
        f"{method} {path.partition(f'/namespaces/{place.name}/')[2].partition('?')[0]}"
    )
    try:
        await place.make(BUDGET, budget(minAvailable=0), "free")
        await place.make(BUDGET, budget(minAvailable=0), "taken")
        await place.settled(BUDGET, "free")
        await place.until(lambda each: each.status == pb.OBJECT_STATUS_FAILED, BUDGET, "taken")
    finally:
        place.cluster.faults.on_request = None
    assert [each for each in asked if each.endswith("/free")] == ["PATCH poddisruptionbudgets/free"]
    failed = condition_of(await place.get(BUDGET, "taken"))
    assert failed is not None
    assert failed.reason == "NameTaken"
    now = place.on_cluster(POD_DISRUPTION_BUDGETS, "taken")
    assert (now["metadata"].get("labels"), now["spec"]) == (None, before["spec"])


async def test_an_ingress_shows_its_address_and_whether_its_backends_are_ready(place: Place) -> None:
    document = ingress(place, ingressClassName="nginx", tls=[{"secretName": "web-tls"}])
    document["spec"]["tls"][0]["hosts"] = [f"web.{place.name}.example.com"]
    await place.make(INGRESS, document)
    carried = await place.until(lambda each: bool(each.addresses), INGRESS)
    assert [(each.service, each.port, each.ready, each.reason) for each in carried.backends] == [
        ("web", "80", False, "ServiceNotFound")
    ]
    assert (carried.health, carried.reason) == (DEGRADED, "ServiceNotFound")
    assert [(each.secret_name, each.present, each.reason) for each in carried.certificates] == [
        ("web-tls", False, "SecretNotFound")
    ]
    names = [f"web.{place.name}.example.com", "127.0.0.1"]
    pair = made(*names)
    data = {"tls.crt": pair.pem, "tls.key": pair.key_pem}
    place.store.create(
        SECRETS,
        {
            "metadata": {"name": "web-tls", "namespace": place.name},
            "type": "kubernetes.io/tls",
            "data": {key: b64encode(value).decode() for key, value in data.items()},
        },
    )
    # The worker reads the Secret after an update, and otherwise within half a minute.
    await place.change(INGRESS, labels={"tier": "front"})
    carried = await place.until(lambda each: each.certificates[0].present, INGRESS)
    (certificate,) = carried.certificates
    assert list(certificate.names) == names
    assert certificate.expire_time.ToDatetime(UTC) == pair.certificate.not_valid_after_utc
    await place.run("web")
    carried = await place.until(lambda each: each.health == HEALTHY, INGRESS)
    assert carried.backends[0].ready
    await place.client.containers.stop(namespace=place.name, name="web")
    await place.until(lambda each: each.reason == "NoReadyEndpoints", INGRESS)


async def test_a_budget_that_blocks_drains_is_warned_about_and_shows_its_pods(place: Place) -> None:
    await place.run("web", replicas=2)
    request = pb.Object(name="web", document=json.dumps(budget(minAvailable=2)), **BUDGET)
    create = pb.CreateObjectRequest(namespace=place.name, object=request)
    response = await place.client.objects.create.send(create)
    assert [(each.reason, each.path) for each in response.warnings] == [
        ("BLOCKING_BUDGET", "object.document.spec.minAvailable")
    ]
    await place.until(lambda each: each.health == HEALTHY, BUDGET)
    await place.change(BUDGET, document=budget(minAvailable=3))
    carried = await place.until(lambda each: each.health == DEGRADED, BUDGET)
    assert (carried.reason, carried.message) == ("InsufficientPods", "2 pods are healthy, 3 must be")
    assert json.loads(carried.observed_status)["currentHealthy"] == 2


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("[]", "object.document"),
        ("{", "object.document"),
        ('{"a": 1, "a": 2}', "object.document"),
        ('{"a": 18446744073709551616}', "object.document"),
        ('{"a": NaN}', "object.document"),
        ('{"a": "\\ud800"}', "object.document"),
        ('{"metadata": {"name": "other"}}', "object.name"),
        ('{"kind": "Role"}', "object.kind"),
        ('{"metadata": {"ownerReferences": []}}', "object.document.metadata.ownerReferences"),
        ('{"metadata": {"namespace": "kube-system"}}', "object.document.metadata.namespace"),
        ('{"metadata": {"labels": {"a": "b c"}}}', "object.document.metadata.labels[a]"),
        ('{"status": {"a": 1}}', "object.document.status"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "object.document"),
        ('{"a": "' + "x" * 262_144 + '"}', "object.document"),
    ],
    ids=lambda value: value[:24],
)
async def test_a_malformed_document_is_refused_by_field(place: Place, document: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await place.client.objects.create(
            namespace=place.name, object=pb.Object(name="web", document=document, **ACCOUNT)
        )
    assert refused.value.violations[0].field == field


async def test_kinds_with_a_noun_and_unknown_kinds_are_refused_with_advice(place: Place) -> None:
    for kind, words in {
        ("v1", "Pod"): "write a Deployment",
        ("apps/v1", "Deployment"): "calls of containers",
        ("v1", "Secret"): "calls of secrets",
        ("v1", "Namespace"): "belongs to the cluster",
        (
            "networking.k8s.io/v1beta1",
            "Ingress",
        ): "not served since Kubernetes 1.22: write networking.k8s.io/v1; there",
        ("networking.k8s.io/v2", "Ingress"): "is only carried in other versions: networking.k8s.io/v1",
        ("example.com/v1", "Thing"): "object_kinds",
    }.items():
        api_version, name = kind
        with pytest.raises(FailedPreconditionError, match=words) as refused:
            await place.make({"api_version": api_version, "kind": name}, {"spec": {}})
        assert refused.value.reason == "KIND_NOT_OPEN"


async def test_names_are_unique_by_group_and_kind(place: Place) -> None:
    await place.make(ACCOUNT, {"automountServiceAccountToken": False})
    await place.make(BUDGET, budget())
    with pytest.raises(AlreadyExistsError, match="ServiceAccount web"):
        await place.make(ACCOUNT, {"automountServiceAccountToken": False})
    found = [each async for each in place.client.objects.list(namespace=place.name)]
    assert [(each.kind, each.document) for each in found] == [
        ("ServiceAccount", ""),
        ("PodDisruptionBudget", ""),
    ]
    wanted: dict[str, Any] = {
        "view": pb.OBJECT_VIEW_FULL,
        "filter": 'kind = "PodDisruptionBudget"',
        "page_size": 1,
    }
    full = [each async for each in place.client.objects.list(namespace=place.name, **wanted)]
    assert [json.loads(each.document)["spec"]["minAvailable"] for each in full] == [1]


async def test_a_watch_of_a_kind_shows_documents_only_in_the_full_view(place: Place) -> None:
    await place.make(ACCOUNT, {"automountServiceAccountToken": False})
    seen: dict[bool, list[tuple[str, bool]]] = {}
    for full in (False, True):
        view = pb.OBJECT_VIEW_FULL if full else pb.OBJECT_VIEW_BASIC
        name = f"budget-{int(full)}"
        seen[full] = []
        async with place.client.objects.watch(namespace=place.name, view=view, **BUDGET) as changes:
            async for change in changes:
                if change.kind is ChangeKind.SYNCED:
                    await place.make(BUDGET, budget(), name)
                    continue
                seen[full].append((change.resource.kind, bool(change.resource.document)))
                if change.resource.name == name and change.resource.status == ACTIVE:
                    break
    assert set(seen[False]) == {("PodDisruptionBudget", False)}
    assert set(seen[True]) == {("PodDisruptionBudget", True)}


async def test_only_administrators_change_an_object_of_an_administrator(place: Place) -> None:
    tenant = await place.server.user("tenant", {place.name: "developer"})
    await place.make(POLICY, {"spec": {"podSelector": {}}})
    named: dict[str, Any] = {"namespace": place.name, "name": "web", **POLICY}
    change: dict[str, Any] = {
        "object": pb.Object(labels={"a": "b"}),
        "update_mask": FieldMask(paths=["labels"]),
    }
    for call in (tenant.objects.update(**named, **change), tenant.objects.delete(**named)):
        with pytest.raises(PermissionDeniedError, match=r"object\.privileged"):
            await call
    own = pb.Object(name="own", document=json.dumps({"spec": {"podSelector": {}}}), **POLICY)
    made = await tenant.objects.create(namespace=place.name, object=own)
    assert not made.privileged
    own.protected = True
    own.name = "other"
    with pytest.raises(PermissionDeniedError, match=r"object\.protected"):
        await tenant.objects.create(namespace=place.name, object=own)
    # An administrator may protect the object; then a tenant cannot delete it.
    assert (await place.change(POLICY, "own", protected=True)).protected
    with pytest.raises(PermissionDeniedError, match="is protected"):
        await tenant.objects.delete(**{**named, "name": "own"})
    # A deletion of its namespace is refused, too.
    owner = await place.server.user(f"owner-{place.name}", {place.name: "admin"})
    for name, why in (("own", "is protected"), ("web", "was created or last changed by a holder")):
        with pytest.raises(PermissionDeniedError, match=rf"NetworkPolicy {name} {why}"):
            await owner.namespaces.delete(name=place.name, cascade=True)
        await place.delete(POLICY, name)
    await owner.namespaces.delete(name=place.name, cascade=True)


async def test_a_custom_resource_waits_for_its_kind_and_its_number_is_limited(place: Place) -> None:
    with pytest.raises(FailedPreconditionError, match="object_kinds"):
        await place.make(STORE, {"spec": {"size": 1}})
    opened = namespace_pb2.ObjectKind(
        api_version="data.example.com/v1",
        kind="Store",
        max_per_namespace=1,
        secret_paths=["spec.password"],
    )
    await place.client.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=[opened]),
        update_mask=FieldMask(paths=["object_kinds"]),
    )
    document = {"spec": {"size": 9007199254740993, "share": 0.5, "password": "one"}}
    await place.make(STORE, document)
    carried = await place.until(lambda each: each.reason == "KindNotFound", STORE)
    assert (carried.status, carried.reconciling) == (PENDING, True)
    assert "the cluster has no kind Store of data.example.com/v1" in carried.message
    with pytest.raises(ResourceExhaustedError, match="1 allowed"):
        await place.make(STORE, document, "second")
    place.store.create(CUSTOM_RESOURCE_DEFINITIONS, DEFINITION)
    # The definition exists now: the observer looks for it at ever longer intervals.
    carried = await place.settled(STORE)
    assert json.loads(carried.document)["spec"] == document["spec"]
    kinds = {each.kind: each for each in await place.client.objects.kinds(namespace=place.name)}
    assert (kinds["Store"].access, kinds["Store"].max_per_namespace) == (pb.KIND_ACCESS_PRIVILEGED, 1)
    assert kinds["Ingress"].access == pb.KIND_ACCESS_TENANTS
    assert kinds["Secret"].access == kinds["CustomResourceDefinition"].access == pb.KIND_ACCESS_NEVER
    assert kinds["Node"].reason in ("ClusterScoped", "NeverTaken")
    document["spec"]["password"] = "two"
    document["spec"]["size"] = 2
    await place.change(STORE, document=document)

    async def recorded() -> dict[str, Any] | None:
        said = 'action = "update" AND resource_type = "object"'
        async for record in place.client.audit.list_operations(namespace=place.name, filter=said):
            found: dict[str, Any] = json.loads(record.metadata_json).get("document_changes", {})
            if "spec.size" in found:
                return found
        return None

    changes = await poll_until(recorded, what="the record of the change")
    assert changes is not None
    assert changes["spec.size"] == {"from": 9007199254740993, "to": 2}
    assert changes["spec.password"] == {"from": "[redacted]", "to": "[redacted]"}
    await place.delete(STORE)
    await place.gone(STORE)


async def test_a_deprecated_version_is_warned_about_without_asking_the_cluster(
    place: Place,
) -> None:
    kinds = [
        namespace_pb2.ObjectKind(api_version=f"resource.k8s.io/{version}", kind="ResourceClaim")
        for version in ("v1", "v1beta2")
    ]
    await place.client.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=kinds),
        update_mask=FieldMask(paths=["object_kinds"]),
    )
    warnings = []
    for kind in kinds:
        identity: dict[str, Any] = {"api_version": kind.api_version, "kind": kind.kind}
        request = pb.Object(name=kind.api_version[-2:], document=json.dumps({"spec": {}}), **identity)
        made = await place.client.objects.create.send(
            pb.CreateObjectRequest(namespace=place.name, object=request)
        )
        warnings += [(each.reason, each.path, each.message) for each in made.warnings]
    assert warnings == [
        (
            "DEPRECATED_VERSION",
            "object.document.apiVersion",
            "ResourceClaim of resource.k8s.io/v1beta2 is deprecated since Kubernetes 1.36, and not served from 1.39 "
            "on: write resource.k8s.io/v1",
        )
    ]


async def test_secret_values_are_masked_for_callers_that_may_not_reveal(place: Place) -> None:
    vault: dict[str, Any] = {"api_version": "data.example.com/v1", "kind": "Vault"}
    secret = ["spec.users.password", "status.token"]
    refused = namespace_pb2.ObjectKind(**vault, secret_paths=["metadata.annotations[a.example/b]"])
    opened = namespace_pb2.ObjectKind(
        **vault, open_to=namespace_pb2.KIND_OPEN_TO_TENANTS, secret_paths=secret
    )
    mask = FieldMask(paths=["object_kinds"])
    update = place.client.namespaces.update_cluster
    with pytest.raises(InvalidArgumentError, match=r"object_kinds\[0\]\.secret_paths\[0\]"):
        await update(name="local", cluster=namespace_pb2.Cluster(object_kinds=[refused]), update_mask=mask)
    await update(name="local", cluster=namespace_pb2.Cluster(object_kinds=[opened]), update_mask=mask)
    users = [{"name": "app", "password": "tap"}, {"name": "root", "password": "water"}]
    hers = Place(place.server, place.cluster, place.name)
    hers.client = await place.server.user(f"hers-{place.name}", {place.name: "operator"})
    await hers.make(vault, {"spec": {"size": 2, "users": users}})

    async def documents(of: Place) -> list[str]:
        full = pb.OBJECT_VIEW_FULL
        found = [(await of.get(vault)).document]
        found += [each.document async for each in of.client.objects.list(namespace=of.name, view=full)]
        async with of.client.objects.watch(namespace=of.name, view=full) as changes:
            async for change in changes:
                if change.kind is ChangeKind.SYNCED:
                    labels = {"seen-by": "hers" if of is hers else "admin"}
                    found.append((await of.change(vault, labels=labels)).document)
                    continue
                found.append(change.resource.document)
                if change.kind is ChangeKind.MODIFIED:
                    break
        return found

    shown = await documents(hers)
    assert len(shown) >= 5
    for text in shown:
        spec = json.loads(text)["spec"]
        assert spec["size"] == 2
        assert [each["password"] for each in spec["users"]] == ["[redacted]", "[redacted]"], text
    with pytest.raises(InvalidArgumentError, match=r"spec\.users\[\d\]\.password"):
        await hers.change(vault, document=json.loads(shown[0]))
    for text in await documents(place):
        assert json.loads(text)["spec"]["users"] == users
    await place.delete(vault)


async def test_a_cluster_without_the_gateway_api_keeps_a_route_pending(place: Place) -> None:
    route = {"api_version": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
    document = {
        "spec": {
            "hostnames": [f"web.{place.name}.example.com"],
            "parentRefs": [{"name": "public"}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        }
    }
    await place.make(route, document)
    carried = await place.until(lambda each: bool(each.reason), route)
    assert (carried.status, carried.reason) == (PENDING, "KindNotFound")
    condition = condition_of(carried)
    assert condition is not None
    assert condition.reason == "KindNotFound"
    await place.delete(route)
    await place.gone(route)


async def test_a_waiting_deletion_names_the_finalizer_and_its_manager(place: Place) -> None:
    await place.make(BUDGET, budget())
    await place.settled(BUDGET)
    place.by_hand(POD_DISRUPTION_BUDGETS, metadata={"finalizers": ["example.com/keeper"]})
    await place.delete(BUDGET)
    carried = await place.until(lambda each: each.reason == "WaitingForFinalizers", BUDGET)
    assert carried.status == pb.OBJECT_STATUS_DELETED
    assert 'waits for the finalizer "example.com/keeper" of "kubectl-edit"' in carried.message
    found = place.on_cluster(POD_DISRUPTION_BUDGETS)
    found["metadata"]["finalizers"] = []
    place.store.update(POD_DISRUPTION_BUDGETS, found, manager="kubectl-edit")
    await place.gone(BUDGET)


async def test_a_dry_run_writes_nothing_and_warns_of_a_missing_kind(place: Place) -> None:
    gateway = {"api_version": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "public"}
    listener = {
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        "hostname": f"web.{place.name}.example.com",
    }
    document = json.dumps({"spec": {"gatewayClassName": "any", "listeners": [listener]}})
    wanted: dict[str, Any] = {**gateway, "document": document}
    create = pb.CreateObjectRequest(namespace=place.name, object=pb.Object(**wanted), validate_only=True)
    response = await place.client.objects.create.send(create)
    assert [each.reason for each in response.warnings] == ["KIND_NOT_FOUND"]
    assert [each async for each in place.client.objects.list(namespace=place.name)] == []
    with pytest.raises(InvalidArgumentError, match="minAvailable"):
        await place.client.objects.create(
            namespace=place.name,
            object=pb.Object(name="web", document=json.dumps(budget(minAvailable="x")), **BUDGET),
            validate_only=True,
        )


@pytest.mark.full
async def test_pages_of_any_size_make_up_the_whole_list_in_order(place: Place) -> None:
    chosen = random.Random(29)
    for number in range(12):
        # Two kinds share their names, so no order is by one field alone.
        labels = {"tier": chosen.choice(("front", "back"))}
        await place.make(ACCOUNT, {"automountServiceAccountToken": False}, f"n-{number}", labels=labels)
        if number % 2:
            await place.make(BUDGET, budget(), f"n-{number}", labels=labels)

    async def listed(**wanted: Any) -> list[tuple[str, str]]:
        pages = place.client.objects.list(namespace=place.name, **wanted).pages()
        found = [each async for page in pages for each in page.objects]
        full = wanted.get("view") == pb.OBJECT_VIEW_FULL
        assert all(bool(each.document) == full for each in found)
        return [(each.kind, each.name) for each in found]

    for order in ("name", "name desc", "kind", "kind desc", "create_time", "create_time desc", ""):
        for narrowed in ({}, {"filter": 'kind = "ServiceAccount"'}, {"label_selector": "tier=front"}):
            wanted: dict[str, Any] = {**narrowed, "order_by": order}
            whole = await listed(page_size=1000, **wanted)
            assert len(set(whole)) == len(whole)
            view = chosen.choice((pb.OBJECT_VIEW_BASIC, pb.OBJECT_VIEW_FULL))
            assert await listed(page_size=chosen.randint(1, 7), view=view, **wanted) == whole, wanted
    assert len(await listed()) == 18


@pytest.mark.full
async def test_pages_with_documents_end_before_four_mebibytes(place: Place) -> None:
    rules = [
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": [f"10.{n}.{m}.0/24" for m in range(250)]}}
        for n in range(50)
    ]
    spec = {"podSelector": {}, "ingress": [{"from": rules}]}
    for number in range(18):
        await place.make(POLICY, {"spec": spec}, f"policy-{number:02}")
    names: list[str] = []
    pages = 0
    listed = place.client.objects.list(namespace=place.name, view=pb.OBJECT_VIEW_FULL, page_size=1000)
    async for page in listed.pages():
        assert page.ByteSize() < 4 * 1024 * 1024
        assert all(json.loads(each.document)["spec"] == spec for each in page.objects)
        names += [each.name for each in page.objects]
        pages += 1
    assert names == [f"policy-{number:02}" for number in range(18)]
    assert pages > 1
