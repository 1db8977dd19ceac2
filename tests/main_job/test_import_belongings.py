"""An import includes the claims, config maps and secrets that a container mounts and reads; no pod restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import DEPLOYMENTS, all_run, condition, deployment, legacy, running
from tests.main_job.legacy_shop import (
    CORE,
    OURS,
    claim,
    encoded,
    labels_without_ours,
    name_of_claim,
    prepare,
    prepare_secret,
    settled,
    shop,
)
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


@pytest.mark.full
async def test_an_application_is_taken_over_completely_without_a_restart(
    server: Server, tmp_path: Path
) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await all_run(kubectl, "shop", 1)
    pods = await kubectl.pods()
    there = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
    kinds = {"persistentvolumeclaims/shop.data": "spec"}
    kinds |= {"configmaps/shop-config": "data", "configmaps/shop-levels": "data"}
    kinds |= {"secrets/shop-db": "data", "secrets/shop-auth": "data"}
    before = {path: await kubectl.ask("GET", f"{CORE}/{path}") for path in kinds}

    shell = await logged_in(server, tmp_path)
    said = await shell.succeed("containers", "import", "shop", "-n", server.legacy, "--validate-only")
    made = (
        "volume configmap-shop-config, volume secret-shop-auth, config map shop-config, config map shop-levels, "
        "secret shop-auth, secret shop-db"
    )
    assert all(part in said for part in made.split(", ")), said
    assert [item async for item in server.admin.storage.list_volumes(namespace=server.legacy)] == []
    assert [item async for item in server.admin.config.list_secrets(namespace=server.legacy)] == []
    (result,) = await shell.read("containers", "import", "shop", "-n", server.legacy)
    assert result["problems"] == result["notes"] == [], result
    assert sorted(result["config_maps"]) == ["shop-config", "shop-levels"]
    assert sorted(result["secrets"]) == ["shop-auth", "shop-db"]
    assert len(result["volumes"]) == 3

    found = await running(server, "shop")
    await settled(server)
    assert found.drift_policy == pb.DRIFT_POLICY_REPAIR
    assert condition(found, "Drifted").reason == "InSync"
    assert found.pod_name in pods
    assert await kubectl.pods() == pods
    after = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
    assert after["spec"] == there["spec"]
    for path, part in kinds.items():
        now = await kubectl.ask("GET", f"{CORE}/{path}")
        assert now["metadata"]["uid"] == before[path]["metadata"]["uid"]
        assert labels_without_ours(now) == before[path]["metadata"]["labels"]
        assert sum(key.startswith(OURS) for key in now["metadata"]["labels"]) == 1
        assert now[part] == before[path][part]
        assert now.get("immutable") == before[path].get("immutable")

    volumes = {
        item.kubernetes_name: item
        async for item in server.admin.storage.list_volumes(namespace=server.legacy)
    }
    data = volumes["shop.data"]
    assert data.size == "1Gi"
    assert data.access_mode == storage_pb2.ACCESS_MODE_READ_WRITE_ONCE
    assert data.storage_class == before["persistentvolumeclaims/shop.data"]["spec"]["storageClassName"]
    assert data.status == storage_pb2.VOLUME_STATUS_BOUND
    assert list(data.mounted_by) == ["shop"]
    assert {mount.mount_path: mount.volume for mount in found.volume_mounts}["/data"] == data.name
    auth = await server.admin.config.get_secret(namespace=server.legacy, name="shop-auth")
    assert auth.type == "kubernetes.io/basic-auth"
    assert dict(auth.labels)["team"] == "a"
    levels = await server.admin.config.get_config_map(namespace=server.legacy, name="shop-levels")
    assert levels.immutable


async def test_an_imported_container_is_changed_like_any_other(server: Server) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await all_run(kubectl, "shop", 1)
    await server.admin.containers.import_(namespace=server.legacy, names=["shop"])
    await running(server, "shop")
    await settled(server)
    pods = await kubectl.pods()

    # A new value of the secret reaches the cluster; the pods do not restart.
    secret = config_pb2.Secret(name="shop-db", string_data={"password": "another"})
    await server.admin.config.update_secret(
        namespace=server.legacy, name="shop-db", secret=secret, update_mask=FieldMask(paths=["string_data"])
    )

    async def told() -> bool:
        now = await kubectl.ask("GET", f"{CORE}/secrets/shop-db")
        return bool(now["data"]["password"] == encoded("another"))

    await poll_until(told)
    assert await kubectl.pods() == pods

    # A scale-up makes more pods from the same template; existing pods stay.
    await server.admin.containers.update(
        namespace=server.legacy,
        name="shop",
        container=pb.Container(replicas=2),
        update_mask=FieldMask(paths=["replicas"]),
    )

    async def two() -> bool:
        now = await kubectl.pods()
        return len(now) == 2 and pods.items() <= now.items()

    await poll_until(two)

    # A volume with the name of one of the pod's volumes gets another name in the pod.
    volume = storage_pb2.Volume(name="config", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
    await server.admin.storage.create_volume(namespace=server.legacy, volume=volume)
    await server.admin.storage.attach_volume(
        namespace=server.legacy, name="config", container="shop", mount_path="/more"
    )

    async def mounted() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
        mounts = now["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        return {"name": "config-2", "mountPath": "/more"} in mounts

    await poll_until(mounted)
    await server.admin.containers.update(
        namespace=server.legacy,
        name="shop",
        container=pb.Container(image="nginx:2"),
        update_mask=FieldMask(paths=["image"]),
    )

    async def replaced() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
        done = now["status"].get("updatedReplicas") == now["status"].get("readyReplicas") == 2
        return bool(done and now["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2")

    await poll_until(replaced)

    # Mounted objects cannot be deleted.
    for deleting in (
        server.admin.storage.delete_volume(namespace=server.legacy, name=await name_of_claim(server)),
        server.admin.config.delete_secret(namespace=server.legacy, name="shop-db"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await deleting
        assert refused.value.code.name == "FAILED_PRECONDITION"
    await server.admin.containers.delete(namespace=server.legacy, name="shop")

    async def gone() -> bool:
        listed = server.admin.containers.list(namespace=server.legacy)
        names = [each.name async for each in listed]
        return "shop" not in names and not (await kubectl.ask("GET", DEPLOYMENTS))["items"]

    await poll_until(gone)

    # The claim existed before the import: it is released with its data. The secret is deleted like any other.
    there = await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims/shop.data")
    await server.admin.storage.delete_volume(namespace=server.legacy, name=await name_of_claim(server))
    await server.admin.config.delete_secret(namespace=server.legacy, name="shop-db")

    async def given_back() -> bool:
        claims = [
            item
            async for item in server.admin.storage.list_volumes(namespace=server.legacy)
            if item.kubernetes_name
        ]
        secrets = [item.name async for item in server.admin.config.list_secrets(namespace=server.legacy)]
        return not claims and "shop-db" not in secrets

    await poll_until(given_back)
    left = await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims/shop.data")
    assert left["metadata"]["uid"] == there["metadata"]["uid"]
    assert "deletionTimestamp" not in left["metadata"]
    assert not any(key.startswith(OURS) for key in left["metadata"]["labels"])
    names = [item["metadata"]["name"] for item in (await kubectl.ask("GET", f"{CORE}/secrets"))["items"]]
    assert "shop-db" not in names

    # The same objects can be imported once more.
    await prepare_secret(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    answer = await server.admin.containers.import_(namespace=server.legacy, names=["shop"])
    assert list(answer.results[0].problems) == []


async def test_a_claim_made_again_belongs_to_the_platform(server: Server) -> None:
    """Somebody deletes the claim that was taken over: the platform's replacement is deleted with its volume."""
    kubectl = await legacy(server)
    await kubectl.ask("POST", f"{CORE}/persistentvolumeclaims", claim("data"))
    wanted = deployment("one", replicas=0)
    wanted["spec"]["template"]["spec"]["volumes"] = [
        {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    ]
    wanted["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/d"}]
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    (result,) = (await server.admin.containers.import_(namespace=server.legacy)).results
    assert list(result.volumes) == ["data"]
    await settled(server)
    former = await kubectl.ask("DELETE", f"{CORE}/persistentvolumeclaims/data")

    async def claims() -> list[str]:
        listed = (await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims"))["items"]
        return [item["metadata"]["uid"] for item in listed]

    async def made_anew() -> bool:
        return bool(uids := await claims()) and former["metadata"]["uid"] not in uids

    await poll_until(made_anew)
    await server.admin.containers.delete(namespace=server.legacy, name="one")
    await server.admin.storage.delete_volume(namespace=server.legacy, name="data")

    async def gone() -> bool:
        return not await claims()

    await poll_until(gone)


async def test_shared_objects_are_made_once_and_found_by_a_second_import(server: Server) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    for name in ("one", "two", "three"):
        await kubectl.ask("POST", DEPLOYMENTS, shop(name))
    answer = await server.admin.containers.import_(namespace=server.legacy, names=["one", "two"])
    assert [list(item.problems) for item in answer.results] == [[], []]
    assert "shop-db" in answer.results[0].secrets
    assert not answer.results[1].secrets
    assert not answer.results[1].volumes
    later = await server.admin.containers.import_(namespace=server.legacy, names=["three"])
    assert (list(later.results[0].problems), list(later.results[0].volumes)) == ([], [])
    claims = [
        item
        async for item in server.admin.storage.list_volumes(namespace=server.legacy)
        if item.kubernetes_name
    ]
    assert [list(item.mounted_by) for item in claims] == [["one", "three", "two"]]


async def test_a_drifted_deployment_is_left_and_reported_with_its_volumes(server: Server) -> None:
    """The pods of the Deployment differ from the platform's: the claim is read-only for all."""
    kubectl = await legacy(server)
    await kubectl.ask("POST", f"{CORE}/persistentvolumeclaims", claim("many", accessModes=["ReadOnlyMany"]))
    wanted = deployment(
        "reader", replicas=1, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "many"}}]
    )
    wanted["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "data", "mountPath": "/d"}
    ]
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    there = await kubectl.ask("GET", f"{DEPLOYMENTS}/reader")
    answer = await server.admin.containers.import_(namespace=server.legacy, names=["reader"])
    (result,) = answer.results
    assert list(result.problems) == []
    assert result.container.drift_policy == pb.DRIFT_POLICY_REPORT
    assert any("readOnly" in note for note in result.notes), result.notes

    async def labelled() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/reader")
        return "pilothouse.dev/container-uid" in now["metadata"]["labels"]

    await poll_until(labelled)
    assert (await kubectl.ask("GET", f"{DEPLOYMENTS}/reader"))["spec"] == there["spec"]
