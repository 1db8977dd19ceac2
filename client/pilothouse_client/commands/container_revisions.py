"""The verbs of a container's revisions: revisions, rollback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.change_report import change_words, report_changes
from pilothouse_client.commands.container_actions import goal_of_change
from pilothouse_client.commands.container_columns import ContainerName, Times, wait_and_show
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_container_revision
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Limit,
    Namespace,
    Output,
    ValidateOnly,
    Wait,
    namespace_or_default,
)
from pilothouse_client.commands.output import OutputColumn, show, show_all
from pilothouse_client.commands.terminal import say, say_prose
from pilothouse_client.commands.values import moment

# The number of differences that a line of the list shows.
_SHOWN = 3


def summary(revision: Any) -> str:
    """Returns the changes of a revision, in one line."""
    shown = [change_words(change) for change in revision.changes[:_SHOWN]]
    if (more := len(revision.changes) - len(shown)) > 0:
        shown.append(f"and {more} more")
    if revision.origin:
        shown.insert(0, f"rollback to {revision.origin}")
    return "; ".join(shown)


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("REVISION", lambda revision: revision.number),
    OutputColumn("TIME", lambda revision: moment(revision.create_time), whole=True),
    OutputColumn("BY", lambda revision: revision.created_by),
    OutputColumn("CHANGES", summary, is_text=True),
]


def revisions(
    name: ContainerName,
    namespace: Namespace = "",
    revision: Annotated[
        int,
        verbs.Option(
            "--revision",
            min=0,
            complete=complete_container_revision,
            help="Only this one: all its differences; with -o yaml, all its fields.",
        ),
    ] = 0,
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """List the revisions of a container, newest first, with the changes of each."""
    with connect() as client:
        found: Iterable[Any] = client.containers.list_revisions(
            namespace=namespace_or_default(namespace), name=name, number=revision
        )
        if not revision:
            show_all(found, COLUMNS, output, limit)
            return
        [one] = found
        if output.is_table:
            from pilothouse_client.apply.run import field_lines

            for line in field_lines(one.changes):
                say_prose(line, err=False)
        else:
            show(one, COLUMNS, output)


def rollback(
    name: ContainerName,
    namespace: Namespace = "",
    revision: Annotated[
        int,
        verbs.Option(
            "--revision",
            min=0,
            complete=complete_container_revision,
            help="Revision to restore; default: the one before the newest.",
        ),
    ] = 0,
    rerun: Annotated[
        bool, verbs.Option("--rerun", help="Start a new run of a Job with the restored values.")
    ] = False,
    replace: Annotated[
        bool,
        verbs.Option("--replace", help="Recreate a StatefulSet that Kubernetes does not let change."),
    ] = False,
    etag: Etag = "",
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Restore all fields of an earlier revision as a new revision; print the changes and the fields not restored."""
    with connect() as client:
        answer = client.containers.rollback(
            namespace=namespace_or_default(namespace),
            name=name,
            revision=revision,
            rerun_jobs=rerun,
            replace=replace,
            etag=etag,
            validate_only=validate_only,
        )
        report_changes(answer, name, waits=wait)
        if kept := ", ".join(answer.not_restored):
            say(f"not restored: {kept}", err=True)
        goal = goal_of_change(answer.container) if wait and not validate_only else None
        wait_and_show(client, answer.container, goal, times, output)
