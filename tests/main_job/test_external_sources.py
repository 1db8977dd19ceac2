"""Config maps and secrets that exist only on the cluster: allowed names, forbidden types, `apply`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    PilothouseError,
)
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator.values.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, SECRETS
from tests.conftest import Database, new_database
from tests.harness import Server, running_server
from tests.main_job.command import logged_in
from tests.waiting import poll_until

TOKEN_TYPE = "kubernetes.io/service-account-token"
VALUE = "canary-9f2c"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Yields a server whose namespace `shop` allows `shared-*`, and objects that only the cluster has."""
    directory = tmp_path_factory.mktemp("external")
    async with (
        new_database(postgres, template_database.name) as database,
        running_server(database, directory) as server,
    ):
        await server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name="shop", external_sources=["shared-*"])
        )
        assert server.cluster is not None
        store = server.cluster.store

        async def is_there() -> bool:
            return store.get(NAMESPACES, None, "shop") is not None

        await poll_until(is_there)
        for name in ("shared-settings", "other"):
            store.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "shop"}, "data": {"k": VALUE}})
        for name, type_ in (
            ("shared-db", "Opaque"),
            ("shared-token", TOKEN_TYPE),
            ("shared-release", "helm.sh/release.v1"),
            ("shared-node", "bootstrap.kubernetes.io/token"),
        ):
            annotations = {"kubernetes.io/service-account.name": "default"} if type_ == TOKEN_TYPE else {}
            store.create(
                SECRETS,
                {
                    "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
                    "type": type_,
                    "data": {"k": "Y2FuYXJ5"},
                },
            )
        yield server


def variable(name: str, *, secret: bool = False, **fields: Any) -> pb.EnvVar:
    kind = pb.ENV_VALUE_FROM_SECRET if secret else pb.ENV_VALUE_FROM_CONFIG_MAP
    return pb.EnvVar(name="A", value_from=kind, source_name=name, source_key="k", **fields)


async def make(server: Server, name: str, **fields: Any) -> pb.Container:
    return await server.admin.containers.create(
        namespace="shop", container=pb.Container(name=name, image="nginx:1.27", **fields)
    )


async def shown(server: Server, name: str, reason: str, namespace: str = "shop") -> pb.Container:
    """Waits until the condition `Applied` has this reason, and returns the container."""

    async def holds() -> pb.Container | None:
        found = await server.admin.containers.get(namespace=namespace, name=name)
        for each in found.conditions:
            if each.type == "Applied" and each.reason == reason:
                return found
        return None

    found = await poll_until(holds, what=f"{name} with Applied for {reason}")
    assert found is not None
    return found


async def test_allowed_references_reach_the_pods(shared: Server) -> None:
    files = pb.SourceFiles(source_name="shared-settings", external=True)
    made = await make(
        shared,
        "web",
        env=[variable("shared-db", secret=True, external=True)],
        env_from=[
            pb.EnvFrom(value_from=pb.ENV_VALUE_FROM_CONFIG_MAP, source_name="shared-settings", external=True)
        ],
        pod_volumes=[pb.PodVolume(name="files", config_map=files)],
        volume_mounts=[pb.VolumeMount(volume="files", mount_path="/files")],
    )
    assert [made.env[0].external, made.env_from[0].external, made.pod_volumes[0].config_map.external] == [
        True, True, True,
    ]  # fmt: skip
    await shown(shared, "web", "Applied")
    assert shared.cluster is not None
    (main,) = shared.cluster.store.get(DEPLOYMENTS, "shop", "web")["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert main["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "shared-db", "key": "k"}
    assert main["envFrom"] == [{"configMapRef": {"name": "shared-settings"}}]
    # An existing reference stays even if the administrator removes the pattern.
    await allow(shared)
    try:
        await shared.admin.containers.update(
            namespace="shop",
            name="web",
            container=pb.Container(image="nginx:1.28"),
            update_mask=FieldMask(paths=["image"]),
        )
        with pytest.raises(FailedPreconditionError, match="allows none"):
            await make(shared, "later", env=[variable("shared-db", secret=True, external=True)])
    finally:
        await allow(shared, "shared-*")


async def allow(server: Server, *patterns: str) -> namespace_pb2.Namespace:
    return await server.admin.namespaces.update(
        name="shop",
        namespace=namespace_pb2.Namespace(external_sources=patterns),
        update_mask=FieldMask(paths=["external_sources"]),
    )


