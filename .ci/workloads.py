"""Writes the tables of docs/workloads.md from the table of fields (`pilothouse_manifests`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from generated_page import DOCS, GeneratedPage

from pilothouse_manifests import cron_jobs, jobs, pod_volumes, services, table, workloads
from pilothouse_manifests.fields import (
    Chosen,
    Entry,
    Field,
    FieldPart,
    Group,
    OneOf,
    PortField,
    Rest,
    Variable,
)

PAGE = GeneratedPage(DOCS / "workloads.md", "workloads", "pilothouse_manifests")

# Heading, part, and the part's place in a manifest.
PARTS: tuple[tuple[str, FieldPart, str], ...] = (
    ("Deployment", table.DEPLOYMENT, "spec"),
    ("StatefulSet", workloads.STATEFUL_SET, "spec"),
    (
        "Claim of a template (`ClaimTemplate`)",
        workloads.CLAIM_TEMPLATE,
        "volumeClaimTemplates[]",
    ),
    ("Job", jobs.JOB_SETTINGS, "spec"),
    ("Pod of a Job, in addition to the fields of a pod", jobs.JOB_TEMPLATE, "spec.template.spec"),
    ("Rule for a pod that failed (`PodFailureRule`)", jobs.POD_FAILURE_RULE, "podFailurePolicy.rules[]"),
    ("Condition of such a pod (`PodCondition`)", jobs.POD_CONDITION, "onPodConditions[]"),
    ("Rule for a success (`SuccessRule`)", jobs.SUCCESS_RULE, "successPolicy.rules[]"),
    ("CronJob", cron_jobs.CRON_JOB_SETTINGS, "spec"),
    (
        "Pod of a CronJob, in addition to the fields of a pod",
        cron_jobs.CRON_JOB_TEMPLATE,
        "spec.jobTemplate.spec.template.spec",
    ),
    ("DaemonSet", workloads.DAEMON_SET, "spec"),
    ("Pod", table.POD, "spec.template.spec"),
    ("Main program", table.MAIN_CONTAINER, "spec.template.spec.containers[0]"),
    (
        "Init container (`InitContainer`); a sidecar (`Program`) has the same fields",
        table.INIT_CONTAINER,
        "initContainers[]",
    ),
    ("Variable (`EnvVar`)", table.ENV_VAR, "env[]"),
    ("Variables of a source (`EnvFrom`)", table.ENV_FROM, "envFrom[]"),
    ("Resources", table.RESOURCES, "resources"),
    ("Rights of a program (`SecurityContext`)", table.SECURITY_CONTEXT, "securityContext"),
    ("Rights of a pod (`PodSecurityContext`)", table.POD_SECURITY_CONTEXT, "securityContext"),
    ("Mount (`VolumeMount`)", table.VOLUME_MOUNT, "volumeMounts[]"),
    ("Volume of the pods alone (`PodVolume`)", pod_volumes.POD_VOLUME, "volumes[]"),
    ("File of a volume (`KeyFile`)", pod_volumes.KEY_FILE, "items[]"),
    ("Field of the pod as a file (`DownwardFile`)", pod_volumes.DOWNWARD_FILE, "items[]"),
    ("Source of a projected volume (`ProjectedSource`)", pod_volumes.PROJECTED_SOURCE, "projected.sources[]"),
    ("EmptyDir", table.VOLUME_SOURCES["empty_dir"][1], "emptyDir"),
    ("Probe", table.PROBE, "livenessProbe"),
    ("Hook (`Lifecycle`)", table.LIFECYCLE, "lifecycle"),
    ("Toleration", table.TOLERATION, "tolerations[]"),
    ("Service", services.SPEC, "spec"),
    ("Port of a Service", services.PORT, "ports[]"),
    ("Volume, as a PersistentVolumeClaim", table.CLAIM, "spec"),
    ("ConfigMap", table.CONFIG_MAP, ""),
    ("Secret", table.SECRET, ""),
)


def tables() -> str:
    """Returns the tables, as Markdown."""
    return "\n".join(_table(*each) for each in PARTS)


def _table(heading: str, part: FieldPart, place: str) -> str:
    rows = dict.fromkeys(f"| `{path}` | `{name}` |" for path, name in _rows(part.entries, place))
    return "\n".join([f"### {heading}", "", "| manifest | API |", "|---|---|", *rows, ""])


def _rows(entries: tuple[Entry, ...], place: str) -> Iterator[tuple[str, str]]:
    for entry in entries:
        match entry:
            case Field(name=name, key=key):
                yield _at(place, key), name
            case Group(key=key, entries=inner):
                yield from _rows(inner, _at(place, key))
            case PortField(name=name, name_of_port=name_of_port, key=key):
                # A Service has one field for both.
                both = "target" if name == "target_number" else f"{name}` or `{name_of_port}"
                yield _at(place, key), both
            case OneOf(choices=choices):
                for name, key, part in choices:
                    yield from (
                        (path, f"{name}.{inner}") for path, inner in _rows(part.entries, _at(place, key))
                    )
            case Variable(literal=literal, chosen=chosen, key=key, choices=choices):
                yield _at(place, literal), literal
                yield from _chosen(choices, chosen, _at(place, key))
            case Chosen(chosen=chosen, choices=choices):
                yield from _chosen(choices, chosen, place)
            case Rest(name=name):
                yield _at(place, "*"), name


def _chosen(
    choices: tuple[tuple[str, str, FieldPart], ...], chosen: str, place: str
) -> Iterator[tuple[str, str]]:
    for name, key, part in choices:
        yield _at(place, key), f"{chosen}: {name.upper()}"
        yield from _rows(part.entries, _at(place, key))


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


if __name__ == "__main__":
    sys.exit(PAGE.main(tables(), sys.argv[1]))
