"""`--wait` and rollouts: a wait succeeds when the requested state is rolled out, and otherwise reports the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import Shell, logged_in
from tests.waiting import poll_until, within

WHERE = ("--namespace", "shop")
WAIT = ("--wait", "--stable-for", "0.3")
# Ready for two seconds each time, which are twenty of the simulated cluster's.
CRASHES = ("--command", "sh", "--", "-c", "echo begins; echo no database; sleep 20; exit 3")
# No host has a name under this top-level domain.
NOWHERE = "registry.invalid/web:1"
APPLIED = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{simulate.pilothouse.dev/behavior: {behavior}}}}}
    spec:
      containers: [{{name: main, image: "{image}"}}]
"""


async def given(server: Server, tmp_path: Path, *options: str) -> Shell:
    shell = await logged_in(server, tmp_path)
    await shell.succeed("namespaces", "create", "shop")
    await shell.succeed("containers", "create", "web", *WHERE, "--image", "nginx:1.27", *WAIT, *options)
    return shell


def pods(server: Server) -> dict[str, str]:
    """Returns the image of every pod that is not being deleted, by uid."""
    assert server.cluster is not None
    return {
        pod["metadata"]["uid"]: pod["spec"]["containers"][0]["image"]
        for pod in server.cluster.store.list(resources.PODS, "shop")
        if "deletionTimestamp" not in pod["metadata"]
    }


async def seen(server: Server) -> pb.Container:
    return await server.admin.containers.get(namespace="shop", name="web")


def rolled_out(container: pb.Container) -> resource_pb2.Condition:
    return next(c for c in container.conditions if c.type == "RolledOut")


def deadline(server: Server, seconds: int) -> None:
    """Sets how long a step of the rollout may take (in simulated seconds), as another client."""
    assert server.cluster is not None
    deployment = server.cluster.store.get(resources.DEPLOYMENTS, "shop", "web")
    assert deployment is not None
    changed: dict[str, Any] = {
        **deployment,
        "spec": {**deployment["spec"], "progressDeadlineSeconds": seconds},
    }
    server.cluster.store.update(resources.DEPLOYMENTS, changed, manager="somebody")


@pytest.mark.full
async def test_an_image_that_cannot_be_pulled_fails_the_wait_while_old_pods_serve(
    server: Server, tmp_path: Path
) -> None:
    shell = await given(server, tmp_path)
    before = pods(server)
    outcome = await shell.run("containers", "update", "web", *WHERE, "--image", NOWHERE, *WAIT)
    assert outcome.code == 10
    assert re.search(
        "web: its image cannot be pulled: (ErrImagePull|ImagePullBackOff) .*registry.invalid", outcome.errors
    )
    container = await seen(server)
    assert container.status == pb.CONTAINER_STATUS_RUNNING
    assert container.reason in ("ImagePullBackOff", "ErrImagePull")
    assert container.message
    assert not container.reconciling
    assert rolled_out(container).status == resource_pb2.CONDITION_STATUS_FALSE
    assert before.keys() < pods(server).keys()
    history = await shell.read("containers", "history", "web", *WHERE)
    assert sum(change["reason"] in ("ImagePullBackOff", "ErrImagePull") for change in history) == 1
    assert not [change for change in history if change.get("reason") == "RollingOut"]
    # A good image ends the failure: the pod that never started is replaced, and so is the old one.
    await shell.succeed("containers", "update", "web", *WHERE, "--image", "nginx:1.28", *WAIT)
    assert set(pods(server).values()) == {"nginx:1.28"}
    container = await seen(server)
    assert (container.status, container.reason) == (pb.CONTAINER_STATUS_RUNNING, "")
    assert rolled_out(container).status == resource_pb2.CONDITION_STATUS_TRUE


@pytest.mark.full
async def test_a_rollout_that_the_cluster_gives_up_ends_the_wait_immediately(
    server: Server, tmp_path: Path
) -> None:
    shell = await given(server, tmp_path)
    deadline(server, 20)
    behavior = "simulate.pilothouse.dev/behavior"
    never_ready = ("--pod-annotation", f"{behavior}=readiness-failing")
    outcome = await shell.run("containers", "update", "web", *WHERE, *never_ready, *WAIT)
    assert outcome.code == 10
    assert "web: the cluster has given up its rollout: " in outcome.errors
    assert "ProgressDeadlineExceeded" in outcome.errors
    # The earlier report concerns the previous rollout: it does not fail the next one.
    good = ("--image", "nginx:1.28", "--pod-annotation", f"{behavior}=run")
    deadline(server, 600)
    await shell.succeed("containers", "update", "web", *WHERE, *good, *WAIT)
    assert set(pods(server).values()) == {"nginx:1.28"}
    file = tmp_path / "web.yaml"
    deadline(server, 20)
    file.write_text(APPLIED.format(image="nginx:1.28", behavior="readiness-failing"))
    outcome = await shell.run("apply", "-f", str(file), *WHERE, *WAIT)
    assert outcome.code != 0
    assert "not all containers run as they should:" in outcome.errors
    assert "ProgressDeadlineExceeded" in outcome.errors
    deadline(server, 600)
    file.write_text(APPLIED.format(image="nginx:1.29", behavior="run"))
    await shell.succeed("apply", "-f", str(file), *WHERE, *WAIT)
    assert set(pods(server).values()) == {"nginx:1.29"}


