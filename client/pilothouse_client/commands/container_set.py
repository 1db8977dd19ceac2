"""`pilothouse containers set image | env | resources`, and `edit`: changes of one part, or of all in an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import container_actions, container_changes, verbs
from pilothouse_client.commands.container_columns import ContainerName, Times, wait_and_show
from pilothouse_client.commands.container_spec import container_from_file
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import note
from pilothouse_client.commands.options import (
    Format,
    Namespace,
    Output,
    ValidateOnly,
    Wait,
    namespace_or_default,
    pairs,
)
from pilothouse_client.commands.output import as_yaml
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client

_WRONG_COMMAND_LINE = 2
_PARTS = ("cpu", "memory")
app = verbs.VerbGroup(no_args_is_help=True, help="Change the image, variables or resources of a container.")
Change = Callable[[pb.Container], Iterable[str]]


def _change(
    name: str, namespace: str, change: Change, validate_only: bool, wait: bool, times: Times, output: Format
) -> None:
    with connect() as client:
        before = client.containers.get(namespace=namespace_or_default(namespace), name=name)
        container = pb.Container()
        container.CopyFrom(before)
        paths = list(change(container))
        response = container_changes.send(
            client,
            before,
            container,
            paths,
            etag=before.etag,
            validate_only=validate_only,
            quiet=not output.is_table,
            waits=wait,
        )
        _show(client, response, wait and not validate_only, times, output)


def _show(
    client: Client, response: pb.UpdateContainerResponse, waits: bool, times: Times, output: Format
) -> None:
    changed = response.container
    note(changed, response.warnings)
    container_actions.show_claims(response)
    goal = container_actions.goal_of_change(changed) if waits else None
    wait_and_show(client, changed, goal, times, output)


@app.command("image")
def set_image(
    name: ContainerName,
    images: Annotated[
        list[str],
        verbs.Argument(
            metavar="[PROGRAM=]IMAGE...",
            help="Image of the main program, or of a sidecar or init container by its name.",
        ),
    ],
    namespace: Namespace = "",
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Change images."""

    def change(container: pb.Container) -> Iterable[str]:
        for text in images:
            program, equals, image = text.partition("=")
            yield _give_image(container, program if equals else "", image if equals else text)

    _change(name, namespace, change, validate_only, wait, times, output)


def _give_image(container: pb.Container, program: str, image: str) -> str:
    """Sets the image of a program; returns the path of the changed field."""
    if program in ("", container.pod_container_name, container.name):
        container.image = image
        return "image"
    others: dict[str, Iterable[Any]] = {
        "sidecars": container.sidecars,
        "init_containers": container.init_containers,
    }
    for path, programs in others.items():
        for each in programs:
            if each.name == program:
                each.image = image
                return path
    known = [each.name for programs in others.values() for each in programs]
    raise CommandError(
        f"{container.name} has no program {program!r}; known: {', '.join([container.pod_container_name, *known])}",
        _WRONG_COMMAND_LINE,
    )


