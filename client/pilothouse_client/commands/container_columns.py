"""The columns for containers, and the progress of a wait for one container."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.name_completion import complete_container
from pilothouse_client.commands.options import Format, StableSeconds, WaitSeconds
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show
from pilothouse_client.commands.terminal import console, plain, say
from pilothouse_client.commands.values import age, enum_label, moment, optional, short_span, span

if TYPE_CHECKING:
    from pilothouse_client import Client
    from pilothouse_client.waiting import Goal

_KINDS = {
    pb.PROGRAM_KIND_MAIN: "main program",
    pb.PROGRAM_KIND_SIDECAR: "sidecar",
    pb.PROGRAM_KIND_NATIVE_SIDECAR: "native sidecar",
    pb.PROGRAM_KIND_INIT: "init container",
}
# The statuses in which a container with runs has pods, or will have them.
_GOING = (pb.CONTAINER_STATUS_PENDING, pb.CONTAINER_STATUS_RUNNING)
ContainerName = Annotated[str, verbs.Argument(help="Name of the container.", complete=complete_container)]
ProgramName = Annotated[
    str,
    verbs.Option(
        "-c", "--container", help="Sidecar or init container of the pods; default the main program."
    ),
]


def _ready(container: Any) -> str:
    """Returns how many programs of its pods are ready, of how many that should be, as kubectl counts them for a pod.

    Empty for a run that has ended, and for a CronJob between its runs: no pod should be ready then.
    """
    from pilothouse_client.waiting import KINDS_WITH_RUNS

    if container.workload_kind in KINDS_WITH_RUNS and not (
        container.status in _GOING and _has_pods(container)
    ):
        return ""
    foreign = any(condition.type == "ForeignPrograms" for condition in container.conditions)
    wanted = container.replicas if container.HasField("replicas") else 1
    seen = [each for each in container.programs if not _ends(each.kind)]
    if seen:
        ready, of_pod = sum(each.ready_pods for each in seen), len(seen)
    else:
        of_pod = sum(not _ends(kind) for _, kind, _ in _declared(container))
        ready = container.ready_replicas * of_pod
    return f"{ready}/{wanted * of_pod}{' foreign' if foreign else ''}"


def _has_pods(container: Any) -> bool:
    """Returns whether a run has pods, or will have them."""
    return container.workload_kind == pb.WORKLOAD_KIND_JOB or any(each.pods for each in container.programs)


def _why(container: Any) -> str:
    stale = f"stale since {moment(container.stale_since)}" if container.HasField("stale_since") else ""
    gone = "being deleted" if container.HasField("delete_time") else ""
    return "; ".join(filter(None, (container.reason, stale, gone)))


def _declared(container: Any) -> list[tuple[str, pb.ProgramKind.ValueType, str]]:
    """Returns name, kind and image of each program that the container declares, in the order of their start."""
    before = [
        (
            each.name,
            pb.PROGRAM_KIND_NATIVE_SIDECAR if each.restart_policy == "Always" else pb.PROGRAM_KIND_INIT,
            each.image,
        )
        for each in container.init_containers
    ]
    beside = [(each.name, pb.PROGRAM_KIND_SIDECAR, each.image) for each in container.sidecars]
    return [*before, (container.pod_container_name, pb.PROGRAM_KIND_MAIN, container.image), *beside]


def _ends(kind: pb.ProgramKind.ValueType) -> bool:
    return kind == pb.PROGRAM_KIND_INIT


def programs(container: Any) -> list[pb.ProgramStatus]:
    """Returns the programs of its pods: the observed ones, then declared programs that no pod has yet.

    Empty if there is only the main program.
    """
    seen = list(container.programs)
    names = {each.name for each in seen}
    missing = [
        pb.ProgramStatus(name=name, kind=kind, image=image)
        for name, kind, image in _declared(container)
        if name not in names
    ]
    return [*seen, *missing] if len(seen) + len(missing) > 1 else []


def _ready_pods(program: pb.ProgramStatus) -> str:
    """Returns in how many pods a program is ready.

    Empty without pods, and for a program that runs to its end."""
    return f"{program.ready_pods}/{program.pods}" if program.pods and not _ends(program.kind) else ""


def program_kind(program: pb.ProgramStatus) -> str:
    """Returns the program's role in words."""
    return _KINDS.get(program.kind, "")


def program_state(program: pb.ProgramStatus) -> str:
    """Returns why a program does not run in one word, else its state."""
    return program.reason or (enum_label(program, "state").lower() if program.state else "")