@pytest.mark.full
async def test_a_release_that_keeps_crashing_fails_the_wait(server: Server, tmp_path: Path) -> None:
    """It is ready and rolled out each time, and the restart counts of old pods disappear with them."""
    shell = await given(server, tmp_path)
    waiting = ("--wait", "--stable-for", "4")
    outcome = await shell.run("containers", "update", "web", *WHERE, *waiting, *CRASHES)
    assert outcome.code == 10, outcome
    assert re.search(
        "error: web: a newest pod restarts: program main of pod web-.* ended: Error, exit code 3",
        outcome.errors,
    )
    assert outcome.errors.endswith("\n  begins\n  no database\n")
    # The container is unstable after every verb.
    for verb in (("start",), ("restart",)):
        outcome = await shell.run("containers", *verb, "web", *WHERE, *waiting)
        assert (outcome.code, "a newest pod restarts" in outcome.errors) == (10, True), outcome
    made = await shell.run(
        "containers", "create", "other", *WHERE, "--image", "nginx:1.27", *waiting, *CRASHES
    )
    assert (made.code, "other: a newest pod restarts" in made.errors) == (10, True), made
    # The earlier report concerns the previous release: it does not fail the next one.
    await shell.succeed("containers", "update", "web", *WHERE, *waiting, "--command", "sleep", "--", "86400")
    stable = next(each for each in (await seen(server)).conditions if each.type == "Stable")
    assert stable.status == resource_pb2.CONDITION_STATUS_TRUE
    file = tmp_path / "web.yaml"
    crashing = APPLIED.format(image="nginx:1.27", behavior="run")
    crashing = crashing.replace('1.27"', '1.27", command: [sh, -c, "echo no database; sleep 20; exit 3"]')
    file.write_text(crashing)
    applied = await shell.run("apply", "-f", str(file), *WHERE, *waiting)
    assert applied.code == 10, applied
    assert "a newest pod restarts" in applied.errors
    assert applied.errors.endswith("\n  web: no database\n")


@pytest.mark.full
async def test_starting_zero_replicas_ends_with_a_message(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await shell.succeed("containers", "update", "web", *WHERE, "--replicas", "0", *WAIT)
    await shell.succeed("containers", "stop", "web", *WHERE, "--wait")
    outcome = await shell.run("containers", "start", "web", *WHERE, *WAIT)
    assert outcome.code == 0
    assert "web has no replicas, so no pod runs" in outcome.errors


@pytest.mark.full
async def test_after_a_wait_the_requested_pods_exist(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path, "--replicas", "3")
    for _ in range(2):
        before = pods(server)
        await shell.succeed("containers", "restart", "web", *WHERE, *WAIT)
        now = pods(server)
        assert len(now) == 3
        assert not now.keys() & before.keys()
    await shell.succeed("containers", "update", "web", *WHERE, "--image", "nginx:1.28", *WAIT)
    assert list(pods(server).values()) == ["nginx:1.28"] * 3
    history = await shell.read("containers", "history", "web", *WHERE)
    assert not [change for change in history if change.get("reason") == "RollingOut"]
    await shell.succeed("containers", "stop", "web", *WHERE, "--wait")
    await shell.succeed("containers", "start", "web", *WHERE, *WAIT)
    assert len(pods(server)) == 3


@pytest.mark.full
@pytest.mark.parametrize("verb", ["stop", "pause"])
async def test_after_waiting_for_a_stop_or_a_pause_no_pod_is_left(
    server: Server, tmp_path: Path, verb: str
) -> None:
    # The pods end only when they are killed after their grace period, three seconds here.
    stubborn = ("--command", "sh", "--", "-c", "trap : TERM; sleep 3600")
    shell = await given(server, tmp_path, "--replicas", "3", *stubborn)
    ended = await shell.read("containers", verb, "web", *WHERE, "--wait")
    assert server.cluster is not None
    assert not server.cluster.store.list(resources.PODS, "shop")
    assert not ended.get("ready_replicas")
    assert not ended.get("reason")
    # Nothing is left to wait for.
    await shell.succeed("containers", verb, "web", *WHERE, "--wait", "--wait-timeout", "20")


@pytest.mark.full
async def test_zero_replicas_are_reached_and_left_again(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await shell.succeed("containers", "update", "web", *WHERE, "--replicas", "0", *WAIT)

    async def none() -> bool:
        return not pods(server)

    await poll_until(none)
    await shell.succeed("containers", "update", "web", *WHERE, "--replicas", "2", *WAIT)
    assert len(pods(server)) == 2
    await poll_until(lambda: seen(server), lambda found: found.ready_replicas == 2)


@pytest.mark.full
async def test_a_held_rollout_is_reported_and_waited_for_after_resume(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    before = pods(server)
    await shell.succeed("containers", "pause", "web", *WHERE, "--mode", "hold_rollout", "--wait")
    await poll_until(lambda: seen(server), lambda found: found.reason == "")
    kept = await shell.succeed("containers", "update", "web", *WHERE, "--image", "nginx:1.28", *WAIT)
    assert "RolloutHeld" in kept
    assert pods(server) == before
    await shell.succeed("containers", "resume", "web", *WHERE, *WAIT)
    assert set(pods(server).values()) == {"nginx:1.28"}


@pytest.mark.full
async def test_after_waiting_for_a_deletion_the_container_is_gone(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    async with within(60):
        said = await shell.succeed("containers", "delete", "web", *WHERE, "--yes", "--wait")
    assert said == "container shop/web deleted\n"
    assert pods(server) == {}
