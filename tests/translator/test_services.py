"""A Service becomes ports of the container that owns it: the container whose pods it selects."""

from __future__ import annotations

import pytest
from tests.translator.manifests import SERVICE, WEB, container, found, in_message, wanted, web

from pilothouse.container.v1 import container_pb2 as pb


def service(
    name: str = "web", *, spec: str = "", ports: str = "{name: http, port: 80, targetPort: http}"
) -> str:
    text = SERVICE.replace("{name: web}", f"{{name: {name}}}")
    return text.replace("{name: http, port: 80, targetPort: http}", ports) + spec


def port(**fields: object) -> pb.Port:
    made = pb.Port(
        name="http",
        container_port=8080,
        protocol=pb.PROTOCOL_TCP,
        service_name="web",
        service_port=80,
        service_type=pb.SERVICE_TYPE_CLUSTER_IP,
    )
    made.MergeFrom(pb.Port(**fields))  # type: ignore[arg-type]
    return made


def alone(name: str = "http", number: int = 8080, **fields: object) -> pb.Port:
    """Returns a port without a service."""
    made = pb.Port(
        name=name, container_port=number, protocol=pb.PROTOCOL_TCP, service_type=pb.SERVICE_TYPE_NONE
    )
    made.MergeFrom(pb.Port(**fields))  # type: ignore[arg-type]
    return made


def on_server(text: str = WEB, *services: str) -> pb.Container:
    made = container(text, *services)
    made.uid = "b1e7"
    return made


def test_a_port_without_service_is_declared_only() -> None:
    assert list(container(WEB).ports) == [alone()]


def test_a_target_may_be_a_name_a_number_or_left_out() -> None:
    by_name = container(WEB, service())
    assert list(by_name.ports) == [port()]
    assert container(WEB, service(ports="{name: http, port: 80, targetPort: 8080}")) == by_name
    assert list(container(WEB, service(ports="{name: http, port: 8080}")).ports) == [port(service_port=8080)]


@pytest.mark.parametrize("target", ["0", '""'])
def test_an_empty_target_port_means_the_service_port(target: str) -> None:
    made = container(WEB, service(ports=f"{{name: http, port: 8080, targetPort: {target}}}"))
    assert list(made.ports) == [port(service_port=8080)]


def test_a_probe_of_port_zero_is_refused() -> None:
    (told,) = found(web(container="livenessProbe: {tcpSocket: {port: 0}}"))
    assert "1 to 65535" in told or "at least 1" in told


def test_a_service_port_may_have_a_name_too_long_for_a_pod_port() -> None:
    """The pod keeps the port name that it declares, also when only the Service is applied again."""
    name = "a-name-of-more-than-fifteen-characters"
    text = service(ports=f"{{name: {name}, port: 80, targetPort: http}}")
    made = container(WEB, text)
    assert list(made.ports) == [alone(), port(name=name)]
    made.uid = "b1e7"
    unnamed = WEB.replace("{name: http, containerPort: 8080}", "{containerPort: 8080}")
    there = container(unnamed, text.replace("targetPort: http", "targetPort: 8080"))
    assert list(there.ports) == [port(name=name)]
    (told,) = found(text, existing=[there])
    assert "expected the name of a port of container/web with this protocol, found 'http'" in told


def test_an_undeclared_target_port_is_added_by_its_service() -> None:
    made = container(WEB, service(ports="{name: metrics, port: 9090}"))
    assert list(made.ports) == [
        alone(),
        port(name="metrics", container_port=9090, service_port=9090),
    ]


def test_several_services_select_one_container() -> None:
    made = container(WEB, service(), service("web-public", spec="  type: LoadBalancer\n"))
    assert list(made.ports) == [
        port(),
        port(service_name="web-public", service_type=pb.SERVICE_TYPE_LOAD_BALANCER),
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", pb.SERVICE_TYPE_CLUSTER_IP),
        ("  type: ClusterIP\n", pb.SERVICE_TYPE_CLUSTER_IP),
        ("  type: NodePort\n", pb.SERVICE_TYPE_NODE_PORT),
        ("  type: LoadBalancer\n", pb.SERVICE_TYPE_LOAD_BALANCER),
        ("  clusterIP: None\n", pb.SERVICE_TYPE_HEADLESS),
        ("  clusterIP: ''\n", pb.SERVICE_TYPE_CLUSTER_IP),
    ],
)
def test_every_service_type_is_translated(spec: str, expected: pb.ServiceType.ValueType) -> None:
    assert list(container(WEB, service(spec=spec)).ports) == [port(service_type=expected)]


