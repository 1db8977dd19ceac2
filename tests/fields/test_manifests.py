"""Every field of a container survives `-o manifest` and `apply`; only the translator runs, without a server."""

from __future__ import annotations

import json

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.documents import parse
from pilothouse_client.apply.messages import message, values
from pilothouse_client.commands.manifests import manifests_of
from pilothouse_manifests.translator.attach import attach
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.problems import Problems
from tests.fields.test_containers import EXCEPT, LEAVES, bundles, case


def read_again(container: pb.Container) -> tuple[pb.Container | None, list[str]]:
    """Returns the container that `apply` creates from the container's manifest, and the problems."""
    problems = Problems()
    documents = [
        document
        for manifest in manifests_of(container)
        for document in parse(json.dumps(manifest), "there.json", problems)
    ]
    # The server already has the container, and with it the Services of its ports.
    wanted = attach(convert(documents, "demo", problems), [values(container)])
    found = [message(pb.Container, each.values) for each in wanted if each.name == container.name]
    return (found[0] if found else None), [str(each) for each in problems.all]


def test_every_field_survives_its_manifest() -> None:
    found: dict[str, list[str]] = {}
    for number, bundle in enumerate(bundles(LEAVES)):
        asked = case(number, bundle)
        shown, problems = read_again(asked.container)
        for leaf in asked.lost(shown):
            found[leaf.name] = problems
    assert {name: why for name, why in found.items() if name not in EXCEPT["import"]} == {}


KINDS = {
    "stateful_set": pb.StatefulSetSettings(
        service_name="peers", claim_templates=[pb.ClaimTemplate(name="data", size="1Gi")]
    ),
    "daemon_set": pb.DaemonSetSettings(min_ready_seconds=3),
    "job": pb.JobSettings(completions=3, backoff_limit=0, restart_policy="OnFailure"),
    "cron_job": pb.CronJobSettings(
        schedule="*/5 * * * *", job=pb.JobSettings(parallelism=2, restart_policy="Never")
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_a_kind_survive_its_manifest(kind: str) -> None:
    asked = pb.Container(name="web", image="ghcr.io/alpha/base:1", pod_labels={"app": "web"})
    getattr(asked, kind).CopyFrom(KINDS[kind])
    shown, problems = read_again(asked)
    assert problems == []
    assert shown is not None
    assert getattr(shown, kind) == KINDS[kind]


def test_container_ports_become_a_service_that_selects_its_pods() -> None:
    asked = pb.Container(name="web", image="nginx:1.27")
    asked.ports.add(name="http", container_port=8080, service_port=80)
    workload, service = manifests_of(asked)
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]
    assert service["spec"]["selector"] == {"app.kubernetes.io/name": "web"}
    assert workload["spec"]["template"]["metadata"]["labels"].items() >= service["spec"]["selector"].items()