async def test_other_names_and_other_kinds_are_refused(shared: Server) -> None:
    with pytest.raises(FailedPreconditionError) as refused:
        await make(shared, "odd", env=[variable("other", external=True)])
    assert refused.value.reason == "EXTERNAL_SOURCE_NOT_ALLOWED"
    assert refused.value.metadata == {
        "field": "container.env[0].source_name", "name": "other", "allowed": "shared-*",
    }  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="set external, which the namespace's external_sources"):
        await make(shared, "odd", env=[variable("shared-settings")])
    with pytest.raises(InvalidArgumentError, match=r"container.env\[0\].external: is only allowed with"):
        await make(shared, "odd", env=[pb.EnvVar(name="A", value="b", external=True)])
    for name in ("other", "Shared-db", "shared-db,type!=x", "xshared-db"):
        with pytest.raises(PilothouseError):
            await make(shared, "odd", env=[variable(name, external=True)])
    await make(shared, "plain")
    for field, changed in (
        ("env", pb.Container(env=[variable("other", external=True)])),
        (
            "sidecars",
            pb.Container(
                sidecars=[pb.Program(name="s", image="nginx:1.27", env=[variable("other", external=True)])]
            ),
        ),
    ):
        with pytest.raises(FailedPreconditionError):
            await shared.admin.containers.update(
                namespace="shop", name="plain", container=changed, update_mask=FieldMask(paths=[field])
            )


async def test_secrets_of_special_types_are_refused_on_the_cluster(shared: Server) -> None:
    for name in ("shared-token", "shared-release", "shared-node"):
        for way in ("external", "optional"):
            subject = f"{name}-{way}"
            wanted = pb.Container(
                name=subject, image="nginx:1.27", env=[variable(name, secret=True, **{way: True})]
            )
            with pytest.raises(PilothouseError, match="which containers may not use"):
                await shared.admin.containers.create(namespace="shop", container=wanted, validate_only=True)
            await make(shared, subject, env=wanted.env)
            found = await shown(shared, subject, "Guarded")
            assert not found.ready_replicas
            assert shared.cluster is not None
            assert shared.cluster.store.get(DEPLOYMENTS, "shop", subject) is None


async def test_optional_is_no_way_around_the_patterns(shared: Server) -> None:
    assert shared.cluster is not None
    await make(shared, "around", env=[variable("other", optional=True)])
    await shown(shared, "around", "NotThePlatforms")
    assert shared.cluster.store.get(DEPLOYMENTS, "shop", "around") is None
    await make(shared, "public", env=[variable("kube-root-ca.crt", optional=True)])
    await shown(shared, "public", "Applied")
    await make(shared, "absent", env=[variable("nowhere", optional=True)])
    await shown(shared, "absent", "Applied")


async def test_a_source_of_the_same_name_is_no_way_around_the_patterns(shared: Server) -> None:
    assert shared.cluster is not None
    config = shared.admin.config
    await config.create_secret(namespace="shop", secret=config_pb2.Secret(name="usual", data={"k": b"v"}))
    theirs = {
        "metadata": {"name": "theirs", "namespace": "shop"},
        "type": "Opaque",
        "data": {"k": "Y2FuYXJ5"},
    }
    shared.cluster.store.create(SECRETS, theirs)
    # The cluster's secret stays, and the platform's row reports that the name is taken.
    await config.create_secret(namespace="shop", secret=config_pb2.Secret(name="theirs", data={"k": b"v"}))
    await make(shared, "same", env=[variable("theirs", secret=True)])
    await shown(shared, "same", "NotThePlatforms")
    assert shared.cluster.store.get(DEPLOYMENTS, "shop", "same") is None
    await make(shared, "usual", env=[variable("usual", secret=True)])
    await shown(shared, "usual", "Applied")


async def test_an_import_is_no_way_around_the_patterns(shared: Server) -> None:
    await shared.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="legacy-shop"))
    assert shared.cluster is not None
    store = shared.cluster.store

    async def is_there() -> bool:
        return store.get(NAMESPACES, None, "legacy-shop") is not None

    await poll_until(is_there)
    labels = {"app": "web"}
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pods}
    store.create(DEPLOYMENTS, {"metadata": {"name": "web", "namespace": "legacy-shop"}, "spec": spec})
    metadata = {"name": "theirs", "namespace": "legacy-shop"}
    store.create(SECRETS, {"metadata": metadata, "type": "Opaque", "data": {"k": "Y2FuYXJ5"}})
    (imported,) = (await shared.admin.containers.import_(namespace="legacy-shop")).results
    assert not imported.problems
    await shared.admin.containers.update(
        namespace="legacy-shop",
        name="web",
        container=pb.Container(env=[variable("theirs", secret=True, optional=True)]),
        update_mask=FieldMask(paths=["env"]),
    )
    await shown(shared, "web", "NotThePlatforms", "legacy-shop")
    found = store.get(DEPLOYMENTS, "legacy-shop", "web")
    assert found is not None
    assert "env" not in found["spec"]["template"]["spec"]["containers"][0]


