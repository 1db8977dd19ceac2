"""The first calls of the README and of docs/, with one server; in a separate file, because each call is a process.

About fifty commands start one after the other, and each needs half a second of CPU time to load the client.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.readme.served import README_ADDRESS, ROOT, Shell, serving
from tests.readme.test_readme import BUF_LIST, BUF_LOGIN, CI_READ_ONLY, LOGIN, PASSWORD

pytestmark = pytest.mark.full(minutes=10)

# The README's commands, then those of docs/command.md and docs/security.md.
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
    ("pilothouse apply -f deploy/examples/harbor-cafe.yaml --namespace cafe --wait", "29 created"),
    ("pilothouse containers list --namespace cafe", "RUNNING"),
    ("pilothouse top --namespace cafe --once", "storefront"),
    ("pilothouse audit list --namespace cafe --limit 5", "admin"),
    ("pilothouse containers get storefront --namespace cafe", "storefront"),
    ("pilothouse containers pods storefront --namespace cafe", "storefront"),
    ("pilothouse describe container storefront --namespace cafe", "storefront"),
    ("pilothouse containers logs storefront --namespace cafe --tail 3", ""),
    ("pilothouse containers pause storefront --namespace cafe", "PAUSED"),
    ("pilothouse containers resume storefront --namespace cafe --wait", "RUNNING"),
    ("pilothouse containers history storefront --namespace cafe", "PAUSED"),
    (
        "pilothouse containers set image menu registry.k8s.io/e2e-test-images/agnhost:2.54 --namespace cafe --dry-run",
        "+image: registry.k8s.io/e2e-test-images/agnhost:2.54",
    ),
    ("pilothouse containers set env menu LOG=debug --namespace cafe --dry-run", "LOG"),
    ("pilothouse containers set resources menu --limits memory=96Mi --namespace cafe --dry-run", "96Mi"),
    ("pilothouse diff -f deploy/examples/harbor-cafe.yaml --namespace cafe", ""),
    (
        "pilothouse delete -f deploy/examples/harbor-cafe.yaml --namespace cafe --dry-run",
        "29 deleted (dry run)",
    ),
    ("pilothouse containers stop menu orders --namespace cafe", "STOPPED"),
    (
        "pilothouse containers start -l app.kubernetes.io/part-of=harbor-cafe --namespace cafe --dry-run",
        "(dry run)",
    ),
    ("pilothouse containers scale menu orders 2 --namespace cafe --dry-run", "(dry run)"),
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
# The commands of docs/ci.md: the administrator's initial steps, and the later changes for a pipeline.
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


async def test_the_first_calls_of_the_pages_work(tmp_path: Path) -> None:
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
    """Follows docs/ci.md: runs the lines of its pipelines with nothing but a job's variables."""
    for line, said in CI_ONCE:
        assert said in await shell.run(line), line
    key = (await shell.run(CI_DEPLOY)).split()[-1]
    # A job has its own home directory, where no user has logged in.
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
    """Returns the bare `pilothouse` lines of the pipelines in docs/ci.md that have a key."""
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


def python_examples(page: str, address: str) -> list[str]:
    """Returns a page's Python programs as shell lines that run them against another address."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert all(README_ADDRESS in program for program in found)
    programs = [program.replace(README_ADDRESS, address) for program in found]
    return [f"python - <<'END'\npassword = {PASSWORD!r}\n{program}\nEND" for program in programs]


def test_every_program_is_run() -> None:
    pages = {
        path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if "```python" in path.read_text()
    }
    # test_cookbook.py runs the programs of the cookbook.
    assert pages == {ROOT / "README.md", ROOT / "docs/api.md", ROOT / "docs/cookbook.md"}
