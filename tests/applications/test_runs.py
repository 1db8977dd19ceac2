"""`apply` without an application, against a server: its output, its result, and the resulting state."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import Place
from tests.harness import PASSWORD
from tests.translator.manifests import EXAMPLE, SERVICE, WEB, web

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse_client import Client, NotFoundError
from pilothouse_client.apply.outcome import ApplyOutput, ApplyResult, Options
from pilothouse_client.apply.run import apply
from pilothouse_manifests.translator.weights import ProblemWeight


class Run:
    """One `apply` and its output."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.said: list[str] = []
        self.complained: list[str] = []

    async def __call__(
        self,
        text: str = "",
        sources: Sequence[str] = ("-",),
        *,
        dry_run: bool = False,
        namespace: str = "",
        skip: ProblemWeight | None = None,
    ) -> ApplyResult:
        self.said.clear()
        self.complained.clear()
        return await asyncio.to_thread(
            apply,
            self._client,
            Options(sources, skip=skip),
            pb.ApplyApplicationRequest(namespace=namespace or self._namespace, validate_only=dry_run),
            ApplyOutput(self.said.append, self.complained.append),
            standard_input=io.BytesIO(text.encode()),
        )


@pytest_asyncio.fixture
async def run(place: Place) -> AsyncIterator[Run]:
    with Client(place.server.address, username="admin", password=PASSWORD) as client:
        yield Run(client, place.name)


async def stored(place: Place, name: str = "web") -> container_pb2.Container:
    return await place.client.containers.get(namespace=place.name, name=name)


async def test_a_second_apply_changes_only_fields_that_differ(place: Place, run: Run) -> None:
    assert await run(WEB + "---\n" + SERVICE) is ApplyResult.DONE
    assert run.said == ["service/web created", "container/web created", "2 created"]
    first = await stored(place)
    assert await run(WEB + "---\n" + SERVICE) is ApplyResult.DONE
    assert run.said == ["service/web unchanged", "container/web unchanged", "2 unchanged"]
    assert run.complained == []
    assert (await stored(place)).etag == first.etag
    # The manifest sets no number of replicas, so the present one is kept.
    scaled = container_pb2.Container(replicas=3, display_name="Front")
    await place.client.containers.update(
        namespace=place.name,
        name="web",
        container=scaled,
        update_mask=FieldMask(paths=["replicas", "display_name"]),
    )
    assert await run(WEB.replace("1.27", "1.28")) is ApplyResult.DONE
    assert run.said == ["container/web updated", "1 updated"]
    changed = await stored(place)
    assert (changed.image, changed.replicas, changed.display_name) == ("nginx:1.28", 3, "Front")