async def test_only_an_administrator_of_the_platform_sets_the_patterns(shared: Server) -> None:
    holder = await shared.user("nora", {"shop": "admin"})
    for patterns in ([], ["*"]):
        with pytest.raises(PermissionDeniedError) as refused:
            await holder.namespaces.update(
                name="shop",
                namespace=namespace_pb2.Namespace(external_sources=patterns),
                update_mask=FieldMask(paths=["external_sources"]),
            )
        assert refused.value.metadata["permission"] == "namespace.security"
    for pattern in ("", "Shared", "a b", "a/b", "!a", "-a"):
        with pytest.raises(InvalidArgumentError, match=r"external_sources\[0\]"):
            await allow(shared, pattern)
    # An administrator of the namespace may use the sources; a caller without config.use may not.
    await holder.containers.create(
        namespace="shop",
        container=pb.Container(
            name="hers", image="nginx:1.27", env=[variable("shared-settings", external=True)]
        ),
    )
    await shared.admin.identity.create_role(
        role=identity_pb2.Role(name="runner", permissions=["container.*"])
    )
    runner = await shared.user("rob", {"shop": "runner"})
    for name in ("shared-settings", "other"):
        with pytest.raises(PermissionDeniedError) as denied:
            await runner.containers.create(
                namespace="shop",
                container=pb.Container(name="his", image="nginx:1.27", env=[variable(name, external=True)]),
            )
        assert denied.value.metadata["permission"] == "config.use"


async def test_a_volume_may_show_an_external_source(shared: Server) -> None:
    volume = storage_pb2.Volume(
        name="shown", type=storage_pb2.VOLUME_TYPE_CONFIG_MAP, source_name="shared-settings", external=True
    )
    made = await shared.admin.storage.create_volume(namespace="shop", volume=volume)
    assert made.external
    volume.name, volume.source_name = "hidden", "other"
    with pytest.raises(FailedPreconditionError) as refused:
        await shared.admin.storage.create_volume(namespace="shop", volume=volume)
    assert refused.value.metadata["field"] == "volume.source_name"
    await make(shared, "reads", volume_mounts=[pb.VolumeMount(volume="shown", mount_path="/shown")])
    await shown(shared, "reads", "Applied")


MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: applied}
spec:
  selector: {matchLabels: {app: applied}}
  template:
    metadata: {labels: {app: applied}}
    spec:
      containers:
      - name: main
        image: nginx:1.27
        envFrom:
        - configMapRef: {name: shared-applied}
        - configMapRef: {name: own}
        volumeMounts: [{name: db, mountPath: /db}]
      volumes:
      - {name: db, secret: {secretName: shared-db}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: own}
data: {a: b}
"""


async def test_apply_marks_names_that_the_namespace_allows_as_external(
    shared: Server, tmp_path: Path
) -> None:
    assert shared.cluster is not None
    theirs = {"metadata": {"name": "shared-applied", "namespace": "shop"}, "data": {"k": VALUE}}
    shared.cluster.store.create(CONFIG_MAPS, theirs)
    command = await logged_in(shared, tmp_path)
    file = tmp_path / "applied.yaml"
    file.write_text(MANIFEST)
    applied = await command.run("apply", "-f", str(file), "--namespace", "shop")
    assert applied.code == 0, applied.errors
    found = await shared.admin.containers.get(namespace="shop", name="applied")
    assert [(each.source_name, each.external) for each in found.env_from] == [
        ("shared-applied", True), ("own", False),
    ]  # fmt: skip
    await shown(shared, "applied", "Applied")
    again = await command.run("apply", "-f", str(file), "--namespace", "shop")
    assert "unchanged" in again.output
    assert "updated" not in again.output
    exported = await command.run("containers", "get", "applied", "--namespace", "shop", "-o", "yaml")
    assert exported.output.count("external: true") == 1
    shows = await command.run("volumes", "list", "--namespace", "shop", "-o", "yaml")
    assert "external: true" in shows.output
    assert VALUE not in exported.output + shows.output
    # Once the platform has the object, the next apply refers to that one.
    shared.cluster.store.delete(CONFIG_MAPS, "shop", "shared-applied")
    await shared.admin.config.create_config_map(
        namespace="shop", config_map=config_pb2.ConfigMap(name="shared-applied", data={"k": "v"})
    )
    assert (await command.run("apply", "-f", str(file), "--namespace", "shop")).code == 0
    found = await shared.admin.containers.get(namespace="shop", name="applied")
    assert not found.env_from[0].external
