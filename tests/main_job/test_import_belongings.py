"""What an imported container mounts and reads comes along: claims, config maps and secrets, and no pod restarts."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from tests.config.canaries import found_in
from tests.harness import PASSWORD, Server, eventually
from tests.main_job.command import logged_in
from tests.main_job.legacy import DEPLOYMENTS, Kubectl, all_run, condition, deployment, legacy, running

CORE = "/api/v1/namespaces/legacy"
CANARY = "Zq7CanaryOfTheImport"
OURS = "pilothouse.dev/"


def claim(name: str, **spec: Any) -> dict[str, Any]:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}} | spec
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": labels},
        "spec": wanted,
    }


def source(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "Helm", "team": "a"}
    metadata = {"name": name, "labels": labels, "annotations": {"owner": "team-a"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def shop(name: str = "shop", **pod: Any) -> dict[str, Any]:
    """As people write it: names of volumes are the pod's own, in an order of their own."""
    wanted = deployment(name, replicas=1, **pod)
    spec = wanted["spec"]["template"]["spec"]
    spec["volumes"] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "store", "persistentVolumeClaim": {"claimName": "shop.data"}},
        {"name": "config", "configMap": {"name": "shop-config"}},
        {"name": "auth", "secret": {"secretName": "shop-auth"}},
    ]
    (main,) = spec["containers"]
    main["volumeMounts"] = [
        {"name": "store", "mountPath": "/data", "subPath": "files"},
        {"name": "config", "mountPath": "/etc/shop", "readOnly": True},
        {"name": "auth", "mountPath": "/etc/auth", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    main["env"] += [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop-db", "key": "password"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "shop-levels", "key": "level"}}},
        {
            "name": "MAYBE",
            "valueFrom": {"secretKeyRef": {"name": "absent", "key": "a", "optional": True}},
        },
    ]
    spec["initContainers"] = [
        {
            "name": "prepare",
            "image": "docker.io/library/busybox:1",
            "volumeMounts": [{"name": "store", "mountPath": "/data"}],
        }
    ]
    return wanted


async def furnished(kubectl: Kubectl) -> None:
    """The claim, config maps and secrets that `shop` needs."""
    await kubectl.ask("POST", f"{CORE}/persistentvolumeclaims", claim("shop.data"))
    files = source("ConfigMap", "shop-config", data={"a.ini": "x=1"}, binaryData={"b": encoded("b")})
    levels = source("ConfigMap", "shop-levels", data={"level": "1"}, immutable=True)
    for each in (files, levels):
        await kubectl.ask("POST", f"{CORE}/configmaps", each)
    database = source("Secret", "shop-db", type="Opaque", data={"password": encoded(CANARY)})
    auth = source(
        "Secret",
        "shop-auth",
        type="kubernetes.io/basic-auth",
        data={"username": encoded("u"), "password": encoded(CANARY)},
    )
    # As `kubectl apply` leaves it: the values stand in an annotation too.
    note = {"kubectl.kubernetes.io/last-applied-configuration": CANARY}
    database["metadata"]["annotations"] |= note
    for each in (database, auth):
        await kubectl.ask("POST", f"{CORE}/secrets", each)


def labels_without_ours(manifest: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = manifest["metadata"]["labels"]
    return {key: value for key, value in labels.items() if not key.startswith(OURS)}


async def settled(server: Server) -> None:
    """Everything of the namespace is on the cluster."""

    async def look() -> bool:
        config = server.admin.config
        waiting = [
            item.name async for item in config.list_config_maps(namespace="legacy") if item.reconciling
        ]
        waiting += [item.name async for item in config.list_secrets(namespace="legacy") if item.reconciling]
        waiting += [
            item.name
            async for item in server.admin.storage.list_volumes(namespace="legacy")
            if item.reconciling
        ]
        return not waiting

    await eventually(look, what="all applied")


async def test_an_application_is_taken_over_whole_and_no_pod_restarts(server: Server, tmp_path: Path) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await all_run(kubectl, "shop", 1)
    pods = await kubectl.pods()
    there = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
    kinds = {"persistentvolumeclaims/shop.data": "spec"}
    kinds |= {"configmaps/shop-config": "data", "configmaps/shop-levels": "data"}
    kinds |= {"secrets/shop-db": "data", "secrets/shop-auth": "data"}
    before = {path: await kubectl.ask("GET", f"{CORE}/{path}") for path in kinds}

    shell = await logged_in(server, tmp_path)
    said = await shell.succeed("containers", "import", "shop", "-n", "legacy", "--validate-only")
    made = (
        "volume configmap-shop-config, volume secret-shop-auth, config map shop-config, config map shop-levels, "
        "secret shop-auth, secret shop-db"
    )
    assert all(part in said for part in made.split(", ")), said
    assert [item async for item in server.admin.storage.list_volumes(namespace="legacy")] == []
    assert [item async for item in server.admin.config.list_secrets(namespace="legacy")] == []
    (result,) = await shell.read("containers", "import", "shop", "-n", "legacy")
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
        item.kubernetes_name: item async for item in server.admin.storage.list_volumes(namespace="legacy")
    }
    data = volumes["shop.data"]
    assert data.size == "1Gi"
    assert data.access_mode == storage_pb2.ACCESS_MODE_READ_WRITE_ONCE
    assert data.storage_class == before["persistentvolumeclaims/shop.data"]["spec"]["storageClassName"]
    assert data.status == storage_pb2.VOLUME_STATUS_BOUND
    assert list(data.mounted_by) == ["shop"]
    assert {mount.mount_path: mount.volume for mount in found.volume_mounts}["/data"] == data.name
    auth = await server.admin.config.get_secret(namespace="legacy", name="shop-auth")
    assert auth.type == "kubernetes.io/basic-auth"
    assert dict(auth.labels)["team"] == "a"
    levels = await server.admin.config.get_config_map(namespace="legacy", name="shop-levels")
    assert levels.immutable


async def test_afterwards_it_is_changed_like_any_other(server: Server) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await all_run(kubectl, "shop", 1)
    await server.admin.containers.import_(namespace="legacy", names=["shop"])
    await running(server, "shop")
    await settled(server)
    pods = await kubectl.pods()

    # A new value of the secret reaches the cluster, and on request the pods.
    secret = config_pb2.Secret(name="shop-db", string_data={"password": "another"})
    await server.admin.config.update_secret(
        namespace="legacy", name="shop-db", secret=secret, update_mask=FieldMask(paths=["string_data"])
    )

    async def told() -> bool:
        now = await kubectl.ask("GET", f"{CORE}/secrets/shop-db")
        return bool(now["data"]["password"] == encoded("another"))

    await eventually(told)
    assert await kubectl.pods() == pods

    # More pods are made by the same template, and what is there stays.
    await server.admin.containers.update(
        namespace="legacy",
        name="shop",
        container=pb.Container(replicas=2),
        update_mask=FieldMask(paths=["replicas"]),
    )

    async def two() -> bool:
        now = await kubectl.pods()
        return len(now) == 2 and pods.items() <= now.items()

    await eventually(two)

    # A volume with the name of one in its pods finds another name there.
    volume = storage_pb2.Volume(name="config", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
    await server.admin.storage.create_volume(namespace="legacy", volume=volume)
    await server.admin.storage.attach_volume(
        namespace="legacy", name="config", container="shop", mount_path="/more"
    )

    async def mounted() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
        mounts = now["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        return {"name": "config-2", "mountPath": "/more"} in mounts

    await eventually(mounted)
    await server.admin.containers.update(
        namespace="legacy",
        name="shop",
        container=pb.Container(image="nginx:2"),
        update_mask=FieldMask(paths=["image"]),
    )

    async def replaced() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/shop")
        done = now["status"].get("updatedReplicas") == now["status"].get("readyReplicas") == 2
        return bool(done and now["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2")

    await eventually(replaced)

    # While it is mounted, nothing of it can be deleted.
    for deleting in (
        server.admin.storage.delete_volume(namespace="legacy", name=await name_of_claim(server)),
        server.admin.config.delete_secret(namespace="legacy", name="shop-db"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await deleting
        assert refused.value.code.name == "FAILED_PRECONDITION"
    await server.admin.containers.delete(namespace="legacy", name="shop")

    async def gone() -> bool:
        return not (await kubectl.ask("GET", DEPLOYMENTS))["items"]

    await eventually(gone)

    # The claim was somebody's before: it is given back, with its data. A secret is deleted like any other.
    there = await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims/shop.data")
    await server.admin.storage.delete_volume(namespace="legacy", name=await name_of_claim(server))
    await server.admin.config.delete_secret(namespace="legacy", name="shop-db")

    async def given_back() -> bool:
        claims = [
            item
            async for item in server.admin.storage.list_volumes(namespace="legacy")
            if item.kubernetes_name
        ]
        secrets = [item.name async for item in server.admin.config.list_secrets(namespace="legacy")]
        return not claims and "shop-db" not in secrets

    await eventually(given_back)
    left = await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims/shop.data")
    assert left["metadata"]["uid"] == there["metadata"]["uid"]
    assert "deletionTimestamp" not in left["metadata"]
    assert not any(key.startswith(OURS) for key in left["metadata"]["labels"])
    names = [item["metadata"]["name"] for item in (await kubectl.ask("GET", f"{CORE}/secrets"))["items"]]
    assert "shop-db" not in names

    # And it can be taken over once more.
    await furnished_secret(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    answer = await server.admin.containers.import_(namespace="legacy", names=["shop"])
    assert list(answer.results[0].problems) == []


async def test_a_claim_that_was_made_anew_is_the_platforms_own(server: Server) -> None:
    """Somebody deletes the one that was taken over: what the platform makes in its place goes with its volume."""
    kubectl = await legacy(server)
    await kubectl.ask("POST", f"{CORE}/persistentvolumeclaims", claim("data"))
    wanted = deployment("one", replicas=0)
    wanted["spec"]["template"]["spec"]["volumes"] = [
        {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    ]
    wanted["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/d"}]
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    (result,) = (await server.admin.containers.import_(namespace="legacy")).results
    assert list(result.volumes) == ["data"]
    await settled(server)
    former = await kubectl.ask("DELETE", f"{CORE}/persistentvolumeclaims/data")

    async def claims() -> list[str]:
        listed = (await kubectl.ask("GET", f"{CORE}/persistentvolumeclaims"))["items"]
        return [item["metadata"]["uid"] for item in listed]

    async def made_anew() -> bool:
        return bool(uids := await claims()) and former["metadata"]["uid"] not in uids

    await eventually(made_anew)
    await server.admin.containers.delete(namespace="legacy", name="one")
    await server.admin.storage.delete_volume(namespace="legacy", name="data")

    async def gone() -> bool:
        return not await claims()

    await eventually(gone)


async def name_of_claim(server: Server) -> str:
    listed = [
        item async for item in server.admin.storage.list_volumes(namespace="legacy") if item.kubernetes_name
    ]
    return listed[0].name


async def furnished_secret(kubectl: Kubectl) -> None:
    await kubectl.ask(
        "POST", f"{CORE}/secrets", source("Secret", "shop-db", type="Opaque", data={"password": encoded("p")})
    )


async def test_what_several_share_is_made_once_and_a_second_import_finds_it(server: Server) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    for name in ("one", "two", "three"):
        await kubectl.ask("POST", DEPLOYMENTS, shop(name))
    answer = await server.admin.containers.import_(namespace="legacy", names=["one", "two"])
    assert [list(item.problems) for item in answer.results] == [[], []]
    assert "shop-db" in answer.results[0].secrets
    assert not answer.results[1].secrets
    assert not answer.results[1].volumes
    later = await server.admin.containers.import_(namespace="legacy", names=["three"])
    assert (list(later.results[0].problems), list(later.results[0].volumes)) == ([], [])
    claims = [
        item async for item in server.admin.storage.list_volumes(namespace="legacy") if item.kubernetes_name
    ]
    assert [list(item.mounted_by) for item in claims] == [["one", "three", "two"]]


async def test_a_drifted_one_is_left_and_reported_with_its_volumes(server: Server) -> None:
    """One whose pods say what the platform would not: the claim is one that nobody may write to."""
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
    answer = await server.admin.containers.import_(namespace="legacy", names=["reader"])
    (result,) = answer.results
    assert list(result.problems) == []
    assert result.container.drift_policy == pb.DRIFT_POLICY_REPORT
    assert any("readOnly" in note for note in result.notes), result.notes

    async def labelled() -> bool:
        now = await kubectl.ask("GET", f"{DEPLOYMENTS}/reader")
        return "pilothouse.dev/container-uid" in now["metadata"]["labels"]

    await eventually(labelled)
    assert (await kubectl.ask("GET", f"{DEPLOYMENTS}/reader"))["spec"] == there["spec"]


@pytest.mark.parametrize(
    ("kind", "manifest", "words"),
    [
        ("secrets", source("Secret", "x", type="helm.sh/release.v1"), "Helm's record of a release"),
        ("secrets", None, "there is none on the cluster"),
        ("configmaps", "kube-root-ca.crt", "Kubernetes makes it"),
        (
            "persistentvolumeclaims",
            claim("x", accessModes=["ReadWriteOnce", "ReadOnlyMany"]),
            "spec.accessModes",
        ),
        ("persistentvolumeclaims", claim("x", volumeMode="Block"), "spec.volumeMode"),
        ("persistentvolumeclaims", None, "there is none on the cluster"),
    ],
)
async def test_what_is_not_taken_over_is_told_and_nothing_is_made(
    server: Server, kind: str, manifest: dict[str, Any] | str | None, words: str
) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    wanted = shop()
    spec = wanted["spec"]["template"]["spec"]
    name = manifest if isinstance(manifest, str) else "x"
    if isinstance(manifest, dict):
        await kubectl.ask("POST", f"{CORE}/{kind}", manifest)
    match kind:
        case "secrets":
            spec["volumes"][3]["secret"]["secretName"] = name
        case "configmaps":
            spec["volumes"][2]["configMap"]["name"] = name
        case _:
            spec["volumes"][1]["persistentVolumeClaim"]["claimName"] = name
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    answer = await server.admin.containers.import_(namespace="legacy", names=["shop"])
    (result,) = answer.results
    assert not result.HasField("container")
    assert any(f" {name}: " in each and words in each for each in result.problems), result.problems
    assert [item.name async for item in server.admin.storage.list_volumes(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_secrets(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_config_maps(namespace="legacy")] == []


async def test_who_may_not_make_them_does_not_by_an_import(server: Server) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="importer", permissions=["container.*", "namespace.get"])
    )
    importer = await server.user("importer", {"legacy": "importer"})
    answer = await importer.containers.import_(namespace="legacy")
    told = " ".join(answer.results[0].problems)
    assert (
        'PersistentVolumeClaim shop.data: permission storage.create is needed in namespace "legacy"' in told
    )
    assert 'Secret shop-db: permission config.create is needed in namespace "legacy"' in told
    assert not answer.results[0].HasField("container")
    developer = await server.user("developer", {"legacy": "developer"})
    answer = await developer.containers.import_(namespace="legacy")
    assert list(answer.results[0].problems) == []
    # What is made already needs no more than to be mounted.
    await kubectl.ask("POST", DEPLOYMENTS, shop("second"))
    answer = await importer.containers.import_(namespace="legacy", names=["second"])
    assert list(answer.results[0].problems) == []


async def test_the_values_of_a_secret_are_nowhere_but_encrypted(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    for validate_only in (True, False):
        answer = await server.admin.containers.import_(
            namespace="legacy", names=["shop"], validate_only=validate_only
        )
        assert not found_in(answer.SerializeToString(), [CANARY])
    await settled(server)
    revealed = await server.admin.config.reveal_secret(namespace="legacy", name="shop-db")
    assert revealed.data["password"].decode() == CANARY
    async with server.database.owner() as owner:
        tables = await owner.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"
        )
        rows = 0
        for table in tables:
            for row in await owner.fetch(f"SELECT t::text AS row FROM {table['name']} AS t"):
                rows += 1
                assert not found_in(row["row"].encode(), [CANARY]), table["name"]
        assert rows
        (record,) = await owner.fetch(
            "SELECT metadata FROM operation_logs WHERE action = 'import' ORDER BY id DESC LIMIT 1"
        )
    assert "shop-db" in str(record["metadata"])
    out, err = capfd.readouterr()
    assert not found_in((out + err).encode(), [CANARY])
    assert PASSWORD not in str(record["metadata"])
