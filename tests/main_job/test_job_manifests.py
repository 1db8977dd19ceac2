"""Jobs as manifests, and their runs in the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import Outcome, Shell, logged_in
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

NAMESPACE = "job-manifests"


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    program: dict[str, Any] = {"name": "main", "image": "busybox:1.37"}
    program |= {"imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [program]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }


class Jobs:
    """Runs the command with manifests in files."""

    def __init__(self, command: Shell, folder: Path) -> None:
        self.command = command
        self._folder = folder

    async def apply(self, manifest: dict[str, Any], *options: str) -> Outcome:
        path = self._folder / "job.yaml"
        path.write_text(yaml.safe_dump(manifest))
        return await self.command.run("apply", "-f", str(path), "--namespace", NAMESPACE, *options)

    async def containers(self, *words: str) -> str:
        return await self.command.succeed("containers", *words, "--namespace", NAMESPACE)


@pytest.fixture
async def shell(shared_server: Server, tmp_path: Path) -> Jobs:
    return Jobs(await logged_in(shared_server, tmp_path), tmp_path)


@pytest.fixture(scope="module", autouse=True)
async def _namespace(shared_server: Server) -> None:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))


async def test_a_job_is_applied_changed_and_run_again(shared_server: Server, shell: Jobs) -> None:
    wanted = job("once", "echo done; exit 0")
    applied = await shell.apply(wanted, "--wait")
    assert applied.code == 0, applied.errors
    assert "container/once succeeded" in applied.output.splitlines()
    again = await shell.apply(wanted)
    assert again.output.splitlines() == ["container/once unchanged", "1 unchanged"]

    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox:1.38"
    compared = await shell.apply(wanted, "--dry-run")
    assert "-image: busybox:1.37\n+image: busybox:1.38" in compared.output
    changed = await shell.apply(wanted)
    assert changed.output.splitlines()[0] == (
        "container/once updated: this starts no new run; `pilothouse containers run once` starts one"
    )
    await shell.containers("run", "once", "--wait")
    assert shared_server.cluster is not None
    live = shared_server.cluster.store.get(resources.JOBS, NAMESPACE, "once-2")
    assert live is not None
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:1.38"
    title, *runs = (await shell.containers("runs", "once")).splitlines()
    assert title.split()[:3] == ["NUMBER", "NAME", "STATUS"]
    shown = await shell.containers("get", "once")
    assert "READY" not in shown
    assert [each.split()[1:3] for each in runs] == [["once-2", "SUCCEEDED"], ["once", "SUCCEEDED"]]


async def test_each_run_has_its_own_log(shell: Jobs) -> None:
    assert (await shell.apply(job("logged", "echo one; exit 0"), "--wait")).code == 0
    assert (await shell.apply(job("logged", "echo two; exit 0"))).code == 0
    await shell.containers("run", "logged", "--wait")
    for number, line in (("1", "one\n"), ("2", "two\n")):
        assert await shell.containers("logs", "logged", "--run", number) == line
    missing = await shell.command.run("containers", "logs", "logged", "--run", "3", "--namespace", NAMESPACE)
    assert missing.code != 0
    assert 'run "3" not found' in missing.errors


async def test_a_wait_for_a_failing_job_reports_why(shell: Jobs) -> None:
    applied = await shell.apply(job("broken", "exit 42"), "--wait")
    assert applied.code != 0
    assert "container/broken failed: BackoffLimitExceeded" in applied.errors

    async def shown() -> bool:
        """Returns whether the exit code is shown: the Job may be failed before its pod shows it."""
        _, run = (await shell.containers("runs", "broken")).splitlines()
        return run.split()[:4] == ["1", "broken", "FAILED", "42"]

    await poll_until(shown)

    async def message() -> str:
        return await shell.containers("get", "broken", "-o", "json")

    await poll_until(message, lambda found: "exit code 42" in found)


async def test_a_job_manifest_read_from_the_cluster_is_the_same_job(
    shared_server: Server, shell: Jobs
) -> None:
    kubectl, wanted = Kubectl(shared_server), job("shown", "exit 0")
    await kubectl.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "shown-jobs"}})
    await kubectl.ask("POST", "/apis/batch/v1/namespaces/shown-jobs/jobs", wanted)
    assert (await shell.apply(wanted)).code == 0
    assert shared_server.cluster is not None
    store = shared_server.cluster.store

    async def ended() -> bool:
        found = store.get(resources.JOBS, "shown-jobs", "shown")
        return found is not None and "succeeded" in found["status"]

    await poll_until(ended)
    shown = dict(store.get(resources.JOBS, "shown-jobs", "shown") or {})
    shown["metadata"] = {key: text for key, text in shown["metadata"].items() if key != "namespace"}
    applied = await shell.apply({**shown, "apiVersion": "batch/v1", "kind": "Job"})
    assert applied.output.splitlines() == ["container/shown unchanged", "1 unchanged"], applied.errors


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"suspend": True},
            "spec.suspend: cannot be represented: remove it and apply, which starts the run; `pilothouse containers "
            "stop NAME` suspends it",
        ),
        (
            {"selector": {"matchLabels": {"a": "b"}}},
            "spec.selector: cannot be represented: Kubernetes writes the selector of a Job; remove it",
        ),
        (
            {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
            "spec.template.spec.restartPolicy: expected a value, found none",
        ),
    ],
)
async def test_fields_that_a_job_cannot_have_are_refused(
    shell: Jobs, spec: dict[str, Any], expected: str
) -> None:
    refused = await shell.apply(job("refused", "exit 0", **spec))
    assert refused.code != 0
    assert expected in refused.errors
