"""`pilothouse volumes`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import note, show_with_events
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.name_completion import complete_container, complete_volume
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    Watch,
    check_changes,
    complete_words,
    enum_number,
    namespace_or_default,
    pairs,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show, show_changes
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import enum_label, moment
from pilothouse_client.errors import PilothouseError

app = verbs.VerbGroup(no_args_is_help=True, help="Storage that containers mount: claims, files, folders.")
app.command("describe")(describe.of("volumes"))


def _size(volume: Any) -> str:
    if volume.capacity and volume.capacity != volume.size:
        return f"{volume.capacity} of {volume.size}"
    return str(volume.size)


def _why(volume: Any) -> str:
    stale = f"stale since {moment(volume.stale_since)}" if volume.HasField("stale_since") else ""
    gone = "being deleted" if volume.HasField("delete_time") else ""
    return "; ".join(filter(None, (volume.reason, stale, gone)))


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda volume: volume.namespace),
    OutputColumn("NAME", lambda volume: volume.name),
    OutputColumn("TYPE", lambda volume: enum_label(volume, "type").lower()),
    OutputColumn("STATUS", lambda volume: enum_label(volume, "status")),
    OutputColumn("SIZE", _size),
    OutputColumn("ACCESS", lambda volume: enum_label(volume, "access_mode").lower()),
    OutputColumn("CLASS", lambda volume: volume.storage_class or volume.claim_storage_class, wide=True),
    OutputColumn("MOUNTED BY", lambda volume: ",".join(volume.mounted_by)),
    OutputColumn("OWNER", lambda volume: volume.owner, wide=True),
    OutputColumn("REASON", _why),
    *AGE_COLUMNS,
]
_Name = Annotated[str, verbs.Argument(help="Name of the volume.", complete=complete_volume, metavar="VOLUME")]
_Container = Annotated[
    str,
    verbs.Argument(help="Name of the container.", complete=complete_container, metavar="CONTAINER"),
]
_Size = Annotated[
    str, verbs.Option("--size", help="Size of a claim, or maximum size of an emptyDir, such as 10Gi.")
]
_MountPath = Annotated[str, verbs.Option("--mount-path", help="Default mount path for attach.")]
_Labels = Annotated[list[str] | None, verbs.Option("--label", help="KEY=VALUE.")]
_Annotations = Annotated[list[str] | None, verbs.Option("--annotation", help="KEY=VALUE.")]


@app.command("create")
def create(
    name: _Name,
    namespace: Namespace = "",
    type_: Annotated[
        str,
        verbs.Option(
            "--type",
            complete=complete_words(pb.VolumeType),
            help="persistent-volume-claim, config-map, secret, empty-dir or host-path.",
        ),
    ] = "persistent-volume-claim",
    size: _Size = "",
    storage_class: Annotated[str, verbs.Option("--storage-class", help="Storage class of a claim.")] = "",
    access_mode: Annotated[
        str,
        verbs.Option(
            "--access-mode",
            help="read-write-once, read-only-many, read-write-many or read-write-once-pod; or Kubernetes' own word.",
        ),
    ] = "",
    source: Annotated[str, verbs.Option("--source", help="The config map or secret to show as files.")] = "",
    optional: Annotated[
        bool, verbs.Option("--optional", help="Start pods even if the config map or secret is missing.")
    ] = False,
    external: Annotated[
        bool, verbs.Option("--external", help="The config map or secret exists only on the cluster.")
    ] = False,
    host_path: Annotated[str, verbs.Option("--host-path", help="The folder of the node.")] = "",
    medium: Annotated[str, verbs.Option("--medium", help="Memory, for an emptyDir in memory.")] = "",
    mount_path: _MountPath = "",
    label: _Labels = None,
    annotation: _Annotations = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a volume: a claim of storage, unless --type names another type."""
    volume = pb.Volume(
        name=name,
        type=pb.VolumeType.ValueType(enum_number(pb.VolumeType, type_, "--type")),
        size=size,
        storage_class=storage_class,
        access_mode=pb.AccessMode.ValueType(enum_number(pb.AccessMode, access_mode, "--access-mode")),
        source_name=source,
        optional=optional,
        external=external,
        host_path=host_path,
        medium=medium,
        mount_path=mount_path,
        labels=pairs(label or [], "--label"),
        annotations=pairs(annotation or [], "--annotation"),
    )
    with connect() as client:
        made = client.storage.create_volume(
            namespace=namespace_or_default(namespace), volume=volume, validate_only=validate_only
        )
    show(made, COLUMNS, output)


