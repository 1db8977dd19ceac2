"""Options and arguments that several verbs share, so that all verbs spell and explain them alike."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import click
from click.shell_completion import CompletionItem

from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.name_completion import complete_namespace
from pilothouse_client.commands.values import enum_prefix, enum_words

_WRONG_COMMAND_LINE = 2


@dataclass(frozen=True, slots=True)
class Format:
    """How results are written. `expression` is the argument of `jsonpath` and `custom-columns`."""

    word: str
    expression: str = ""

    TABLE: ClassVar[Format]
    WIDE: ClassVar[Format]
    NAME: ClassVar[Format]
    JSON: ClassVar[Format]
    YAML: ClassVar[Format]
    MANIFEST: ClassVar[Format]

    @property
    def is_table(self) -> bool:
        """Whether the format is for people: lines of text, with notices next to them."""
        return self.word in ("table", "wide", "name")

    def __str__(self) -> str:
        return self.word


_FORMATS = {word: Format(word) for word in ("table", "wide", "name", "json", "yaml", "manifest")}
for _word, _format in _FORMATS.items():
    setattr(Format, _word.upper(), _format)
JSONPATH, CUSTOM_COLUMNS = "jsonpath", "custom-columns"
_WITH_EXPRESSION = (JSONPATH, CUSTOM_COLUMNS)
_EXAMPLES = {
    JSONPATH: "jsonpath='{.items[*].name}'",
    CUSTOM_COLUMNS: "custom-columns=NAME:.name,IMAGE:.image",
}


class _FormatWord(click.ParamType[Format]):
    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Format:
        if isinstance(value, Format):
            return value
        word, equals, expression = str(value).partition("=")
        if word in _WITH_EXPRESSION and expression:
            return Format(word, expression)
        if word in _FORMATS and not equals:
            return _FORMATS[word]
        if word in _WITH_EXPRESSION:
            raise click.BadParameter(f"{word} takes an expression, as in {_EXAMPLES[word]}", ctx, param)
        known = ", ".join([*_FORMATS, "jsonpath=PATH, custom-columns=HEADING:PATH,…"])
        raise click.BadParameter(f"{value!r} is not one of {known}.", ctx, param)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        words = [*_FORMATS, *(f"{word}=" for word in _WITH_EXPRESSION)]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_words(enum_type: Any) -> verbs.Complete:
    """Completes the words of an enum."""
    return lambda _context, _text: list(enum_words(enum_type.DESCRIPTOR))


# Whether the command in progress has --validate-only, so that it changes nothing.
dry_run: ContextVar[bool] = ContextVar("dry_run", default=False)
# The one namespace of the command in progress, which its tables need not repeat; empty: several, or none.
one_namespace: ContextVar[str] = ContextVar("one_namespace", default="")


def _note_dry_run(given: bool) -> bool:
    dry_run.set(given)
    return given


# Whether tables are written without their headings.
no_headers: ContextVar[bool] = ContextVar("no_headers", default=False)
Output = Annotated[
    Format,
    verbs.Option(
        "-o",
        "--output",
        type=_FormatWord(),
        help="table, wide, name, json, yaml, manifest, jsonpath=PATH or custom-columns=HEADING:PATH,….",
        beside=(
            click.Option(
                ["--no-headers"],
                is_flag=True,
                expose_value=False,
                callback=lambda _context, _param, given: no_headers.set(given),
                help="Write tables without their headings.",
            ),
        ),
    ),
]
Namespace = Annotated[
    str,
    verbs.Option(
        "-n",
        "--namespace",
        envvar="PILOTHOUSE_NAMESPACE",
        help="Namespace.",
        complete=complete_namespace,
    ),
]
AllNamespaces = Annotated[bool, verbs.Option("-A", "--all-namespaces", help="Every namespace you may see.")]
Selector = Annotated[
    str, verbs.Option("-l", "--selector", help="Only those with these labels, such as app=web,tier!=db.")
]
Filter = Annotated[str, verbs.Option("--filter", help="AIP-160 filter, such as 'status = RUNNING'.")]
OrderBy = Annotated[str, verbs.Option("--order-by", help="Order, such as 'create_time desc'.")]
Limit = Annotated[int, verbs.Option("--limit", min=0, help="At most this many; 0: all.")]
Watch = Annotated[bool, verbs.Option("-w", "--watch", help="Show changes until interrupted.")]
Wait = Annotated[bool, verbs.Option("--wait", help="Wait until the cluster has applied it.")]
WaitSeconds = Annotated[float, verbs.Option("--wait-timeout", min=0.1, help="Seconds to wait at most.")]
StableSeconds = Annotated[
    float,
    verbs.Option(
        "--stable-for", min=0.0, help="With --wait: seconds that all pods must have run without a restart."
    ),
]
ValidateOnly = Annotated[
    bool,
    verbs.Option(
        "--validate-only", "--dry-run", callback=_note_dry_run, help="Check everything, change nothing."
    ),
]
Etag = Annotated[str, verbs.Option("--etag", help="Refuse if the resource has changed since this etag.")]
Yes = Annotated[bool, verbs.Option("-y", "--yes", help="Do not ask for confirmation.")]


def namespace_or_default(given: str) -> str:
    """Returns the given namespace, or the context's.

    Raises CommandError if there is neither."""
    from pilothouse_client.commands.invocation import default_namespace

    found = given or default_namespace()
    if not found:
        raise CommandError(
            "name the namespace with -n, or set one with: pilothouse contexts set --namespace NAME",
            _WRONG_COMMAND_LINE,
        )
    one_namespace.set(found)
    return found


def namespace_or_all(given: str, everywhere: bool) -> str:
    """Returns the namespace to list: the given one, or the context's.

    Empty, which means all, if there is neither."""
    from pilothouse_client.commands.invocation import default_namespace

    found = given_or_all(given, everywhere)
    if not found and not everywhere:
        found = default_namespace()
    one_namespace.set(found)
    return found


def given_or_all(given: str, everywhere: bool) -> str:
    """Returns the namespace of -n or the variable.

    Empty, which means all, if there is neither.

    The context's namespace does not count, so that by default the audit log is verified and exported as a whole."""
    # The variable is a default, which -A overrides as it overrides the context's.
    if given and everywhere and verbs.is_given("namespace"):
        raise CommandError("-n and -A exclude each other", _WRONG_COMMAND_LINE)
    found = "" if everywhere else given
    one_namespace.set(found)
    return found


