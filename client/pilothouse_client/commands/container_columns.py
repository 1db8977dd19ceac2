"""How containers are shown, and the progress of waiting for one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilothouse_client.commands.options import Format, complete_container
from pilothouse_client.commands.output import OutputColumn, show
from pilothouse_client.commands.terminal import console, plain, say
from pilothouse_client.commands.values import enum_label, moment, optional, span

if TYPE_CHECKING:
    from pilothouse.container.v1.container_pb2 import Container
    from pilothouse_client import Client
    from pilothouse_client.waiting import Goal

ContainerName = Annotated[
    str, typer.Argument(help="Name of the container.", autocompletion=complete_container)
]
ProgramName = Annotated[
    str,
    typer.Option(
        "-c", "--container", help="Sidecar or init container of the pods; default the main program."
    ),
]


def _replicas(container: Any) -> str:
    foreign = any(condition.type == "ForeignPrograms" for condition in container.conditions)
    wanted = container.replicas if container.HasField("replicas") else 1
    return f"{container.ready_replicas}/{wanted}{' foreign' if foreign else ''}"


def _why(container: Any) -> str:
    stale = f"stale since {moment(container.stale_since)}" if container.HasField("stale_since") else ""
    gone = "being deleted" if container.HasField("delete_time") else ""
    return "; ".join(filter(None, (container.reason, stale, gone)))


def programs(container: Any) -> list[tuple[str, str, str]]:
    """Returns name, kind and image of each program of the pods, in the order of their start; none if there is only the
    main one."""
    before = [
        (each.name, "native sidecar" if each.restart_policy == "Always" else "init container", each.image)
        for each in container.init_containers
    ]
    beside = [(each.name, "sidecar", each.image) for each in container.sidecars]
    if not before and not beside:
        return []
    return [*before, (container.pod_container_name, "main program", container.image), *beside]


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda container: container.namespace),
    OutputColumn("NAME", lambda container: container.name),
    OutputColumn("STATUS", lambda container: enum_label(container, "status")),
    OutputColumn("READY", _replicas),
    OutputColumn("RESTARTS", lambda container: container.restart_count),
    OutputColumn("IMAGE", lambda container: container.image),
    OutputColumn("REASON", _why),
    OutputColumn("CREATED", lambda container: moment(container.create_time)),
]
PROGRAM_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("PROGRAM", lambda program: program[0]),
    OutputColumn("KIND", lambda program: program[1]),
    OutputColumn("IMAGE", lambda program: program[2]),
]
HISTORY_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("TIME", lambda change: moment(change.change_time)),
    OutputColumn("FROM", lambda change: enum_label(change, "previous_status")),
    OutputColumn("TO", lambda change: enum_label(change, "current_status")),
    OutputColumn("BY", lambda change: change.username or change.triggered_by),
    OutputColumn("REASON", lambda change: change.reason),
    OutputColumn("MESSAGE", lambda change: change.message),
]
DETAILS_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda details: details.namespace_name),
    OutputColumn("NAME", lambda details: details.name),
    OutputColumn("STATUS", lambda details: details.status),
    OutputColumn("IMAGE", lambda details: f"{details.image_name}:{details.image_tag}".strip(":")),
    OutputColumn("CPU", lambda details: optional(details, "cpu_usage_percent")),
    OutputColumn("MEMORY", lambda details: optional(details, "memory_usage_percent")),
    OutputColumn("UPTIME", lambda details: span(details.uptime)),
    OutputColumn("CREATED BY", lambda details: details.created_by_username),
]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds to wait at most, and for how long a container must have run without a restart."""

    timeout: float
    stable_for: float = 10.0


def wait_and_show(
    client: Client, container: Container, goal: Goal | None, times: Times, form: Format
) -> None:
    """Shows a container, after it has reached the goal if there is one."""
    if goal is not None:
        container = wait_until(client, container, goal, times)
        if goal.value == "running" and container.HasField("replicas") and not container.replicas:
            words = "has no replicas, so no pod runs"
            say(
                plain(
                    f"{container.name} {words}: pilothouse containers update {container.name} --replicas N"
                ),
                err=True,
            )
    show(container, COLUMNS, form)


def wait_until(client: Client, container: Container, goal: Goal, times: Times) -> Container:
    """Returns the container's state at the goal; writes its progress until then."""
    from pilothouse_client.waiting import Patience, wait_for

    timeout, patience = times.timeout, Patience(stable_for=times.stable_for)

    def words(seen: Container) -> str:
        return plain(
            f"{seen.name}: {enum_label(seen, 'status').lower()} {_replicas(seen)} {_why(seen)}".rstrip()
        )

    if not sys.stderr.isatty():
        said = ""

        def tell(seen: Container) -> None:
            nonlocal said
            if words(seen) != said:
                said = words(seen)
                say(said, err=True)

        return wait_for(client, container, goal, timeout=timeout, patience=patience, progress=tell)
    from rich.markup import escape

    with console(err=True).status(escape(plain(f"{container.name}: waiting until {goal.value}"))) as spinner:
        return wait_for(
            client,
            container,
            goal,
            timeout=timeout,
            patience=patience,
            progress=lambda seen: spinner.update(escape(words(seen))),
        )
