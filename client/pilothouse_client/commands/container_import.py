"""`pilothouse containers import`: existing workloads taken over without restarting a pod."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    enum_number,
    namespace_or_default,
)
from pilothouse_client.commands.output import OutputColumn, show_all
from pilothouse_client.commands.values import enum_label


def _along(result: pb.ImportedContainer) -> list[str]:
    kinds = (("volume", result.volumes), ("config map", result.config_maps), ("secret", result.secrets))
    return [f"{word} {name}" for word, names in kinds for name in names]


_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("WORKLOAD", lambda result: result.deployment),
    OutputColumn("KIND", lambda result: enum_label(result, "kind").lower()),
    OutputColumn("CONTAINER", lambda result: result.container.name if result.HasField("container") else "-"),
    OutputColumn("IMPORTED", lambda result: "yes" if result.HasField("container") else "no"),
    OutputColumn("ALSO IMPORTED", lambda result: ", ".join(_along(result)) or "-"),
    OutputColumn("WHY", lambda result: "; ".join([*result.problems, *result.notes])),
]
_EXIT_NOT_ALL = 1


def import_deployments(
    names: Annotated[
        list[str] | None,
        verbs.Argument(
            help="Names of workloads; default: all that belong to no container.", metavar="[WORKLOAD]..."
        ),
    ] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    kind: Annotated[
        list[str] | None,
        verbs.Option(
            help="Kind of workloads: deployment (default), stateful_set, daemon_set, job, cron_job; repeat.",
            metavar="KIND",
        ),
    ] = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Import existing workloads, with the claims, config maps and secrets that they use, without restarting a pod.

    Exits with 1 if a named workload is not imported.
    """
    with connect() as client:
        answer = client.containers.import_(
            namespace=namespace_or_default(namespace),
            names=names or [],
            label_selector=selector,
            kinds=[
                pb.WorkloadKind.ValueType(enum_number(pb.WorkloadKind, each, "--kind")) for each in kind or ()
            ],
            validate_only=validate_only,
        )
        show_all(answer.results, _COLUMNS, output)
        if names and any(not result.HasField("container") for result in answer.results):
            raise verbs.Exit(_EXIT_NOT_ALL)