def pairs(values: list[str], option: str) -> dict[str, str]:
    """Returns KEY=VALUE options as a mapping; raises CommandError for any other form."""
    result: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise CommandError(f"{option} takes KEY=VALUE, not {value!r}", _WRONG_COMMAND_LINE)
        result[key] = rest
    return result


def enum_number(enum_type: Any, word: str, option: str) -> int:
    """Returns the number of an enum's value by its word, `running` for CONTAINER_STATUS_RUNNING; 0 for no word."""
    if not word:
        return 0
    words = enum_words(enum_type.DESCRIPTOR)
    # Kubernetes writes words without separators: ReadWriteOnce.
    joined = {each.replace("_", ""): number for each, number in words.items()}
    number = joined.get(word.lower().replace("-", "").replace("_", ""))
    if number is None:
        raise CommandError(f"{option} takes one of {', '.join(words)}, not {word!r}", _WRONG_COMMAND_LINE)
    return number


def confirm(question: str, yes: bool) -> None:
    """Asks before something is lost; without a terminal it cannot ask, so `--yes` is required."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Confirm with --yes.", _WRONG_COMMAND_LINE)
    if not verbs.confirm(question):
        raise verbs.Exit(1)


def check_watch(filter_: str, order_by: str, limit: int, *, goes_with: str = "--selector") -> None:
    """Raises CommandError if `--watch` is given with options that only lists have."""
    if filter_ or order_by or limit:
        others = "--order-by" if goes_with == "--filter" else "--filter, --order-by"
        raise CommandError(
            f"--watch works with {goes_with}, not with {others} or --limit", _WRONG_COMMAND_LINE
        )


def with_status(filter_: str, enum_type: Any, number: int) -> str:
    """Returns the filter, restricted to the resources of a status; 0 means no restriction."""
    if not number:
        return filter_
    label = enum_type.Name(number).removeprefix(enum_prefix(enum_type.DESCRIPTOR.name))
    # Parentheses, because the filter may contain an OR.
    return f"({filter_}) AND status = {label}" if filter_ else f"status = {label}"


def check_changes(*given: object) -> None:
    """Raises CommandError if an update changes nothing."""
    if not any(given):
        raise CommandError("give at least one change", _WRONG_COMMAND_LINE)
