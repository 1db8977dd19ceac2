"""Declares verbs of the command: a function, and an annotation for each of its options and arguments.

    Replicas = Annotated[int | None, verbs.Option("--replicas", min=0, help="Number of pods.")]

    @app.command("scale")
    def scale(name: ContainerName, replicas: Replicas = None) -> None:
        '''Set the number of pods.'''

Parser, help and completion all come from the one declaration. It is read only when the verb is called, completed or
described: `pilothouse --help` reads none. click does the parsing. A parameter whose type is a dataclass stands for the
options that its fields declare.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

import click
from click import Context
from click.core import ParameterSource
from click.exceptions import Exit
from click.shell_completion import CompletionItem

__all__ = ["Argument", "Context", "Exit", "Option", "Verb", "VerbGroup", "confirm", "prompt"]

confirm, prompt = click.confirm, click.prompt
_COMMANDS = "pilothouse_client.commands"
_SHORT = 3
# Returns the values that begin with the text, for a line that was read up to there.
Complete = Callable[[Context, str], Iterable[str]]
# Words of kubectl, Nomad and flyctl -> this command's words, in any group.
SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("po", "pod", "pods", "deploy", "deployment", "deployments", "container"), "containers"),
    **dict.fromkeys(("sts", "statefulset", "ds", "daemonset", "job", "jobs", "cj", "cronjob"), "containers"),
    **dict.fromkeys(("svc", "service"), "services"),
    **dict.fromkeys(("cm", "configmap", "configmaps", "config"), "configs"),
    **dict.fromkeys(("ns", "namespace"), "namespaces"),
    **dict.fromkeys(("pvc", "persistentvolumeclaim", "volume"), "volumes"),
    **dict.fromkeys(("ing", "ingress", "netpol", "pdb", "hpa", "sa", "object"), "objects"),
    **dict.fromkeys(("secret",), "secrets"),
    **dict.fromkeys(("cluster", "node", "nodes", "no"), "clusters"),
    **dict.fromkeys(("app", "application"), "applications"),
    **dict.fromkeys(("user",), "users"),
    **dict.fromkeys(("context", "ctx"), "contexts"),
    **dict.fromkeys(("ls", "ps"), "list"),
    **dict.fromkeys(("rm", "remove", "destroy"), "delete"),
    **dict.fromkeys(("show", "describe", "inspect"), "get"),
    **dict.fromkeys(("patch",), "update"),
    **dict.fromkeys(("history",), "revisions"),
    **dict.fromkeys(("log",), "logs"),
    **dict.fromkeys(("deploys",), "containers"),
}


@dataclass(frozen=True, slots=True)
class _Declared:
    """The declaration of an option or an argument.

    `names`: `--image`, or `-n` and `--namespace`; by default the name of the parameter. `type`: a click type, if the
    annotation alone is not sufficient. `complete` returns the values that begin with a text. `beside` are additional
    options that come with this one; their callbacks get the values, the function does not."""

    names: tuple[str, ...] = ()
    help: str = ""
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    envvar: str | None = None
    callback: Callable[[Any], Any] | None = None
    is_eager: bool = False
    hidden: bool = False
    complete: Complete | None = None
    type: click.ParamType[Any] | None = None
    beside: tuple[click.Option, ...] = ()
    path: Mapping[str, bool] = field(default_factory=dict)


class Option(_Declared):
    """An option, by its names."""

    def __init__(self, *names: str, **settings: Any) -> None:
        _Declared.__init__(self, names, **_settings(settings))


class Argument(_Declared):
    """An argument."""

    def __init__(self, **settings: Any) -> None:
        _Declared.__init__(self, (), **_settings(settings))


_OF_PATHS = ("exists", "file_okay", "dir_okay")


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in _OF_PATHS} | {
        "path": {key: given[key] for key in _OF_PATHS if key in given}
    }


class _Words(click.ParamType[Any]):
    """A value of an enum, by its word."""

    name = "word"

    def __init__(self, members: type[enum.Enum]) -> None:
        self._members = members

    def get_metavar(self, param: click.Parameter, ctx: Context) -> str:
        return f"[{'|'.join(each.value for each in self._members)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: Context | None) -> Any:
        try:
            return self._members(value)
        except ValueError:
            known = ", ".join(each.value for each in self._members)
            self.fail(f"{value!r} is not one of {known}.", param, ctx)

    def shell_complete(self, ctx: Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(each.value) for each in self._members if each.value.startswith(incomplete)]


class _WholeNumber(click.IntRange):
    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: Context) -> str:
        return "N"


class _Number(click.FloatRange):
    name = "number"

    def get_metavar(self, param: click.Parameter, ctx: Context) -> str:
        return "NUMBER"


def _type(annotation: Any, declared: _Declared) -> click.ParamType[Any]:
    if declared.type is not None:
        return declared.type
    if annotation in (int, float):
        assert (declared.min, declared.max) != (None, None), "a number needs a bound"
    if annotation is int:
        least, most = (None if each is None else int(each) for each in (declared.min, declared.max))
        return _WholeNumber(least, most)
    if annotation is float:
        return _Number(declared.min, declared.max)
    if annotation is Path:
        return click.Path(path_type=Path, **declared.path)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _Words(annotation)
    assert annotation is str, annotation
    return click.STRING


def _parts(annotation: Any) -> tuple[Any, bool, _Declared | None]:
    """Returns the type of one value, whether there may be several, and the declaration."""
    declared = None
    if get_origin(annotation) is typing.Annotated:
        annotation, *more = get_args(annotation)
        declared = next((each for each in more if isinstance(each, _Declared)), None)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        [annotation] = [each for each in get_args(annotation) if each is not type(None)]
    several = get_origin(annotation) is list
    return (get_args(annotation)[0] if several else annotation), several, declared


def _taking(callback: Callable[[Any], Any] | None, several: bool, default: Any) -> Callable[..., Any] | None:
    if callback is None and not several:
        return None

    def take(_context: Context, _param: click.Parameter, value: Any) -> Any:
        if several:
            value = list(value) if value else default
        return value if callback is None else callback(value)

    return take


def _parameter(parameter: inspect.Parameter, annotation: Any) -> click.Parameter:
    kind, several, declared = _parts(annotation)
    required = parameter.default is inspect.Parameter.empty
    default = None if required else parameter.default
    declared = declared or (Argument() if required else Option())
    common: dict[str, Any] = {
        "required": required,
        "metavar": declared.metavar,
        "envvar": declared.envvar,
        "is_eager": declared.is_eager,
        "callback": _taking(declared.callback, several, default),
        "shell_complete": _completing(declared.complete),
    }
    if not several and not required:
        # A parameter with a default, even None, is optional in click.
        common["default"] = default
    if isinstance(declared, Argument):
        return click.Argument(
            [parameter.name],
            type=_type(kind, declared),
            nargs=-1 if several else 1,
            help=declared.help,
            **common,
        )
    names = list(declared.names) or [f"--{parameter.name.replace('_', '-')}"]
    shown = None if default in (None, "", False, []) or several else True
    of_option: dict[str, Any] = {
        "help": declared.help,
        "hidden": declared.hidden,
        "multiple": several,
        "show_default": shown,
        "show_envvar": declared.envvar is not None,
    }
    if kind is bool:
        return click.Option([*names, parameter.name], is_flag=True, **common, **of_option)
    return click.Option([*names, parameter.name], type=_type(kind, declared), **common, **of_option)


def _completing(complete: Complete | None) -> Callable[..., list[str]] | None:
    if complete is None:
        return None

    def completed(context: Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return [each for each in complete(context, incomplete) if each.startswith(incomplete)]

    return completed


def _summary(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


class Verb(click.Command):
    """A verb. Its parameters are read from its function at their first use.

    `ALSO` has the options of the whole command, which every verb accepts but no function gets.
    """

    ALSO: ClassVar[list[click.Parameter]] = []

    def __init__(self, name: str, function: Callable[..., Any], **settings: Any) -> None:
        text = settings.pop("help", None) or inspect.getdoc(function) or ""
        settings.setdefault("short_help", _summary(text))
        super().__init__(name, callback=_with_groups(function), help=text, **settings)
        self._function = function

    def get_params(self, ctx: Context) -> list[click.Parameter]:
        if not self.params:
            self.params = _parameters(self._function)
            names = {name for each in self.params for name in each.opts}
            self.params += [each for each in self.ALSO if not names & set(each.opts)]
        return super().get_params(ctx)


class UnloadedVerb(click.Command):
    """Stands for a verb in help and completion until it is called."""

    def __init__(
        self,
        name: str,
        place: str | Callable[[], Any],
        summary: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self.place = place
        self._settings = dict(settings or {})

    def load(self) -> click.Command:
        """Returns the verb or the group of verbs that this object stands for."""
        assert self.name is not None
        if isinstance(self.place, str):
            module, _, attribute = self.place.partition(":")
            made = getattr(importlib.import_module(f"{_COMMANDS}.{module}"), attribute)
        else:
            made = self.place()
        if isinstance(made, click.Command):
            made.name = self.name
            made.short_help = self.short_help
            return made
        return Verb(self.name, made, short_help=self.short_help, **self._settings)


def _parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    annotations = typing.get_type_hints(function, include_extras=True)
    made: list[click.Parameter] = []
    for name, each in inspect.signature(function).parameters.items():
        if _is_group(annotations[name]):
            made += _parameters(annotations[name])
        elif annotations[name] is not Context:
            made.append(_parameter(each, annotations[name]))
            declared = _parts(annotations[name])[2]
            made += declared.beside if declared is not None else ()
    return made


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _with_groups(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that takes the values of options, and passes them on in the dataclasses that group them."""

    @functools.wraps(function)
    def act(*args: Any, **values: Any) -> Any:
        for name, group in typing.get_type_hints(function, include_extras=True).items():
            if _is_group(group):
                given = {each.name: values.pop(each.name) for each in dataclasses.fields(group)}
                values[name] = group(**given)
        return function(*args, **values)

    return act


