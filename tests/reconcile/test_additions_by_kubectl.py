"""kubectl's additions to one of our workloads are drift; its restarts and its own labels are not.

Skipped if kubectl is not installed (Debian: package `kubectl`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import yaml

from tests.conftest import Database
from tests.processes import finished
from tests.reconcile.environment import Environment, environment
from tests.reconcile.test_additions import drifted, recorded, running, whole

_KUBECTL = shutil.which("kubectl")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(_KUBECTL is None, reason="kubectl is not installed"),
]
_SIDECAR = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: applied, image: "busybox:1"}]}}}
"""
Kubectl = Callable[..., Awaitable[str]]


def _kubectl(here: Environment, folder: Path) -> Kubectl:
    (folder / "config").write_text(yaml.safe_dump(here.cluster.kubeconfig()))
    # A separate HOME: kubectl caches discovery by server address.
    environment = {**os.environ, "KUBECONFIG": str(folder / "config"), "HOME": str(folder)}

    async def run(*arguments: str) -> str:
        assert _KUBECTL is not None
        code, output, errors = await finished(
            _KUBECTL,
            "--namespace=shop",
            *arguments,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            seconds=30.0,
        )
        assert code == 0, errors.decode()
        return output.decode()

    return run


@pytest_asyncio.fixture(loop_scope="session")
async def here(database: Database) -> AsyncIterator[Environment]:
    """Yields an environment with TLS: kubectl sends no token without it."""
    async with environment(database, tls=True) as made:
        yield made


async def test_kubectl_additions_are_reverted_but_a_restart_is_not(here: Environment, tmp_path: Path) -> None:
    kubectl = _kubectl(here, tmp_path)
    client = await here.connect("local")
    main = '.spec.template.spec.containers[name="main"]'
    patch = '{"spec": {"template": {"spec": {"containers": [{"name": "miner", "image": "busybox:1"}]}}}}'
    (tmp_path / "sidecar.yaml").write_text(_SIDECAR)
    steps: list[tuple[list[str], str]] = [
        (["patch", "deployment", "web", "-p", patch], '.spec.template.spec.containers[name="miner"]'),
        (["set", "env", "deployment/web", "X=1"], f'{main}.env[name="X"]'),
        (["set", "resources", "deployment/web", "--limits=cpu=500m"], f"{main}.resources.limits.cpu"),
        (
            ["apply", "--server-side", "--field-manager=person", "--validate=false", "-f", "sidecar.yaml"],
            '.spec.template.spec.containers[name="applied"]',
        ),
    ]
    async with here.reconciling():
        await running(here, "repair")
        template = (await whole(client))["spec"]["template"]
        for command, field in steps:
            await kubectl(*command)
            await here.until(lambda row, field=field: field in drifted(row).message)  # type: ignore[misc]
            assert (await whole(client))["spec"]["template"] == template
        # The way `kubectl edit` sends it.
        edited = msgspec.json.decode(await kubectl("get", "deployment", "web", "-o", "json"))
        edited["spec"]["template"]["spec"]["hostNetwork"] = True
        (tmp_path / "edited.json").write_bytes(msgspec.json.encode(edited))
        await kubectl("replace", "--validate=false", "-f", "edited.json")
        row = await here.until(lambda row: "hostNetwork" in drifted(row).message)
        assert "by 'kubectl-replace'" in drifted(row).message
        assert (await whole(client))["spec"]["template"] == template
        await kubectl("rollout", "restart", "deployment/web")
        await kubectl("label", "deployment", "web", "example.com/theirs=x")
        restarted = (await whole(client))["spec"]["template"]["metadata"]["annotations"]
        at = restarted["kubectl.kubernetes.io/restartedAt"]
        await recorded(
            here, "RestartedByOthers", f"Deployment web was restarted by 'kubectl-rollout' at {at}"
        )
        row = await here.running()
        assert "hostNetwork" in drifted(row).message
        assert (await whole(client))["spec"]["template"]["metadata"]["annotations"] == restarted