async def test_a_plain_text_credential_causes_a_warning_when_it_is_set(run: Run) -> None:
    container = """        env:
        - {name: DB_PASSWORD, value: hunter2}
        - {name: MODE, value: fast}
        args: [serve, --api-key=abc, --token, xyz, --secret, --verbose, KEY=, "Mode: a"]
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
        "header X-Token of the liveness probe",
    ]
    assert [line.endswith(": put it into a Secret") for line in told] == [True] * 3 + [False]
    assert "hunter2" not in " ".join(run.complained)
    # There is no second warning for an unchanged field, even if the image changes.
    assert await run(text) is ApplyResult.DONE
    assert run.complained == []
    assert await run(text.replace("1.27", "1.28")) is ApplyResult.DONE
    assert run.complained == []


async def test_applying_an_owned_service_updates_its_container(place: Place, run: Run) -> None:
    port = container_pb2.Port(name="http", container_port=8080, service_port=8000)
    owner = container_pb2.Container(name="web", image="nginx:1.27", ports=[port], labels={"app": "web"})
    await place.client.containers.create(namespace=place.name, container=owner)
    assert await run(SERVICE) is ApplyResult.DONE
    assert run.said == ["container/web updated", "with their containers: service/web", "1 updated"]
    assert [(each.service_name, each.service_port) for each in (await stored(place)).ports] == [("web", 80)]
    # Container ports cannot express every field of a Service.
    assert await run(SERVICE + "  sessionAffinity: ClientIP\n") is ApplyResult.REFUSED
    assert "a container owns service/web by its ports, which do not support it" in run.complained[0]


async def test_a_dry_run_shows_documents_and_fields_and_changes_nothing(place: Place, run: Run) -> None:
    await run(web(name="first"))
    text = "---\n".join([web("replicas: 2", name="first"), web(name="second"), SERVICE])
    assert await run(text, dry_run=True) is ApplyResult.DONE
    assert run.said[0].startswith("--- /dev/null\n+++ service/web (stdin:38)\n")
    assert "+  selector:\n+    app: web" in run.said[0]
    assert (
        "--- container/first (server)\n+++ container/first (stdin:1)\n-replicas: 1\n+replicas: 2" in run.said
    )
    assert "container/second created (dry run)" in run.said
    assert run.said[-1] == "2 created, 1 updated (dry run: nothing was changed)"
    assert [each.name async for each in place.client.containers.list(namespace=place.name)] == ["first"]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        (
            web(name="good") + "---\n" + WEB.replace("nginx:1.27", "'BAD::'"),
            "stdin:33: container/web: container.image: ",
            "nothing was applied: one problem (1 invalid)",
        ),
        (
            WEB + "---\n" + web("paused: true", name="other"),
            "stdin:25: deployment/other: spec.paused: cannot be represented (behaviour)",
            "--skip-unsupported=behaviour continues without these",
        ),
        (
            web("replicas: two"),
            "stdin:7: deployment/web: spec.replicas: expected a whole number, found the string 'two'",
            "nothing was applied: one problem (1 invalid)",
        ),
        ("# nothing\n---\n", "nothing to apply: the input contains no document", ""),
    ],
    ids=["server", "unsupported", "invalid", "empty"],
)
async def test_one_problem_refuses_the_whole_input(
    place: Place, run: Run, text: str, first: str, last: str
) -> None:
    assert await run(text) is ApplyResult.REFUSED
    assert run.said == []
    assert run.complained[0].startswith(first)
    assert run.complained[-1].endswith(last)
    assert [each.name async for each in place.client.containers.list(namespace=place.name)] == []


async def test_skipping_continues_and_lists_the_parts_left_out(run: Run) -> None:
    text = web("paused: true") + "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: key}\n"
    assert await run(text, skip=ProblemWeight.BEHAVIOUR) is ApplyResult.REFUSED
    assert await run(text, skip=ProblemWeight.SECURITY) is ApplyResult.LEFT_OUT
    assert run.said == ["container/web created", "1 created; left out: 1 behaviour, 1 security"]
    assert run.complained == [
        "left out: stdin:7: deployment/web: spec.paused: cannot be represented (behaviour)",
        "left out: stdin:20: resourcequota/key: ResourceQuota of v1 cannot be represented: set resource_quota "
        "of the namespace; or `kubectl apply` it: it will be left alone (security)",
    ]
    assert await run(web("replicas: two\npaused: true"), skip=ProblemWeight.SECURITY) is ApplyResult.REFUSED


async def test_a_kind_that_is_not_open_is_left_out_on_request(run: Run) -> None:
    text = WEB + "---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n"
    assert await run(text) is ApplyResult.REFUSED
    assert run.complained[0].startswith("stdin:19: widget/w: Widget of example.com/v1 is not yet supported")
    assert await run(text, skip=ProblemWeight.BEHAVIOUR) is ApplyResult.LEFT_OUT
    assert run.said[-1] == "1 created; left out: 1 behaviour"


async def test_an_unknown_namespace_raises_an_error(run: Run) -> None:
    with pytest.raises(NotFoundError):
        await run(WEB, namespace="nowhere")


async def test_the_example_application_is_applied_twice(run: Run) -> None:
    assert await run(sources=[str(EXAMPLE)]) is ApplyResult.DONE
    assert run.said[-1] == "29 created"
    assert await run(sources=[str(EXAMPLE)]) is ApplyResult.DONE
    assert run.said[-1] == "29 unchanged"
