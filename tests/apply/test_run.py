"""`apply` against a server: its calls, its output, and its result."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.apply.conftest import Settle
from tests.client.fake_server import FakeServer
from tests.translator.manifests import EXAMPLE, NAMESPACE, SAMPLE, SERVICE, WEB, web
from tests.waiting import within

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import Client, NotFoundError, UnauthenticatedError
from pilothouse_client.apply.outcome import ApplyResult, Options
from pilothouse_client.apply.run import apply
from pilothouse_manifests.translator.weights import ProblemWeight


class Run:
    """One `apply` and its output."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self.said: list[str] = []
        self.complained: list[str] = []

    async def says(self, part: str) -> None:
        """Returns when a line with this part has been said; fails after ten seconds."""
        async with within(10):
            while not any(part in line for line in self.said):
                self._heard.clear()
                await self._heard.wait()

    def _say(self, line: str) -> None:
        # Called by the thread of `apply`.
        self.said.append(line)
        self._loop.call_soon_threadsafe(self._heard.set)

    async def __call__(self, text: str = "", sources: Sequence[str] = ("-",), **options: Any) -> ApplyResult:
        namespace = options.pop("namespace", NAMESPACE)
        self.said.clear()
        self.complained.clear()
        return await asyncio.to_thread(
            apply,
            self._client,
            Options(sources, namespace, **options),
            say=self._say,
            complain=self.complained.append,
            standard_input=io.BytesIO(text.encode()),
        )


@pytest_asyncio.fixture
async def run(client: Client) -> Run:
    return Run(client)


def stored(fake: FakeServer, name: str = "web") -> pb.Container:
    row = fake.tables["container"][NAMESPACE, name]
    assert isinstance(row, pb.Container)
    return row


def in_earnest(fake: FakeServer, method: str) -> int:
    """How many calls of a method were no trials."""
    return sum(not call.request.validate_only for call in fake.calls_of(method))


async def test_what_is_applied_is_there_and_applying_again_changes_nothing(
    fake: FakeServer, run: Run
) -> None:
    assert await run(WEB + "---\n" + SERVICE) is ApplyResult.DONE
    assert run.said == ["service/web created", "container/web created", "2 created"]
    assert stored(fake).image == "nginx:1.27"
    assert await run(WEB + "---\n" + SERVICE) is ApplyResult.DONE
    assert run.said == ["service/web unchanged", "container/web unchanged", "2 unchanged"]
    assert run.complained == []
    assert in_earnest(fake, "CreateContainer") == 1
    assert fake.calls_of("UpdateContainer") == []


async def test_a_change_sends_the_fields_that_differ_against_the_state_it_was_planned_for(
    fake: FakeServer, run: Run
) -> None:
    await run(WEB)
    stored(fake).etag = "seen"
    assert await run(WEB.replace("1.27", "1.28")) is ApplyResult.DONE
    assert run.said == ["container/web updated", "1 updated"]
    trial, call = fake.calls_of("UpdateContainer")
    assert (trial.request.validate_only, call.request.validate_only) == (True, False)
    for sent in (trial.request, call.request):
        assert (list(sent.update_mask.paths), sent.etag) == (["image"], "seen")
    assert stored(fake).image == "nginx:1.28"


async def test_a_credential_in_the_clear_is_warned_of_when_it_is_set(fake: FakeServer, run: Run) -> None:
    container = """        env:
        - {name: DB_PASSWORD, value: hunter2}
        - {name: MODE, value: fast}
        - {name: PASSWORD_FILE, value: /run/secrets/db}
        - name: API_TOKEN
          valueFrom: {secretKeyRef: {name: db, key: token}}
        args: [serve, --api-key=abc, --token, xyz, --secret, --verbose, PGPASSWORD=def, KEY=, "Mode: a"]
        command: [curl, -H, "Authorization: Bearer abc", "https://h/?a=b"]
        livenessProbe:
          httpGet: {path: /, port: 80, httpHeaders: [{name: X-Token, value: abc}, {name: Accept, value: a}]}
"""
    text = WEB.rstrip() + "\n" + container
    assert await run(text) is ApplyResult.DONE
    told = [line for line in run.complained if line.startswith("warning: ")]
    assert [line.split(": ")[3].split(" is plain text")[0] for line in told] == [
        "variable DB_PASSWORD",
        "argument --api-key",
        "argument --token",
        "argument PGPASSWORD",
        "argument Authorization",
        "header X-Token of the liveness probe",
    ]
    assert [line.endswith(": put it into a Secret") for line in told] == [True] * 5 + [False]
    assert "hunter2" not in " ".join(run.complained)
    # An unchanged field is not warned about again; another image changes nothing of it.
    assert await run(text) is ApplyResult.DONE
    assert run.complained == []
    assert await run(text.replace("1.27", "1.28")) is ApplyResult.DONE
    assert run.complained == []


