"""The verbs that move a container between states: start, stop, pause, resume, restart, scale, run, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import (
    COLUMNS,
    RUN_COLUMNS,
    ContainerName,
    Times,
    wait_and_show,
    wait_until,
)
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Limit,
    Namespace,
    Output,
    StableSeconds,
    ValidateOnly,
    Wait,
    WaitSeconds,
    Watch,
    Yes,
    check_watch,
    confirm,
    enum_number,
    namespace_or_default,
)
from pilothouse_client.commands.output import done, show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.waiting import Goal, starts_from_nothing, wait_for_run

# So many claims are named.
_CLAIMS = 20
# Verb -> what it does, and what `--wait` waits for.
_ACTIONS = {
    "start": ("Start a stopped container with the replicas it had.", Goal.RUNNING),
    "stop": ("Stop a container: no pods, the replicas remembered.", Goal.STOPPED),
    "resume": ("End a pause.", Goal.RUNNING),
    "restart": ("Replace every pod, a few at a time.", Goal.RUNNING),
}


def show_claims(
    answer: pb.UpdateContainerResponse | pb.ScaleContainerResponse | pb.DeleteContainerResponse,
) -> None:
    """Says which claims of templates stay without a pod, and which go."""
    for names, words in ((answer.kept_claims, "claims that stay"), (answer.deleted_claims, "claims that go")):
        if names:
            more = f" and {len(names) - _CLAIMS} more" if len(names) > _CLAIMS else ""
            say(plain(f"{words}: {', '.join(names[:_CLAIMS])}{more}"), err=True)


def goal_of_change(container: pb.Container) -> Goal:
    """Returns the goal after a change: a container that is started shall run, any other only accept the change."""
    idle = (pb.CONTAINER_STATUS_STOPPED, pb.CONTAINER_STATUS_PAUSED)
    return Goal.APPLIED if container.status in idle and not starts_from_nothing(container) else Goal.RUNNING


def add_to(app: verbs.VerbGroup) -> None:
    """Adds the verbs to the group."""
    for verb, (text, goal) in _ACTIONS.items():
        app.command(verb, help=text)(_action(verb, goal))
    app.command("pause")(pause)
    app.command("scale")(scale)
    app.command("run")(run)
    app.command("runs")(runs)
    app.command("delete")(delete)


def _action(verb: str, goal: Goal) -> Callable[..., None]:
    def act(
        name: ContainerName,
        namespace: Namespace = "",
        validate_only: ValidateOnly = False,
        wait: Wait = False,
        wait_timeout: WaitSeconds = 300.0,
        stable_for: StableSeconds = 10.0,
        output: Output = Format.TABLE,
    ) -> None:
        times = Times(wait_timeout, stable_for)
        _act(verb, name, namespace, validate_only, goal if wait else None, times, output)

    def stop(
        name: ContainerName,
        namespace: Namespace = "",
        validate_only: ValidateOnly = False,
        wait: Wait = False,
        wait_timeout: WaitSeconds = 300.0,
        output: Output = Format.TABLE,
    ) -> None:
        _act(verb, name, namespace, validate_only, goal if wait else None, Times(wait_timeout), output)

    return act if goal is Goal.RUNNING else stop


def _act(
    verb: str,
    name: str,
    namespace: str,
    validate_only: bool,
    goal: Goal | None,
    times: Times,
    output: Format,
) -> None:
    with connect() as client:
        call: Any = getattr(client.containers, verb)
        container = call(namespace=namespace_or_default(namespace), name=name, validate_only=validate_only)
        wait_and_show(client, container, None if validate_only else goal, times, output)


def pause(
    name: ContainerName,
    namespace: Namespace = "",
    mode: Annotated[str, verbs.Option("--mode", help="suspend (default), hold_rollout or freeze.")] = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    output: Output = Format.TABLE,
) -> None:
    """Pause a container, and print which data and connections are lost."""
    number = pb.PauseMode.ValueType(enum_number(pb.PauseMode, mode, "--mode"))
    with connect() as client:
        answer = client.containers.pause(
            namespace=namespace_or_default(namespace), name=name, mode=number, validate_only=validate_only
        )
        if answer.losses:
            say(f"lost: {', '.join(answer.losses)}", err=True)
        reached = Goal.APPLIED if number == pb.PAUSE_MODE_HOLD_ROLLOUT else Goal.PAUSED
        goal = reached if wait and not validate_only else None
        wait_and_show(client, answer.container, goal, Times(wait_timeout), output)


def scale(
    name: ContainerName,
    replicas: Annotated[int, verbs.Argument(min=0, help="Number of pods.")],
    namespace: Namespace = "",
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    stable_for: StableSeconds = 10.0,
    output: Output = Format.TABLE,
) -> None:
    """Set the number of pods; of a stopped or paused container those that it gets when it goes on."""
    with connect() as client:
        answer = client.containers.scale.send(
            pb.ScaleContainerRequest(
                namespace=namespace_or_default(namespace),
                name=name,
                replicas=replicas,
                etag=etag,
                validate_only=validate_only,
            )
        )
        changed = answer.container
        show_claims(answer)
        goal = goal_of_change(changed) if wait and not validate_only else None
        wait_and_show(client, changed, goal, Times(wait_timeout, stable_for), output)


def run(
    name: ContainerName,
    namespace: Namespace = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    output: Output = Format.TABLE,
) -> None:
    """Start a new run of a Job or CronJob; `--wait` waits until it has succeeded."""
    with connect() as client:
        answer = client.containers.run(
            namespace=namespace_or_default(namespace), name=name, validate_only=validate_only
        )
        waits = wait and not validate_only
        if answer.container.workload_kind == pb.WORKLOAD_KIND_CRON_JOB:
            of_schedule = answer.run
            if waits:
                of_schedule = wait_for_run(client, answer.container, of_schedule.name, timeout=wait_timeout)
            show(of_schedule, RUN_COLUMNS, output)
            return
        goal = Goal.SUCCEEDED if waits else None
        wait_and_show(client, answer.container, goal, Times(wait_timeout), output)


def runs(
    name: ContainerName,
    namespace: Namespace = "",
    limit: Limit = 0,
    watch: Watch = False,
    output: Output = Format.TABLE,
) -> None:
    """List the runs of a Job or CronJob, newest first, or watch them."""
    with connect() as client:
        if watch:
            check_watch("", "", limit)
            with client.containers.watch_runs(
                namespace=namespace_or_default(namespace), name=name
            ) as changes:
                show_changes(changes, RUN_COLUMNS, output)
            return
        found = client.containers.list_runs(namespace=namespace_or_default(namespace), name=name)
        show_all(found, RUN_COLUMNS, output, limit)


def delete(
    name: ContainerName,
    namespace: Namespace = "",
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    output: Output = Format.TABLE,
) -> None:
    """Delete a container; it is listed until its cluster has let it go."""
    where = namespace_or_default(namespace)
    if not validate_only:
        confirm(f"Delete the container {where}/{name}?", yes)
    with connect() as client:
        answer = client.containers.delete.send(
            pb.DeleteContainerRequest(namespace=where, name=name, etag=etag, validate_only=validate_only)
        )
        container = answer.container
        show_claims(answer)
        if not wait or validate_only:
            show(container, COLUMNS, output)
            return
        last = wait_until(client, container, Goal.DELETED, Times(wait_timeout))
    if output.is_table:
        # A row would show the last state of what is no more.
        done(f"container {where}/{name} deleted")
    else:
        show(last, COLUMNS, output)
