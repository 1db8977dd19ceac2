"""The values of config maps and secrets from options, files and standard input.

Other users of the machine can read a secret's value on the command line, and it stays in the shell's history. Files and
standard input are better; `--from-literal` exists because people know it from kubectl.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse.config.v1 import config_pb2 as pb
    from pilothouse_client.streams import Change

Literals = Annotated[
    list[str] | None,
    verbs.Option("--from-literal", metavar="KEY=VALUE", help="A literal value; repeat for more."),
]
Files = Annotated[
    list[str] | None,
    verbs.Option(
        "--from-file",
        metavar="[KEY=]PATH",
        help="A file's content under KEY or the file's name; a folder: its files; KEY=-: standard input.",
    ),
]
EnvFiles = Annotated[
    list[str] | None, verbs.Option("--from-env-file", metavar="PATH", help="A file of lines KEY=VALUE.")
]
Labels = Annotated[
    list[str] | None, verbs.Option("--label", metavar="KEY=VALUE", help="Replaces all; repeat for more.")
]
Annotations = Annotated[
    list[str] | None,
    verbs.Option("--annotation", metavar="KEY=VALUE", help="Replaces all; repeat for more."),
]
Immutable = Annotated[bool, verbs.Option("--immutable", help="The data can never be changed again.")]
Remove = Annotated[
    list[str] | None, verbs.Option("--remove", metavar="KEY", help="Drop this key; repeat for more.")
]
Replace = Annotated[bool, verbs.Option("--replace", help="Drop every key that is not given.")]
Restart = Annotated[bool, verbs.Option("--restart", help="Restart running containers that use it.")]


def read_values(
    literals: Iterable[str] | None, files: Iterable[str] | None, env_files: Iterable[str] | None
) -> dict[str, bytes]:
    """Returns the values by key.

    Raises CommandError for a key that is given twice, or a file that cannot be read."""
    values: dict[str, bytes] = {}
    given = [*_literals(literals or ()), *_files(files or ()), *_env_files(env_files or ())]
    for key, value in given:
        if key in values:
            raise CommandError(f"the key {key!r} is given twice", 2)
        values[key] = value
    return values


def split_text(values: dict[str, bytes]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Returns the values that are text, and those that are not."""
    text: dict[str, str] = {}
    binary: dict[str, bytes] = {}
    for key, value in values.items():
        decoded = as_text(value)
        if decoded is None:
            binary[key] = value
        else:
            text[key] = decoded
    return text, binary


def as_text(value: bytes) -> str | None:
    """Returns the value as text; None if it is not UTF-8, or contains NUL."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def changes_of(kind: str, changes: Iterable[Change[pb.Config]]) -> Iterator[Change[Any]]:
    """Yields the changes of one kind from a watch of both kinds: `kind` is `config_map` or `secret`."""
    from pilothouse_client.streams import Change, ChangeKind

    for change in changes:
        if change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED):
            if change.resource.WhichOneof("kind") != kind:
                continue
            inner = getattr(change.resource, kind)
            yield Change(change.kind, inner, change.revision, change.resume_token)
        else:
            yield change


def report_consequences(answer: pb.UpdateConfigMapResponse | pb.UpdateSecretResponse) -> None:
    """Writes which containers restart, and which will miss a key, to standard error, apart from the result."""
    for name in answer.restarted:
        say(f"container {name} restarts", err=True)
    for name in answer.missing_keys:
        say(f"container {name} reads a key that is removed: its next pods will not start", err=True)


def check_replaced(replace: bool, remove: Iterable[str] | None) -> None:
    """Raises CommandError if all keys are to be replaced and some are to be removed."""
    if replace and remove:
        raise CommandError("--replace drops every key that is not given: leave out --remove", 2)


def _literals(options: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            # The argument may be the value itself, so it is not repeated.
            raise CommandError("--from-literal takes KEY=VALUE", 2)
        yield key, value.encode("utf-8", "surrogateescape")


def _files(options: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for option in options:
        key, equals, name = option.partition("=")
        if not equals:
            key, name = "", option
        if name == "-":
            if not key:
                raise CommandError("name the key of standard input: --from-file KEY=-", 2)
            yield key, sys.stdin.buffer.read()
            continue
        path = Path(name)
        if not key and path.is_dir():
            for each in sorted(path.iterdir()):
                if each.is_file():
                    yield each.name, _content(each)
            continue
        yield key or path.name, _content(path)


def _env_files(options: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for option in options:
        lines = _content(Path(option)).decode("utf-8", "surrogateescape").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key, equals, value = line.partition("=")
            if not equals or not key.strip():
                raise CommandError(f"{option}:{number}: expected KEY=VALUE", 2)
            yield key.strip(), value.encode("utf-8", "surrogateescape")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", 2) from error