async def test_files_of_one_application_may_be_applied_one_by_one(fake: FakeServer, run: Run) -> None:
    await run(WEB)
    await run(SERVICE)
    assert run.said == ["service/web created", "1 created"]
    await run(WEB)
    assert run.said == ["container/web unchanged", "1 unchanged"]
    await run(SERVICE.replace("port: 80", "port: 81"))
    assert run.said == ["service/web updated", "1 updated"]
    (trial, call) = fake.calls_of("UpdateService")
    assert (trial.request.validate_only, call.request.validate_only) == (True, False)
    assert list(call.request.update_mask.paths) == ["ports"]


async def test_a_service_that_a_container_owns_changes_with_it(fake: FakeServer, run: Run) -> None:
    await run(WEB)
    (port,) = stored(fake).ports
    port.service_type, port.service_name, port.service_port = pb.SERVICE_TYPE_CLUSTER_IP, "web", 8000
    await run(SERVICE)
    assert run.said == ["container/web updated (with service/web)", "1 updated"]
    assert [(each.service_name, each.service_port) for each in stored(fake).ports] == [("web", 80)]
    assert fake.calls_of("CreateService") == []
    # Ports do not have every field of a Service.
    assert await run(SERVICE + "  sessionAffinity: ClientIP\n") is ApplyResult.REFUSED
    assert "a container owns service/web by its ports, which do not have it" in run.complained[0]


async def test_a_dry_run_shows_a_service(fake: FakeServer, run: Run) -> None:
    assert await run(SERVICE, dry_run=True) is ApplyResult.DONE
    assert run.said[0].startswith("--- /dev/null\n+++ service/web (stdin:1)\n")
    assert "+selector:\n+  app: web" in run.said[0]
    assert run.said[1] == "service/web created (dry run)"
    assert [call.request.validate_only for call in fake.calls_of("CreateService")] == [True]


async def test_a_refusal_of_the_server_refuses_the_whole_input(fake: FakeServer, run: Run) -> None:
    description = "must be an image such as nginx:1.27"
    fake.fail(
        "CreateContainer",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_CONTAINER",
        message=f"container.image: {description}",
        violations=(("container.image", description),),
    )
    assert await run(WEB) is ApplyResult.REFUSED
    assert run.said == []
    assert run.complained == [
        f"stdin:1: container/web: container.image: {description} [INVALID_CONTAINER]",
        "nothing was applied: one problem (1 invalid)",
    ]
    assert in_earnest(fake, "CreateContainer") == 0


