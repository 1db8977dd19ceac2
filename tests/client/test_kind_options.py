"""Command options for a container's kind and the settings of the kind."""

from __future__ import annotations

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.container_spec import Specification
from pilothouse_client.commands.failures import CommandError


def test_settings_of_a_kind_are_set_by_name() -> None:
    container = pb.Container(name="db")
    paths = Specification(
        kind="stateful-set",
        settings=["service_name=peers", "update_partition=1", "claim_retention.when_deleted=Delete"],
        claims=["data=10Gi", "logs=1Gi"],
    ).write_to(container)
    wanted = container.stateful_set
    assert (wanted.service_name, wanted.update_partition) == ("peers", 1)
    assert wanted.claim_retention.when_deleted == "Delete"
    assert [(each.name, each.size) for each in wanted.claim_templates] == [("data", "10Gi"), ("logs", "1Gi")]
    assert sorted(set(paths)) == [
        "stateful_set",
        *(
            f"stateful_set.{name}"
            for name in ("claim_retention", "claim_templates", "service_name", "update_partition")
        ),
    ]
    # An update reads the kind from the container, and keeps the other settings and claims.
    Specification(settings=["min_ready_seconds=5"], claims=["data=20Gi"]).write_to(container)
    assert (wanted.min_ready_seconds, wanted.update_partition) == (5, 1)
    assert [each.size for each in wanted.claim_templates] == ["20Gi", "1Gi"]
    nightly = pb.Container(name="nightly")
    Specification(kind="cron-job", settings=["schedule=0 3 * * *", "job.backoff_limit=2"]).write_to(nightly)
    assert (nightly.cron_job.schedule, nightly.cron_job.job.backoff_limit) == ("0 3 * * *", 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "pod"}, "--kind is one of deployment, stateful-set"),
        (
            {"kind": "job", "settings": ["pace=1"]},
            "--setting pace: no such setting; known: active_deadline_seconds",
        ),
        (
            {"kind": "job", "settings": ["parallelism=two"]},
            "--setting parallelism takes a whole number, not 'two'",
        ),
        (
            {"kind": "job", "settings": ["pod_failure_policy=x"]},
            "is not a setting with one value: write it into a file",
        ),
        ({"kind": "daemon-set", "claims": ["data=1Gi"]}, "--claim is only for a StatefulSet"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_valid_ones(options: dict[str, object], words: str) -> None:
    with pytest.raises(CommandError) as refused:
        Specification(**options).write_to(pb.Container())  # type: ignore[arg-type]
    assert words in str(refused.value)
