"""One verb for several resources of a noun: by their names, by labels, or for all resources of a namespace.

Each resource has a call of its own, one after the other; a failure does not stop the others. The command writes one
line for each failure and a summary, and ends with the highest exit code. A single name is not a batch: its result is
written as a value and not as a list, and its error has no name before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError, failure_of
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    Yes,
    confirm,
    dry_run,
    namespace_or_default,
)
from pilothouse_client.commands.output import Columns, show, show_all
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client

_WRONG_COMMAND_LINE = 2
# The greatest number of names in a question.
_NAMED = 10
DEFAULT_TIMEOUT_SECONDS = 300.0
Everything = Annotated[bool, verbs.Option("--all", help="All in the namespace.")]


def names_of(nouns: str, complete: verbs.Complete, *, required: bool = False) -> Any:
    """Returns the argument for any number of names, or for at least one."""
    metavar = "NAME..." if required else "[NAME]..."
    return verbs.Argument(help=f"Names of {nouns}.", complete=complete, metavar=metavar)


@dataclass(frozen=True, slots=True)
class ListedNoun:
    """The noun of the resources that a verb acts upon.

    `listed` returns the resources of a namespace that match a label selector; `columns` shows the results of calls."""

    one: str
    several: str
    columns: Columns
    listed: Callable[[Client, str, str], Iterable[Any]]
    complete: verbs.Complete

    def in_words(self, namespace: str, names: Sequence[str]) -> str:
        """Returns the text that names the resources in a question."""
        return in_words(self.one, self.several, names, namespace)


@dataclass(frozen=True, slots=True)
class Meant:
    """How the command line names the resources: in one of three ways."""

    names: Sequence[str] | None
    selector: str = ""
    everything: bool = False

    @property
    def is_batch(self) -> bool:
        return not self.names or len(self.names) > 1


# Waits for at most that many seconds; then returns the resource.
Wait = Callable[[float], Any]
# Makes a call; returns its result and the wait that follows all calls; None for no wait.
Act = Callable[["Client", str], tuple[Any, Wait | None]]


def chosen(client: Client, noun: ListedNoun, namespace: str, meant: Meant) -> list[str]:
    """Returns the chosen names, each once.

    Raises:
        CommandError: none or several of the three ways were used, or there is no such resource.
    """
    if sum((bool(meant.names), bool(meant.selector), meant.everything)) != 1:
        raise CommandError(f"name {noun.several}, or use -l or --all; one of the three", _WRONG_COMMAND_LINE)
    if meant.names:
        return list(dict.fromkeys(meant.names))
    found = [each.name for each in noun.listed(client, namespace, meant.selector)]
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        which = f" has the labels {meant.selector}" if meant.selector else ""
        raise CommandError(f"no {noun.one}{where}{which or ' exists'}", 6, "NOT_FOUND")
    return found


@dataclass(frozen=True, slots=True)
class Deletion:
    """The options of a verb that deletes. `more` is the end of its question."""

    etag: str = ""
    validate_only: bool = False
    yes: bool = False
    more: str = ""


def delete(
    noun: ListedNoun,
    meant: Meant,
    namespace: str,
    act: Act,
    form: Format,
    deletion: Deletion,
    *,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    show_one: Callable[[Any], None] | None = None,
) -> None:
    """Asks for confirmation, and then deletes the resources.

    If names are given, it asks before it connects."""
    if meant.is_batch:
        check_etag(deletion.etag, ())

    def ask(names: Sequence[str]) -> None:
        if not deletion.validate_only:
            confirm(f"Delete {noun.in_words(namespace, names)}{deletion.more}?", deletion.yes)

    if meant.names:
        ask(meant.names)
    with connect() as client:
        names = chosen(client, noun, namespace, meant)
        if not meant.names:
            ask(names)
        act_on(
            client,
            noun.columns,
            names,
            act,
            form,
            is_batch=meant.is_batch,
            done="deleted",
            timeout=timeout,
            show_one=show_one,
        )


def deletion_verb(
    noun: ListedNoun, text: str, call_of: Callable[[Client], Callable[..., Any]], more: str = ""
) -> Callable[..., None]:
    """Returns the verb `delete` of a noun whose deletion has no options of its own.

    `call_of` returns the call; `more` is the end of its question."""

    def delete_them(
        names: list[str] | None = None,
        namespace: Namespace = "",
        selector: Selector = "",
        everything: Everything = False,
        etag: Etag = "",
        validate_only: ValidateOnly = False,
        yes: Yes = False,
        output: Output = Format.TABLE,
    ) -> None:
        where = namespace_or_default(namespace)

        def act(client: Client, name: str) -> tuple[Any, None]:
            call = call_of(client)
            return call(namespace=where, name=name, etag=etag, validate_only=validate_only), None

        meant, deletion = Meant(names, selector, everything), Deletion(etag, validate_only, yes, more)
        delete(noun, meant, where, act, output, deletion)

    # Each noun completes its own names.
    delete_them.__annotations__["names"] = Annotated[list[str] | None, names_of(noun.several, noun.complete)]
    delete_them.__doc__ = text
    return delete_them


def act_on(
    client: Client,
    columns: Columns,
    names: Sequence[str],
    act: Act,
    form: Format,
    *,
    is_batch: bool,
    done: str,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    show_one: Callable[[Any], None] | None = None,
) -> None:
    """Acts on each name, waits for all resources, and shows the results.

    `done` is the verb of the summary, such as `stopped`; `show_one` shows a single result that is more than a row.

    Raises:
        Exit: a call or a wait has failed; with the highest exit code of all.
    """
    if not is_batch:
        result, wait = act(client, names[0])
        if wait is not None:
            result = wait(timeout)
        if show_one is not None:
            show_one(result)
        else:
            show(result, columns, form)
        return
    results: dict[str, Any] = {}
    waits: dict[str, Wait] = {}
    codes: list[int] = []
    for name in names:
        with _noted(name, codes):
            results[name], wait = act(client, name)
            if wait is not None:
                waits[name] = wait
    end = time.monotonic() + timeout
    for name, wait in waits.items():
        with _noted(name, codes):
            results[name] = wait(max(end - time.monotonic(), 0.1))
    if results:
        show_all(list(results.values()), columns, form)
    _sum_up(len(names), codes, done)


def act_on_each(names: Sequence[str], act: Callable[[str], None], *, done: str) -> None:
    """Acts on each name by calls whose results have no table; `act` writes the line of its result.

    Raises:
        Exit: one of several calls has failed; with the highest exit code of all.
    """
    names = list(dict.fromkeys(names))
    if len(names) == 1:
        act(names[0])
        return
    codes: list[int] = []
    for name in names:
        with _noted(name, codes):
            act(name)
    _sum_up(len(names), codes, done)


def check_etag(etag: str, names: Sequence[str]) -> None:
    """Raises CommandError if one etag is given for several resources."""
    if etag and len(names) != 1:
        raise CommandError("--etag needs exactly one name", _WRONG_COMMAND_LINE)


def in_words(one: str, several: str, names: Sequence[str], namespace: str = "") -> str:
    """Returns the text that names resources in a question: `the user ann`, `3 users (ann, bob, eve)`."""
    if len(names) == 1:
        return f"the {one} {f'{namespace}/' if namespace else ''}{names[0]}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    of_it = f" of {namespace}" if namespace else ""
    return f"{len(names)} {several}{of_it} ({', '.join(names[:_NAMED])}{more})"


def _sum_up(number: int, codes: Sequence[int], done: str) -> None:
    failed = f", {len(codes)} failed" if codes else ""
    say(f"{number - len(codes)} {done}{' (dry run)' if dry_run.get() else ''}{failed}", err=True)
    if codes:
        raise verbs.Exit(max(codes))


@contextmanager
def _noted(name: str, codes: list[int]) -> Iterator[None]:
    """Writes a known error of the block, with the name of its resource, and adds its exit code to `codes`."""
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
