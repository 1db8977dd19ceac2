"""The verbs that move a container between states: start, stop, pause, resume, restart, scale, run, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import many, verbs
from pilothouse_client.commands.container_columns import (
    COLUMNS,
    RUN_COLUMNS,
    ContainerName,
    Times,
    wait_and_show,
    wait_until,
    with_no_pods,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.many import Everything, Meant
from pilothouse_client.commands.name_completion import complete_container
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Limit,
    Namespace,
    Output,
    Selector,
    StableSeconds,
    ValidateOnly,
    Wait,
    WaitSeconds,
    Watch,
    Yes,
    check_watch,
    complete_words,
    enum_number,
    namespace_or_default,
)
from pilothouse_client.commands.output import show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.waiting import Goal, starts_from_nothing, wait_for_run

if TYPE_CHECKING:
    from pilothouse_client import Client

ContainerNames = Annotated[list[str] | None, many.names_of("containers", complete_container)]
CONTAINERS = many.ListedNoun(
    "container",
    "containers",
    COLUMNS,
    lambda client, where, selector: client.containers.list(namespace=where, label_selector=selector),
    complete_container,
)
# The greatest number of claims that a line names.
_CLAIMS = 20
# Verb -> its help text, and the goal of `--wait`.
_ACTIONS = {
    "start": ("Start stopped containers with the replicas they had.", Goal.RUNNING),
    "stop": ("Stop containers and remember their replicas.", Goal.STOPPED),
    "resume": ("End a pause.", Goal.RUNNING),
    "restart": ("Replace every pod, a few at a time.", Goal.RUNNING),
}


def show_claims(
    answer: pb.UpdateContainerResponse | pb.ScaleContainerResponse | pb.DeleteContainerResponse,
) -> None:
    """Writes which claims of templates stay without a pod, and which are deleted."""
    for names, words in (
        (answer.kept_claims, "claims that stay"),
        (answer.deleted_claims, "claims that are deleted"),
    ):
        if names:
            more = f" and {len(names) - _CLAIMS} more" if len(names) > _CLAIMS else ""
            say(plain(f"{words}: {', '.join(names[:_CLAIMS])}{more}"), err=True)


def goal_of_change(container: pb.Container) -> Goal:
    """Returns the goal after a change: a started container must run, any other must only accept the change."""
    idle = (pb.CONTAINER_STATUS_STOPPED, pb.CONTAINER_STATUS_PAUSED)
    return Goal.APPLIED if container.status in idle and not starts_from_nothing(container) else Goal.RUNNING


# Verb -> its participle, for the summary line.
_DONE = {"start": "started", "stop": "stopped", "resume": "resumed", "restart": "restarting"}


def _action(verb: str) -> Callable[..., None]:
    text, goal = _ACTIONS[verb]

    def act(
        names: ContainerNames = None,
        namespace: Namespace = "",
        selector: Selector = "",
        everything: Everything = False,
        validate_only: ValidateOnly = False,
        wait: Wait = False,
        wait_timeout: WaitSeconds = 300.0,
        stable_for: StableSeconds = 10.0,
        output: Output = Format.TABLE,
    ) -> None:
        times = Times(wait_timeout, stable_for)
        meant = Meant(names, selector, everything)
        _act(verb, meant, namespace, validate_only, goal if wait else None, times, output)

    def stop(
        names: ContainerNames = None,
        namespace: Namespace = "",
        selector: Selector = "",
        everything: Everything = False,
        validate_only: ValidateOnly = False,
        wait: Wait = False,
        wait_timeout: WaitSeconds = 300.0,
        output: Output = Format.TABLE,
    ) -> None:
        meant = Meant(names, selector, everything)
        _act(verb, meant, namespace, validate_only, goal if wait else None, Times(wait_timeout), output)

    made = act if goal is Goal.RUNNING else stop
    made.__doc__ = text
    return made


start, stop, resume, restart = (_action(verb) for verb in ("start", "stop", "resume", "restart"))


# Returns a container after a call, and the goal to wait for; None for none.
_Change = Callable[["Client", str], tuple[pb.Container, Goal | None]]


def _act(
    verb: str,
    meant: Meant,
    namespace: str,
    validate_only: bool,
    goal: Goal | None,
    times: Times,
    output: Format,
) -> None:
    where = namespace_or_default(namespace)

    def change(client: Client, name: str) -> tuple[pb.Container, Goal | None]:
        call: Any = getattr(client.containers, verb)
        container = call(namespace=where, name=name, validate_only=validate_only)
        return container, None if validate_only else goal

    _change(change, meant, where, times, output, _DONE[verb])


def _change(change: _Change, meant: Meant, where: str, times: Times, output: Format, done: str) -> None:
    """Changes the chosen containers, waits for them and shows them."""
    with connect() as client:
        many.act_on(
            client,
            CONTAINERS.columns,
            many.chosen(client, CONTAINERS, where, meant),
            lambda client, name: _with_wait(client, *change(client, name), times),
            output,
            is_batch=meant.is_batch,
            done=done,
            timeout=times.timeout,
        )


def _with_wait(
    client: Client, container: pb.Container, goal: Goal | None, times: Times
) -> tuple[pb.Container, many.Wait | None]:
    """Returns the container, and the wait for its goal."""
    if goal is None:
        return container, None

    def wait(seconds: float) -> pb.Container:
        reached = wait_until(client, container, goal, Times(seconds, times.stable_for))
        with_no_pods(reached, goal)
        return reached

    return container, wait


def pause(
    names: ContainerNames = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: Everything = False,
    mode: Annotated[
        str,
        verbs.Option(
            "--mode", complete=complete_words(pb.PauseMode), help="suspend (default), hold_rollout or freeze."
        ),
    ] = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    output: Output = Format.TABLE,
) -> None:
    """Pause containers, and print which data and connections are lost."""
    number = pb.PauseMode.ValueType(enum_number(pb.PauseMode, mode, "--mode"))
    where, meant = namespace_or_default(namespace), Meant(names, selector, everything)
    reached = Goal.APPLIED if number == pb.PAUSE_MODE_HOLD_ROLLOUT else Goal.PAUSED

    def change(client: Client, name: str) -> tuple[pb.Container, Goal | None]:
        answer = client.containers.pause(namespace=where, name=name, mode=number, validate_only=validate_only)
        if answer.losses:
            of_it = f"{name}: " if meant.is_batch else ""
            say(plain(f"{of_it}lost: {', '.join(answer.losses)}"), err=True)
        return answer.container, reached if wait and not validate_only else None

    _change(change, meant, where, Times(wait_timeout), output, "paused")


def scale(
    replicas: Annotated[
        list[str],
        verbs.Argument(
            metavar="[NAME]... REPLICAS",
            complete=complete_container,
            help="Containers, and the number of pods.",
        ),
    ],
    namespace: Namespace = "",
    selector: Selector = "",
    everything: Everything = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    stable_for: StableSeconds = 10.0,
    output: Output = Format.TABLE,
) -> None:
    """Set the number of pods; a stopped or paused container gets them when it starts or resumes."""
    *names, last = replicas
    if not (last.isascii() and last.isdecimal()):
        raise CommandError(f"REPLICAS, the last argument, is a number of pods, not {last!r}", 2)
    where, meant = namespace_or_default(namespace), Meant(names, selector, everything)

    def change(client: Client, name: str) -> tuple[pb.Container, Goal | None]:
        answer = client.containers.scale.send(
            pb.ScaleContainerRequest(
                namespace=where, name=name, replicas=int(last), etag=etag, validate_only=validate_only
            )
        )
        show_claims(answer)
        waits = wait and not validate_only
        return answer.container, goal_of_change(answer.container) if waits else None

    _change(change, meant, where, Times(wait_timeout, stable_for), output, "scaled")


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
    names: ContainerNames = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: Everything = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    output: Output = Format.TABLE,
) -> None:
    """Delete containers; each stays listed until it is gone from its cluster."""
    where = namespace_or_default(namespace)
    waits = wait and not validate_only

    def act(client: Client, name: str) -> tuple[pb.Container, many.Wait | None]:
        answer = client.containers.delete.send(
            pb.DeleteContainerRequest(namespace=where, name=name, etag=etag, validate_only=validate_only)
        )
        show_claims(answer)
        return _with_wait(client, answer.container, Goal.DELETED if waits else None, Times(wait_timeout))

    def show_one(container: pb.Container) -> None:
        if waits and output.is_table:
            # A row would show the last state of a container that no longer exists.
            say(f"container {container.namespace}/{container.name} deleted")
        else:
            show(container, COLUMNS, output)

    meant, deletion = Meant(names, selector, everything), many.Deletion(etag, validate_only, yes)
    many.delete(CONTAINERS, meant, where, act, output, deletion, timeout=wait_timeout, show_one=show_one)
