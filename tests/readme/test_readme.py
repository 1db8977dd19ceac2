"""What a stranger types from the README and from docs/ works, in the order of the pages.

The checks of `make lint` hold the pages to this folder: a command that is in a page must be in a test. The Python of
every page is taken from the page itself.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pilothouse_migrations.databases import ensure_database
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator import SimulatedCluster
from tests.readme.served import PATH, README_ADDRESS, ROOT, Shell, environment, serving
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=10)

PASSWORD = "correct horse battery staple"


LOGIN = "pilothouse login --server 127.0.0.1:50051 --user admin"
# The commands of the README, then those of docs/command.md and docs/security.md.
FIRST = (
    ("pilothouse namespaces create demo", "demo"),
    (
        "pilothouse containers create web --namespace demo --image nginx:1.27 --port 80 --wait",
        "RUNNING",
    ),
    ("pilothouse containers pause web --namespace demo", "PAUSED"),
    ("pilothouse containers history web --namespace demo", "PAUSED"),
)
COMMAND = (
    ("pilothouse namespaces create cafe", "cafe"),
    ("pilothouse apply -f deploy/examples/harbor-cafe.yaml --namespace cafe --wait", "11 created"),
    ("pilothouse containers list --namespace cafe", "RUNNING"),
    ("pilothouse top --namespace cafe --once", "storefront"),
    ("pilothouse audit list --namespace cafe --limit 5", "admin"),
    ("pilothouse containers get storefront --namespace cafe", "storefront"),
    ("pilothouse containers logs storefront --namespace cafe --tail 3", ""),
    ("pilothouse containers pause storefront --namespace cafe", "PAUSED"),
    ("pilothouse containers resume storefront --namespace cafe --wait", "RUNNING"),
    ("pilothouse containers history storefront --namespace cafe", "PAUSED"),
    ("pilothouse can-i container.delete --namespace cafe", "yes"),
)
SECURITY = (
    ("pilothouse users create ada --email ada@example.org --password-stdin", "ada"),
    ("pilothouse grants create ada developer --namespace cafe", "developer"),
    ("pilothouse grants list", "ada"),
    ("pilothouse why delete container/storefront --namespace cafe", "yes: container.delete"),
    ("pilothouse who-can delete containers --namespace cafe", "ada"),
    ("pilothouse grants simulate ada operator --namespace cafe", "namespace.update"),
)
# Longer than a line of Python may be, so they stand in a file of their own, as the README has them.
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
# docs/ci.md's: what is done once, by who administers, and what a pipeline changes later.
CI_ONCE = (
    (
        'pilothouse service-accounts create ci --namespace cafe --description "Deploys from main"',
        "sa:cafe:ci",
    ),
    ("pilothouse grants create sa:cafe:ci developer --namespace cafe", "developer"),
    (CI_READ_ONLY, "read-only"),
    ("pilothouse api-keys create office --service-account sa:cafe:ci --allow-from 203.0.113.0/24", "phk_"),
)
CI_DEPLOY = "pilothouse api-keys create deploy --service-account sa:cafe:ci --namespace cafe --expires-in 60d"
CI_LATER = (
    ("pilothouse api-keys list --user sa:cafe:ci", "deploy"),
    ("pilothouse api-keys rotate deploy --user sa:cafe:ci --overlap 1d", "phk_"),
    ("pilothouse api-keys revoke report --user sa:cafe:ci --yes", "ended"),
    ("pilothouse service-accounts delete ci --namespace cafe --yes", "deleted"),
)
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
# In place of kubectl: it shows what it is given, and a token is the cluster's own.
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


async def test_the_first_calls(tmp_path: Path) -> None:
    variables = {"PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
    async with serving("pilothouse serve --dev", tmp_path, variables) as address:
        shell = Shell(address, tmp_path, {"PASSWORD": PASSWORD})
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")
        for line, said in (*FIRST, *COMMAND):
            assert said in await shell.run(line), line
        for line, said in SECURITY:
            assert said in await shell.run(line, f"{PASSWORD} of ada\n"), line
        await _from_a_pipeline(shell, address, tmp_path)
        tokens = json.loads(await shell.run(BUF_LOGIN))
        shell.variables["TOKEN"] = tokens["accessToken"]
        listed = json.loads(await shell.run(BUF_LIST))
        assert len(listed["containers"]) == 11
        (first,) = python_examples("README.md", address)
        printed = await shell.run(first)
        assert "SYNCED" in printed
        assert "MODIFIED web" in printed
        (again,) = python_examples("docs/api.md", address)
        printed = await shell.run(again)
        assert "tools" in printed
        assert "CONTAINER_NOT_FOUND nothing" in printed


async def _from_a_pipeline(shell: Shell, address: str, directory: Path) -> None:
    """What docs/ci.md says, with the lines of its pipelines run with nothing but a job's variables."""
    for line, said in CI_ONCE:
        assert said in await shell.run(line), line
    key = (await shell.run(CI_DEPLOY)).split()[-1]
    # A job has a home of its own, where nobody logged in.
    job = Shell(
        address,
        directory / "job",
        {"PILOTHOUSE_SERVER": address, "PILOTHOUSE_TOKEN": key, "PILOTHOUSE_NAMESPACE": "cafe"},
    )
    said = await job.run("pilothouse whoami")
    assert "sa:cafe:ci" in said
    assert "by the key deploy" in said
    lines = pipeline_lines()
    assert len(lines) == 5
    for line in lines:
        await job.run(line)
    # The same for a program in Python.
    program = "import pilothouse_client as p; c = p.Client.from_environment(); print(c.namespace, len(list("
    program += "c.containers.list(namespace=c.namespace))))"
    assert (await job.run(f"python -c '{program}'")).split() == ["cafe", "11"]
    for line, said in CI_LATER:
        assert said in await shell.run(line), line
    await job.run("pilothouse whoami", succeeds=False)


