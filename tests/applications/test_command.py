"""`pilothouse apply --application` and `pilothouse applications`: a small shop, managed as a person would do it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.harness import Server
from tests.main_job.command import Outcome, Shell, logged_in
from tests.waiting import poll_until

from pilothouse.namespace.v1 import namespace_pb2

SHOP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {COLOUR: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: canary-41}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: orders}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: front}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      containers:
      - name: main
        image: nginx:1.27
        envFrom: [{configMapRef: {name: settings}}]
        volumeMounts: [{name: orders, mountPath: /orders}]
      volumes: [{name: orders, persistentVolumeClaim: {claimName: orders}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: back}
spec:
  selector: {matchLabels: {app: back}}
  template:
    metadata: {labels: {app: back}}
    spec:
      containers: [{name: main, image: "redis:7"}]
"""
CREATED = [
    "configmap/settings created",
    "secret/keys created",
    "volume/orders created",
    "service/front created",
    "container/back created",
    "container/front created",
]
SMALLER = SHOP.rpartition("---\n")[0]


class Shop:
    """A namespace, and the command that works in it."""

    def __init__(self, server: Server, shell: Shell) -> None:
        self.server = server
        self._shell = shell

    async def apply(self, text: str, *options: str) -> Outcome:
        return await self._shell.run(
            "apply", "-f", "-", "-n", "demo", "--application", "shop", *options, given=text
        )

    async def applications(self, *arguments: str) -> str:
        return await self._shell.succeed("applications", *arguments, "-n", "demo")

    async def refused(self, *arguments: str) -> Outcome:
        return await self._shell.run("applications", *arguments, "-n", "demo")

    async def names(self) -> set[str]:
        return {each.name async for each in self.server.admin.containers.list(namespace="demo")}


async def shop_of(server: Server, directory: Path) -> Shop:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return Shop(server, await logged_in(server, directory))


@pytest.mark.full
async def test_an_application_is_applied_changed_rolled_back_pruned_exported_and_deleted(
    server: Server, tmp_path: Path
) -> None:
    shop = await shop_of(server, tmp_path)
    tried = await shop.apply(SHOP, "--dry-run")
    assert tried.code == 0, tried
    assert "container/front created (dry run)" in tried.output
    assert "+kind: Deployment" in tried.output
    assert "canary-41" not in tried.output + tried.errors
    assert await shop.names() == set()

    applied = await shop.apply(SHOP)
    assert applied.code == 0
    warned = [line.split()[2] for line in applied.errors.splitlines() if "has no readiness probe" in line]
    assert warned == ["back", "front"]
    assert applied.output.splitlines() == [*CREATED, "6 created: revision 1 of shop"]
    again = await shop.apply(SHOP)
    assert again.output.splitlines()[-1] == "6 unchanged: revision 1 of shop"

    changed = SHOP.replace("nginx:1.27", "nginx:broken").replace("COLOUR: blue", "COLOUR: red")
    tried = await shop.apply(changed, "--dry-run")
    assert "-image: nginx:1.27\n+image: nginx:broken" in tried.output
    assert "-data.COLOUR: blue\n+data.COLOUR: red" in tried.output
    broken = await shop.apply(changed)
    assert broken.output.splitlines()[-1] == "2 updated, 4 unchanged: revision 2 of shop"

    rolled_back = await shop.applications("rollback", "shop")
    assert rolled_back.splitlines()[-1] == "revision 3 of shop restores revision 1"
    front = await server.admin.containers.get(namespace="demo", name="front")
    assert front.image == "nginx:1.27"
    revisions = json.loads(await shop.applications("revisions", "shop", "-o", "json"))
    assert [(each["number"], each["origin"]) for each in revisions] == [(3, 1), (2, 0), (1, 0)]
    difference = await shop.applications("diff", "shop", "--before", "1", "--after", "2")
    assert "nginx:broken" in difference

    stays = await shop.apply(SMALLER)
    assert "NOT_PRUNED" not in stays.output
    assert "container/back" not in stays.output
    await shop.apply(SHOP, "--take-over")
    pruned = await shop.apply(SMALLER, "--prune")
    assert "container/back pruned" in pruned.output

    exported = await shop.applications("export", "shop")
    kinds = [each["kind"] for each in yaml.safe_load_all(exported)]
    assert sorted(kinds) == ["ConfigMap", "Deployment", "PersistentVolumeClaim", "Secret", "Service"]

    deleted = await shop.refused("delete", "shop", "--yes")
    assert deleted.code == 0, deleted
    assert deleted.errors == "volumes that stay: orders\n"
    await poll_until(lambda: _gone(shop), seconds=30)
    volumes = [each.name async for each in server.admin.storage.list_volumes(namespace="demo")]
    assert volumes == ["orders"]


