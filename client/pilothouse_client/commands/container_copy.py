"""`pilothouse cp`: copies files and directories out of a pod, and into one."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.archives import Unpacked, pack, unpack
from pilothouse_client.commands.container_columns import ProgramName
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, namespace_or_default
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.commands.values import size

_WRONG_COMMAND_LINE = 2
_PART_BYTES = 32 * 1024


def copy(
    source: Annotated[
        str, verbs.Argument(help="NAME:/path in a container, or a local path.", metavar="SOURCE")
    ],
    target: Annotated[
        str,
        verbs.Argument(help="The same; an existing folder receives the source inside it.", metavar="TARGET"),
    ],
    namespace: Namespace = "",
    pod: Annotated[str, verbs.Option("--pod", help="This pod; default the newest that is ready.")] = "",
    program: ProgramName = "",
) -> None:
    """Copy a file or folder out of a container, or into one, by `tar` in the container."""
    there, here = _place(source), _place(target)
    if (there is None) == (here is None):
        raise CommandError(
            "give one of SOURCE and TARGET as NAME:/path, the other as a local path", _WRONG_COMMAND_LINE
        )
    where = namespace_or_default(namespace)
    if there is not None:
        _copy_from(
            pb.CopyFromRequest(namespace=where, name=there[0], pod=pod, program=program, path=there[1]),
            Path(target),
        )
    elif here is not None:
        start = pb.CopyToStart(namespace=where, name=here[0], pod=pod, program=program)
        _copy_to(start, Path(source), here[1])


def _place(text: str) -> tuple[str, str] | None:
    """Returns the container and the path of NAME:/path; None for a local path."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name in ("", "."):
        return None
    if not path.startswith("/"):
        raise CommandError(f"{text}: the path in a container must begin with /", _WRONG_COMMAND_LINE)
    return name, path


def _copy_from(request: pb.CopyFromRequest, target: Path) -> None:
    name = posixpath.basename(posixpath.normpath(request.path))
    place = target / name if target.is_dir() else target
    if not place.parent.is_dir():
        raise CommandError(f"{place.parent} is not a folder", _WRONG_COMMAND_LINE)
    fields = {name: getattr(request, name) for name in ("namespace", "name", "pod", "program", "path")}
    with connect() as client, client.containers.copy_from(**fields) as answers:
        done = unpack(_parts(answers), place)
    _report(done)
    say(plain(f"{request.name}:{request.path} -> {place}: {_words(done)}"), err=True)
    if not done.files and done.left_out:
        raise verbs.Exit(1)


def _parts(answers: Iterable[pb.CopyFromResponse]) -> Iterator[bytes]:
    return (answer.data for answer in answers if answer.data)


def _words(done: Unpacked) -> str:
    return f"{done.files} {'file' if done.files == 1 else 'files'}, {size(done.size)} bytes"


def _report(done: Unpacked) -> None:
    for words in done.left_out:
        say(plain(f"left out: {words}"), err=True)
    if (more := done.left_out_count - len(done.left_out)) > 0:
        say(f"left out: {more} more", err=True)


def _copy_to(start: pb.CopyToStart, source: Path, path: str) -> None:
    if not source.exists():
        raise CommandError(f"{source} does not exist", _WRONG_COMMAND_LINE)
    if path.endswith("/"):
        folder, name = path.rstrip("/"), source.resolve().name
    else:
        folder, name = posixpath.split(posixpath.normpath(path))
    if folder in ("", "/"):
        raise CommandError("nothing can be copied into / itself: name a folder below it", _WRONG_COMMAND_LINE)
    start.path = folder
    with connect() as client:
        done = client.containers.copy_to(_requests(start, pack(source, name)))
    say(
        plain(f"{source} -> {start.name}:{folder}/{name} in pod {done.pod}: {size(done.bytes)} bytes"),
        err=True,
    )


def _requests(start: pb.CopyToStart, parts: Iterable[bytes]) -> Iterator[pb.CopyToRequest]:
    yield pb.CopyToRequest(start=start)
    waiting = b""
    for part in parts:
        waiting += part
        while len(waiting) >= _PART_BYTES:
            yield pb.CopyToRequest(data=waiting[:_PART_BYTES])
            waiting = waiting[_PART_BYTES:]
    if waiting:
        yield pb.CopyToRequest(data=waiting)