@app.command("env")
def set_env(
    name: ContainerName,
    variables: Annotated[
        list[str],
        verbs.Argument(metavar="KEY=VALUE|KEY-...", help="Variables to set, and to remove with KEY-."),
    ],
    namespace: Namespace = "",
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Set and remove variables; the others stay."""
    removed = [each[:-1] for each in variables if each.endswith("-") and "=" not in each]
    given = pairs([each for each in variables if "=" in each or not each.endswith("-")], "a variable")

    def change(container: pb.Container) -> Iterable[str]:
        by_name = {each.name: each for each in container.env if each.name not in removed}
        for key, value in given.items():
            by_name[key] = pb.EnvVar(name=key, value=value, value_from=pb.ENV_VALUE_FROM_LITERAL)
        kept = list(by_name.values())
        del container.env[:]
        container.env.extend(kept)
        return ["env"]

    _change(name, namespace, change, validate_only, wait, times, output)


@app.command("resources")
def set_resources(
    name: ContainerName,
    requests: Annotated[
        str, verbs.Option("--requests", metavar="cpu=AMOUNT,…", help="Such as cpu=100m,memory=64Mi.")
    ] = "",
    limits: Annotated[
        str, verbs.Option("--limits", metavar="cpu=AMOUNT,…", help="Such as cpu=1,memory=256Mi.")
    ] = "",
    namespace: Namespace = "",
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Set requests and limits; an empty amount removes one."""
    if not requests and not limits:
        raise CommandError("give --requests or --limits", _WRONG_COMMAND_LINE)

    def change(container: pb.Container) -> Iterable[str]:
        for text, kind, option in ((requests, "request", "--requests"), (limits, "limit", "--limits")):
            for resource, amount in pairs(text.split(",") if text else [], option).items():
                if resource in _PARTS:
                    setattr(container.resources, f"{resource}_{kind}", amount)
                    yield f"resources.{resource}_{kind}"
                    continue
                amounts = getattr(container.resources, f"{kind}s")
                amounts[resource] = amount
                if not amount:
                    del amounts[resource]
                yield f"resources.{kind}s"

    _change(name, namespace, change, validate_only, wait, times, output)


_HEAD = """\
# The fields of the container {name} that can be changed. Comments are ignored; an empty file changes nothing.
"""


def edit(
    name: ContainerName,
    namespace: Namespace = "",
    *,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Change a container in your editor (VISUAL, EDITOR); a refused change is opened again with the reason."""
    with connect() as client:
        before = client.containers.get(namespace=namespace_or_default(namespace), name=name)
        text = as_yaml(container_changes.editable(before))
        response = _edited(client, before, text, validate_only=validate_only, quiet=not output.is_table)
        if response is not None:
            _show(client, response, wait and not validate_only, times, output)


def _edited(
    client: Client, before: pb.Container, text: str, *, validate_only: bool, quiet: bool
) -> pb.UpdateContainerResponse | None:
    """Edits and sends the text until the change succeeds.

    Returns the response, or None if nothing was changed.

    Raises CommandError if the user gives up."""
    from pilothouse_client.errors import AbortedError, PilothouseError

    with tempfile.NamedTemporaryFile(
        "w", prefix=f"pilothouse-{before.name}-", suffix=".yaml", delete=False
    ) as file:
        path = Path(file.name)
    head, etag, original, may_repeat = _HEAD.format(name=before.name), before.etag, text, False
    while True:
        written = _in_editor(path, head, text)
        if not written.strip() or written == original:
            say(f"{before.name}: nothing changed", err=True)
            path.unlink()
            return None
        if written == text and not may_repeat:
            raise CommandError(f"the text was not corrected after the error; it is in {path}")
        text, may_repeat = written, False
        try:
            container = container_from_file(str(path))
            paths = container_changes.changed_fields(before, container)
            response = container_changes.send(
                client, before, container, paths, etag=etag, validate_only=validate_only, quiet=quiet
            )
        except AbortedError as error:
            # Only fields that the user has changed are sent, so changes that others made to other fields stay.
            now = client.containers.get(namespace=before.namespace, name=before.name)
            others = ", ".join(container_changes.changed_fields(before, now)) or "its state"
            why = f"{error.message}; changed by others: {others}. Save it again to send your fields."
            head, etag, may_repeat = _refused(before.name, why), now.etag, True
        except (PilothouseError, CommandError) as error:
            head = _refused(before.name, str(error).replace(str(path), "the file"))
        else:
            path.unlink()
            return response


def _refused(name: str, why: str) -> str:
    return _HEAD.format(name=name) + "".join(f"# error: {line}\n" for line in why.splitlines())


def _in_editor(path: Path, head: str, text: str) -> str:
    """Opens the text in an editor.

    Returns it after the editor has ended, without the leading comments."""
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    path.write_text(head + text, encoding="utf-8")
    try:
        ended = subprocess.run([*words, str(path)], check=False)
    except OSError as error:
        raise CommandError(f"cannot run {words[0]}: {error.strerror}; set EDITOR") from error
    if ended.returncode:
        raise CommandError(f"{words[0]} exited with {ended.returncode}, so nothing was changed")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "".join(lines)
