"""`describe`, `wait`, `rollout` and the output of `update`, against a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import patient, poll_until


async def test_describe_shows_changes_of_a_container_but_no_value_of_a_secret(
    shared_server: Server, tmp_path: Path
) -> None:
    admin, namespace = shared_server.admin, "described"
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    await admin.config.create_secret(
        namespace=namespace, secret=config_pb2.Secret(name="db", string_data={"password": "hunter22"})
    )
    await admin.storage.create_volume(
        namespace=namespace,
        volume=storage_pb2.Volume(
            name="data", size="1Gi", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
        ),
    )
    await admin.containers.create(
        namespace=namespace,
        container=pb.Container(name="web", image="nginx:1.27", ports=[pb.Port(container_port=80)]),
    )
    update = pb.UpdateContainerRequest(
        namespace=namespace, name="web", container=pb.Container(image="nginx:1.28")
    )
    update.update_mask.paths.append("image")
    await admin.containers.update.send(update)

    async def get() -> pb.Container:
        return await admin.containers.get(namespace=namespace, name="web")

    await poll_until(get, lambda seen: seen.ready_replicas == 1 and not seen.reconciling)
    shell = await logged_in(shared_server, tmp_path)

    async def page(*words: str) -> str:
        return await shell.succeed("describe", *words, "-n", namespace)

    shown = await page("container", "web")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "Name: web",
        "Image: nginx:1.28",
        "image nginx:1.27 -> nginx:1.28",
        "NAME READY STATUS RESTARTS AGE NODE",
    ):
        assert line in lines, (line, shown)
    assert any(" admin update " in line for line in lines)
    assert any("ScalingReplicaSet Deployment/web" in line for line in lines)
    again = await shell.succeed("containers", "describe", "web", "-n", namespace)
    assert again.splitlines()[:4] == shown.splitlines()[:4]
    secret = await page("secrets", "db")
    assert "password: 8 bytes" in secret
    assert "hunter22" not in secret
    applied = tmp_path / "menu.yaml"
    applied.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: menu}, data: {a: b}}")
    await shell.succeed("apply", "-f", str(applied), "--application", "shop", "-n", namespace)
    application = await page("app", "shop")
    assert "ConfigMap                menu" in application
    assert " admin  apply  " in application
    for words in (("svc", "web"), ("volume", "data"), ("namespace", namespace), ("cluster", "local")):
        assert words[1] in await page(*words), words
    refused = await shell.run("describe", "frob", "web", "-n", namespace)
    assert (
        refused.code,
        refused.errors.startswith("error: there is no noun 'frob': give one of containers, "),
    ) == (
        2,
        True,
    )
    assert (await shell.run("describe", "container", "missing", "-n", namespace)).code == 6


async def test_describe_shows_grants_keys_accounts_and_sinks(shared_server: Server, tmp_path: Path) -> None:
    """The API has no call that returns one of these objects: `describe` finds it in their lists."""
    namespace = "access"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    shell = await logged_in(shared_server, tmp_path)

    async def lines(*words: str) -> list[str]:
        """Returns the lines of a page, without ages."""
        written = (await shell.succeed(*words)).splitlines()
        return [re.sub(r"(?<![\w-])\d+[smhd](?![\w-]) ?", "", " ".join(line.split())) for line in written]

    def has(found: list[str], *expected: str) -> None:
        for each in expected:
            assert any(line.startswith(each) for line in found), (each, found)

    here, user = ("-n", namespace), "sa:access:ci"
    await shell.succeed("service-accounts", "create", "ci", "--description", "Deploys", *here)
    await shell.succeed("grants", "create", user, "developer", *here)
    await shell.succeed("grants", "create", user, "viewer", "-A", "--expires-in", "30d")
    for more in ((), ("--read-only", "-p", "container.get", "--allow-from", "10.0.0.0/8")):
        name = "report" if more else "deploy"
        await shell.succeed("api-keys", "create", name, "--service-account", user, *here, *more)
    account = await lines("describe", "service-account", "ci", *here)
    has(account, "Name: ci", "Namespace: access", "Description: Deploys", f"Username: {user}")
    has(account, "Grants: developer in namespace access", "viewer in every namespace, ends in (")
    has(account, "API keys: deploy phk_", "report phk_", "admin create ")
    assert await lines("service-accounts", "describe", user) != []
    await shell.succeed("service-accounts", "create", "nightly", "--platform")
    has(await lines("service-accounts", "describe", "nightly", "--platform"), "Username: sa:nightly")

    grants = await lines("grants", "describe", user)
    has(grants, "Grants: 2", "developer in namespace access:", "viewer in every namespace:", "expires never")
    has(grants, "expires in (", "allows container.*, ", "but not config.reveal, ", "admin grant ")
    assert await lines("describe", "grants", user) == grants

    whole = await lines("api-keys", "describe", "deploy", "--user", user)
    has(
        whole,
        "Permissions: all of its user",
        "Namespaces: access",
        "Networks: all",
        "Last used: never",
    )
    has(whole, "Expires: in (", "Read-only: no", "admin create ")
    narrow = await lines("api-keys", "describe", "report", "--user", user)
    has(narrow, "Permissions: container.get", "Networks: 10.0.0.0/8", "Read-only: yes")
    await shell.succeed("api-keys", "rotate", "deploy", "--user", user, "--overlap", "1d")
    two = await shell.run("api-keys", "describe", "deploy", "--user", user)
    assert two.code == 2
    assert two.errors.startswith("error: 2 valid keys are called 'deploy': name one by its id\n  ")
    assert two.errors.count(": phk_") == 2
    listed = await lines("api-keys", "list", "--user", user)
    has(listed, "deploy phk_", "report phk_")
    assert any(" replaced * in access " in line for line in listed)
    assert any(" read-only container.get in access from 10.0.0.0/8 " in line for line in listed)
    identifier = next(line.split()[1] for line in narrow if line.startswith("Id: "))
    assert await lines("api-keys", "describe", identifier, "--user", user) == narrow

    # The filter that finds a key takes each character literally.
    odd = 'schlüssel "a*" \\ *'
    await shell.succeed("api-keys", "create", odd, "--service-account", user, *here)
    has(await lines("api-keys", "describe", odd, "--user", user), f"Name: {odd}")
    await shell.succeed("api-keys", "revoke", odd, "--user", user, "--yes")

    sink = ("audit", "sinks", "create", "siem", "--kind", "http", "--address", "https://siem.invalid/in")
    await shell.succeed(*sink)
    described = await lines("audit", "sinks", "describe", "siem")
    has(described, "Name: siem", "Status: ", "Kind: http", "Address: https://siem.invalid/in", "Format: ocsf")
    has(described, "Created: ago (", "admin create ")
    await shell.succeed("audit", "sinks", "delete", "siem", "--yes")
    # Deleted by the user name that the list shows.
    assert (
        await shell.succeed("service-accounts", "delete", user, "--yes", *here)
        == "service account ci deleted\n"
    )
    assert await shell.succeed("service-accounts", "delete", "sa:nightly", "--platform", "--yes")
    for words, message in (
        (("audit-sink", "siem"), "there is no audit sink 'siem'"),
        (("grant", "nobody"), "user 'nobody' has no grant that you may see"),
        (("service-account", "*", *here), "there is no service account 'sa:access:*' that you may see"),
        (("api-key", "deploy"), "you have no valid key 'deploy'; "),
    ):
        refused = await shell.run("describe", *words)
        assert (refused.code, refused.errors.startswith(f"error: {message}")) == (6, True), refused


@pytest.mark.full
async def test_update_prints_its_changes_and_rollout_follows_and_undoes_them(
    shared_server: Server, tmp_path: Path
) -> None:
    admin, namespace = shared_server.admin, "rolled"
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    await admin.containers.create(
        namespace=namespace, container=pb.Container(name="menu", image="cafe/menu:2.53")
    )
    shell = await logged_in(shared_server, tmp_path)
    here = ("-n", namespace)
    waited = await shell.run("wait", "deploy", "menu", "--for=running", *here)
    assert (waited.code, waited.output) == (0, "container/menu: running\n")
    dry = await shell.run(
        "containers", "update", "menu", "--image", "cafe/menu:2.99", "--validate-only", *here
    )
    assert dry.errors.splitlines()[:2] == ["menu: image 2.53 -> 2.99", "menu: would roll out"]
    done = await shell.run("containers", "update", "menu", "--image", "cafe/menu:2.99", *here)
    assert done.errors.splitlines() == [
        "menu: image 2.53 -> 2.99",
        "menu: rolls out; to follow it: pilothouse rollout status menu",
    ]
    status = await shell.run("rollout", "status", "deployment/menu", "--stable-for", "0", *here)
    assert (status.code, status.output) == (0, "menu: rolled out, running, 1 of 1 pods ready\n")
    # This change replaces no pod.
    labelled = await shell.run("containers", "update", "menu", "--label", "a=b", *here)
    assert labelled.errors.splitlines() == ["menu: labels none -> a=b"]
    same = await shell.run("rollout", "status", "menu", "--no-watch", *here)
    assert same.code in (0, 10)
    history = (await shell.succeed("rollout", "history", "menu", *here)).splitlines()
    assert [line.split("\t")[0] for line in history] == ["REVISION", "3", "2", "1"]
    undone = await shell.run(
        "rollout", "undo", "menu", "--to-revision", "1", "--wait", "--stable-for", "0", *here
    )
    assert undone.code == 0
    assert undone.errors.splitlines()[:3] == [
        "menu: image 2.99 -> 2.53",
        "menu: labels a=b -> none",
        "menu: rolls out",
    ]
    waited = await shell.run("wait", "containers", "menu", "--for", "condition=RolledOut", *here)
    assert waited.code == 0
    missing = await shell.run("wait", "svc", "nobody", "--for=condition=Applied", *here)
    assert (missing.code, missing.errors) == (6, "error: there is no service/nobody\n")
    assert (await shell.run("wait", "svc", "nobody", "--for=delete", *here)).code == 0
    # The message names the state, which must arrive in time.
    seconds = f"{patient(0.5):g}"
    late = await shell.run("wait", "container", "menu", "--for=stopped", "--wait-timeout", seconds, *here)
    assert late.code == 10
    assert late.errors.startswith(f"error: container/menu is not stopped after {seconds} s: it is running")
    wrong = await shell.run("wait", "container", "menu", "--for=runing", *here)
    assert (wrong.code, wrong.errors.startswith("error: --for runing: give one of pending, ")) == (2, True)
