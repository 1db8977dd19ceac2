"""Writes the reference of docs/command.md from the declarations of the verbs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
from generated_page import DOCS, GeneratedPage

from pilothouse_client.cli import app
from pilothouse_client.commands import failures
from pilothouse_client.commands.verbs import UnloadedVerb

PAGE = GeneratedPage(DOCS / "command.md", "command", "the declared verbs")
# An option that this many verbs declare alike is in a separate table; the verbs list only its name.
_SHARED = 10


class _Verb(NamedTuple):
    """A verb with its command words, its arguments as a user types them, and its options."""

    words: tuple[str, ...]
    summary: str
    arguments: str
    options: tuple[click.Option, ...]


def declared_verbs(
    command: click.Command, context: click.Context, words: tuple[str, ...] = ()
) -> Iterator[_Verb]:
    """Yields the verbs of a command and of its groups; `words` are the command words before it."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            assert verb is not None
            verb = verb.load() if isinstance(verb, UnloadedVerb) else verb
            yield from declared_verbs(
                verb, click.Context(verb, info_name=name, parent=context), (*words, name)
            )
        return
    parameters = command.get_params(context)
    arguments = [each.make_metavar(context) for each in parameters if isinstance(each, click.Argument)]
    options = [each for each in parameters if isinstance(each, click.Option) and not each.hidden]
    yield _Verb(
        words,
        _summary(command),
        " ".join(arguments),
        tuple(each for each in options if "--help" not in each.opts),
    )


def _summary(command: click.Command) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split())


def _declared(option: click.Option) -> tuple[str, str]:
    """Returns the option as a user types it, and its description."""
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        value = option.make_metavar(click.Context(app))
        names = f"{names[:-1]} {value}`"
    facts = [option.help or ""]
    default = option.default
    if option.show_default and isinstance(default, (str, int, float)) and not isinstance(default, bool):
        facts.append(f"Default: {default:g}." if isinstance(default, float) else f"Default: {default}.")
    elif option.required:
        facts.append("Required.")
    return names, " ".join(filter(None, facts))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *lines = (f"| {' | '.join(map(_cell, line))} |" for line in (headings, *rows))
    return "\n".join([first, f"|{'---|' * len(headings)}", *lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def rows(verbs: Sequence[_Verb], shared: set[tuple[str, str]]) -> Iterator[list[str]]:
    """Yields the row of each verb, and the rows of its options that are not shared."""
    for verb in verbs:
        declared = [(each, _declared(each)) for each in verb.options]
        also = ", ".join(f"`{each.opts[0]}`" for each, words in declared if words in shared)
        line = " ".join(["pilothouse", *verb.words, *([verb.arguments] if verb.arguments else [])])
        yield [f"**`{line}`**", verb.summary + (f" Also {also}." if also else "")]
        yield from ([names, text] for _, (names, text) in declared if (names, text) not in shared)


def tables() -> str:
    """Returns the reference, as Markdown."""
    root = click.Context(app, info_name="pilothouse", **app.context_settings)
    verbs = list(declared_verbs(app, root))
    of_all = [each for each in app.get_params(root) if isinstance(each, click.Option) and not each.hidden]
    times = Counter(_declared(each) for verb in verbs for each in verb.options)
    shared = {words for words, number in times.items() if number >= _SHARED}
    variables = {
        (each.envvar, f"`{each.opts[-1]}`", each.help or "")
        for each in (*of_all, *(each for verb in verbs for each in verb.options))
        if isinstance(each.envvar, str)
    }
    parts = [
        "### Exit codes\n",
        _table(["exit code", "means"], [[str(code), text] for code, text in failures.EXIT_CODES.items()]),
        "### Environment variables\n",
        _table(["variable", "option", "is"], [[f"`{name}`", *rest] for name, *rest in sorted(variables)]),
        "### Options of the whole command\n",
        _table(["option", "is"], [_declared(each) for each in of_all]),
        "### Options of many verbs\n",
        _table(["option", "is"], [words for words, _ in times.most_common() if words in shared]),
    ]
    alone = [each for each in verbs if len(each.words) == 1]
    parts += ["### Verbs without a noun\n", _table(["verb or option", "is"], list(rows(alone, shared)))]
    for word in dict.fromkeys(each.words[0] for each in verbs if len(each.words) > 1):
        of_word = [each for each in verbs if each.words[0] == word and len(each.words) > 1]
        parts += [f"### `pilothouse {word}`\n", _table(["verb or option", "is"], list(rows(of_word, shared)))]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(PAGE.main(tables(), sys.argv[1]))
