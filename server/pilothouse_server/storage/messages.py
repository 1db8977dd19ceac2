"""Volumes: value ↔ protobuf."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.errors import missing
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import etag
from pilothouse_server.storage.model import Status, Volume
from pilothouse_server.values.volumes import AccessMode, VolumeType

UPDATABLE = frozenset({"size", "mount_path", "labels", "annotations"})

_TYPE: dict[VolumeType, pb.VolumeType.ValueType] = {
    "persistent_volume_claim": pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
    "config_map": pb.VOLUME_TYPE_CONFIG_MAP,
    "secret": pb.VOLUME_TYPE_SECRET,
    "host_path": pb.VOLUME_TYPE_HOST_PATH,
    "empty_dir": pb.VOLUME_TYPE_EMPTY_DIR,
}
_TYPE_OF: dict[int, VolumeType] = {number: word for word, number in _TYPE.items()}
_ACCESS_MODE: dict[AccessMode, pb.AccessMode.ValueType] = {
    "ReadWriteOnce": pb.ACCESS_MODE_READ_WRITE_ONCE,
    "ReadOnlyMany": pb.ACCESS_MODE_READ_ONLY_MANY,
    "ReadWriteMany": pb.ACCESS_MODE_READ_WRITE_MANY,
}
_ACCESS_MODE_OF: dict[int, AccessMode] = {number: word for word, number in _ACCESS_MODE.items()}
_STATUS: dict[Status, pb.VolumeStatus.ValueType] = {
    "available": pb.VOLUME_STATUS_AVAILABLE,
    "bound": pb.VOLUME_STATUS_BOUND,
    "failed": pb.VOLUME_STATUS_FAILED,
    "deleted": pb.VOLUME_STATUS_DELETED,
}
STATUS_OF: dict[int, Status] = {number: word for word, number in _STATUS.items()}


def volume(value: Volume) -> pb.Volume:
    """A volume as protobuf."""
    observed = value.observed
    return pb.Volume(
        name=value.name,
        namespace=value.namespace,
        uid=value.uid,
        type=_TYPE[value.type],
        storage_class=value.storage_class,
        size=value.size,
        access_mode=_ACCESS_MODE[value.access_mode] if value.access_mode else pb.ACCESS_MODE_UNSPECIFIED,
        mount_path=value.mount_path,
        host_path=value.host_path,
        source_name=value.source_name,
        medium=value.medium,
        labels=value.labels,
        annotations=value.annotations,
        status=_STATUS[observed.status],
        reason=observed.reason,
        message=observed.message,
        capacity=observed.capacity,
        kubernetes_name=value.kubernetes_name,
        claim_storage_class=observed.storage_class,
        claim_uid=observed.claim_uid,
        persistent_volume=observed.persistent_volume,
        conditions=wire.conditions(observed.conditions),
        mounted_by=value.mounted_by,
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        delete_time=wire.timestamp(value.deletion_requested_at),
        created_by=value.created_by,
        etag=etag(value.uid, value.resource_version),
        generation=value.generation,
        observed_generation=value.observed_generation,
        reconciling=value.reconciling,
        stale_since=wire.timestamp(observed.stale_since),
    )


def render(value: Volume) -> bytes:
    """A volume as an event holds it."""
    return volume(value).SerializeToString()


def wanted(message: pb.Volume) -> Volume:
    """What a caller asks for; what only the server sets is left at its default.

    Raises:
        InvalidArgument: no type.
    """
    type_ = _TYPE_OF.get(message.type)
    if type_ is None:
        raise missing("volume.type")
    return Volume(
        name=message.name,
        type=type_,
        storage_class=message.storage_class,
        access_mode=_ACCESS_MODE_OF.get(message.access_mode, ""),
        host_path=message.host_path,
        source_name=message.source_name,
        medium=message.medium,
        size=message.size,
        mount_path=message.mount_path,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def merger(message: pb.Volume, paths: Sequence[str]) -> Callable[[Volume], Volume]:
    """What takes the fields that `paths` names over from `message`."""
    values: dict[str, object] = {
        "size": message.size,
        "mount_path": message.mount_path,
        "labels": dict(message.labels),
        "annotations": dict(message.annotations),
    }
    return lambda stored: msgspec.structs.replace(stored, **{path: values[path] for path in paths})
