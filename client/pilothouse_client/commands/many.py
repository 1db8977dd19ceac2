"""One verb for several containers: by their names, by labels, or for all of a namespace.

Each is acted upon by a call of its own, one after the other, and a failure stops none of the others. The command writes
one line for each failure and one that sums up, and ends with the highest exit code. A single name is no batch: its
result is written as a value and not as a list, and its error has no name before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import COLUMNS, Times, wait_until, with_no_pods
from pilothouse_client.commands.failures import CommandError, failure_of
from pilothouse_client.commands.options import complete_container, dry_run
from pilothouse_client.commands.output import show, show_all
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client
    from pilothouse_client.commands.options import Format
    from pilothouse_client.waiting import Goal

_WRONG_COMMAND_LINE = 2
# So many names stand in a question.
_NAMED = 10
ContainerNames = Annotated[
    list[str] | None,
    verbs.Argument(help="Names of containers.", complete=complete_container, metavar="[NAME]..."),
]
ByLabels = Annotated[
    str, verbs.Option("-l", "--selector", help="All that have these labels, such as app=web,tier!=db.")
]
Everything = Annotated[bool, verbs.Option("--all", help="All containers of the namespace.")]
# Returns the container after a call, and the goal to wait for; None for none.
Act = Callable[["Client", str], tuple[pb.Container, "Goal | None"]]


def chosen(
    client: Client, namespace: str, names: Sequence[str] | None, selector: str, everything: bool
) -> list[str]:
    """Returns the names that are meant, each once.

    Raises:
        CommandError: none of the three ways was used, or several, or there is no such container.
    """
    if sum((bool(names), bool(selector), everything)) != 1:
        raise CommandError("name containers, or use -l or --all; one of the three", _WRONG_COMMAND_LINE)
    if names:
        return list(dict.fromkeys(names))
    found = [each.name for each in client.containers.list(namespace=namespace, label_selector=selector)]
    if not found:
        raise CommandError(f"no container of {namespace} is meant", 6, "NOT_FOUND")
    return found


def in_words(namespace: str, names: Sequence[str]) -> str:
    """Returns the containers as a question names them."""
    if len(names) == 1:
        return f"the container {namespace}/{names[0]}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} containers of {namespace} ({', '.join(names[:_NAMED])}{more})"


def act_on(
    client: Client, names: Sequence[str], act: Act, times: Times, form: Format, *, is_batch: bool, done: str
) -> None:
    """Acts on each, waits for all of them, and shows the results. `done` is the verb of the sum: `stopped`.

    Raises:
        Exit: one has failed; with the highest exit code of all.
    """
    if not is_batch:
        container, goal = act(client, names[0])
        show_result(client, container, goal, times, form)
        return
    results: dict[str, pb.Container] = {}
    goals: dict[str, Goal] = {}
    codes: list[int] = []
    for name in names:
        with _noted(name, codes):
            results[name], goal = act(client, name)
            if goal is not None:
                goals[name] = goal
    end = time.monotonic() + times.timeout
    for name, goal in goals.items():
        left = Times(max(end - time.monotonic(), 0.1), times.stable_for)
        with _noted(name, codes):
            results[name] = wait_until(client, results[name], goal, left)
    if results:
        show_all(list(results.values()), COLUMNS, form)
    failed = f", {len(codes)} failed" if codes else ""
    say(f"{len(names) - len(codes)} {done}{' (dry run)' if dry_run.get() else ''}{failed}", err=True)
    if codes:
        raise verbs.Exit(max(codes))


@contextmanager
def _noted(name: str, codes: list[int]) -> Iterator[None]:
    """Writes our error in the block with the name that it is about, and adds its exit code."""
    try:
        yield
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        failure.message = f"{name}: {failure.message}"
        if failure.more:
            failure.more["name"] = name
        failure.write()
        codes.append(failure.exit_code)


def show_result(
    client: Client, container: pb.Container, goal: Goal | None, times: Times, form: Format
) -> None:
    """Shows one container, after it has reached the goal if there is one."""
    if goal is not None:
        container = wait_until(client, container, goal, times)
        if goal.value == "deleted" and form.is_table:
            # A row would show the last state of what is no more.
            say(f"container {container.namespace}/{container.name} deleted")
            return
        with_no_pods(container, goal)
    show(container, COLUMNS, form)
