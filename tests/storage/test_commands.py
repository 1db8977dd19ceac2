"""`pilothouse volumes` and `apply` against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilothouse.storage.v1 import storage_pb2 as pb
from tests.client.command import Command, command_of_administrator
from tests.storage.conftest import Place

pytestmark = pytest.mark.full

MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: fast}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, labels: {app: web}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes:
      - {name: store, persistentVolumeClaim: {claimName: data}}
      - {name: files, configMap: {name: settings}}
      - {name: logs, hostPath: {path: /var/log}}
      containers:
      - name: main
        image: nginx:1.27
        volumeMounts:
        - {name: store, mountPath: /store}
        - {name: files, mountPath: /files}
        - {name: logs, mountPath: /logs, readOnly: true}
"""


@pytest.fixture
def command(place: Place, tmp_path: Path) -> Command:
    """Runs the command as the administrator in the place's namespace."""
    return command_of_administrator(place.server, place.name, tmp_path)


async def test_a_volume_is_made_grown_mounted_and_deleted(place: Place, command: Command) -> None:
    mode = ("--access-mode", "ReadWriteOnce")
    made = await command("volumes", "create", "data", "--size", "1Gi", "--label", "tier=db", *mode)
    assert made.code == 0, made.err
    assert "read_write_once" in made.out
    assert "persistent_volume_claim" in made.out
    scratch = ("volumes", "create", "scratch", "--type", "empty-dir", "--medium", "Memory")
    assert (await command(*scratch, "--mount-path", "/scratch")).code == 0
    await place.run()
    attached = await command("volumes", "attach", "scratch", "web")
    assert attached.code == 0, attached.err
    assert attached.err == "web: 1 pod is replaced\n"
    refused = await command("volumes", "delete", "scratch", "--yes")
    assert refused.code == 7
    assert "mounted by web" in refused.err
    listed = json.loads((await command("volumes", "list", "--status", "available", "-o", "json")).out)
    assert [(each["name"], each["mounted_by"]) for each in listed] == [("data", []), ("scratch", ["web"])]
    smaller = await command("volumes", "update", "data", "--size", "1Mi")
    assert smaller.code != 0
    assert "a claim can grow, not shrink" in smaller.err
    assert (await command("volumes", "detach", "scratch", "web")).code == 0
    assert (await command("volumes", "delete", "scratch", "--yes")).code == 0
    shown = await command("volumes", "get", "scratch")
    assert shown.code != 0
    assert (await command("volumes", "create", "x", "--type", "floppy")).code == 2


async def test_apply_makes_volumes_between_config_and_containers(place: Place, command: Command) -> None:
    tried = await command("apply", "-f", "-", "--dry-run", stdin=MANIFEST.encode())
    assert tried.code == 0, tried.err
    assert "volume/data created (dry run)" in tried.out
    assert "volume/configmap-settings created (dry run)" in tried.out
    assert "container/web created (dry run)" in tried.out
    volumes = place.client.storage
    assert [each async for each in volumes.list_volumes(namespace=place.name)] == []
    applied = await command("apply", "-f", "-", "--wait", "--stable-for", "0.3", stdin=MANIFEST.encode())
    assert applied.code == 0, applied.err
    assert [line.split()[0].split("/")[0] for line in applied.out.splitlines()[:5]] == [
        "configmap", "volume", "volume", "volume", "container",
    ]  # fmt: skip
    await place.volume(lambda each: each.status == pb.VOLUME_STATUS_BOUND)
    again = await command("apply", "-f", "-", stdin=MANIFEST.encode())
    assert again.code == 0, again.err
    assert "5 unchanged" in again.out
    grown = await command("apply", "-f", "-", stdin=MANIFEST.replace("1Gi", "2Gi").encode())
    assert "volume/data updated" in grown.out
    assert (await place.get()).size == "2Gi"
