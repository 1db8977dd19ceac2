"""A real application: applied completely by one command, watched, stopped, started, deleted, and recorded in the audit
log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import Shell, logged_in
from tests.waiting import poll_until, within

pytestmark = pytest.mark.full(minutes=5)

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared" / "samples" / "online-boutique.yaml"
EXAMPLE = ROOT / "deploy" / "examples" / "harbor-cafe.yaml"
# The sample is not ours to commit: it is tested, too, if it lies next to the checkout. A skipped test would fail CI
# elsewhere.
APPLICATIONS = [
    pytest.param(path, id=name)
    for name, path in (("own example", EXAMPLE), ("online boutique", SAMPLE))
    if path.exists()
]


def documents(path: Path, kind: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item and item["kind"] == kind]


def contains(held: Any, wanted: Any, path: str) -> list[str]:
    """Returns the parts of `wanted` that are not in `held`; lists of objects with names are compared by name."""
    if isinstance(wanted, dict):
        if not isinstance(held, dict):
            return [path]
        return [
            lost for key, value in wanted.items() for lost in contains(held.get(key), value, f"{path}.{key}")
        ]
    if isinstance(wanted, list):
        if not isinstance(held, list) or len(held) < len(wanted):
            return [path]
        return [
            lost
            for index, value in enumerate(wanted)
            if all(contains(item, value, path) for item in held)
            for lost in [f"{path}[{index}]"]
        ]
    return [] if held == wanted or str(held) == str(wanted) else [path]


def lost_on_the_way(server: Server, path: Path, namespace: str) -> list[str]:
    """Returns the parts of the file's pods and services that the cluster does not have."""
    assert server.cluster is not None
    store = server.cluster.store
    lost: list[str] = []
    for wanted in documents(path, "Deployment"):
        name = wanted["metadata"]["name"]
        held = store.get(resources.DEPLOYMENTS, namespace, name) or {}
        template = wanted["spec"]["template"]
        lost += contains(
            held.get("spec", {}).get("template", {}).get("spec"), template["spec"], f"{name}.spec"
        )
        lost += contains(
            held.get("spec", {}).get("template", {}).get("metadata"), template["metadata"], f"{name}.metadata"
        )
    for wanted in documents(path, "Service"):
        name = wanted["metadata"]["name"]
        held = store.get(resources.SERVICES, namespace, name) or {}
        lost += contains(held.get("spec"), wanted["spec"], f"service {name}.spec")
    for wanted in documents(path, "ServiceAccount"):
        name = wanted["metadata"]["name"]
        account = store.get(resources.SERVICE_ACCOUNTS, namespace, name)
        # As written: its pods mount a token unless the account forbids it.
        if account is None or "automountServiceAccountToken" in account:
            lost.append(f"service account {name}")
    return lost


@pytest.mark.parametrize("path", APPLICATIONS)
async def test_one_command_starts_the_whole_application(server: Server, tmp_path: Path, path: Path) -> None:
    shell = await logged_in(server, tmp_path)
    names = {item["metadata"]["name"] for item in documents(path, "Deployment")}
    count = len(names) + len(documents(path, "Service")) + len(documents(path, "ServiceAccount"))
    await shell.succeed("namespaces", "create", "boutique")
    async with shell.running("containers", "list", "--namespace", "boutique", "--watch") as watched:
        applied = await shell.succeed(
            "apply", "-f", str(path), "--namespace", "boutique", "--wait", "--stable-for", "0.3"
        )
        assert f"{count} created" in applied
        assert lost_on_the_way(server, path, "boutique") == []
        listed = await shell.read("containers", "list", "--namespace", "boutique")
        assert {item["name"]: item["status"] for item in listed} == dict.fromkeys(
            names, "CONTAINER_STATUS_RUNNING"
        )
        seen: set[str] = set()
        async with within(30):
            while seen != names:
                line = (await watched.readline()).decode()
                assert line, "the watch ended"
                cells = line.split("\t")
                seen |= names.intersection(cells) if "RUNNING" in cells else set()
    records = await shell.succeed("audit", "list", "--namespace", "boutique", "--filter", 'action = "create"')
    assert all(name in records for name in names)
    assert "admin" in records
    again = await shell.succeed("apply", "-f", str(path), "--namespace", "boutique")
    assert f"{count} unchanged" in again
    await lifecycle(server, shell, min(names))


async def lifecycle(server: Server, shell: Shell, name: str) -> None:
    """Checks stop, start, pause, resume, restart and delete against the table of the API."""
    assert server.cluster is not None
    store = server.cluster.store
    where = ("--namespace", "boutique")

    async def status() -> str:
        found = await shell.read("containers", "get", name, *where)
        return str(found["status"]).removeprefix("CONTAINER_STATUS_")

    async def pods() -> set[str]:
        deployment = store.get(resources.DEPLOYMENTS, "boutique", name)
        assert deployment is not None
        uid = deployment["metadata"]["labels"]["pilothouse.dev/container-uid"]
        return {
            pod["metadata"]["uid"]
            for pod in store.list(resources.PODS, "boutique")
            if pod["metadata"]["labels"].get("pilothouse.dev/container-uid") == uid
        }

    async def becomes(wanted: str) -> None:
        async def reached() -> bool:
            return await status() == wanted

        await poll_until(reached, seconds=60, what=f"{name} {wanted}")

    async def without_pods() -> bool:
        return not await pods()

    await shell.succeed("containers", "stop", name, *where)
    assert await status() == "STOPPED"
    await poll_until(without_pods, seconds=60)
    refused = await shell.run("containers", "pause", name, *where)
    assert refused.code != 0
    assert "stopped" in refused.errors
    await shell.succeed("containers", "start", name, *where)
    await becomes("RUNNING")
    await shell.succeed("containers", "pause", name, *where)
    assert await status() == "PAUSED"
    await poll_until(without_pods, seconds=60)
    for verb in ("start", "stop", "restart"):
        assert (await shell.run("containers", verb, name, *where)).code != 0
    await shell.succeed("containers", "resume", name, *where)
    await becomes("RUNNING")
    before = await pods()
    await shell.succeed("containers", "restart", name, *where)

    async def replaced() -> bool:
        now = await pods()
        return bool(now) and not now & before and await status() == "RUNNING"

    await poll_until(replaced, seconds=60, what="other pods")
    history = await shell.succeed("containers", "history", name, *where)
    assert "PAUSED" in history
    assert "STOPPED" in history
    await shell.succeed("containers", "delete", name, *where, "--yes")

    async def gone() -> bool:
        return (await shell.run("containers", "get", name, *where)).code != 0 and store.get(
            resources.DEPLOYMENTS, "boutique", name
        ) is None

    await poll_until(gone, seconds=60)
