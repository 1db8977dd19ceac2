"""`make stored-release VERSION=0.2.0`: writes the filled database of a release, for tests of later releases.

Run it at the commit that ends a release. `tests/upgrade/VERSION.sql` is a dump of the environment of the promise tests,
with its fixtures: every noun, with a target for every mutation. `tests/upgrade/VERSION.keys` contains the files of the
server's data folder without which the database cannot be read, as a JSON object of name → base64. The keys are used
only in tests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from pilothouse_migrations import runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.identity.credentials import passwords
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres, program
from pilothouse_server.store import rewind_detection
from tests.conftest import addresses, connection
from tests.promises.environment import prepare, quiet_environment
from tests.promises.requests import OWN, Fields
from tests.waiting import patient

FOLDER = Path(__file__).parent
_NAME = "stored"
# A container with a value in every field that the releases had; it refers to objects of the environment.
WHOLE: Final[Fields] = {
    "name": "whole",
    "displayName": "All of it",
    "image": "nginx:1.27",
    "command": ["nginx"],
    "args": ["-g", "daemon off;"],
    "env": [
        {"name": "LITERAL", "value": "one"},
        {
            "name": "FROM_CONFIG",
            "valueFrom": "ENV_VALUE_FROM_CONFIG_MAP",
            "sourceName": "web",
            "sourceKey": "a.conf",
        },
        {
            "name": "FROM_SECRET",
            "valueFrom": "ENV_VALUE_FROM_SECRET",
            "sourceName": "web",
            "sourceKey": "key",
        },
        {"name": "POD", "valueFrom": "ENV_VALUE_FROM_FIELD_REF", "sourceKey": "metadata.name"},
    ],
    "ports": [
        {
            "name": "http",
            "containerPort": 8080,
            "serviceName": "whole",
            "servicePort": 80,
            "appProtocol": "http",
        }
    ],
    "volumeMounts": [
        {"volume": "web", "mountPath": "/data"},
        {"volume": "scratch", "mountPath": "/scratch", "subPath": "a"},
    ],
    "emptyDirs": [{"name": "scratch", "medium": "Memory", "sizeLimit": "16Mi"}],
    "resources": {
        "cpuRequest": "100m",
        "cpuLimit": "200m",
        "memoryRequest": "64Mi",
        "memoryLimit": "128Mi",
    },
    "replicas": 1,
    "labels": {"app": "whole", "tier": "front"},
    "annotations": {"owner": "a team"},
    "probes": {
        "liveness": {"tcpSocket": {"port": 8080}, "periodSeconds": 5},
        "readiness": {"httpGet": {"path": "/", "port": 8080}},
    },
    "securityContext": {"runAsUser": "1000", "allowPrivilegeEscalation": False},
    "podSecurityContext": {"fsGroup": "1000", "runAsNonRoot": True},
    "initContainers": [{"name": "prepare", "image": "busybox:1.36", "command": ["true"]}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "terminationGraceSeconds": "20",
    "driftPolicy": "DRIFT_POLICY_REPAIR",
}


async def store(version: str) -> None:
    """Writes the two files of a release."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-stored-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # The program may run as root, and PostgreSQL as another user.
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"})
        await server.start()
        try:
            async with connection(server.dsn()) as admin:
                await admin.execute(f"CREATE DATABASE {_NAME} TEMPLATE template0")
            database = addresses(server, _NAME)
            await ensure_roles(database.admin_dsn)
            await runner.upgrade(database.maintenance_dsn)
            data = folder / "data"
            data.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                async with quiet_environment(database, data, patch) as environment:
                    await prepare(environment, tenants=True)
                    await environment.must("CreateContainer", {"namespace": OWN, "container": WHOLE})
                    await environment.server.application.sealer.seal()
            dump(database.admin_dsn, FOLDER / f"{version}.sql")
            write_keys(data, FOLDER / f"{version}.keys")
        finally:
            await server.stop()


def dump(dsn: str, path: Path) -> None:
    """Writes a database as SQL that psql restores."""
    words = ["--restrict-key=pilothouse", f"--file={path}", f"--dbname={dsn}"]
    subprocess.run([program("pg_dump"), *words], check=True, timeout=patient(120))


def write_keys(folder: Path, path: Path) -> None:
    """Writes the files of a server's data folder."""
    files = {
        str(each.relative_to(folder)): base64.b64encode(each.read_bytes()).decode()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and each.name != rewind_detection.FILE_NAME
    }
    path.write_text(json.dumps(files, indent=1) + "\n")


def read_keys(path: Path) -> Mapping[str, bytes]:
    """Returns the files of a stored data folder, by name."""
    return {name: base64.b64decode(text) for name, text in json.loads(path.read_text()).items()}


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as cheap:
        # As in the tests, because the cost of hashes does not affect what is stored.
        cheap.setattr(passwords, "MEMORY_KIBIBYTES", 8)
        cheap.setattr(passwords, "PASSES", 1)
        asyncio.run(store(sys.argv[1]))