def last_exit(program: pb.ProgramStatus) -> str:
    """Returns how a program ended last.

    Empty for a finished init container: its state already shows that."""
    if not program.HasField("exit_code") or (
        program.state == pb.PROGRAM_STATE_TERMINATED and program.exit_code == 0
    ):
        return ""
    return f"{program.exit_reason} ({program.exit_code})".strip()


def _duration(run: pb.Run) -> str:
    """Returns how long a run took; empty while it has not ended."""
    if not (run.HasField("start_time") and run.HasField("end_time")):
        return ""
    return short_span((run.end_time.ToNanoseconds() - run.start_time.ToNanoseconds()) / 1e9)


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda container: container.namespace),
    OutputColumn("NAME", lambda container: container.name),
    OutputColumn("KIND", lambda container: enum_label(container, "workload_kind").title().replace("_", "")),
    OutputColumn("STATUS", lambda container: enum_label(container, "status")),
    OutputColumn("READY", _ready),
    OutputColumn("RESTARTS", lambda container: container.restart_count),
    OutputColumn("IMAGE", lambda container: container.image, by_end=True),
    OutputColumn("REASON", _why),
    *AGE_COLUMNS,
]
PROGRAM_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("PROGRAM", lambda program: program.name),
    OutputColumn("KIND", program_kind),
    OutputColumn("READY", _ready_pods),
    OutputColumn("RESTARTS", lambda program: program.restart_count if program.pods else ""),
    OutputColumn("STATE", program_state),
    OutputColumn("LAST EXIT", last_exit),
    OutputColumn("IMAGE", lambda program: program.image, by_end=True),
]
RUN_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NUMBER", lambda run: run.number or ""),
    OutputColumn("NAME", lambda run: run.name),
    OutputColumn("STATUS", lambda run: enum_label(run, "status")),
    OutputColumn("EXIT", lambda run: run.exit_code if run.HasField("exit_code") else ""),
    OutputColumn("AGE", lambda run: age(run.start_time) if run.HasField("start_time") else ""),
    OutputColumn("DURATION", _duration),
    OutputColumn("STARTED", lambda run: moment(run.start_time), whole=True, wide=True),
    OutputColumn("ENDED", lambda run: moment(run.end_time), whole=True, wide=True),
    OutputColumn("REASON", lambda run: run.reason),
    # The message of a run that has succeeded is not shown.
    OutputColumn(
        "MESSAGE",
        lambda run: "" if run.status == pb.CONTAINER_STATUS_SUCCEEDED else run.message,
        is_text=True,
    ),
]
HISTORY_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("TIME", lambda change: moment(change.change_time), whole=True),
    OutputColumn("FROM", lambda change: enum_label(change, "previous_status")),
    OutputColumn("TO", lambda change: enum_label(change, "current_status")),
    OutputColumn("BY", lambda change: change.username or change.triggered_by),
    OutputColumn("REASON", lambda change: change.reason),
    OutputColumn("MESSAGE", lambda change: change.message, is_text=True),
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
    """The most seconds to wait, and the seconds that a container must have run without a restart."""

    timeout: WaitSeconds = 300.0
    stable_for: StableSeconds = 10.0


def wait_and_show(
    client: Client, container: pb.Container, goal: Goal | None, times: Times, form: Format
) -> None:
    """Shows a container, after waiting for the goal if there is one."""
    if goal is not None:
        container = wait_until(client, container, goal, times)
        with_no_pods(container, goal)
    show(container, COLUMNS, form)


def with_no_pods(container: pb.Container, goal: Goal) -> None:
    """Writes a notice if a container that should run has no pods."""
    if goal.value == "running" and container.HasField("replicas") and not container.replicas:
        words = f"{container.name} has no replicas, so no pod runs"
        say(plain(f"{words}: pilothouse containers scale {container.name} N"), err=True)


def wait_until(client: Client, container: pb.Container, goal: Goal, times: Times) -> pb.Container:
    """Returns the container's state at the goal; writes its progress until then."""
    from pilothouse_client.waiting import KINDS_WITH_RUNS, Patience, WaitOutcome, judge, wait_for

    timeout, patience = times.timeout, Patience(stable_for=times.stable_for)

    def words(seen: pb.Container) -> str:
        why = _why(seen)
        stays_up = goal.value == "running" and seen.workload_kind not in KINDS_WITH_RUNS
        if stays_up and not why and judge(container, seen, goal).outcome is WaitOutcome.ARRIVED:
            why = f"({patience.in_words})"
        return plain(f"{seen.name}: {enum_label(seen, 'status').lower()} {_ready(seen)} {why}".rstrip())

    if not sys.stderr.isatty():
        said = ""

        def tell(seen: pb.Container) -> None:
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