def test_node_ports_protocols_and_hints_are_kept() -> None:
    made = container(
        WEB.replace("containerPort: 8080", "containerPort: 8080, protocol: UDP, hostPort: 53"),
        service(
            spec="  type: NodePort\n",
            ports="{port: 53, targetPort: http, protocol: UDP, nodePort: 30053, appProtocol: dns}",
        ),
    )
    assert list(made.ports) == [
        port(
            protocol=pb.PROTOCOL_UDP,
            host_port=53,
            service_port=53,
            node_port=30053,
            app_protocol="dns",
            service_type=pb.SERVICE_TYPE_NODE_PORT,
        )
    ]


def test_a_service_port_with_another_name_keeps_the_pods_port_name() -> None:
    # Probes and other Services may refer to the pod's port name, so the pod keeps the name that it declares.
    made = container(WEB, service(ports="{name: web, port: 80, targetPort: http}"))
    assert list(made.ports) == [alone(), port(name="web")]


def test_a_selector_may_match_a_subset_of_the_labels() -> None:
    both = WEB.replace("      labels: {app: web}", "      labels: {app: web, track: stable}")
    other = both.replace("web", "canary", 1).replace("stable", "canary").replace("name: web", "name: canary")
    selecting = service().replace("{app: web}", "{app: web, track: stable}")
    stable, canary = wanted(both, other, selecting)
    assert [each.service_name for each in in_message(stable).ports] == ["web"]
    assert [each.service_name for each in in_message(canary).ports] == [""]


def test_a_service_without_a_workload_joins_the_container_on_the_server() -> None:
    (joined,) = wanted(service(), existing=[on_server()])
    assert joined.fields == frozenset({"ports"})
    assert in_message(joined) == pb.Container(name="web", ports=[port()])


def test_a_service_that_also_selects_a_container_on_the_server_is_refused() -> None:
    existing = on_server(web(name="web").replace("name: web", "name: canary", 1))
    (problem,) = found(WEB + "---\n" + service(), [existing])
    assert problem.endswith("it selects several containers (web, canary on the server)")


def test_services_of_other_files_are_kept() -> None:
    existing = on_server(WEB, service(), service("web-public", spec="  type: LoadBalancer\n"))
    again = container(WEB, existing=[existing])
    assert again.ports == existing.ports
    narrowed = container(
        WEB, service(ports="{name: http, port: 8000, targetPort: http}"), existing=[existing]
    )
    assert list(narrowed.ports) == [port(service_port=8000), existing.ports[1]]


def test_a_service_moves_when_its_selector_changes() -> None:
    first, second = (
        on_server(web(name="first"), service("shop").replace("{app: web}", "{app: first}")),
        on_server(web(name="second")),
    )
    gives, takes = wanted(service("shop").replace("{app: web}", "{app: second}"), existing=[first, second])
    assert (gives.name, gives.releases, gives.takes) == ("first", frozenset({"shop"}), frozenset())
    assert list(in_message(gives).ports) == [alone()]
    assert (takes.name, takes.releases, takes.takes) == ("second", frozenset(), frozenset({"shop"}))
    assert [each.service_name for each in in_message(takes).ports] == ["shop"]


def test_a_node_port_chosen_by_the_cluster_is_kept() -> None:
    node_port = service(spec="  type: NodePort\n")
    existing = on_server(WEB, node_port)
    existing.ports[0].node_port = 31234
    assert container(WEB, node_port, existing=[existing]).ports == existing.ports
    explicit = service(
        spec="  type: NodePort\n", ports="{name: http, port: 80, targetPort: http, nodePort: 30000}"
    )
    assert container(WEB, explicit, existing=[existing]).ports[0].node_port == 30000


def test_a_list_is_equivalent_to_its_items() -> None:
    import textwrap

    def item(text: str) -> str:
        return "- " + textwrap.indent(text, "  ")[2:]

    text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n" + item(WEB) + item(SERVICE)
    assert container(text) == container(WEB, SERVICE)
    broken = text.replace("image: nginx:1.27", "image: []")
    assert found(broken)[0].startswith(
        "web.yaml:19: deployment/web: spec.template.spec.containers[0].image: "
    )
