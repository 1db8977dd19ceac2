"""`pilothouse services` against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse_simulator.values.resources import SERVICES
from tests.client.command import Command, command_of_administrator
from tests.network.conftest import Place
from tests.waiting import poll_until

pytestmark = pytest.mark.full


@pytest.fixture
def command(place: Place, tmp_path: Path) -> Command:
    """Runs the command as the administrator in the namespace of the place."""
    return command_of_administrator(place.server, place.name, tmp_path)


async def test_a_service_is_made_shown_changed_and_deleted(place: Place, command: Command) -> None:
    made = await command(
        *("services", "create", "web", "--select", "app=web"),
        *("--port", "http=80:8080", "--port", "dns=53/udp", "--type", "node-port", "-o", "json"),
    )
    assert made.code == 0, made.err
    assert [port["port"] for port in json.loads(made.out)["ports"]] == [80, 53]
    await place.settled()
    spec = place.on_cluster()["spec"]
    assert [(port["name"], port["targetPort"], port["protocol"]) for port in spec["ports"]] == [
        ("http", 8080, "TCP"),
        ("dns", 53, "UDP"),
    ]
    await place.client.containers.create(
        namespace=place.name,
        container=container_pb2.Container(
            name="api", image="a:1", ports=[container_pb2.Port(name="http", container_port=80)]
        ),
    )

    async def owner_is_shown() -> bool:
        return "OWNER" in (await command("services", "list", "-o", "wide")).out

    await poll_until(owner_is_shown)
    listed = await command("services", "list")
    assert "OWNER" not in listed.out
    assert f"80:{spec['ports'][0]['nodePort']}/TCP" in listed.out.replace("\n", "")
    shown = await command("services", "get", "web")
    assert "web: NoReadyEndpoints: " in shown.err
    aimless = await command("services", "create", "aimless", "--port", "80")
    assert aimless.code == 2
    assert "give --select KEY=VALUE with a label of theirs, or --container" in " ".join(aimless.err.split())
    wrong = await command("services", "update", "web", "--port", "http")
    assert wrong.code == 2
    assert "[NAME=]PORT[:TARGET][/PROTOCOL]" in wrong.err
    changed = await command("services", "update", "web", "--container", "api", "--port", "80", "-o", "json")
    assert json.loads(changed.out)["containers"] == ["api"]
    await place.seen(lambda each: "app" not in each["spec"]["selector"])
    gone = await command("services", "delete", "web", "--yes")
    assert gone.code == 0, gone.err
    await place.gone()
    assert place.store.get(SERVICES, place.name, "web") is None


async def test_a_namespace_restricts_types_and_number_of_its_services(place: Place, command: Command) -> None:
    changed = await command(
        *("namespaces", "update", place.name, "--quota-services", "5"),
        *("--service-type", "cluster-ip", "--service-type", "node_port", "-o", "json"),
    )
    assert changed.code == 0, changed.err
    types = json.loads(changed.out)["service_types"]
    assert types == ["SERVICE_TYPE_CLUSTER_IP", "SERVICE_TYPE_NODE_PORT"]
    # The other parts of a quota stay.
    changed = await command("namespaces", "update", place.name, "--quota-cpu", "4", "-o", "json")
    quota = json.loads(changed.out)["resource_quota"]
    assert (quota["services"], quota["cpu"]) == ("5", "4")
    changed = await command("namespaces", "update", place.name, "--service-type", "", "-o", "json")
    assert json.loads(changed.out)["service_types"] == []


async def test_existing_services_are_imported_by_name(place: Place, command: Command) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    place.store.create(SERVICES, {"metadata": {"name": "web", "namespace": place.name}, "spec": spec})
    found = await command("services", "import", "web")
    assert found.code == 0, found.err
    assert "yes" in found.out
    await place.settled()
    missing = await command("services", "import", "missing")
    assert missing.code == 1
    assert "there is no such Service" in " ".join(missing.out.split())
