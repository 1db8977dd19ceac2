"""Runs an application of a dozen Deployments and Services through the command, from the first apply to its deletion.

Each line of output is checked, and no other line may appear.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.applications.conftest import JsonObject, claim, deployment, service
from tests.applications.test_following import BEHAVIOR
from tests.harness import Server
from tests.main_job.command import Outcome, Shell, logged_in
from tests.waiting import poll_until, within

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2

pytestmark = pytest.mark.full(minutes=3)

NAMES = sorted(
    [
        *("ads", "carts", "checkout", "currencies", "email", "front", "load", "payments", "products"),
        *("recommendations", "redis", "shipping"),
    ]
)
BAD_IMAGE = "container front: its image cannot be pulled"


def boutique(*, without: str = "", front: str = "run") -> list[JsonObject]:
    """Returns the documents. `front` is the behaviour of the front page's pods."""
    documents: list[JsonObject] = [claim("orders")]
    for name in NAMES:
        if name == without:
            continue
        made = deployment(name, image=f"registry.example/boutique/{name}:v1")
        template = made["spec"]["template"]
        (program,) = template["spec"]["containers"]
        program["readinessProbe"] = {"grpc": {"port": 50051}}
        program["resources"] = {"requests": {"cpu": "10m", "memory": "8Mi"}}
        if name == "redis":
            template["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "orders"}}]
            program["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        if name == "front" and front != "run":
            template["metadata"]["annotations"] = {BEHAVIOR: front}
            program["image"] = "registry.example/boutique/front:v2"
        documents += [service(name), made]
    return documents


class Boutique:
    """The command in a namespace, with the files of the application."""

    def __init__(self, server: Server, shell: Shell, directory: Path) -> None:
        self.server = server
        self.shell = shell
        self._directory = directory

    def arguments(self, documents: list[JsonObject], *options: str) -> list[str]:
        file = self._directory / "boutique.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        return ["apply", "-f", str(file), "--application", "boutique", "--namespace", "demo", *options]

    async def apply(self, documents: list[JsonObject], *options: str) -> Outcome:
        return await self.shell.run(*self.arguments(documents, *options))

    async def applications(self, *arguments: str, namespace: str = "demo") -> Outcome:
        return await self.shell.run("applications", *arguments, "--namespace", namespace)

    async def seen(self) -> pb.Application:
        return await self.server.admin.applications.get(namespace="demo", name="boutique")


def changes(verb: str, *, without: str = "") -> list[str]:
    """Returns the output of an apply that does the same with all objects, volumes first."""
    names = [each for each in NAMES if each != without]
    subjects = [
        "volume/orders",
        *(f"service/{each}" for each in names),
        *(f"container/{each}" for each in names),
    ]
    return [f"{each} {verb}" for each in subjects]


async def test_a_boutique_is_applied_broken_restored_pruned_moved_and_deleted(
    server: Server, tmp_path: Path
) -> None:
    for name in ("demo", "elsewhere"):
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    shop = Boutique(server, await logged_in(server, tmp_path), tmp_path)

    made = await shop.apply(boutique(), "--wait", "--stable-for", "1")
    *lines, last = made.output.splitlines()
    assert (made.code, made.errors) == (0, "")
    assert lines[:25] == changes("created")
    assert all(each.startswith("application/boutique progressing") for each in lines[25:-1]), lines
    assert (lines[-1], last) == ("application/boutique healthy", "25 created: revision 1 of boutique")

    # A bad image is reported with its reason.
    broken = await shop.apply(boutique(front="image-pull-error"), "--wait")
    assert broken.code == 10
    (reason,) = broken.errors.splitlines()
    assert reason.startswith("boutique: Deployment front: its image cannot be pulled: ")
    assert broken.output.splitlines()[-1] == "1 updated, 24 unchanged: revision 2 of boutique"
    back = await shop.applications("rollback", "boutique")
    assert (back.code, back.errors) == (0, "not restored: data of volume orders\n")
    assert back.output.splitlines()[-1] == "revision 3 of boutique restores revision 1"

    # The server rolls back, although the client is killed.
    options = ("--wait", "--rollback-on-failure")
    client = await shop.shell.start(*shop.arguments(boutique(front="image-pull-error"), *options))
    assert client.stdout is not None
    async with within(30.0):
        while not (await client.stdout.readline()).startswith(b"application/boutique"):
            pass
        client.kill()
        await client.wait()
    await poll_until(lambda: _is_rolled_back(shop), seconds=30)
    listed = await shop.applications("revisions", "boutique", "-o", "json")
    newest, failed, *_ = json.loads(listed.output)
    assert (newest["number"], newest["origin"], newest["failed_revision"], failed["number"]) == (5, 3, 4, 4)
    assert newest["reason"].startswith(BAD_IMAGE)

    pruned = await shop.apply(boutique(without="email"), "--prune")
    assert (pruned.code, pruned.errors) == (0, "")
    assert pruned.output.splitlines() == [
        *changes("unchanged", without="email"),
        "container/email pruned",
        "service/email pruned",
        "23 unchanged, 2 pruned: revision 6 of boutique",
    ]

    exported = await shop.applications("export", "boutique")
    assert (exported.code, exported.errors) == (0, "")
    moved = await shop.shell.run(
        *("apply", "-f", "-", "--application", "boutique", "--namespace", "elsewhere"), given=exported.output
    )
    assert (moved.code, moved.errors) == (0, "")
    assert moved.output.splitlines() == [
        *changes("created", without="email"),
        "23 created: revision 1 of boutique",
    ]

    deleted = await shop.applications("delete", "boutique", "--yes")
    assert (deleted.code, deleted.errors) == (0, "volumes that stay: orders\n")
    assert len(deleted.output.splitlines()) == 1 + 22
    await poll_until(lambda: _has_only_its_claim(shop), seconds=30)


async def _is_rolled_back(shop: Boutique) -> bool:
    found = await shop.seen()
    return found.revision == 5 and found.status == pb.APPLICATION_STATUS_HEALTHY


async def _has_only_its_claim(shop: Boutique) -> bool:
    client = shop.server.admin
    containers = [each.name async for each in client.containers.list(namespace="demo")]
    services = [each.name async for each in client.network.list_services(namespace="demo")]
    volumes = [each.name async for each in client.storage.list_volumes(namespace="demo")]
    return (containers, services, volumes) == ([], [], ["orders"])