def pipeline_lines() -> list[str]:
    """The lines of our command in the pipelines of docs/ci.md that have a key, whatever their form has around them."""
    with_a_key, heading, _ = (ROOT / "docs" / "ci.md").read_text().partition("## Without a stored key")
    assert heading
    examples = re.findall(r"```yaml\n(.*?)```", with_a_key, re.DOTALL)
    found: list[str] = []

    def look(part: object) -> None:
        if isinstance(part, dict):
            for each in part.values():
                look(each)
        elif isinstance(part, list):
            for each in part:
                look(each)
        elif isinstance(part, str) and part.startswith("pilothouse "):
            found.append(part)

    for example in examples:
        look(yaml.safe_load(example))
    assert len(examples) == 3
    return found


@pytest.mark.skipif(shutil.which("grpcurl", path=PATH) is None, reason="grpcurl is not installed")
async def test_grpcurl_watches(tmp_path: Path) -> None:
    variables = {"PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
    async with serving("pilothouse serve --dev", tmp_path, variables) as address:
        shell = Shell(address, tmp_path, {"PASSWORD": PASSWORD})
        shell.variables["TOKEN"] = json.loads(await shell.run(GRPCURL_LOGIN))["accessToken"]
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")
        for name, line in (("demo", GRPCURL_WATCH), ("cafe", GRPCURL_WATCH_CAFE)):
            await shell.run(f"pilothouse namespaces create {name}")
            watched = await shell.run(f"timeout 5 {line} || test $? = 124")
            assert "CHANGE_TYPE_SYNCED" in watched


def python_examples(page: str, address: str) -> list[str]:
    """The programs in Python of a page, each as a line of shell that runs it, against another address."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert all(README_ADDRESS in program for program in found)
    programs = [program.replace(README_ADDRESS, address) for program in found]
    return [f"python - <<'END'\npassword = {PASSWORD!r}\n{program}\nEND" for program in programs]


def test_every_program_is_run() -> None:
    pages = {
        path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if "```python" in path.read_text()
    }
    assert pages == {ROOT / "README.md", ROOT / "docs/api.md"}


async def test_a_cluster_of_ones_own(tmp_path: Path) -> None:
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


async def test_further_clusters(tmp_path: Path) -> None:
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
        path = f"{kubectl.parent}:{environment(tmp_path)['PATH']}"
        shell = Shell(address, tmp_path, {"HOME": str(tmp_path), "PATH": path}, directory_of_files=tmp_path)
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")

        async def says(line: str, said: str) -> bool:
            return said in await shell.run(line.replace("https://10.0.0.5:6443", cluster.url))

        for line, said in FURTHER:
            if line == HEALTH:
                # Its health is looked at a moment after it is registered.
                await poll_until(lambda: says(HEALTH, "HEALTHY"), seconds=30, what=HEALTH)
            else:
                assert await says(line, said), line


async def test_a_database_of_ones_own(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
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
    assert "applied 0001" in await shell.run("pilothouse migrate up")
    assert "nothing to apply" in await shell.run("pilothouse migrate up")
    assert "0001  applied" in await shell.run("pilothouse migrate status")
    variables["PILOTHOUSE_BOOTSTRAP_PASSWORD"] = PASSWORD
    async with serving("pilothouse serve", tmp_path, variables) as address:
        shell.address = address
        await shell.run(f"{LOGIN} --password-stdin", PASSWORD + "\n")
        assert "admin" in await shell.run("pilothouse whoami")
        # While the server runs.
        assert "begins" in await shell.run('pilothouse migrate new-history --reason "restored a snapshot"')
        listed = "pilothouse audit list --filter 'resource_type = \"database\"'"
        assert "system" in await shell.run(listed)
        # Where the server has its data folder.
        shell.directory_of_files = tmp_path
        for line, said in KEYS:
            assert said in await shell.run(line), line


async def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    shell = Shell("", tmp_path, {"PILOTHOUSE_DATABSE_URL": "postgresql://x"})
    said = await shell.run("pilothouse serve", succeeds=False)
    assert "PILOTHOUSE_DATABSE_URL is not a setting" in said
