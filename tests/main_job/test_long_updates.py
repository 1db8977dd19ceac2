"""A change of a container with thousands of variables is executed in steps, between which other tasks run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.containers import admission, messages, operations, rules
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.interceptors import audit
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database
from tests.harness import running_server


async def test_other_tasks_run_between_the_steps_of_a_long_update(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, steps = 0, list[tuple[str, int]]()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def noting(target: Any, name: str) -> None:
        step: Callable[..., Any] = getattr(target, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            steps.append((name, turns))
            return step(*arguments, **named)

        monkeypatch.setattr(target, name, noted)

    env = [pb.EnvVar(name=f"NAME_{number}", value="v" * 20) for number in range(500)]
    inits = [pb.InitContainer(name=f"init-{number}", image="nginx:1.27", env=env) for number in range(4)]
    web = pb.Container(name="web", image="nginx:1.27", env=env, init_containers=inits)
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="own"))
        await server.admin.containers.create(namespace="own", container=web)
        noting(operations, "refuse_deleting")
        noting(rules, "checked")
        noting(admission, "settled")
        noting(messages.CONTAINER, "to_proto")
        noting(messages.CACHE, "rendered_message")
        noting(redaction, "body")
        noting(audit, "_record")
        other = asyncio.create_task(others())
        web.env[0].value = "another"
        mask = FieldMask(paths=["env"])
        await server.admin.containers.update(namespace="own", name="web", container=web, update_mask=mask)
        updated, steps = steps, []
        await server.admin.containers.restart(namespace="own", name="web")
        restarted = steps
        await cancel_and_wait(other)
    # A change that the reconciler has outdated begins again.
    updated, restarted = (
        found[max(number for number, (name, _) in enumerate(found) if name == "refuse_deleting") :]
        for found in (updated, restarted)
    )
    # Rendering the response is one step with its message; the first `to_proto` belongs to reading the request.
    updated, restarted = (
        [
            step
            for before, step in pairwise([("", 0), *found])
            if step[0] != "to_proto" or before[0] not in ("", "rendered_message")
        ]
        for found in (updated, restarted)
    )
    # `to_proto` renders the state before the change; the last `body` is the request's, which belongs to the audit
    # record.
    names = [
        "refuse_deleting",
        "checked",
        "settled",
        "rendered_message",
        "body",
        "to_proto",
        "_record",
        "body",
    ]
    assert [name for name, _ in updated] == names
    assert [name for name, _ in restarted] == [
        "refuse_deleting",
        "rendered_message",
        "body",
        "_record",
        "body",
    ]
    for found in (updated, restarted):
        assert all(turn < next_turn for (_, turn), (_, next_turn) in pairwise(found[:-1])), found
