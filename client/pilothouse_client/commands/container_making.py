"""`pilothouse containers create` and `update`."""

from __future__ import annotations

from typing import Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import (
    container_actions,
    container_changes,
    container_spec,
    verbs,
)
from pilothouse_client.commands.container_columns import (
    COLUMNS,
    ContainerName,
    Times,
    wait_and_show,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import note
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    Wait,
    check_changes,
    namespace_or_default,
)
from pilothouse_client.commands.output import show
from pilothouse_client.commands.terminal import say
from pilothouse_client.waiting import Goal


def create(
    name: ContainerName,
    namespace: Namespace = "",
    from_file: container_spec.FromFile = "",
    *,
    specification: container_spec.Specification,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Create and start a container."""
    container = container_spec.container_from_file(from_file) if from_file else pb.Container()
    container.name = name
    specification.write_to(container)
    if not container.image:
        raise CommandError("name the image with --image, or in the file", 2)
    with connect() as client:
        response = client.containers.create.send(
            pb.CreateContainerRequest(
                namespace=namespace_or_default(namespace), container=container, validate_only=validate_only
            )
        )
        made = response.container
        goal = Goal.RUNNING if wait and not validate_only else None
        note(made, response.warnings)
        wait_and_show(client, made, goal, times, output)


def update(
    name: ContainerName,
    namespace: Namespace = "",
    from_file: container_spec.FromFile = "",
    *,
    specification: container_spec.Specification,
    remove_env: Annotated[
        list[str] | None, verbs.Option("--remove-env", metavar="KEY", help="Remove a variable; repeat.")
    ] = None,
    remove_label: Annotated[
        list[str] | None, verbs.Option("--remove-label", metavar="KEY", help="Remove a label; repeat.")
    ] = None,
    replace: Annotated[
        bool,
        verbs.Option(
            "--replace",
            help="Change immutable settings: delete a StatefulSet, but not its pods and claims, and recreate it; "
            "without other changes: restore one that others created differently.",
        ),
    ] = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    times: Times,
    output: Output = Format.TABLE,
) -> None:
    """Change a container.

    New variables, labels and annotations are added; new ports, mounts and image pull secrets replace all existing ones.
    A file, as `containers get -o yaml` writes it, replaces all fields: those that it lacks are cleared.
    """
    where = namespace_or_default(namespace)
    with connect() as client:
        container, paths = pb.Container(name=name), []
        before = pb.Container()
        quiet = not output.is_table
        needs = specification.merges or remove_env or remove_label or from_file
        if needs or (validate_only and not quiet):
            before = client.containers.get(namespace=where, name=name)
        if specification.merges or remove_env or remove_label:
            # The etag prevents this update from undoing another client's change between reading and writing.
            container.CopyFrom(before)
            etag = etag or before.etag
        if from_file:
            container = container_spec.container_from_file(from_file)
            etag = etag or container.etag or before.etag
            paths += container_changes.changed_fields(before, container)
        paths += specification.write_to(container)
        paths += _remove(container, remove_env or [], remove_label or [])
        check_changes(paths, replace, from_file)
        if from_file and not paths and not replace:
            say(f"{name}: nothing changed", err=True)
            show(before, COLUMNS, output)
            return
        before.namespace, before.name = where, name
        response = container_changes.send(
            client,
            before,
            container,
            paths,
            etag=etag,
            replace=replace,
            validate_only=validate_only,
            quiet=quiet,
            waits=wait,
        )
        changed = response.container
        goal = container_actions.goal_of_change(changed) if wait and not validate_only else None
        note(changed, response.warnings)
        container_actions.show_claims(response)
        wait_and_show(client, changed, goal, times, output)


def _remove(container: pb.Container, variables: list[str], labels: list[str]) -> list[str]:
    paths = []
    if variables:
        kept = [variable for variable in container.env if variable.name not in variables]
        del container.env[:]
        container.env.extend(kept)
        paths.append("env")
    for key in labels:
        container.labels.pop(key, None)
        paths.append("labels")
    return paths
