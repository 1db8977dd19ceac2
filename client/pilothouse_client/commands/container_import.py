"""`pilothouse containers import`: existing Deployments taken over without restarting a pod."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    namespace_or_default,
)
from pilothouse_client.commands.output import OutputColumn, show_all


def _along(result: pb.ImportedContainer) -> list[str]:
    kinds = (("volume", result.volumes), ("config map", result.config_maps), ("secret", result.secrets))
    return [f"{word} {name}" for word, names in kinds for name in names]


_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("DEPLOYMENT", lambda result: result.deployment),
    OutputColumn("CONTAINER", lambda result: result.container.name if result.HasField("container") else "-"),
    OutputColumn("IMPORTED", lambda result: "yes" if result.HasField("container") else "no"),
    OutputColumn("ALONG WITH IT", lambda result: ", ".join(_along(result)) or "-"),
    OutputColumn("WHY", lambda result: "; ".join([*result.problems, *result.notes])),
]
_EXIT_NOT_ALL = 1


def import_deployments(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of Deployments; default: all that belong to no container.", metavar="[DEPLOYMENT]..."
        ),
    ] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Take existing Deployments over, with the claims, config maps and secrets that they use, without restarting a pod.

    Exits 1 if one that was named is not taken over.
    """
    with connect() as client:
        answer = client.containers.import_(
            namespace=namespace_or_default(namespace),
            names=names or [],
            label_selector=selector,
            validate_only=validate_only,
        )
        show_all(answer.results, _COLUMNS, output)
        if names and any(not result.HasField("container") for result in answer.results):
            raise typer.Exit(_EXIT_NOT_ALL)
