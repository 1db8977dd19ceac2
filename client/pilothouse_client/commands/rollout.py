"""`pilothouse rollout`: kubectl's verbs for the newest change of a container."""

from __future__ import annotations

from typing import Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import container_revisions, verbs
from pilothouse_client.commands.container_actions import goal_of_change
from pilothouse_client.commands.container_columns import Times, wait_until
from pilothouse_client.commands.failures import WAIT_FAILED, CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_container, complete_container_revision
from pilothouse_client.commands.options import (
    Format,
    Limit,
    Namespace,
    Output,
    ValidateOnly,
    Wait,
    namespace_or_default,
)
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.commands.values import enum_label

app = verbs.VerbGroup(
    no_args_is_help=True,
    help="Rollouts of a container: follow, list, undo.",
    elsewhere={"restart": "containers restart"},
)
_Name = Annotated[
    str, verbs.Argument(help="Name of the container, or deployment/NAME.", complete=complete_container)
]


@app.command("status")
def status(
    name: _Name,
    namespace: Namespace = "",
    watch: Annotated[
        bool, verbs.Option("--watch/--no-watch", help="Wait until it has rolled out, or has failed.")
    ] = True,
    *,
    times: Times,
) -> None:
    """Follow a rollout; exits with 10 if it fails or does not end in time."""
    with connect() as client:
        found = client.containers.get(namespace=namespace_or_default(namespace), name=_bare(name))
        if watch:
            found = wait_until(client, found, goal_of_change(found), times)
    why = _unfinished(found)
    if why:
        raise CommandError(f"{found.name} has not rolled out: {why}", WAIT_FAILED)
    wanted = found.replicas if found.HasField("replicas") else found.ready_replicas
    state = enum_label(found, "status").lower()
    say(plain(f"{found.name}: rolled out, {state}, {found.ready_replicas} of {wanted} pods ready"))


def _unfinished(found: pb.Container) -> str:
    """Returns why the cluster has not applied the newest change; empty if it has."""
    if found.reconciling or found.observed_generation < found.generation:
        return f"generation {found.generation} is not applied yet"
    for condition in found.conditions:
        if condition.type in ("Applied", "RolledOut") and enum_label(condition, "status") == "FALSE":
            return ": ".join(filter(None, (condition.reason, condition.message)))
    return ""


@app.command("history")
def history(
    name: _Name,
    namespace: Namespace = "",
    revision: Annotated[
        int,
        verbs.Option(
            "--revision", min=0, complete=complete_container_revision, help="Only this one, with all details."
        ),
    ] = 0,
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """List the revisions, newest first."""
    container_revisions.revisions(_bare(name), namespace, revision, limit, output)


@app.command("undo")
def undo(
    name: _Name,
    namespace: Namespace = "",
    to_revision: Annotated[
        int, verbs.Option("--to-revision", min=0, help="Default: the one before the newest.")
    ] = 0,
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Restore an earlier revision, as `containers rollback` does."""
    container_revisions.rollback(
        _bare(name),
        namespace,
        to_revision,
        validate_only=validate_only,
        wait=wait,
        times=times,
        output=output,
    )


def _bare(name: str) -> str:
    """Returns the name without the kind that kubectl accepts before it."""
    return name.rpartition("/")[2]
