"""Images from registries that need a login: by a secret of the namespace, which stays while a container names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import DEPLOYMENTS, all_run, deployment, legacy, running
from tests.main_job.legacy_shop import CORE
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


LOG_IN = '{"auths": {"registry.example.org": {"auth": "Ym9iOnNlY3JldA=="}}}'
TYPE = "kubernetes.io/dockerconfigjson"
MANIFEST = f"""
apiVersion: v1
kind: Secret
metadata: {{name: registry}}
type: {TYPE}
stringData: {{.dockerconfigjson: '{LOG_IN}'}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      imagePullSecrets: [{{name: registry}}]
      containers: [{{name: main, image: "registry.example.org/a/b:1"}}]
"""


@pytest.fixture
async def demo(server: Server) -> Server:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))
    return server


async def secret(server: Server, name: str, type_: str = TYPE) -> None:
    key = ".dockerconfigjson" if type_ == TYPE else "key"
    await server.admin.config.create_secret(
        namespace=server.namespace, secret=config_pb2.Secret(name=name, type=type_, string_data={key: LOG_IN})
    )


def pulling(*secrets: str) -> pb.Container:
    return pb.Container(name="web", image="registry.example.org/a/b:1", image_pull_secrets=secrets)


def template(server: Server, name: str = "web") -> dict[str, Any]:
    """Returns the spec of the pods as the cluster has it; empty before the Deployment exists."""
    assert server.cluster is not None
    held = server.cluster.store.get(resources.DEPLOYMENTS, server.namespace, name) or {}
    found: dict[str, Any] = held.get("spec", {}).get("template", {}).get("spec", {})
    return found


async def named_on_the_cluster(server: Server, wanted: list[str]) -> None:
    async def there() -> bool:
        spec = template(server)
        return bool(spec) and [each["name"] for each in spec.get("imagePullSecrets", [])] == wanted

    await poll_until(there)


async def test_only_secrets_that_nodes_can_use_are_accepted(demo: Server) -> None:
    await secret(demo, "registry")
    await secret(demo, "plain", "Opaque")
    for named, field, rule in (
        (["registry", "nobody"], "container.image_pull_secrets[1]", "EXISTS"),
        (["plain"], "container.image_pull_secrets[0]", "TYPE"),
        (["registry", "registry"], "container.image_pull_secrets[1]", "UNIQUE"),
        (["Not a name"], "container.image_pull_secrets[0]", "FORMAT_DNS_SUBDOMAIN"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await demo.admin.containers.create(namespace=demo.namespace, container=pulling(*named))
        assert [(each.field, each.reason) for each in refused.value.violations] == [(field, rule)]


async def test_pods_name_the_secret_and_it_cannot_be_deleted(demo: Server) -> None:
    await secret(demo, "registry")
    await secret(demo, "mirror")
    made = await demo.admin.containers.create(
        namespace=demo.namespace, container=pulling("registry", "mirror")
    )
    assert list(made.image_pull_secrets) == ["registry", "mirror"]
    await named_on_the_cluster(demo, ["registry", "mirror"])
    with pytest.raises(PilothouseError) as refused:
        await demo.admin.config.delete_secret(namespace=demo.namespace, name="mirror")
    assert (refused.value.reason, refused.value.metadata["containers"]) == ("CONFIG_IN_USE", "web")
    changed = await demo.admin.containers.update(
        namespace=demo.namespace,
        name="web",
        container=pulling("registry"),
        update_mask=FieldMask(paths=["image_pull_secrets"]),
    )
    assert list(changed.image_pull_secrets) == ["registry"]
    await named_on_the_cluster(demo, ["registry"])
    await demo.admin.config.delete_secret(namespace=demo.namespace, name="mirror")


async def test_the_command_sets_a_pull_secret(demo: Server, tmp_path: Path) -> None:
    await secret(demo, "registry")
    shell = await logged_in(demo, tmp_path)
    where = ("web", "--namespace", demo.namespace)
    await shell.succeed("containers", "create", *where, "--image", "a/b:1", "--image-pull-secret", "registry")
    await named_on_the_cluster(demo, ["registry"])
    assert (await shell.read("containers", "get", *where))["image_pull_secrets"] == ["registry"]


@pytest.mark.full
async def test_a_manifest_makes_the_secret_and_its_container(demo: Server, tmp_path: Path) -> None:
    shell = await logged_in(demo, tmp_path)
    file = tmp_path / "web.yaml"
    file.write_text(MANIFEST)
    tried = await shell.succeed("apply", "-f", str(file), "--namespace", demo.namespace, "--dry-run")
    assert "registry" in tried
    await shell.succeed(
        "apply", "-f", str(file), "--namespace", demo.namespace, "--wait", "--stable-for", "0.3"
    )
    await named_on_the_cluster(demo, ["registry"])
    again = await shell.succeed("apply", "-f", str(file), "--namespace", demo.namespace)
    assert "container/web unchanged" in again


async def test_a_pull_secret_is_imported_with_its_deployment(server: Server) -> None:
    kubectl = await legacy(server)
    await kubectl.ask(
        "POST",
        f"{CORE}/secrets",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "registry"},
            "type": TYPE,
            "stringData": {".dockerconfigjson": LOG_IN},
        },
    )
    manifest = deployment("web", replicas=1, imagePullSecrets=[{"name": "registry"}])
    await kubectl.ask("POST", DEPLOYMENTS, manifest)
    await all_run(kubectl, "web", 1)
    pods = await kubectl.pods()
    (result,) = (await server.admin.containers.import_(namespace=server.legacy)).results
    assert (list(result.problems), list(result.secrets)) == ([], ["registry"])
    found = await running(server, "web")
    assert list(found.image_pull_secrets) == ["registry"]
    assert found.drift_policy == pb.DRIFT_POLICY_REPAIR
    assert await kubectl.pods() == pods
    with pytest.raises(PilothouseError) as refused:
        await server.admin.config.delete_secret(namespace=server.legacy, name="registry")
    assert refused.value.reason == "CONFIG_IN_USE"
