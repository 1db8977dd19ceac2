"""Standalone Services: made, shown with addresses and endpoints, changed, deleted, watched, listed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from pilothouse_client.streams import ChangeKind
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import SERVICES
from tests.network.conftest import Place, condition_of
from tests.waiting import poll_until

ACTIVE, FAILED, PENDING = pb.SERVICE_STATUS_ACTIVE, pb.SERVICE_STATUS_FAILED, pb.SERVICE_STATUS_PENDING


async def test_a_service_is_applied_to_its_cluster_with_each_of_its_fields(place: Place) -> None:
    made = await place.make(
        type=pb.SERVICE_TYPE_NODE_PORT,
        ports=[
            pb.ServicePort(name="http", port=80, target="web", node_port=30123, app_protocol="http"),
            pb.ServicePort(name="signal", port=9000, target="9100", protocol=pb.PROTOCOL_SCTP),
        ],
        labels={"tier": "front"},
        annotations={"prometheus.io/scrape": "true"},
        publish_not_ready_addresses=True,
        session_affinity=pb.SESSION_AFFINITY_CLIENT_IP,
        session_affinity_timeout_seconds=60,
        external_traffic_policy=pb.TRAFFIC_POLICY_LOCAL,
        internal_traffic_policy=pb.TRAFFIC_POLICY_LOCAL,
        ip_families=[pb.IP_FAMILY_IPV4],
    )
    service = await place.settled()
    found = place.on_cluster()
    assert found["metadata"]["labels"].items() >= {"tier": "front", SERVICE_UID: made.uid}.items()
    assert found["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
    spec = found["spec"]
    assert spec["selector"] == {"app": "web"}
    assert spec["type"] == "NodePort"
    assert spec["ports"][0] == {
        "name": "http",
        "protocol": "TCP",
        "port": 80,
        "targetPort": "web",
        "nodePort": 30123,
        "appProtocol": "http",
    }
    assert spec["ports"][1]["targetPort"] == 9100
    assert spec["ports"][1]["protocol"] == "SCTP"
    assert spec["publishNotReadyAddresses"] is True
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 60}}
    assert (spec["externalTrafficPolicy"], spec["internalTrafficPolicy"]) == ("Local", "Local")
    assert list(service.addresses) == [spec["clusterIP"]]
    assert list(service.node_ports) == [30123, spec["ports"][1]["nodePort"]]
    condition = condition_of(service)
    assert condition is not None
    assert condition.status == resource_pb2.CONDITION_STATUS_TRUE


async def test_a_service_selects_pods_of_all_containers_with_its_labels(place: Place) -> None:
    await place.make(ports=[pb.ServicePort(port=80, target="8080")])
    await place.service(lambda each: each.reason == "NoReadyEndpoints")
    await place.run("v1", labels={"app": "web", "version": "1"})
    await place.service(lambda each: each.ready_endpoints == 1)
    # The second container, made later, is selected as well.
    await place.run("v2", labels={"app": "web", "version": "2"}, replicas=2)
    service = await place.service(lambda each: each.ready_endpoints == 3)
    assert (service.endpoints, service.reason, service.status) == (3, "", ACTIVE)
    await place.client.containers.stop(namespace=place.name, name="v2")
    await place.service(lambda each: each.ready_endpoints == 1)


async def test_a_service_follows_the_container_that_it_names(place: Place) -> None:
    await place.make("api", selector={}, containers=["backend"])
    service = await place.service(lambda each: each.reason == "ContainerNotFound", "api")
    assert service.message == 'there is no container "backend"'
    first = await place.run("backend")
    await place.service(lambda each: each.ready_endpoints == 1, "api")
    assert place.on_cluster("api")["spec"]["selector"] == {CONTAINER_UID: first.uid}
    await place.client.containers.delete(namespace=place.name, name="backend")

    async def missing() -> bool:
        try:
            await place.client.containers.get(namespace=place.name, name="backend")
        except NotFoundError:
            return True
        return False

    await poll_until(missing, what="the end of the container")
    again = await place.run("backend")
    await place.seen(lambda each: each["spec"]["selector"] == {CONTAINER_UID: again.uid}, "api")
    await place.service(lambda each: each.ready_endpoints == 1, "api")


async def test_more_than_one_named_container_is_refused_with_advice(place: Place) -> None:
    words = r"service\.containers: must name at most one container; for several, set selector to a label"
    with pytest.raises(InvalidArgumentError, match=words):
        await place.make(selector={}, containers=["backend", "canary"])


async def test_a_headless_service_has_no_address_and_may_become_another(place: Place) -> None:
    await place.make(headless=True)
    service = await place.settled()
    first = place.on_cluster()
    assert first["spec"]["clusterIP"] == "None"
    assert list(service.addresses) == []
    await place.change(headless=False)
    await place.seen(lambda each: each["spec"]["clusterIP"] != "None")
    service = await place.service(lambda each: bool(each.addresses))
    assert service.uid == place.on_cluster()["metadata"]["labels"][SERVICE_UID]


async def test_a_change_removes_omitted_values(place: Place) -> None:
    await place.make(session_affinity=pb.SESSION_AFFINITY_CLIENT_IP, annotations={"prometheus.io/port": "80"})
    await place.settled()
    await place.change(
        session_affinity=pb.SESSION_AFFINITY_NONE, annotations={}, ports=[pb.ServicePort(port=81)]
    )
    found = await place.seen(lambda each: [port["port"] for port in each["spec"]["ports"]] == [81])
    assert found["spec"]["sessionAffinity"] == "None"
    assert not found["metadata"].get("annotations")


async def test_a_load_balancer_waits_for_its_address(place: Place) -> None:
    await place.make(type=pb.SERVICE_TYPE_LOAD_BALANCER)
    waiting = await place.service(lambda each: each.reason == "WaitingForLoadBalancer")
    assert waiting.status == PENDING
    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.org"}]}}
    found = {**place.on_cluster(), "status": status}
    place.store.update_status(SERVICES, found, "load-balancer")
    service = await place.service(lambda each: each.status == ACTIVE)
    assert list(service.addresses)[1:] == ["203.0.113.7", "lb.example.org"]


async def test_a_refusal_of_the_cluster_is_shown_and_ends_with_its_cause(place: Place) -> None:
    await place.make(
        "first", type=pb.SERVICE_TYPE_NODE_PORT, ports=[pb.ServicePort(port=80, node_port=30200)]
    )
    await place.settled("first")
    await place.make(type=pb.SERVICE_TYPE_NODE_PORT, ports=[pb.ServicePort(port=80, node_port=30200)])
    failed = await place.service(lambda each: each.status == FAILED)
    assert "provided port is already allocated" in failed.message
    await place.change(ports=[pb.ServicePort(port=80)])
    await place.settled()


async def test_a_service_of_another_owner_is_left_alone(place: Place) -> None:
    place.store.create(
        SERVICES,
        {
            "metadata": {"name": "web", "namespace": place.name},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}, "type": "ClusterIP"},
        },
    )
    await place.make()
    failed = await place.service(lambda each: each.status == FAILED)
    assert failed.reason == "NameTaken"
    await place.client.network.delete_service(namespace=place.name, name="web")
    await place.gone()
    assert place.on_cluster()["spec"]["selector"] == {"app": "theirs"}


async def test_a_deleted_service_is_deleted_from_the_cluster_and_the_database(place: Place) -> None:
    await place.make()
    await place.settled()
    gone = await place.client.network.delete_service(namespace=place.name, name="web")
    assert gone.HasField("delete_time")
    await place.gone()
    assert place.store.get(SERVICES, place.name, "web") is None


async def test_the_name_of_a_containers_service_or_of_another_service_is_refused(place: Place) -> None:
    await place.run("shop", container_pb2.Port(container_port=80, service_name="front"))
    with pytest.raises(AlreadyExistsError) as taken:
        await place.make("front")
    assert taken.value.metadata == {"service": "front", "container": "shop"}
    await place.make("web")
    with pytest.raises(AlreadyExistsError):
        await place.make("web")


async def test_the_quota_counts_services(place: Place) -> None:
    quota = namespace_pb2.ResourceQuota(services=2)
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(resource_quota=quota),
        update_mask=FieldMask(paths=["resource_quota"]),
    )
    await place.make("one")
    await place.make("two")
    with pytest.raises(ResourceExhaustedError) as refused:
        await place.make("three")
    assert refused.value.metadata["resource"] == "services"
    answer = await place.client.namespaces.get_quota_usage(name=place.name)
    assert (answer.quota.services, answer.used.services) == (2, 2)


async def test_broken_rules_between_fields_name_the_field(place: Place) -> None:
    port = pb.ServicePort(port=80)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("service.ports", {"ports": []}),
        ("service.ports[1].name", {"ports": [pb.ServicePort(name="a", port=80), pb.ServicePort(port=81)]}),
        (
            "service.ports[1]",
            {"ports": [pb.ServicePort(name="a", port=80), pb.ServicePort(name="b", port=80)]},
        ),
        ("service.ports[0].target", {"ports": [pb.ServicePort(port=80, target="70000")]}),
        ("service.ports[0].node_port", {"ports": [pb.ServicePort(port=80, node_port=30000)]}),
        ("service.headless", {"headless": True, "type": pb.SERVICE_TYPE_NODE_PORT}),
        ("service.containers", {"containers": ["web"], "ports": [port]}),
        ("service.external_name", {"type": pb.SERVICE_TYPE_EXTERNAL_NAME, "selector": {}}),
        ("service.session_affinity_timeout_seconds", {"session_affinity_timeout_seconds": 5}),
        ("service.external_traffic_policy", {"external_traffic_policy": pb.TRAFFIC_POLICY_LOCAL}),
        ("service.external_ips[0]", {"external_ips": ["here"]}),
        ("service.selector", {"selector": {"pilothouse.dev/container-uid": "x"}}),
        ("service.labels", {"labels": {"pilothouse.dev/x": "y"}}),
    ]
    for field, fields in wrong:
        with pytest.raises(InvalidArgumentError) as refused:
            await place.make(**fields)
        assert refused.value.metadata["field"] == field, (field, refused.value.message)


async def test_fields_that_reach_beyond_the_namespace_need_a_permission(place: Place) -> None:
    tenant = await place.server.user(f"dora-{place.name}", {place.name: "operator"})
    guarded: list[tuple[str, dict[str, Any]]] = [
        (
            "service.type",
            {"type": pb.SERVICE_TYPE_EXTERNAL_NAME, "external_name": "db.example.org", "selector": {}},
        ),
        ("service.selector", {"selector": {}}),
        ("service.external_ips", {"external_ips": ["203.0.113.9"]}),
        ("service.cluster_ip", {"cluster_ip": "10.96.77.7"}),
        (
            "service.load_balancer_ip",
            {"type": pb.SERVICE_TYPE_LOAD_BALANCER, "load_balancer_ip": "203.0.113.1"},
        ),
        (
            "service.load_balancer_class",
            {"type": pb.SERVICE_TYPE_LOAD_BALANCER, "load_balancer_class": "x/y"},
        ),
        ("service.annotations", {"annotations": {"example.com/load-balancer": "public"}}),
    ]
    mine = Place(place.server, place.cluster, place.name)
    mine.client = tenant
    for number, (field, fields) in enumerate(guarded):
        with pytest.raises(PermissionDeniedError) as refused:
            await mine.make(f"mine-{number}", **fields)
        of_annotations = field == "service.annotations"
        permission = "container.privileged" if of_annotations else "object.privileged"
        assert refused.value.metadata["permission"] == permission
        assert refused.value.metadata["field"] == field
        # The administrator may set the field, and the tenant may change the rest.
        await place.make(f"theirs-{number}", **fields)
        await mine.change(f"theirs-{number}", labels={"a": "b"})
    await mine.make("plain", type=pb.SERVICE_TYPE_LOAD_BALANCER)


async def test_names_for_external_dns_must_be_hosts_of_the_namespace(place: Place) -> None:
    mine = f"{place.name}.example.com"
    hosts = namespace_pb2.Namespace(allowed_hosts=[f"*.{mine}"])
    await place.client.namespaces.update(
        name=place.name, namespace=hosts, update_mask=FieldMask(paths=["allowed_hosts"])
    )
    tenant = Place(place.server, place.cluster, place.name)
    tenant.client = await place.server.user(f"nina-{place.name}", {place.name: "developer"})

    def named(host: str) -> dict[str, str]:
        return {"external-dns.alpha.kubernetes.io/hostname": host}

    def port(host: str) -> container_pb2.Port:
        return container_pb2.Port(container_port=80, service_annotations=named(host))

    await tenant.make("good", annotations=named(f"web.{mine}, www.{mine}"))
    await tenant.run("short", port(f"short.{mine}"))
    theirs = "web.elsewhere.example.com"
    for caller in (tenant, place):
        for call, field in (
            (caller.make("bad", annotations=named(f"web.{mine},{theirs}")), "service.annotations"),
            (caller.change("good", annotations=named(theirs)), "service.annotations"),
            (caller.run("other", port(theirs)), "container.ports[0].service_annotations"),
        ):
            with pytest.raises(FailedPreconditionError) as refused:
                await call
            assert refused.value.reason == "HOST_NOT_ALLOWED"
            assert dict(refused.value.metadata) == {"field": field, "host": theirs}
    # A host that the Service already has stays when the namespace loses the pattern.
    await place.client.namespaces.update(
        name=place.name, namespace=namespace_pb2.Namespace(), update_mask=FieldMask(paths=["allowed_hosts"])
    )
    await tenant.change("good", labels={"a": "b"})


async def test_a_namespace_restricts_the_types_of_its_services(place: Place) -> None:
    only = namespace_pb2.Namespace(service_types=[pb.SERVICE_TYPE_CLUSTER_IP])
    mask = FieldMask(paths=["service_types"])
    holder = await place.server.user(f"nora-{place.name}", {place.name: "admin"})
    with pytest.raises(PermissionDeniedError) as refused:
        await holder.namespaces.update(name=place.name, namespace=only, update_mask=mask)
    assert refused.value.metadata["permission"] == "namespace.security"
    await place.make("before", type=pb.SERVICE_TYPE_NODE_PORT)
    changed = await place.client.namespaces.update(name=place.name, namespace=only, update_mask=mask)
    assert list(changed.service_types) == [pb.SERVICE_TYPE_CLUSTER_IP]
    with pytest.raises(FailedPreconditionError) as denied:
        await place.make(type=pb.SERVICE_TYPE_LOAD_BALANCER)
    assert denied.value.reason == "SERVICE_TYPE_NOT_ALLOWED"
    await place.make(headless=True)
    port = container_pb2.Port(container_port=80, service_type=container_pb2.SERVICE_TYPE_NODE_PORT)
    with pytest.raises(FailedPreconditionError) as of_container:
        await place.run("short", port)
    assert of_container.value.reason == "SERVICE_TYPE_NOT_ALLOWED"
    assert of_container.value.metadata["field"] == "container.ports[0].service_type"
    await place.run("short", container_pb2.Port(container_port=80))
    # An existing Service keeps its type.
    await place.change("before", labels={"a": "b"})


async def test_a_privilege_that_was_not_granted_is_not_written(place: Place) -> None:
    await place.make(external_ips=["203.0.113.7"])
    await place.settled()
    # The state that a write without admission, or a faulty migration, would leave.
    async with place.server.database.system() as sql:
        row = await sql.fetchrow(
            "UPDATE services SET spec = jsonb_set(spec, '{rights}', '[]') WHERE name = 'web' AND namespace_id = "
            "(SELECT id FROM namespaces WHERE name = $1) RETURNING spec->>'external_ips'",
            place.name,
        )
        assert row is not None
    found = copy_json(place.on_cluster())
    found["spec"]["externalIPs"] = ["203.0.113.8"]
    place.store.update(SERVICES, found, manager="kubectl-edit")

    def refused(service: pb.Service) -> bool:
        applied = condition_of(service)
        return applied is not None and applied.reason == "Guarded"

    shown = await place.service(refused)
    told = condition_of(shown)
    assert told is not None
    assert told.message.startswith("spec.externalIPs is not among the fields that everybody may set")


async def test_a_list_and_a_watch_show_services(place: Place) -> None:
    await place.make("a", labels={"tier": "front"})
    await place.make("b", type=pb.SERVICE_TYPE_NODE_PORT)
    listed = [each.name async for each in place.client.network.list_services(namespace=place.name)]
    assert listed == ["a", "b"]
    for filter_, names in (("type = NODE_PORT", ["b"]), ('labels.tier = "front"', ["a"]), ("owner:*", [])):
        found = place.client.network.list_services(namespace=place.name, filter=filter_)
        assert [each.name async for each in found] == names
    async with place.client.network.watch_services(namespace=place.name, name="c") as changes:
        await place.make("c")
        kinds = []
        async for change in changes:
            kinds.append(change.kind)
            if change.resource.status == ACTIVE:
                break
    assert ChangeKind.ADDED in kinds


async def test_a_dry_run_asks_the_cluster(place: Place) -> None:
    await place.make(
        "first", type=pb.SERVICE_TYPE_NODE_PORT, ports=[pb.ServicePort(port=80, node_port=30300)]
    )
    await place.settled("first")
    ports = [pb.ServicePort(port=80, node_port=30300)]
    with pytest.raises(InvalidArgumentError, match="already allocated"):
        await place.client.network.create_service(
            namespace=place.name,
            service=pb.Service(
                name="web", type=pb.SERVICE_TYPE_NODE_PORT, selector={"app": "web"}, ports=ports
            ),
            validate_only=True,
        )


async def test_services_are_deleted_with_their_namespace(place: Place) -> None:
    await place.make()
    await place.settled()
    with pytest.raises(FailedPreconditionError) as refused:
        await place.client.namespaces.delete(name=place.name)
    assert refused.value.metadata == {"services": "1"}
    await place.client.namespaces.delete(name=place.name, cascade=True)

    async def gone() -> bool:
        try:
            await place.client.namespaces.get(name=place.name)
        except NotFoundError:
            return True
        return False

    await poll_until(gone, what="the end of the namespace")
