"""`pilothouse events`: shows the Kubernetes Events of a namespace, read from its cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import EVENT_COLUMNS
from pilothouse_client.commands.options import Format, Namespace, Output, Watch, namespace_or_default
from pilothouse_client.commands.output import show_all, show_changes


def command(
    name: Annotated[str, verbs.Argument(help="Object, or workload with its pods; not given: all.")] = "",
    namespace: Namespace = "",
    watch: Watch = False,
    output: Output = Format.TABLE,
) -> None:
    """Show the Kubernetes Events of a namespace, oldest first; --watch then shows new ones."""
    where = namespace_or_default(namespace)
    with (
        connect() as client,
        client.watches.watch_events(namespace=where, name=name, once=not watch) as answers,
    ):
        if watch:
            show_changes(_changes(answers), EVENT_COLUMNS, output)
        else:
            show_all((event for answer in answers for event in answer.events), EVENT_COLUMNS, output)


def _changes(answers: Iterable[Any]) -> Iterator[Any]:
    """Yields each event as a change, and a SYNCED after the events that existed at the beginning."""
    from pilothouse_client.streams import Change, ChangeKind

    for number, answer in enumerate(answers):
        for event in answer.events:
            yield Change(ChangeKind.ADDED, event)
        if number == 0:
            yield Change(ChangeKind.SYNCED, answer)
