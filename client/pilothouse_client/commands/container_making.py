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
    StableSeconds,
    ValidateOnly,
    Wait,
    WaitSeconds,
    check_changes,
    namespace_or_default,
)
from pilothouse_client.commands.output import show
from pilothouse_client.commands.terminal import say
from pilothouse_client.waiting import Goal

_Args = Annotated[list[str] | None, verbs.Argument(help="Arguments in place of the image's, after --.")]


def create(
    name: ContainerName,
    args: _Args = None,
    image: container_spec.Image = None,
    namespace: Namespace = "",
    from_file: container_spec.FromFile = "",
    display_name: container_spec.DisplayName = None,
    command: container_spec.Command = None,
    env: container_spec.Env = None,
    env_config: container_spec.EnvConfig = None,
    env_secret: container_spec.EnvSecret = None,
    port: container_spec.PortOption = None,
    service_type: container_spec.ServiceTypeOption = "",
    mount: container_spec.Mount = None,
    cpu_request: container_spec.CpuRequest = None,
    cpu_limit: container_spec.CpuLimit = None,
    memory_request: container_spec.MemoryRequest = None,
    memory_limit: container_spec.MemoryLimit = None,
    replicas: container_spec.Replicas = None,
    label: container_spec.LabelOption = None,
    annotation: container_spec.AnnotationOption = None,
    service_account: container_spec.ServiceAccount = None,
    image_pull_secret: container_spec.PullSecret = None,
    priority_class: container_spec.PriorityClass = None,
    pod_label: container_spec.PodLabelOption = None,
    pod_annotation: container_spec.PodAnnotationOption = None,
    env_from_config: container_spec.EnvFromConfig = None,
    env_from_secret: container_spec.EnvFromSecret = None,
    request: container_spec.ResourceRequest = None,
    resource_limit: container_spec.ResourceLimit = None,
    strategy: container_spec.Strategy = None,
    max_surge: container_spec.MaxSurge = None,
    max_unavailable: container_spec.MaxUnavailable = None,
    kind: container_spec.Kind = "",
    setting: container_spec.Setting = None,
    claim: container_spec.Claim = None,
    automount_token: container_spec.AutomountToken = None,
    extra: container_spec.Extra = None,
    drift_policy: container_spec.DriftPolicyOption = None,
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    stable_for: StableSeconds = 10.0,
    output: Output = Format.TABLE,
) -> None:
    """Make a container and start it."""
    container = container_spec.container_from_file(from_file) if from_file else pb.Container()
    container.name = name
    container_spec.Specification(
        image=image,
        display_name=display_name,
        command=command,
        args=args,
        env=env,
        env_config=env_config,
        env_secret=env_secret,
        ports=port,
        service_type=service_type,
        mounts=mount,
        resources={
            "cpu_request": cpu_request,
            "cpu_limit": cpu_limit,
            "memory_request": memory_request,
            "memory_limit": memory_limit,
        },
        replicas=replicas,
        labels=label,
        annotations=annotation,
        service_account=service_account,
        image_pull_secrets=image_pull_secret,
        priority_class=priority_class,
        pod_labels=pod_label,
        pod_annotations=pod_annotation,
        env_from_config=env_from_config,
        env_from_secret=env_from_secret,
        requests=request,
        limits=resource_limit,
        deployment={"strategy": strategy, "max_surge": max_surge, "max_unavailable": max_unavailable},
        kind=kind,
        settings=setting,
        claims=claim,
        automount_token=automount_token,
        extra=extra,
        drift_policy=drift_policy,
    ).write_to(container)
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
        wait_and_show(client, made, goal, Times(wait_timeout, stable_for), output)


def update(
    name: ContainerName,
    args: _Args = None,
    image: container_spec.Image = None,
    namespace: Namespace = "",
    from_file: container_spec.FromFile = "",
    display_name: container_spec.DisplayName = None,
    command: container_spec.Command = None,
    env: container_spec.Env = None,
    env_config: container_spec.EnvConfig = None,
    env_secret: container_spec.EnvSecret = None,
    remove_env: Annotated[
        list[str] | None, verbs.Option("--remove-env", metavar="KEY", help="Repeat.")
    ] = None,
    port: container_spec.PortOption = None,
    service_type: container_spec.ServiceTypeOption = "",
    mount: container_spec.Mount = None,
    cpu_request: container_spec.CpuRequest = None,
    cpu_limit: container_spec.CpuLimit = None,
    memory_request: container_spec.MemoryRequest = None,
    memory_limit: container_spec.MemoryLimit = None,
    replicas: container_spec.Replicas = None,
    label: container_spec.LabelOption = None,
    remove_label: Annotated[
        list[str] | None, verbs.Option("--remove-label", metavar="KEY", help="Repeat.")
    ] = None,
    annotation: container_spec.AnnotationOption = None,
    service_account: container_spec.ServiceAccount = None,
    image_pull_secret: container_spec.PullSecret = None,
    priority_class: container_spec.PriorityClass = None,
    pod_label: container_spec.PodLabelOption = None,
    pod_annotation: container_spec.PodAnnotationOption = None,
    env_from_config: container_spec.EnvFromConfig = None,
    env_from_secret: container_spec.EnvFromSecret = None,
    request: container_spec.ResourceRequest = None,
    resource_limit: container_spec.ResourceLimit = None,
    strategy: container_spec.Strategy = None,
    max_surge: container_spec.MaxSurge = None,
    max_unavailable: container_spec.MaxUnavailable = None,
    setting: container_spec.Setting = None,
    claim: container_spec.Claim = None,
    replace: Annotated[
        bool,
        verbs.Option(
            "--replace",
            help="Change settings that are immutable: delete a StatefulSet, without its pods and claims, and "
            "create it again; alone: bring back one that others made.",
        ),
    ] = False,
    automount_token: container_spec.AutomountToken = None,
    extra: container_spec.Extra = None,
    drift_policy: container_spec.DriftPolicyOption = None,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    stable_for: StableSeconds = 10.0,
    output: Output = Format.TABLE,
) -> None:
    """Change a container.

    Variables, labels and annotations are added; ports, mounts and image pull secrets replace all it has. A file has all
    fields that it shall have, as `containers get -o yaml` writes them.
    """
    specification = container_spec.Specification(
        image=image,
        display_name=display_name,
        command=command,
        args=args,
        env=env,
        env_config=env_config,
        env_secret=env_secret,
        ports=port,
        service_type=service_type,
        mounts=mount,
        resources={
            "cpu_request": cpu_request,
            "cpu_limit": cpu_limit,
            "memory_request": memory_request,
            "memory_limit": memory_limit,
        },
        replicas=replicas,
        labels=label,
        annotations=annotation,
        service_account=service_account,
        image_pull_secrets=image_pull_secret,
        priority_class=priority_class,
        pod_labels=pod_label,
        pod_annotations=pod_annotation,
        env_from_config=env_from_config,
        env_from_secret=env_from_secret,
        requests=request,
        limits=resource_limit,
        deployment={"strategy": strategy, "max_surge": max_surge, "max_unavailable": max_unavailable},
        settings=setting,
        claims=claim,
        automount_token=automount_token,
        extra=extra,
        drift_policy=drift_policy,
    )
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
        wait_and_show(client, changed, goal, Times(wait_timeout, stable_for), output)


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
