"""Containers, their history and images: value ↔ protobuf, for the fields that differ between the two."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers import model
from pilothouse_server.containers.job_status import ContainerRun
from pilothouse_server.containers.volume_attachment import shows_volumes, volumes_attachable
from pilothouse_server.containers.workload_settings import WorkloadKind
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes.conditions import WARNED, warnings_of
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.program_observation import ProgramObservation
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences, EnumWords
from pilothouse_server.rpc.encoding import AnswerField, duration
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.values.programs import ProgramStatus
from pilothouse_server.values.resources import Condition, ObjectWarning

KIND: EnumWords[WorkloadKind] = EnumWords(WorkloadKind, pb.WorkloadKind.DESCRIPTOR)
STATUS: EnumWords[model.Status] = EnumWords(model.Status, pb.ContainerStatus.DESCRIPTOR)


def _conditions(value: model.Container) -> tuple[Condition, ...]:
    attachable = volumes_attachable(value)
    shown = tuple(each for each in value.observed.conditions if each.type != WARNED)
    return shown if attachable is None else (*shown, attachable)


def _warnings(value: model.Container) -> tuple[ObjectWarning, ...]:
    return warnings_of(value.observed.conditions)


def _uptime(value: model.Container) -> timedelta | None:
    return _time_since(value.observed.status, value.observed.started_at)


def _time_since(status: model.Status, started_at: datetime | None) -> timedelta | None:
    if status != "running" or started_at is None:
        return None
    # The start is a time of the cluster's clock, which may be ahead.
    return max(timedelta(0), datetime.now(UTC) - started_at)


_PROBE_WORDS = "one of http_get, tcp_socket, exec, grpc must be set"
_HOOK_WORDS = "one of exec, http_get, sleep must be set"
_VOLUME_WORDS = "one of config_map, secret, projected, downward_api, existing_claim must be set"
_SOURCE_WORDS = "one of config_map, secret, downward_api, service_account_token must be set"


def _check_choices(message: pb.Container) -> None:
    """Refuses probes and hooks without a handler, and volumes without a source."""
    for number, volume in enumerate(message.pod_volumes):
        if volume.WhichOneof("source") is None:
            raise invalid(f"container.pod_volumes[{number}].source", _VOLUME_WORDS, reason="REQUIRED")
        for index, each in enumerate(volume.projected.sources):
            if each.WhichOneof("source") is None:
                field = f"container.pod_volumes[{number}].projected.sources[{index}].source"
                raise invalid(field, _SOURCE_WORDS, reason="REQUIRED")
    _check_program("container", message)
    for number, sidecar in enumerate(message.sidecars):
        _check_program(f"container.sidecars[{number}]", sidecar)
    for number, init in enumerate(message.init_containers):
        _check_program(f"container.init_containers[{number}]", init)


def _check_program(field: str, program: pb.Container | pb.Program | pb.InitContainer) -> None:
    for part, words in (("probes", _PROBE_WORDS), ("lifecycle", _HOOK_WORDS)):
        if program.HasField(part):  # type: ignore[arg-type]
            for given, value in getattr(program, part).ListFields():
                if value.WhichOneof("handler") is None:
                    raise invalid(f"{field}.{part}.{given.name}", words, reason="REQUIRED")


_PROGRAM_STATUS = AnswerConverter(ProgramStatus, pb.ProgramStatus)
CONTAINER: Converter[model.Container, pb.Container] = Converter(
    model.Container,
    pb.Container,
    Differences(
        within=("spec", "observed"),
        computed={"conditions": _conditions, "uptime": _uptime, "warnings": _warnings},
        struct_only=(
            *("id", "namespace_ref", "updated_by", "row_version"),
            # Internal state: callers see its effects in other fields.
            *("volumes", "desired_state", "hold_rollout", "imported", "spec.restarted_at", "spec.taken_over"),
            *("spec.rights", "spec.replaced_generation", "spec.run", "spec.most_replicas", "revision_number"),
            "observed.conditions",
        ),
        check=_check_choices,
    ),
    parts=(wire.CONDITION, wire.WARNING, _PROGRAM_STATUS),
)
_CREATED_BY, _UPTIME = AnswerField(pb.Container, "created_by"), AnswerField(pb.Container, "uptime")


def _added_to(ready: model.CachedContainer) -> bytes:
    added = _made_by(ready.created_by) if ready.created_by else b""
    uptime = _time_since(ready.status, ready.started_at)
    return added if uptime is None else added + _UPTIME.answer(duration(uptime))


# Many containers have the same few creators.
@lru_cache(maxsize=1024)
def _made_by(username: str) -> bytes:
    return _CREATED_BY.answer(username.encode())


# The creator's name and the time since the start change without the container, so they are added to each response. A
# condition about the container's volumes changes with the volumes, so containers that show it are not cached.
CACHE: MessageCache[model.Container, pb.Container] = MessageCache(
    CONTAINER,
    ("created_by", "uptime"),
    keeps=lambda value: not shows_volumes(value),
    added_to=_added_to,
)
STATUS_CHANGE = AnswerConverter(
    model.StatusChange,
    pb.StatusChange,
    Differences(names={"previous_status": "previous", "current_status": "current"}),
)
RUN = AnswerConverter(ContainerRun, pb.Run)


def _one(_program: ProgramObservation) -> int:
    return 1


def _ready(program: ProgramObservation) -> int:
    return int(program.ready)


_PROGRAM_OF_POD = AnswerConverter(
    ProgramObservation,
    pb.ProgramStatus,
    Differences(
        computed={"pods": _one, "ready_pods": _ready},
        message_only=("pod",),
        struct_only=("ready",),
    ),
)
_POD = AnswerConverter(
    PodObservation,
    pb.Pod,
    Differences(
        names={"end_time": "finished_at"},
        message_only=("stale_since",),
        struct_only=("deleting", "restarted_at", "exit_code"),
    ),
    parts=(_PROGRAM_OF_POD,),
)


def pod_to_proto(container: model.Container) -> Callable[[PodObservation], pb.Pod]:
    """Returns the function that converts pods of this container."""
    since = container.observed.stale_since

    def to_proto(pod: PodObservation) -> pb.Pod:
        message = _POD.to_proto(pod)
        if since is not None:
            message.stale_since.FromDatetime(since)
        return message

    return to_proto


IMAGE = AnswerConverter(model.Image, pb.Image, Differences(struct_only=("id",)))
