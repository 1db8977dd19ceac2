"""`apply` brings up each shape of real applications, and the cluster then has every value of its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_simulator.values import resources
from pilothouse_simulator.values.resources import ResourceType
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import Kubectl
from tests.shapes.differences import ALLOWED, differences
from tests.waiting import poll_until

MANIFESTS = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
PATHS: dict[str, tuple[str, ResourceType]] = {
    "ConfigMap": ("/api/v1/namespaces/{}/configmaps", resources.CONFIG_MAPS),
    "CronJob": ("/apis/batch/v1/namespaces/{}/cronjobs", resources.CRON_JOBS),
    "DaemonSet": ("/apis/apps/v1/namespaces/{}/daemonsets", resources.DAEMON_SETS),
    "Deployment": ("/apis/apps/v1/namespaces/{}/deployments", resources.DEPLOYMENTS),
    "Job": ("/apis/batch/v1/namespaces/{}/jobs", resources.JOBS),
    "PersistentVolumeClaim": (
        "/api/v1/namespaces/{}/persistentvolumeclaims",
        resources.PERSISTENT_VOLUME_CLAIMS,
    ),
    "StatefulSet": ("/apis/apps/v1/namespaces/{}/statefulsets", resources.STATEFUL_SETS),
    "Secret": ("/api/v1/namespaces/{}/secrets", resources.SECRETS),
    "Service": ("/api/v1/namespaces/{}/services", resources.SERVICES),
    "ServiceAccount": ("/api/v1/namespaces/{}/serviceaccounts", resources.SERVICE_ACCOUNTS),
}
# Shapes whose pods Pod Security refuses at the default level of a new namespace.
ON_THE_NODE = frozenset({"node-agent"})


@pytest.mark.full(minutes=3)
@pytest.mark.parametrize("path", MANIFESTS, ids=[path.stem for path in MANIFESTS])
async def test_a_shape_is_brought_up_completely(shared_server: Server, tmp_path: Path, path: Path) -> None:
    documents = [each for each in yaml.safe_load_all(path.read_text()) if each]
    shell, kubectl = await logged_in(shared_server, tmp_path), Kubectl(shared_server)
    ours, theirs = path.stem, f"{path.stem}-as-written"
    level = ("--label", "pod-security.kubernetes.io/enforce=privileged") if ours in ON_THE_NODE else ()
    await shell.succeed("namespaces", "create", ours, *level)
    await kubectl.ask("POST", "/api/v1/namespaces", {"metadata": {"name": theirs}})
    for document in documents:
        await kubectl.ask("POST", PATHS[document["kind"]][0].format(theirs), document)
    options = ("--namespace", ours, "--wait", "--stable-for", "0.3")
    applied = await shell.run("apply", "-f", str(path), *options)
    assert applied.code == 0, applied.errors
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        found = await lost(shared_server, PATHS[kind][1], (theirs, ours), name)
        assert found == [], "\n".join([f"{kind} {name}", *found])
    again = await shell.run("apply", "-f", str(path), "--namespace", ours, "-o", "json")
    changes = json.loads(again.output)["changes"]
    # The list contains the changes, with the fields that differ.
    assert [each for each in changes if each["action"] != "CHANGE_ACTION_UNCHANGED"] == []


async def lost(server: Server, resource: ResourceType, namespaces: tuple[str, str], name: str) -> list[str]:
    """Returns the differences between an object as posted and as created by the platform, when both exist."""
    assert server.cluster is not None
    store = server.cluster.store

    async def found() -> list[Any]:
        return [store.get(resource, namespace, name) for namespace in namespaces]

    theirs, ours = await poll_until(found, all)
    return differences(theirs, ours)


def test_each_allowed_difference_has_its_own_reason() -> None:
    assert len({each.reason for each in ALLOWED}) == len(ALLOWED)


def test_lost_and_added_values_are_differences() -> None:
    theirs = {"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "a", "tty": True}]}}}}
    ours = {"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "a", "stdin": True}]}}}}
    assert differences(theirs, ours) == [
        ".spec.template.spec.containers[0].tty: written True, on the cluster nothing",
        ".spec.template.spec.containers[0].stdin: written nothing, on the cluster True",
    ]
    labelled = {"metadata": {"labels": {"pilothouse.dev/container-uid": "u", "app": "a"}}}
    assert differences({"metadata": {"labels": {"app": "a"}}}, labelled) == []