async def test_what_could_not_be_tried_is_applied_and_a_late_refusal_does_not_hold_up_the_others(
    fake: FakeServer, run: Run
) -> None:
    away: dict[str, Any] = {"reason": "CLUSTER_UNAVAILABLE", "message": "away", "retry_delay": 1.0}
    text = "---\n".join([web(name="first"), web(name="second")])
    fake.fail("CreateContainer", grpc.StatusCode.UNAVAILABLE, times=2, **away)
    fake.fail("CreateContainer", grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_CONTAINER", message="no")
    assert await run(text) is ApplyResult.FAILED
    assert run.said == ["container/second created", "1 created, 1 failed"]
    assert run.complained == ["stdin:1: container/first failed: INVALID_ARGUMENT (INVALID_CONTAINER): no"]
    # A dry run that got no answer reports that.
    fake.fail("CreateContainer", grpc.StatusCode.UNAVAILABLE, **away)
    assert await run(text, dry_run=True) is ApplyResult.FAILED
    (complaint,) = run.complained
    assert complaint.startswith("container/first could not be tried: UNAVAILABLE (CLUSTER_UNAVAILABLE): ")


async def test_a_file_that_exceeds_the_quota_only_as_a_whole_is_refused_whole(
    fake: FakeServer, run: Run
) -> None:
    quota = namespace_pb2.ResourceQuota(cpu="1")
    await fake.commit("namespace", NAMESPACE, namespace_pb2.Namespace(name=NAMESPACE, resource_quota=quota))
    some = "resources: {requests: {cpu: 300m}}"
    documents = [web(container=some, name=name) for name in ("first", "second")]
    # The server counts 500m used.
    assert await run("---\n".join(documents)) is ApplyResult.REFUSED
    words = "exceeds the namespace's quota together with the rest of the file: cpu 500m used, 1 allowed"
    assert run.complained == [
        f"stdin:20: container/second: {words}",
        "nothing was applied: one problem (1 invalid)",
    ]
    assert in_earnest(fake, "CreateContainer") == 0
    assert await run(documents[0]) is ApplyResult.DONE


async def test_one_problem_refuses_the_whole_input_before_anything_is_asked(
    fake: FakeServer, run: Run
) -> None:
    text = WEB + "---\n" + web("paused: true", name="other")
    assert await run(text) is ApplyResult.REFUSED
    assert run.said == []
    assert run.complained == [
        "stdin:25: deployment/other: spec.paused: cannot be represented (behaviour)",
        "nothing was applied: one problem (1 behaviour)",
        "--skip-unsupported=behaviour continues without these",
    ]
    assert fake.calls == []


async def test_skipping_goes_on_and_lists_what_is_left_out(fake: FakeServer, run: Run) -> None:
    text = web("paused: true") + "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: key}\n"
    assert await run(text, skip=ProblemWeight.BEHAVIOUR) is ApplyResult.REFUSED
    run.complained.clear()
    assert await run(text, skip=ProblemWeight.SECURITY) is ApplyResult.LEFT_OUT
    assert run.said == ["container/web created", "1 created; left out: 1 behaviour, 1 security"]
    assert run.complained == [
        "left out: stdin:7: deployment/web: spec.paused: cannot be represented (behaviour)",
        "left out: stdin:20: resourcequota/key: ResourceQuota of v1 cannot be represented: set resource_quota "
        "of the namespace; or `kubectl apply` it: it will be left alone (security)",
    ]


async def test_skipping_does_not_pass_over_what_is_wrong(fake: FakeServer, run: Run) -> None:
    assert await run(web("replicas: two\npaused: true"), skip=ProblemWeight.SECURITY) is ApplyResult.REFUSED
    assert run.complained == [
        "stdin:7: deployment/web: spec.replicas: expected a whole number, found the string 'two'",
        "nothing was applied: one problem (1 invalid)",
    ]


async def test_a_dry_run_shows_the_difference_and_lets_the_server_check(fake: FakeServer, run: Run) -> None:
    await run(web(name="first"))
    fake.calls.clear()
    text = "---\n".join([web("replicas: 2", name="first"), web(name="second")])
    assert await run(text, dry_run=True, wait=True) is ApplyResult.DONE
    assert [call.request.validate_only for call in fake.calls_of("UpdateContainer")] == [True]
    assert [call.request.validate_only for call in fake.calls_of("CreateContainer")] == [True]
    assert (NAMESPACE, "second") not in fake.tables["container"]
    assert run.said[0].startswith("--- container/first (server)\n+++ container/first (stdin:1)\n")
    assert "\n+replicas: 2\n" in run.said[0]
    assert run.said[1] == "container/first updated (dry run)"
    assert run.said[2].startswith("--- /dev/null\n+++ container/second (stdin:20)\n")
    assert run.said[3:] == [
        "container/second created (dry run)",
        "1 created, 1 updated (dry run: nothing was changed)",
    ]


async def test_waiting_ends_when_all_run(fake: FakeServer, run: Run, settle: Settle) -> None:
    text = "---\n".join([web(name="first"), web(name="second")])
    applied = asyncio.create_task(run(text, wait=True, timeout_seconds=30))
    await run.says("second pending")
    await settle("first", ready_replicas=1)
    await settle(
        "second", pb.CONTAINER_STATUS_PENDING, reason="ImagePullBackOff", message="no such tag", replicas=1
    )
    await run.says("ImagePull")
    await settle("second", ready_replicas=1)
    assert await applied is ApplyResult.DONE
    progress = [line for line in run.said if "pending" not in line or "ImagePull" in line]
    assert sorted(progress[2:-1]) == [
        "container/first running (1 ready)",
        "container/second pending (0/1 ready): ImagePullBackOff: no such tag",
        "container/second running (1 ready)",
    ]
    assert run.said[-1] == "2 created"


async def test_waiting_too_long_tells_what_is_missing_and_why(
    fake: FakeServer, run: Run, settle: Settle
) -> None:
    text = "---\n".join([web(name="first"), web(name="second")])
    await run(text)
    await settle("first")
    await settle("second", pb.CONTAINER_STATUS_PENDING, reason="FailedMount", message="no disk", replicas=1)
    assert await run(text, wait=True, timeout_seconds=0.5) is ApplyResult.NOT_RUNNING
    assert run.complained == [
        "not all containers were running after 0.5 seconds:",
        "  container/second pending (0/1 ready): FailedMount: no disk",
    ]


async def test_one_that_fails_ends_the_wait_for_all(fake: FakeServer, run: Run, settle: Settle) -> None:
    text = "---\n".join([web(name="first"), web(name="second")])
    applied = asyncio.create_task(run(text, wait=True, timeout_seconds=30))
    await run.says("second pending")
    await settle("second", pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF, reason="Error", message="exit code 1")
    assert await applied is ApplyResult.NOT_RUNNING
    assert run.complained[0] == "not all containers run as they should:"
    assert run.complained[-1] == "  container/second crash_loop_back_off: a newest pod restarts: exit code 1"


async def test_a_stopped_container_is_not_waited_for(fake: FakeServer, run: Run, settle: Settle) -> None:
    await run(WEB)
    await settle(status=pb.CONTAINER_STATUS_STOPPED)
    assert await run(WEB, wait=True, timeout_seconds=30) is ApplyResult.DONE
    assert run.said == [
        "container/web unchanged",
        "container/web stopped: not waited for, apply does not start it",
        "1 unchanged",
    ]


async def test_a_container_deleted_meanwhile_ends_the_wait(fake: FakeServer, run: Run) -> None:
    applied = asyncio.create_task(run(WEB, wait=True, timeout_seconds=30))
    await run.says("pending")
    await fake.commit("container", (NAMESPACE, "web"), None)
    assert await applied is ApplyResult.NOT_RUNNING
    assert "container/web is gone" in run.said


async def test_a_cut_watch_does_not_end_the_wait(fake: FakeServer, run: Run, settle: Settle) -> None:
    applied = asyncio.create_task(run(WEB, wait=True, timeout_seconds=30))
    await run.says("pending")
    await fake.forget_history()
    await settle()
    assert await applied is ApplyResult.DONE
    assert len(fake.calls_of("WatchContainers")) == 2


async def test_an_unknown_namespace_and_a_lost_session_are_the_callers_to_handle(
    fake: FakeServer, run: Run
) -> None:
    with pytest.raises(NotFoundError):
        await run(WEB, namespace="nowhere")
    fake.fail("CreateContainer", grpc.StatusCode.UNAUTHENTICATED, reason="TOKEN_EXPIRED", times=3)
    with pytest.raises(UnauthenticatedError):
        await run("---\n".join([web(name="first"), web(name="second")]))
    assert in_earnest(fake, "CreateContainer") == 0


async def test_an_empty_input_is_no_success(run: Run) -> None:
    assert await run("# nothing\n---\n") is ApplyResult.REFUSED
    assert run.complained == ["nothing to apply: the input holds no document"]


@pytest.mark.parametrize(
    ("file", "containers", "services"),
    [
        pytest.param(EXAMPLE, 11, 11, id="example"),
        pytest.param(
            SAMPLE,
            12,
            12,
            id="sample",
            marks=pytest.mark.skipif(
                not SAMPLE.exists(), reason="the sample application is not beside the checkout"
            ),
        ),
    ],
)
async def test_a_whole_application(
    fake: FakeServer, run: Run, settle: Settle, file: Path, containers: int, services: int
) -> None:
    applied = asyncio.create_task(run(sources=[str(file)], wait=True, timeout_seconds=30))
    await run.says("pending")
    await settle()
    assert await applied is ApplyResult.DONE
    # One of them has probes with a cookie in the clear, which is said.
    assert all(" header Cookie of the " in line for line in run.complained), run.complained
    assert run.said[-1] == f"{containers + services} created"
    assert (len(fake.tables["container"]), len(fake.tables["service"])) == (containers, services)
    assert await run(sources=[str(file)]) is ApplyResult.DONE
    assert run.said[-1] == f"{containers + services} unchanged"