async def _gone(shop: Shop) -> bool:
    return await shop.names() == set()


@pytest.mark.full
async def test_every_problem_is_reported_with_its_line_and_nothing_is_applied(
    server: Server, tmp_path: Path
) -> None:
    shop = await shop_of(server, tmp_path)
    odd = SHOP.replace("metadata: {name: back}", "metadata: {name: back}\nodd: 1")
    wrong = SHOP.replace("image: nginx:1.27", 'image: "BAD::"')
    for text, expected in (
        (odd, "stdin:41: deployment/back: odd: cannot be represented (behaviour)"),
        (wrong, "stdin:33: container/front: container.image: the tag must begin with"),
    ):
        refused = await shop.apply(text)
        assert (refused.code, refused.output) == (3, "")
        first, *_ = refused.errors.splitlines()
        assert first.startswith(expected)
        assert "nothing was applied: one problem" in refused.errors
    assert await shop.names() == set()
    skipped = await shop.apply(odd, "--skip-unsupported=behaviour")
    assert skipped.code == 11
    assert skipped.output.splitlines()[-1] == "6 created: revision 1 of shop; left out: 1 behaviour"


@pytest.mark.full
async def test_unowned_objects_are_taken_over_only_on_request(server: Server, tmp_path: Path) -> None:
    shop = await shop_of(server, tmp_path)
    alone = await shop._shell.run("apply", "-f", "-", "-n", "demo", given=SHOP)
    assert alone.code == 0, alone
    refused = await shop.apply(SHOP)
    assert refused.code == 3
    assert "exists and belongs to no application" in refused.errors
    taken = await shop.apply(SHOP, "--take-over")
    assert taken.output.splitlines()[-1] == "6 unchanged: revision 1 of shop"


@pytest.mark.full
async def test_running_containers_become_an_application_unchanged(server: Server, tmp_path: Path) -> None:
    shop = await shop_of(server, tmp_path)
    labelled = "metadata: {name: front, labels: {tier: web}}\nspec:\n  selector: {m"
    words = "{name: words}\ndata: {a: b}"
    alone = (
        SHOP.replace("metadata: {name: front}\nspec:\n  selector: {m", labelled)
        .replace(
            "[{configMapRef: {name: settings}}]",
            "[{configMapRef: {name: settings}}, {secretRef: {name: keys}}]",
        )
        .replace(
            '[{name: main, image: "redis:7"}]',
            '[{name: main, image: "redis:7", envFrom: [{configMapRef: {name: words}}]}]',
        )
        .replace(
            "volumes: [",
            "initContainers: [{name: first, image: busybox, envFrom: [{configMapRef: {name: words}}]}]\n"
            "      volumes: [",
        )
        + f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {words}\n"
    )
    assert (await shop._shell.run("apply", "-f", "-", "-n", "demo", given=alone)).code == 0
    await poll_until(lambda: _pods(shop, 2), seconds=30)
    before = await _generations(shop)
    arguments = ("create", "shop", "--from-containers", "-l", "tier=web")
    tried = await shop.refused(*arguments, "--dry-run")
    assert tried.code == 0, tried
    assert tried.output.splitlines()[-1] == "4 objects would become application shop; nothing was changed"
    assert (await shop.refused("get", "shop")).code == 6
    made = await shop.refused(*arguments)
    assert made.code == 0, made
    assert made.output.splitlines()[-1] == "4 objects are revision 1 of shop"
    application = await server.admin.applications.get(namespace="demo", name="shop")
    assert {f"{each.kind}/{each.name}" for each in application.members} == {
        "ConfigMap/settings",
        "PersistentVolumeClaim/orders",
        "Service/front",
        "Deployment/front",
    }
    assert await _generations(shop) == before
    again = await shop.refused(*arguments)
    assert again.code == 7
    assert "application shop exists, at revision 1" in again.errors
    assert tried.errors.splitlines() == [
        "left out: configmap/words: other containers read it, too",
        "left out: secret/keys: its values are not shown; apply its document to make it part of the application",
    ]
    shared = await shop.refused("create", "both", "back", "--from-containers")
    assert (shared.code, shared.errors) == (0, "left out: configmap/words: other containers read it, too\n")
    nothing = await shop.refused("create", "none", "-l", "tier=web")
    assert (nothing.code, "add --from-containers" in nothing.errors) == (2, True)


async def _pods(shop: Shop, count: int) -> bool:
    found = [each async for each in shop.server.admin.containers.list(namespace="demo")]
    return sum(each.ready_replicas for each in found) == count


async def _generations(shop: Shop) -> dict[str, tuple[int, str]]:
    """Returns the generation and the pod of each container. A restart changes them."""
    return {
        each.name: (each.generation, each.pod_name)
        async for each in shop.server.admin.containers.list(namespace="demo")
    }
