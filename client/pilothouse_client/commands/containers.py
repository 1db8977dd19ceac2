"""`pilothouse containers`: making, showing and changing them.

The commands that move them between states are in `container_actions`.
"""

from __future__ import annotations

from typing import Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import (
    container_actions,
    container_changes,
    container_exec,
    container_import,
    container_logs,
    container_pods,
    container_revisions,
    container_set,
    container_spec,
    describe,
    verbs,
)
from pilothouse_client.commands.container_columns import (
    COLUMNS,
    DETAILS_COLUMNS,
    HISTORY_COLUMNS,
    PROGRAM_COLUMNS,
    ContainerName,
    Times,
    programs,
    wait_and_show,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import note, show_with_events
from pilothouse_client.commands.options import (
    AllNamespaces,
    Etag,
    Filter,
    Format,
    Limit,
    Namespace,
    OrderBy,
    Output,
    Selector,
    StableSeconds,
    ValidateOnly,
    Wait,
    WaitSeconds,
    Watch,
    check_changes,
    check_watch,
    complete_words,
    enum_number,
    namespace_or_all,
    namespace_or_default,
    with_status,
)
from pilothouse_client.commands.output import show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.waiting import Goal

app = verbs.VerbGroup(no_args_is_help=True, help="Workloads: create, change, start, stop, watch.")
app.command("describe")(describe.of("containers"))
container_actions.add_to(app)
container_revisions.add_to(app)
container_set.add_to(app)
app.command("import")(container_import.import_deployments)
app.command("logs")(container_logs.logs)
app.command("pods")(container_pods.list_pods)
app.command("exec", context_settings={"ignore_unknown_options": True})(container_exec.execute)
_Args = Annotated[list[str] | None, verbs.Argument(help="Arguments in place of the image's, after --.")]


@app.command("create")
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


@app.command("update")
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


@app.command("get")
def get(
    name: ContainerName, namespace: Namespace = "", watch: Watch = False, output: Output = Format.TABLE
) -> None:
    """Show a container with the programs of its pods and its Kubernetes events, or watch it."""
    where = namespace_or_default(namespace)
    with connect() as client:
        if not watch:
            answer = client.containers.get.send(
                pb.GetContainerRequest(namespace=where, name=name, include_events=True)
            )
            found = answer.container
            show_with_events(found, answer, COLUMNS, output, programs(found), PROGRAM_COLUMNS)
            if found.message:
                say(plain(f"{name}: {found.reason}: {found.message}"), err=True)
            note(found, found.warnings)
            return
        with client.containers.watch(namespace=where, name=name) as changes:
            show_changes(changes, COLUMNS, output)


@app.command("list")
def list_containers(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    status: Annotated[
        str, verbs.Option("--status", complete=complete_words(pb.ContainerStatus), help="Such as running.")
    ] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 0,
    watch: Watch = False,
    output: Output = Format.TABLE,
) -> None:
    """List containers, or watch them. Filter by name, status, phase, reason, image, labels.KEY."""
    where = namespace_or_all(namespace, all_namespaces)
    number = pb.ContainerStatus.ValueType(enum_number(pb.ContainerStatus, status, "--status"))
    with connect() as client:
        if watch:
            check_watch(filter_, order_by, limit, goes_with="--selector and --status")
            with client.containers.watch(namespace=where, label_selector=selector, status=number) as changes:
                show_changes(changes, COLUMNS, output)
            return
        narrowed = with_status(filter_, pb.ContainerStatus, number)
        containers = client.containers.list(
            namespace=where,
            label_selector=selector,
            filter=narrowed,
            order_by=order_by,
        )
        show_all(containers, COLUMNS, output, limit)


@app.command("history")
def history(
    name: ContainerName, namespace: Namespace = "", limit: Limit = 0, output: Output = Format.TABLE
) -> None:
    """Show how a container's status changed, newest first."""
    with connect() as client:
        changes = client.containers.list_status_history(namespace=namespace_or_default(namespace), name=name)
        show_all(changes, HISTORY_COLUMNS, output, limit)


@app.command("details")
def details(name: ContainerName, namespace: Namespace = "", output: Output = Format.TABLE) -> None:
    """Show a container with its image, creator, uptime and newest usage."""
    with connect() as client:
        found = client.metrics.get_container_details(namespace=namespace_or_default(namespace), name=name)
        show(found, DETAILS_COLUMNS, output)
