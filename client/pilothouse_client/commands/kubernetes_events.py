"""Kubernetes events of a container or a volume, shown next to it, and warnings about a container."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pilothouse_client.commands.options import Format
from pilothouse_client.commands.output import Columns, OutputColumn, as_data, show, show_all
from pilothouse_client.commands.terminal import say, say_prose
from pilothouse_client.commands.values import age, moment

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from pilothouse.container.v1.container_pb2 import Container
    from pilothouse.resource.v1.resource_pb2 import Warning

# The number of events that people see; programs get all events that the API returns.
_MOST = 5
EVENT_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("AGE", lambda event: age(event.last_time)),
    OutputColumn("LAST SEEN", lambda event: moment(event.last_time), wide=True),
    OutputColumn("TYPE", lambda event: event.type),
    OutputColumn("EVENT", lambda event: event.reason),
    OutputColumn("COUNT", lambda event: event.count if event.count > 1 else ""),
    OutputColumn("OBJECT", lambda event: f"{event.object_kind}/{event.object_name}"),
    OutputColumn("MESSAGE", lambda event: event.message, is_text=True),
]


def show_with_events(
    resource: Message,
    answer: Any,
    columns: Columns,
    form: Format,
    parts: Sequence[Any] = (),
    part_columns: Columns = (),
) -> None:
    """Writes a resource and the events of its response, `answer`.

    The events are below the resource, or in its fields `events` and `events_unavailable`. People see a table of its
    `parts` between both."""
    beside = {
        "events": [as_data(event) for event in answer.events],
        "events_unavailable": answer.events_unavailable,
    }
    show(resource, columns, form, beside)
    if not form.is_table:
        return
    if parts:
        say()
        show_all(parts, part_columns, form)
    if answer.events:
        say()
        show_all(answer.events, EVENT_COLUMNS, form, _MOST)
    if answer.events_unavailable:
        say(f"no events: {answer.events_unavailable}", err=True)


def note(container: Container, warnings: Iterable[Warning] = ()) -> None:
    """Writes, for people, the warnings, and whether some pods of a container may be unable to attach its volumes."""
    for condition in container.conditions:
        if condition.type == "VolumesAttachable":
            say_prose(f"{container.name}: {condition.reason}: {condition.message}")
    for warning in warnings:
        where = f" {warning.path}:" if warning.path else ""
        say_prose(f"warning: {container.name}:{where} {warning.message}")
