"""An application that ran on a cluster before the platform: the mounts, sources and names of its pods."""

from __future__ import annotations

import base64
from typing import Any

from tests.harness import Server
from tests.main_job.legacy import Kubectl, deployment
from tests.waiting import poll_until

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
    """Returns a Deployment as people write it: the pod has its own names and order of volumes."""
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


async def prepare(kubectl: Kubectl) -> None:
    """Makes the claim, config maps and secrets that `shop` needs."""
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
    # As `kubectl apply` leaves it: an annotation contains the values, too.
    note = {"kubectl.kubernetes.io/last-applied-configuration": CANARY}
    database["metadata"]["annotations"] |= note
    for each in (database, auth):
        await kubectl.ask("POST", f"{CORE}/secrets", each)


def labels_without_ours(manifest: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = manifest["metadata"]["labels"]
    return {key: value for key, value in labels.items() if not key.startswith(OURS)}


async def settled(server: Server) -> None:
    """Waits until all objects of the namespace are on the cluster."""

    async def look() -> bool:
        config = server.admin.config
        waiting = [
            item.name async for item in config.list_config_maps(namespace=server.legacy) if item.reconciling
        ]
        waiting += [
            item.name async for item in config.list_secrets(namespace=server.legacy) if item.reconciling
        ]
        waiting += [
            item.name
            async for item in server.admin.storage.list_volumes(namespace=server.legacy)
            if item.reconciling
        ]
        return not waiting

    await poll_until(look, what="all applied")


async def name_of_claim(server: Server) -> str:
    listed = [
        item
        async for item in server.admin.storage.list_volumes(namespace=server.legacy)
        if item.kubernetes_name
    ]
    return listed[0].name


async def prepare_secret(kubectl: Kubectl) -> None:
    await kubectl.ask(
        "POST", f"{CORE}/secrets", source("Secret", "shop-db", type="Opaque", data={"password": encoded("p")})
    )
