"""The commands of the README and of docs/ work, in the order of the pages.

`make lint` checks that each command on a page is in a test. The Python programs of every page are taken from the page
itself.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from pilothouse_migrations.databases import ensure_database
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator import SimulatedCluster
from tests.readme.served import PATH, ROOT, Shell, server_variables, serving
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=10)

PASSWORD = "correct horse battery staple"


LOGIN = "pilothouse login --server 127.0.0.1:50051 --user admin"
# The commands are longer than a line of Python may be, so a separate file contains them as the README has them.
(
    BUF_LOGIN,
    BUF_LIST,
    GRPCURL_WATCH_CAFE,
    REGISTER,
    RENEW,
    GRPCURL_LOGIN,
    GRPCURL_WATCH,
    CI_READ_ONLY,
) = (ROOT / "tests" / "readme" / "calls.sh").read_text().splitlines()
KEYS = (
    ("pilothouse keys list", ""),
    ("pilothouse keys add", ""),
    ("pilothouse keys rotate", ""),
)
HEALTH = "pilothouse clusters get second"
FURTHER = (
    ("pilothouse clusters rbac | kubectl apply -f -", "ClusterRole"),
    (REGISTER, "second"),
    ("pilothouse clusters rbac second", "GRANTED"),
    ("pilothouse namespaces create far --cluster second", "second"),
    (HEALTH, "HEALTHY"),
    (RENEW, "second"),
)
# Replaces kubectl: it prints its input, and as a token the cluster's own.
KUBECTL = """#!/bin/sh
case "$1" in
  create) cat "$HOME/token" ;;
  *) cat ;;
esac
"""
WITH_KUBECONFIG = "PILOTHOUSE_KUBECONFIG=~/.kube/config pilothouse serve --dev"
INIT = "pilothouse migrate init --admin-url postgresql://postgres@db.example.org/pilothouse"
URLS = (
    "export PILOTHOUSE_DATABASE_URL=postgresql://pilothouse_app:…@db.example.org/pilothouse",
    "export PILOTHOUSE_SYSTEM_DATABASE_URL=postgresql://pilothouse_system:…@db.example.org/pilothouse",
    "export PILOTHOUSE_MAINTENANCE_DATABASE_URL=postgresql://pilothouse_maintenance:…@db.example.org/pilothouse",
)


async def test_the_readme_works_with_an_existing_cluster(tmp_path: Path) -> None:
    async with SimulatedCluster(speed=10.0) as cluster:
        config = tmp_path / ".kube" / "config"
        config.parent.mkdir()
        config.write_text(yaml.safe_dump(cluster.kubeconfig()))
        variables = {"HOME": str(tmp_path), "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
        assert WITH_KUBECONFIG.startswith("PILOTHOUSE_KUBECONFIG=")
        async with serving(f"env {WITH_KUBECONFIG}", tmp_path, variables) as address:
            shell = Shell(address, tmp_path)
            await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")
            assert cluster.url in await shell.run("pilothouse clusters get local -o json")


async def test_further_clusters_are_registered_and_grpcurl_watches(tmp_path: Path) -> None:
    variables = {"PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
    async with (
        SimulatedCluster(speed=10.0, tls=True) as cluster,
        serving("pilothouse serve --dev", tmp_path, variables) as address,
    ):
        (tmp_path / "token").write_text(cluster.token)
        authority = cluster.kubeconfig()["clusters"][0]["cluster"]["certificate-authority-data"]
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
        kubectl = tmp_path / "bin" / "kubectl"
        kubectl.parent.mkdir()
        kubectl.write_text(KUBECTL)
        kubectl.chmod(0o755)
        path = f"{kubectl.parent}:{server_variables(tmp_path)['PATH']}"
        shell = Shell(address, tmp_path, {"HOME": str(tmp_path), "PATH": path}, directory_of_files=tmp_path)
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")

        async def says(line: str, said: str) -> bool:
            return said in await shell.run(line.replace("https://10.0.0.5:6443", cluster.url))

        for line, said in FURTHER:
            if line == HEALTH:
                # The cluster's health is checked a moment after its registration.
                await poll_until(lambda: says(HEALTH, "HEALTHY"), seconds=30, what=HEALTH)
            else:
                assert await says(line, said), line
        if shutil.which("grpcurl", path=PATH) is None:
            pytest.skip("grpcurl is not installed")
        await _grpcurl_watches(Shell(address, tmp_path, {"PASSWORD": PASSWORD}))


async def _grpcurl_watches(shell: Shell) -> None:
    shell.variables["TOKEN"] = json.loads(await shell.run(GRPCURL_LOGIN))["accessToken"]

    async def is_synced(line: str) -> bool:
        return "CHANGE_TYPE_SYNCED" in await shell.run(f"timeout 2 {line} || test $? = 124")

    for name, line in (("demo", GRPCURL_WATCH), ("cafe", GRPCURL_WATCH_CAFE)):
        await shell.run(f"pilothouse namespaces create {name}")
        await poll_until(partial(is_synced, line), seconds=10, what=line)


async def test_the_readme_works_with_an_existing_database(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    await ensure_database(postgres.dsn(), "readme")
    shell = Shell("", tmp_path, {"PILOTHOUSE_APP_PASSWORD": "a", "PILOTHOUSE_SYSTEM_PASSWORD": "b"})
    there = re.escape("postgresql://postgres@db.example.org/pilothouse")
    assert "roles" in await shell.run(re.sub(there, f"'{postgres.dsn('readme')}'", INIT))
    variables = {}
    for line in URLS:
        name, url = line.removeprefix("export ").split("=", 1)
        role = re.search(r"//(\w+):", url)
        assert role is not None
        variables[name] = postgres.dsn("readme", role[1])
    shell.variables.update(variables)
    assert "applied 0101" in await shell.run("pilothouse migrate up")
    assert "nothing to apply" in await shell.run("pilothouse migrate up")
    assert "0101  applied" in await shell.run("pilothouse migrate status")
    variables["PILOTHOUSE_BOOTSTRAP_PASSWORD"] = PASSWORD
    async with serving("pilothouse serve", tmp_path, variables) as address:
        shell.address = address
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")
        assert "admin" in await shell.run("pilothouse whoami")
        # This command works while the server runs.
        assert "begins" in await shell.run('pilothouse migrate new-history --reason "restored a snapshot"')
        listed = "pilothouse audit list --filter 'resource_type = \"database\"'"
        assert "system" in await shell.run(listed)
        # The folder where the server has its data.
        shell.directory_of_files = tmp_path
        for line, said in KEYS:
            assert said in await shell.run(line), line


async def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    shell = Shell("", tmp_path, {"PILOTHOUSE_DATABSE_URL": "postgresql://x"})
    said = await shell.run("pilothouse serve", succeeds=False)
    assert "PILOTHOUSE_DATABSE_URL is not a setting" in said