class VerbGroup(click.Group):
    """Verbs under a common word.

    An unknown word is refused with a suggestion: similar words, or the verb of another group from `elsewhere`."""

    def __init__(
        self, name: str | None = None, *, elsewhere: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        super().__init__(name, **settings)
        self._elsewhere = elsewhere or {}

    def command(self, *names: Any, **settings: Any) -> Callable[..., Any]:  # type: ignore[override]
        """Declares a verb with settings for click; the default name is the function's."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            [name] = names or [function.__name__.replace("_", "-")]
            self.add_command(Verb(name, function, **settings))
            return function

        return declare

    def later(self, name: str, place: str | Callable[[], Any], summary: str, **settings: Any) -> None:
        """Declares a verb whose module is imported only when the verb is called.

        `place`: module:object in `pilothouse_client.commands`, or a function that returns the object."""
        self.add_command(UnloadedVerb(name, place, summary, settings), name)

    def main_verb(self, *, epilog: str | None = None) -> Callable[..., Any]:
        """Declares the action of a group without a verb; its function may take the context."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            of_context = any(
                each is Context for each in typing.get_type_hints(function, include_extras=True).values()
            )
            self.epilog = epilog
            self.callback = click.pass_context(function) if of_context else function
            self.help = self.help or inspect.getdoc(function)
            self.params = _parameters(function)
            return function

        return declare

    def resolve_command(self, ctx: Context, args: list[str]) -> Any:
        word = args[0]
        if not word.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, word) is None:
            ctx.fail(f"No such command {word!r}.{self.meant(ctx, args)}")
        name, command, rest = super().resolve_command(ctx, args)
        # The verb is loaded here, not for help and completion of the group itself.
        return name, command.load() if isinstance(command, UnloadedVerb) else command, rest

    def meant(self, ctx: Context, args: Sequence[str]) -> str:
        """Returns a sentence that suggests commands for an unknown one."""
        import difflib

        word = args[0]
        if word in self._elsewhere:
            return f" Did you mean {self._elsewhere[word]}?"
        known = self.list_commands(ctx)
        # A synonym stands for a word of this group. Misspelt synonyms are recognised, too, except short ones, which
        # resemble too many words.
        words = {each: each for each in known} | {
            word: meant for word, meant in SYNONYMS.items() if meant in known and word not in known
        }
        long = [each for each in words if each in known or len(each) > _SHORT]
        near = [words[each] for each in difflib.get_close_matches(word[:64].lower(), long, n=3)]
        near = list(dict.fromkeys([words[word.lower()]] if word.lower() in words else near))
        if near:
            return f" Did you mean {' or '.join(near)}?"
        return f" Known: {', '.join(known)}." if len(known) <= 20 else ""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.commands)


def is_given(name: str) -> bool:
    """Returns whether an option is on the line, and not from the environment or a default.

    True if no command is in progress."""
    context = click.get_current_context(silent=True)
    return context is None or context.get_parameter_source(name) is ParameterSource.COMMANDLINE
