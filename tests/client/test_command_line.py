"""The `pilothouse` command against the fake server: its output, its requests, its exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path

import grpc
import pytest
import yaml

from pilothouse.container.v1 import container_pb2
from tests.client.command import Command
from tests.client.conftest import PASSWORD
from tests.client.fake_server import FakeServer
from tests.processes import finished


async def test_log_in_show_and_log_out(fake: FakeServer, logged_in: Command, tmp_path: Path) -> None:
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in (tmp_path / "config.json").read_text()
    shown = await logged_in("whoami")
    assert shown.lines[0] == "admin admin@example.com"
    assert (await logged_in("can-i", "container.get")).out == "yes\n"
    assert (await logged_in("can-i", "container.delete", "-n", "shop")).code == 1
    assert (await logged_in("contexts", "list")).lines == [
        "CURRENT\tNAME\tSERVER\tNAMESPACE\tLOGGED IN",
        f"*\tadmin@{fake.address}\t{fake.address}\tshop\tyes",
    ]
    assert (await logged_in("contexts", "list", "-o", "name")).lines == [f"admin@{fake.address}"]
    assert (await logged_in("logout")).code == 0
    ended = await logged_in("whoami")
    assert ended.code == 4
    assert "pilothouse login" in ended.err
    assert len(fake.calls_of("Logout")) == 1


async def test_the_device_token_is_stored_per_user_and_server(
    fake: FakeServer, logged_in: Command, tmp_path: Path
) -> None:
    async def log_in(user: str, server: FakeServer = fake) -> str:
        """Logs in and returns the device token that the command sent."""
        before = len(server.calls_of("Login"))
        ended = await logged_in(
            "login", "--server", server.address, "--user", user, "--password-stdin", stdin=f"{PASSWORD}\n"
        )
        assert ended.code == 0, ended.err
        (call,) = server.calls_of("Login")[before:]
        return str(call.request.device_token)

    def kept() -> dict[str, str]:
        contexts = json.loads((tmp_path / "config.json").read_text())["contexts"]
        return {context["username"]: context["device_token"] for context in contexts.values()}

    (first,) = fake.calls_of("Login")
    assert first.request.device_token == ""
    device = kept()["admin"]
    assert device.startswith("phd_admin_")
    assert (await logged_in("logout")).code == 0
    assert await log_in("admin") == device
    fake.passwords["ann"] = PASSWORD
    assert await log_in("ann") == ""
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    # The newest device token of the user is sent, regardless of the current context.
    newest = kept()["admin"]
    assert newest != device
    assert await log_in("admin") == newest
    other = FakeServer()
    await other.start()
    try:
        assert await log_in("admin", other) == ""
    finally:
        await other.stop()


async def test_a_failed_login_writes_no_configuration(
    fake: FakeServer, pilothouse: Command, tmp_path: Path
) -> None:
    ended = await pilothouse(
        "login", "--server", fake.address, "--user", "admin", "--password-stdin", stdin="wrong\n"
    )
    assert ended.code == 4
    assert "wrong user name or password [WRONG_CREDENTIALS]" in ended.err
    assert not (tmp_path / "config.json").exists()


async def test_environment_variables_suffice_without_a_file(
    fake: FakeServer, pilothouse: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.api_keys["key-1"] = "robot"
    monkeypatch.setenv("PILOTHOUSE_SERVER", fake.address)
    assert (await pilothouse("whoami")).code == 4
    assert fake.calls == []
    monkeypatch.setenv("PILOTHOUSE_TOKEN", "key-1")
    assert (await pilothouse("whoami")).lines[0].startswith("robot")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:x", "http://127.0.0.1:50051", ":50051"])
async def test_an_invalid_server_address_is_reported_before_missing_credentials(
    pilothouse: Command, address: str
) -> None:
    login = await pilothouse("login", "--server", address, "--user", "admin", "--password-stdin", stdin="x\n")
    ended = await pilothouse("--server", address, "whoami")
    assert login.err.startswith(("error: not a port", "error: not an address"))
    assert (ended.code, ended.err) == (2, login.err)


async def test_tokens_are_not_sent_to_another_server(fake: FakeServer, logged_in: Command) -> None:
    other = FakeServer()
    await other.start()
    try:
        ended = await logged_in("--server", other.address, "whoami")
        assert ended.code == 4
        assert f"not logged in to {other.address}" in ended.err
        assert other.calls == []
    finally:
        await other.stop()


async def test_an_expired_session_is_renewed_and_stored(fake: FakeServer, logged_in: Command) -> None:
    fake.expire_access_tokens()
    assert (await logged_in("whoami")).code == 0
    assert (await logged_in("whoami")).code == 0
    assert len(fake.calls_of("RefreshSession")) == 1


async def test_parallel_commands_renew_the_session_once(fake: FakeServer, logged_in: Command) -> None:
    fake.expire_access_tokens()
    # Separate processes: the runner replaces standard output for all threads of this one.
    command = [sys.executable, "-m", "pilothouse_client", "whoami"]
    ended = await asyncio.gather(*(finished(*command) for _ in range(3)))
    assert [code for code, _, _ in ended] == [0, 0, 0]
    assert len(fake.calls_of("RefreshSession")) == 1


async def test_a_container_is_created_from_the_options(fake: FakeServer, logged_in: Command) -> None:
    ended = await logged_in(
        *("containers", "create", "web", "--image", "nginx:1.27", "-p", "http=80:8080", "-p", "53/udp"),
        *(
            "--service-type",
            "node-port",
            "-e",
            "A=1=2",
            "--env-secret",
            "B=db/password",
            "--mount",
            "data:/data:ro",
        ),
        *("--cpu-limit", "1", "--replicas", "2", "--label", "app=web", "--drift-policy", "report"),
        *("-o", "json", "--", "-c", "echo"),
    )
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    assert shown["status"] == "CONTAINER_STATUS_PENDING"
    sent = fake.calls_of("CreateContainer")[0].request
    assert sent.namespace == "shop"
    container = sent.container
    assert container.args == ["-c", "echo"]
    assert [(port.name, port.container_port, port.service_port) for port in container.ports] == [
        ("http", 80, 8080),
        ("", 53, 0),
    ]
    assert container.ports[1].protocol == container_pb2.PROTOCOL_UDP
    assert container.ports[0].service_type == container_pb2.SERVICE_TYPE_NODE_PORT
    assert [(each.name, each.value, each.source_name) for each in container.env] == [
        ("A", "1=2", ""),
        ("B", "", "db"),
    ]
    assert container.volume_mounts[0].read_only
    assert container.resources.cpu_limit == "1"
    assert (container.replicas, dict(container.labels)) == (2, {"app": "web"})


async def test_printed_yaml_can_be_used_to_create_a_container(
    fake: FakeServer, logged_in: Command, tmp_path: Path
) -> None:
    await logged_in("containers", "create", "web", "--image", "nginx:1.27", "-e", "A=1", "--label", "app=web")
    shown = await logged_in("containers", "get", "web", "-o", "yaml")
    assert list(yaml.safe_load(shown.out))[:3] == ["@type", "name", "namespace"]
    file = tmp_path / "web.yaml"
    file.write_text(shown.out)
    again = await logged_in("containers", "create", "copy", "-f", str(file), "--image", "nginx:1.28")
    assert again.code == 0, again.err
    copy = fake.calls_of("CreateContainer")[1].request.container
    assert (copy.name, copy.image, copy.env[0].value, copy.labels["app"]) == (
        "copy",
        "nginx:1.28",
        "1",
        "web",
    )
    file.write_text("apiVersion: apps/v1\nkind: Deployment\n")
    refused = await logged_in("containers", "create", "copy", "-f", str(file))
    assert refused.code == 2
    assert "pilothouse apply" in refused.err


async def test_an_update_merges_and_masks_the_changed_fields(fake: FakeServer, logged_in: Command) -> None:
    await logged_in("containers", "create", "web", "--image", "a", "-e", "A=1", "-e", "B=1", "--label", "x=1")
    changed = await logged_in(
        "containers", "update", "web", "-e", "B=2", "--remove-env", "A", "--label", "y=2"
    )
    assert changed.code == 0, changed.err
    request = fake.calls_of("UpdateContainer")[0].request
    assert list(request.update_mask.paths) == ["env", "labels"]
    assert [(each.name, each.value) for each in request.container.env] == [("B", "2")]
    assert dict(request.container.labels) == {"x": "1", "y": "2"}
    await logged_in("containers", "update", "web", "--replicas", "3", "--cpu-limit", "2")
    request = fake.calls_of("UpdateContainer")[1].request
    assert list(request.update_mask.paths) == ["replicas", "resources.cpu_limit"]
    assert (await logged_in("containers", "update", "web")).code == 2


async def test_lists_are_stable_and_read_all_pages(fake: FakeServer, logged_in: Command) -> None:
    for number in range(60):
        row = container_pb2.Container(
            name=f"c{number:02}", namespace="shop", status=container_pb2.CONTAINER_STATUS_RUNNING
        )
        fake.tables["container"]["shop", row.name] = row
    listed = await logged_in("containers", "list")
    assert len(listed.lines) == 61
    assert listed.lines[:2] == [
        "NAME\tSTATUS\tREADY\tRESTARTS",
        "c00\tRUNNING\t0/1\t0",
    ]
    assert (await logged_in("containers", "list", "-o", "name")).lines == [
        f"c{number:02}" for number in range(60)
    ]
    assert (await logged_in("containers", "list", "-A")).lines[
        0
    ] == "NAMESPACE\tNAME\tSTATUS\tREADY\tRESTARTS"
    assert len(json.loads((await logged_in("containers", "list", "-o", "json")).out)) == 60
    assert len(yaml.safe_load((await logged_in("containers", "list", "-o", "yaml", "--limit", "2")).out)) == 2
    assert json.loads((await logged_in("containers", "list", "-n", "none", "-o", "json")).out) == []
    await logged_in("containers", "list", "-A", "--status", "running", "--filter", 'name = "a" OR name = "b"')
    request = fake.calls_of("ListContainers")[-1].request
    assert (request.namespace, request.filter) == ("", '(name = "a" OR name = "b") AND status = RUNNING')


async def test_commands_wait_for_their_goal(fake: FakeServer, logged_in: Command) -> None:
    await logged_in("containers", "create", "web", "--image", "a")
    stopped = await logged_in("containers", "stop", "web", "--wait")
    assert stopped.code == 0
    assert "STOPPED" in stopped.out
    assert stopped.err == "web: stopped 0/1\n"
    paused = await logged_in("containers", "pause", "web", "--wait")
    assert "lost: pod address, memory" in paused.err
    late = await logged_in("containers", "create", "slow", "--image", "a", "--wait", "--wait-timeout", "0.3")
    assert late.code == 10
    assert "slow is not running after 0.3 s" in late.err
    gone = await logged_in("containers", "delete", "web", "--yes", "--wait")
    assert gone.code == 0
    assert (
        await logged_in("containers", "delete", "slow")
    ).code == 2  # there is no terminal for a confirmation


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 3),
        (grpc.StatusCode.PERMISSION_DENIED, 5),
        (grpc.StatusCode.NOT_FOUND, 6),
        (grpc.StatusCode.FAILED_PRECONDITION, 7),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 8),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 9),
        (grpc.StatusCode.INTERNAL, 1),
    ],
)
async def test_exit_codes(
    fake: FakeServer, logged_in: Command, code: grpc.StatusCode, exit_code: int
) -> None:
    fake.fail("GetContainer", code, reason="SOME_REASON", message="what to do")
    ended = await logged_in("containers", "get", "web")
    assert ended.code == exit_code
    assert ended.err.startswith("error: what to do [SOME_REASON]\n")
    assert ended.out == ""


async def test_field_errors_are_shown_with_field_and_rule(fake: FakeServer, logged_in: Command) -> None:
    violations = [("container.image", "not an image reference"), ("container.name", "not an RFC 1123 label")]
    fake.fail(
        "CreateContainer", grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_FIELD", violations=violations
    )
    ended = await logged_in("containers", "create", "web", "--image", "x y")
    assert ended.code == 3
    assert ended.err.splitlines()[1:] == [f"  {field}: {rule}" for field, rule in violations]


async def test_every_noun_works(fake: FakeServer, logged_in: Command) -> None:
    steps: list[tuple[str, ...]] = [
        ("namespaces", "create", "shop", "--quota-cpu", "4", "--label", "team=a"),
        ("namespaces", "update", "shop", "--quota-memory", "8Gi", "--status", "inactive"),
        ("namespaces", "get", "shop"),
        ("namespaces", "list"),
        ("namespaces", "quota", "shop"),
        ("namespaces", "summary"),
        ("namespaces", "delete", "shop", "--yes", "--cascade"),
        ("roles", "create", "reader", "-p", "container.get", "-p", "container.list"),
        ("roles", "update", "reader", "--description", "reads"),
        ("roles", "get", "reader"),
        ("roles", "list"),
        ("roles", "delete", "reader", "--yes"),
        ("grants", "create", "ann", "viewer", "-n", "shop", "--expires-in", "8h"),
        ("grants", "list"),
        ("grants", "delete", "ann", "viewer", "-n", "shop"),
        (
            "api-keys",
            "create",
            "ci",
            "-p",
            "container.get",
            "-n",
            "shop",
            "--read-only",
            "--expires-in",
            "30d",
        ),
        ("api-keys", "list"),
        ("api-keys", "rotate", "ci", "--overlap", "1h"),
        ("api-keys", "revoke", "ci", "--yes"),
        ("service-accounts", "create", "ci", "-n", "shop"),
        ("service-accounts", "list", "-A"),
        ("service-accounts", "delete", "ci", "-n", "shop", "--yes"),
        ("sessions", "list"),
        ("clusters", "list"),
        ("images", "list"),
        ("images", "get", "nginx:1.27"),
        ("images", "delete", "nginx:1.27"),
        ("audit", "list"),
        ("audit", "stats"),
        ("usage", "-n", "shop", "--since", "2h", "--step", "1m"),
        ("top",),
        ("users", "list"),
    ]
    for step in steps:
        ended = await logged_in(*step)
        assert ended.code == 0, (step, ended.err)
    quota = fake.calls_of("UpdateNamespace")[0].request.namespace.resource_quota
    assert (quota.cpu, quota.memory) == ("4", "8Gi")
    grant = fake.calls_of("GrantRole")[0].request
    assert grant.expire_time.seconds > 0
    key = fake.calls_of("CreateApiKey")[0].request
    assert (list(key.permissions), list(key.namespaces), key.read_only) == (["container.get"], ["shop"], True)
    assert key.expire_time.seconds > 0
    rotated = fake.calls_of("RotateApiKey")[0].request
    assert (rotated.api_key_id, rotated.overlap.seconds) == (str(uuid.UUID(int=7)), 3600)
    assert fake.calls_of("RevokeApiKey")[0].request.api_key_id == str(uuid.UUID(int=7))
    assert fake.calls_of("DeleteServiceAccount")[0].request.namespace == "shop"
    made = await logged_in(
        "users", "create", "ann", "--email", "a@b.c", "--password-stdin", stdin="a long password\n"
    )
    assert made.code == 0, made.err
    assert (await logged_in("users", "update", "ann", "--status", "locked")).code == 0
    assert fake.calls_of("UpdateUser")[0].request.user.status == 3
    changed = await logged_in("passwd", "--password-stdin", stdin=f"{PASSWORD}\nanother password\n")
    assert changed.code == 0, changed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("containers", "create", "web"),
        ("containers", "create", "web", "--image", "a", "-e", "A"),
        ("containers", "create", "web", "--image", "a", "-p", "http"),
        ("containers", "create", "web", "--image", "a", "--mount", "data"),
        ("containers", "list", "-n", "a", "-A"),
        ("containers", "list", "--status", "wild"),
        ("containers", "list", "--watch", "--limit", "3"),
        ("usage", "--since", "yesterday"),
        ("grants", "create", "ann", "viewer", "--expires-in", "soon"),
        ("api-keys", "create", "ci", "--expires-in", "soon"),
        ("service-accounts", "create", "ci", "-n", "shop", "--platform"),
        ("namespaces", "update", "shop"),
        ("contaners",),
        (),
    ],
)
async def test_a_wrong_command_line_exits_with_two(
    fake: FakeServer, logged_in: Command, arguments: tuple[str, ...]
) -> None:
    before = len(fake.calls)
    ended = await logged_in(*arguments)
    assert ended.code == 2
    assert ended.err
    assert len(fake.calls) == before
