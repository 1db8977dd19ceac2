"""Changes of a container: its fields in the form of a file, and the function that sends them.

The server returns the differences of an update. With `--validate-only`, the command also prints a diff of the fields as
YAML, for which it first reads the current container.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.options.v1 import options_pb2
from pilothouse_client.commands.change_report import report_changes
from pilothouse_client.commands.output import as_data, as_yaml
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client

# Fields that `get` shows but that an update has outside the container's fields.
_APART = frozenset({"name", "namespace", "etag"})


@functools.cache
def editable_fields() -> tuple[str, ...]:
    """Returns the fields of a container that a caller may set, without its name, in the order of the API."""
    return tuple(
        field.name
        for field in pb.Container.DESCRIPTOR.fields
        if field.name not in _APART and not field.GetOptions().Extensions[options_pb2.field].output_only
    )


def editable(container: pb.Container) -> dict[str, Any]:
    """Returns the fields that a caller may set and that have a value, as data."""
    data = as_data(container, whole=False)
    return {name: data[name] for name in editable_fields() if name in data}


def changed_fields(before: pb.Container, after: pb.Container) -> list[str]:
    """Returns the paths of the update mask that turns `before` into `after`."""
    old, new = editable(before), editable(after)
    return [name for name in editable_fields() if old.get(name) != new.get(name)]


def diff(before: pb.Container, after: pb.Container) -> str:
    """Returns a unified diff of the fields as YAML; empty if they are the same."""
    old, new = (as_yaml(editable(each)).splitlines(keepends=True) for each in (before, after))
    name = f"container/{after.name}"
    return "".join(difflib.unified_diff(old, new, f"{name} (now)", f"{name} (then)"))


def send(
    client: Client,
    before: pb.Container,
    container: pb.Container,
    paths: Sequence[str],
    *,
    etag: str = "",
    replace: bool = False,
    validate_only: bool = False,
    quiet: bool = False,
    waits: bool = False,
) -> pb.UpdateContainerResponse:
    """Updates the fields at these paths, and writes the differences unless `quiet`.

    `waits`: the command itself waits for the rollout."""
    response = client.containers.update.send(
        pb.UpdateContainerRequest(
            namespace=before.namespace,
            name=before.name,
            container=container,
            update_mask=FieldMask(paths=sorted(set(paths))),
            etag=etag,
            replace=replace,
            validate_only=validate_only,
            include_changes=not quiet,
        )
    )
    if not quiet:
        if validate_only and before.image:
            say(diff(before, response.container), nl=False)
        report_changes(response, before.name, waits=waits)
    return response