@app.command("get")
def get(name: _Name, namespace: Namespace = "", watch: Watch = False, output: Output = Format.TABLE) -> None:
    """Show a volume with the Kubernetes events of its claim, or watch it."""
    where = namespace_or_default(namespace)
    with connect() as client:
        if not watch:
            answer = client.storage.get_volume.send(
                pb.GetVolumeRequest(namespace=where, name=name, include_events=True)
            )
            show_with_events(answer.volume, answer, COLUMNS, output)
            return
        with client.storage.watch_volumes(namespace=where, name=name) as changes:
            show_changes(changes, COLUMNS, output)


@app.command("list")
def list_volumes(
    *,
    options: NamespacedOptions,
    status: Annotated[
        str, verbs.Option("--status", complete=complete_words(pb.VolumeStatus), help="Such as bound.")
    ] = "",
) -> None:
    """List volumes, or watch them. Filter by name, type, status, storage_class, labels.KEY."""
    options.show(
        COLUMNS,
        lambda client: client.storage.list_volumes,
        lambda client: client.storage.watch_volumes,
        statuses=pb.VolumeStatus,
        status=status,
    )


@app.command("update")
def update(
    name: _Name,
    namespace: Namespace = "",
    size: _Size = "",
    mount_path: Annotated[
        str | None, verbs.Option("--mount-path", help="Default mount path for attach.")
    ] = None,
    label: _Labels = None,
    annotation: _Annotations = None,
    replace_lost_claim: Annotated[
        bool, verbs.Option("--replace-lost-claim", help="Create a new, empty claim in place of a lost one.")
    ] = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a volume. A claim can grow if its storage class permits it. New labels and annotations replace all."""
    paths = [
        path
        for path, given in (
            ("size", bool(size)),
            ("mount_path", mount_path is not None),
            ("labels", label is not None),
            ("annotations", annotation is not None),
        )
        if given
    ]
    check_changes(paths, replace_lost_claim)
    volume = pb.Volume(
        size=size,
        mount_path=mount_path or "",
        labels=pairs(label or [], "--label"),
        annotations=pairs(annotation or [], "--annotation"),
    )
    with connect() as client:
        changed = client.storage.update_volume(
            namespace=namespace_or_default(namespace),
            name=name,
            volume=volume,
            update_mask=FieldMask(paths=paths),
            replace_lost_claim=replace_lost_claim,
            etag=etag,
            validate_only=validate_only,
        )
    show(changed, COLUMNS, output)


_VOLUMES = many.ListedNoun(
    "volume",
    "volumes",
    COLUMNS,
    lambda client, where, selector: client.storage.list_volumes(namespace=where, label_selector=selector),
    complete_volume,
)
app.command("delete")(
    many.deletion_verb(
        _VOLUMES,
        "Delete volumes, with the data of their claims. A mounted volume is refused.",
        lambda client: client.storage.delete_volume,
        more=" with all that is in them",
    )
)


@app.command("attach")
def attach(
    name: _Name,
    container: _Container,
    namespace: Namespace = "",
    mount_path: Annotated[str, verbs.Option("--mount-path", help="Default: the volume's own.")] = "",
    read_only: Annotated[bool, verbs.Option("--read-only", help="Mount it read-only.")] = False,
    sub_path: Annotated[
        str, verbs.Option("--sub-path", help="A folder of the volume; default the whole volume.")
    ] = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Mount a volume into a container. This replaces its pods."""
    where = namespace_or_default(namespace)
    with connect() as client:
        answer = client.storage.attach_volume(
            namespace=where,
            name=name,
            container=container,
            mount_path=mount_path,
            read_only=read_only,
            sub_path=sub_path,
            validate_only=validate_only,
        )
        # A user who may attach may lack the permission to read, and a missing note is not worth a failure.
        with suppress(PilothouseError):
            note(client.containers.get(namespace=where, name=container))
    _say_replaced(container, answer.restarts)
    show(answer.volume, COLUMNS, output)


@app.command("detach")
def detach(
    name: _Name,
    container: _Container,
    namespace: Namespace = "",
    mount_path: Annotated[
        str, verbs.Option("--mount-path", help="Only this mount; default all mounts.")
    ] = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Unmount a volume from a container. This replaces its pods."""
    with connect() as client:
        answer = client.storage.detach_volume(
            namespace=namespace_or_default(namespace),
            name=name,
            container=container,
            mount_path=mount_path,
            validate_only=validate_only,
        )
    _say_replaced(container, answer.restarts)
    show(answer.volume, COLUMNS, output)


def _say_replaced(container: str, pods: int) -> None:
    """Writes to standard error how many pods are replaced, so that standard output has only the result."""
    if pods:
        say(f"{container}: {pods} {'pod is' if pods == 1 else 'pods are'} replaced", err=True)
