"""`pilothouse configs`, `secrets`, `keys` and `apply` against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pilothouse.container.v1 import container_pb2
from tests.client.command import Command, command_of_administrator
from tests.config.conftest import Place

pytestmark = pytest.mark.full

MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {mode: fast}
binaryData: {raw: AP8=}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
type: kubernetes.io/basic-auth
data: {username: YWRtaW4=}
stringData: {password: s3cret-value}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: nginx:1.27
        env:
        - name: MODE
          valueFrom: {configMapKeyRef: {name: settings, key: mode}}
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: login, key: password}}
"""


@pytest.fixture
def command(place: Place, tmp_path: Path) -> Command:
    """Runs the command as the administrator in the place's namespace."""
    key_file = str(place.server.application.settings.key_file)
    return command_of_administrator(place.server, place.name, tmp_path, PILOTHOUSE_SECRET_KEY_FILE=key_file)


async def test_secrets_from_files_standard_input_and_the_command_line(
    place: Place, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "cert").write_bytes(b"\x00\xff")
    made = await command(
        "secrets", "create", "app", "--from-file", f"tls={tmp_path / 'cert'}", "--from-file", "pin=-",
        "--from-literal", "user=x=y", stdin=b"12\n",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert (await command("secrets", "reveal", "app", "--key", "pin")).out == "12\n"
    shown = await command("secrets", "reveal", "app")
    assert "x=y" in shown.out
    assert "(2 bytes; use --key)" in shown.out
    for arguments in (("get", "app", "-o", "yaml"), ("list",), ("list", "-o", "json")):
        assert "x=y" not in (await command("secrets", *arguments)).out
    changed = await command("secrets", "update", "app", "--from-literal", "user=z")
    assert changed.code == 0, changed.err
    values = await place.client.config.reveal_secret(namespace=place.name, name="app")
    assert dict(values.data) == {"tls": b"\x00\xff", "pin": b"12\n", "user": b"z"}
    # One binary value changes without knowledge of the others; one key is removed.
    (tmp_path / "cert").write_bytes(b"\x01\xfe")
    renewed = await command(
        "secrets", "update", "app", "--from-file", f"tls={tmp_path / 'cert'}", "--remove", "pin"
    )
    assert renewed.code == 0, renewed.err
    values = await place.client.config.reveal_secret(namespace=place.name, name="app")
    assert dict(values.data) == {"tls": b"\x01\xfe", "user": b"z"}
    assert (await command("secrets", "update", "app", "--replace", "--remove", "user")).code == 2
    refused = await command("secrets", "create", "other", "--from-literal", "only-a-value")
    assert refused.code == 2
    assert "only-a-value" not in refused.err
    tried = await command("secrets", "purge", "app", "--validate-only")
    assert (tried.code, tried.out) == (0, "secret app: 2 former versions purged (dry run)\n")
    assert (await command("secrets", "purge", "app", "--yes")).out == "secret app: 2 former versions purged\n"
    assert (await command("secrets", "purge", "app", "--yes")).out == "secret app: 0 former versions purged\n"
    assert (await command("secrets", "delete", "app", "--yes")).code == 0


async def test_a_config_map_update_keeps_the_keys_that_it_does_not_name(
    place: Place, command: Command
) -> None:
    made = await command("configs", "create", "app", "--from-literal", "a=1", "--from-literal", "b=2")
    assert made.code == 0, made.err
    assert (await command("configs", "update", "app", "--from-literal", "b=3", "--remove", "a")).code == 0
    assert (await command("configs", "get", "app", "--key", "b")).out == "3"
    absent = await command("configs", "update", "app", "--remove", "a")
    assert absent.code == 3
    assert "KEY_NOT_FOUND" in absent.err
    reader = container_pb2.Container(
        name="reader",
        image="nginx:1.27",
        env=[
            container_pb2.EnvVar(
                name="B",
                value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
                source_name="app",
                source_key="b",
            )
        ],
    )
    await place.client.containers.create(namespace=place.name, container=reader)
    missed = await command(
        "configs", "update", "app", "--remove", "b", "--from-literal", "c=1", "--validate-only"
    )
    assert missed.code == 0, missed.err
    assert "container reader reads a key that is removed" in missed.err
    assert (await command("configs", "get", "app", "--key", "a")).code == 1
    shown = yaml.safe_load((await command("configs", "get", "app", "-o", "yaml")).out)
    assert shown["data"] == {"b": "3"}
    assert "app" in (await command("configs", "list")).out


async def test_apply_makes_both_before_the_container_that_reads_them(place: Place, command: Command) -> None:
    tried = await command("apply", "-f", "-", "--dry-run", stdin=MANIFEST.encode())
    assert tried.code == 0, tried.err
    assert "configmap/settings created (dry run)" in tried.out
    assert "container/web created (dry run)" in tried.out
    assert [item async for item in place.client.config.list_secrets(namespace=place.name)] == []
    applied = await command("apply", "-f", "-", "--wait", "--stable-for", "0.3", stdin=MANIFEST.encode())
    assert applied.code == 0, applied.err
    assert applied.out.splitlines()[:3] == [
        "configmap/settings created", "secret/login created", "container/web created",
    ]  # fmt: skip
    web = await place.client.containers.get(namespace=place.name, name="web")
    assert web.status == container_pb2.CONTAINER_STATUS_RUNNING
    again = await command("apply", "-f", "-", stdin=MANIFEST.encode())
    assert again.out.splitlines()[:3] == [
        "configmap/settings unchanged", "secret/login unchanged", "container/web unchanged",
    ]  # fmt: skip
    changed = MANIFEST.replace("s3cret-value", "another-value").replace("mode: fast", "mode: slow")
    tried = await command("apply", "-f", "-", "--dry-run", stdin=changed.encode())
    assert "+data.mode: slow" in tried.out
    assert "secret/login updated (dry run)" in tried.out
    done = await command("apply", "-f", "-", stdin=changed.encode())
    assert done.out.splitlines()[:2] == ["configmap/settings updated", "secret/login updated"]
    values = await place.client.config.reveal_secret(namespace=place.name, name="login")
    assert dict(values.data) == {"username": b"admin", "password": b"another-value"}
    assert not any("-value" in each for run in (tried, applied, again, done) for each in (run.out, run.err))


async def test_apply_refuses_malformed_secrets_and_shows_no_value(place: Place, command: Command) -> None:
    wrong = """\
apiVersion: v1
kind: Secret
metadata: {name: login}
data: {a: not-base64-s3cret!, b: 1234567890}
stringData: {c: 9876543210}
"""
    refused = await command("apply", "-f", "-", stdin=wrong.encode())
    assert refused.code == 3
    for path in ("data[a]", "data[b]", "stringData[c]"):
        assert path in refused.err
    for value in ("s3cret", "1234567890", "9876543210"):
        assert value not in refused.err


async def test_keys_are_added_rotated_and_removed(command: Command) -> None:
    await command("secrets", "create", "app", "--from-literal", "a=1")
    (old,) = (await command("keys", "list")).out.split()
    assert (await command("keys", "add")).code == 0
    new, second = (await command("keys", "list")).out.split()
    assert second == old
    assert (await command("keys", "remove", new)).code == 1
    # An added key is not used before the rotation.
    assert old in (await command("secrets", "get", "app", "-o", "json")).out
    rotated = await command("keys", "rotate", "--batch-size", "1")
    assert (rotated.code, rotated.out) == (0, f"everything is encrypted under key {new}\n")
    assert new in (await command("secrets", "get", "app", "-o", "json")).out
    assert (await command("keys", "remove", old)).code == 0
    assert (await command("secrets", "reveal", "app", "--key", "a")).out == "1"


async def test_a_key_in_use_is_not_removed(place: Place, command: Command) -> None:
    settings = place.server.application.settings
    # The check asks the server of the login, and the database if the settings name one.
    reached: dict[str, dict[str, str]] = {
        "server": {},
        "database": {
            "PILOTHOUSE_SERVER": "",
            "PILOTHOUSE_DATABASE_URL": settings.database_url,
            "PILOTHOUSE_SYSTEM_DATABASE_URL": settings.system_database_url,
        },
    }
    for name, environment in reached.items():
        await command("secrets", "create", name, "--from-literal", "a=1")
        old = (await command("keys", "list")).out.split()[0]
        assert (await command("keys", "add")).code == 0
        new = (await command("keys", "list")).out.split()[0]
        refused = await command("keys", "remove", old, environment=environment)
        assert refused.code == 1
        assert "stored values, which would be lost for ever: run pilothouse keys rotate first" in refused.err
        assert (await command("keys", "list")).out.split()[:2] == [new, old]
        assert (await command("secrets", "reveal", name, "--key", "a")).out == "1"
        assert (await command("keys", "rotate")).code == 0
        removed = await command("keys", "remove", old, environment=environment)
        assert (removed.code, removed.err) == (0, "")
        assert (await command("secrets", "reveal", name, "--key", "a")).out == "1"


async def test_an_unused_key_is_removed_but_the_active_one_is_not(place: Place, command: Command) -> None:
    answer = await place.client.config.rotate_keys()
    assert (await command("keys", "add")).code == 0
    assert (await command("keys", "add")).code == 0
    newest, between, active = (await command("keys", "list")).out.split()[:3]
    assert active == answer.key_id
    tried = await place.client.config.rotate_keys(validate_only=True)
    assert (tried.rotated, tried.key_id) == (0, newest)
    shown = {key.key_id: (key.active, key.in_key_file) for key in tried.keys}
    assert shown[active] == (True, True)
    assert shown[between] == (False, True)
    assert (await command("keys", "remove", between)).code == 0
    refused = await command("keys", "remove", active)
    assert refused.code == 1
    assert "pilothouse keys rotate first" in refused.err
    assert (await command("keys", "rotate")).code == 0
    assert (await command("keys", "remove", active)).code == 0


async def test_a_key_that_cannot_be_checked_is_removed_only_by_force_with_a_copy(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "of-another.key"
    file.write_text(f"{'ab' * 32}\n{'cd' * 32}\n")
    file.chmod(0o600)
    before = file.read_text()
    _, old = (await command("keys", "list", "--file", str(file))).out.split()
    # An unreachable database, no server, and a server with other keys.
    away = {"PILOTHOUSE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
    for environment, words in (
        (away, "this command cannot check whether"),
        ({"PILOTHOUSE_SERVER": "", "PILOTHOUSE_TOKEN": ""}, "log in to a running server"),
        ({}, "they may not be those of the database"),
    ):
        refused = await command("keys", "remove", old, "--file", str(file), environment=environment)
        assert refused.code == 1
        assert words in refused.err
        assert "--force" in refused.err
        assert file.read_text() == before
    forced = await command("keys", "remove", old, "--file", str(file), "--force", environment=away)
    assert forced.code == 0
    assert file.read_text() == f"{'ab' * 32}\n"
    kept = tmp_path / f"of-another.key.with-{old}"
    assert str(kept) in forced.err
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (before, 0o600)


async def test_a_rotation_that_cannot_finish_reports_why(command: Command, place: Place) -> None:
    await command("secrets", "create", "bad", "--from-literal", "a=1")
    async with place.server.database.owner() as owner:
        await owner.execute(
            "UPDATE secrets SET data_key = decode('01', 'hex') WHERE name = 'bad' AND namespace_id ="
            " (SELECT id FROM namespaces WHERE name = $1)",
            place.name,
        )
    assert (await command("keys", "add")).code == 0
    stuck = await command("keys", "rotate", "--wait-timeout", "0.2")
    assert stuck.code == 1
    assert "1 data keys could not be rotated" in stuck.err
    await place.client.config.delete_secret(namespace=place.name, name="bad")
    new, old = (await command("keys", "list")).out.split()
    assert (await command("keys", "rotate")).out == f"everything is encrypted under key {new}\n"
    assert (await command("keys", "remove", old)).code == 0
