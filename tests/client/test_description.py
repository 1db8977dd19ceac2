"""The layout of `describe`: within the terminal's width, in one column, without control characters."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.cli import VERBS
from pilothouse_client.commands.container_description import describe_container
from pilothouse_client.commands.describe import NOUNS
from pilothouse_client.commands.description import (
    Description,
    describe_conditions,
    describe_events,
    describe_message,
    when,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.wait import wish_of

DIGEST = "docker.io/library/nginx@sha256:" + "0123456789abcdef" * 4


def container() -> pb.Container:
    return pb.Container(
        name="web",
        namespace="cafe",
        workload_kind=pb.WORKLOAD_KIND_DEPLOYMENT,
        status=pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF,
        reason="CrashLoopBackOff",
        message="back-off 20s restarting failed container=main; last exit: OOMKilled, exit code 137",
        generation=3,
        observed_generation=2,
        replicas=3,
        ready_replicas=1,
        image="nginx:1.27",
        env=[
            pb.EnvVar(name="A", value="x" * 400),
            pb.EnvVar(
                name="PASSWORD",
                value_from=pb.ENV_VALUE_FROM_SECRET,
                source_name="db",
                source_key="password",
            ),
        ],
        ports=[pb.Port(container_port=80, service_name="web", service_type=pb.SERVICE_TYPE_CLUSTER_IP)],
        volume_mounts=[pb.VolumeMount(volume="data", mount_path="/data", read_only=True)],
        resources=pb.Resources(cpu_request="100m", memory_limit="128Mi"),
        programs=[
            pb.ProgramStatus(
                name="main",
                kind=pb.PROGRAM_KIND_MAIN,
                exit_code=137,
                exit_reason="OOMKilled",
                pod="web-1",
                image_id=DIGEST,
            )
        ],
        conditions=[
            resource_pb2.Condition(
                type="RolledOut",
                status=resource_pb2.CONDITION_STATUS_FALSE,
                reason="ProgressDeadlineExceeded",
                message="words " * 40,
            )
        ],
    )


def described(width: int) -> list[str]:
    page = Description()
    describe_container(page, container(), [])
    describe_events(
        page,
        pb.GetContainerResponse(
            events=[
                resource_pb2.KubernetesEvent(
                    type="Warning", reason="BackOff", count=4, message="again\x1b[2Jand again " * 9
                )
            ]
        ),
    )
    return list(page.lines(width))


def test_a_description_shows_desired_and_observed_state() -> None:
    lines = described(0)
    for line in (
        "Status:       CRASH_LOOP_BACK_OFF",
        "Applied:      no: generation 3 is wanted, 2 is on the cluster",
        "Replicas:     3 wanted, 1 ready",
        "Image:        nginx:1.27",
        f"Runs:         {DIGEST}",
        "              PASSWORD from secret db password",
        "Ports:        80/TCP at web:80 (ClusterIP)",
        "Mounts:       /data from data (read-only)",
        "Resources:    cpu: 100m requested",
        "              memory: at most 128Mi",
    ):
        assert " ".join(line.split()) in [" ".join(each.split()) for each in lines], line
    assert any(each.startswith("Last exit:") and "OOMKilled, exit 137" in each for each in lines)


@pytest.mark.parametrize("width", [80, 200])
def test_a_description_fits_the_terminal_and_breaks_no_identifier(width: int) -> None:
    lines = described(width)
    assert any(DIGEST in line for line in lines)
    # A word that is longer than the line cannot be wrapped.
    assert max(len(line) for line in lines if max(map(len, line.split())) < 60) <= width
    assert not any("\x1b" in line for line in lines)


def test_a_message_is_described_by_its_fields_without_empty_ones() -> None:
    page = Description()
    describe_message(
        page,
        storage_pb2.Volume(
            name="data", size="1Gi", labels={"b": "2", "a": "1"}, mounted_by=["web", "shop"], uid="u"
        ),
    )
    assert list(page.lines(0)) == [
        "Uid:        u",
        "Size:       1Gi",
        "Labels:     a=1",
        "            b=2",
        "Mounted by: web",
        "            shop",
    ]


def test_a_condition_without_a_message_has_one_line() -> None:
    page = Description()
    describe_conditions(
        page,
        namespace_pb2.Namespace(
            conditions=[
                resource_pb2.Condition(
                    type="Applied", status=resource_pb2.CONDITION_STATUS_TRUE, reason="Applied"
                )
            ]
        ).conditions,
    )
    assert list(page.lines(80)) == ["Conditions:", "  Applied              True           Applied"]


def test_each_noun_of_the_command_can_be_described() -> None:
    # These nouns are not resources, or have no more fields than one line of a list.
    without = {"contexts", "audit", "token", "totp", "rollout"}
    groups = {verb for verb, (place, _) in VERBS.items() if place.endswith(":app")}
    assert groups - without - {"objects"} == set(NOUNS) - {"audit-sinks"}
    for noun in (*groups - without, "audit_sinks"):
        module = importlib.import_module(f"pilothouse_client.commands.{noun.replace('-', '_')}")
        assert "describe" in module.app.commands, noun


def test_a_future_time_is_printed_as_in_and_not_ago() -> None:
    """Such a time is the end of a grant or of a key. Clocks may differ by seconds."""
    for ahead, words in (
        (timedelta(days=30, minutes=1), "in 30d ("),
        (timedelta(hours=-2, seconds=-1), "2h ago ("),
        (timedelta(seconds=20), "0s ago ("),
    ):
        found = Timestamp()
        found.FromDatetime(datetime.now(UTC) + ahead)
        assert when(found).startswith(words)
    assert when(Timestamp()) == ""


def test_a_wait_condition_accepts_kubectl_syntax_and_needs_the_generation() -> None:
    found = container()
    for text, met in (
        ("condition=RolledOut=false", True),
        ("condition=rolledout", False),
        ("status=crash-loop-back-off", True),
        ("CRASH_LOOP_BACK_OFF", True),
        ("running", False),
        ("create", True),
        ("delete", False),
    ):
        found.observed_generation = found.generation
        assert wish_of(text).is_met(found) is met, text
        found.observed_generation = found.generation - 1
        assert wish_of(text).is_met(found) is (text == "create"), text
    for text in ("", "condition=", "status=", "jsonpath={.a}=b"):
        with pytest.raises(CommandError, match="--for takes status=STATUS"):
            wish_of(text)
