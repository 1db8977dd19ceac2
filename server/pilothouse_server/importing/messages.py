"""Converts the results of imports of workloads, Services and objects to messages."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse_server.containers.messages import CONTAINER, KIND
from pilothouse_server.containers.workload_settings import WorkloadKind
from pilothouse_server.importing.objects import ObjectCandidate
from pilothouse_server.importing.operations import Candidate, refused
from pilothouse_server.importing.services import ServiceCandidate
from pilothouse_server.network.messages import SERVICE
from pilothouse_server.objects.messages import BASIC

_UNSHOWN = ("one of its numbers is outside the range that the API supports",)


def kinds_of(request: pb.ImportContainersRequest) -> tuple[WorkloadKind, ...]:
    """Returns the kinds of workloads that are imported."""
    given = dict.fromkeys(KIND.word[number] for number in request.kinds)
    return tuple(given) or ("deployment",)


def shown(candidate: Candidate) -> Candidate:
    """Returns the candidate; refused if its container has a number that a message cannot represent."""
    if candidate.container is None:
        return candidate
    try:
        CONTAINER.to_proto(candidate.container)
    except (OverflowError, TypeError, ValueError):
        return refused(candidate, _UNSHOWN)
    return candidate


def imported_container(candidate: Candidate) -> pb.ImportedContainer:
    """Returns the outcome for one workload."""
    answer = pb.ImportedContainer(
        deployment=candidate.deployment,
        container=None if candidate.container is None else CONTAINER.to_proto(candidate.container),
        problems=candidate.problems,
        notes=candidate.notes,
        volumes=candidate.created.volumes,
        config_maps=candidate.created.config_maps,
        secrets=candidate.created.secrets,
    )
    answer.kind = pb.WorkloadKind.Value(f"WORKLOAD_KIND_{candidate.kind.upper()}")
    return answer


def shown_service(candidate: ServiceCandidate) -> ServiceCandidate:
    """Returns the candidate; refused if its Service has a number that a message cannot represent."""
    try:
        imported_service(candidate)
    except (OverflowError, TypeError, ValueError):
        return ServiceCandidate(candidate.name, problems=_UNSHOWN)
    return candidate


def imported_service(candidate: ServiceCandidate) -> network_pb2.ImportedService:
    """Returns the outcome for one Service."""
    return network_pb2.ImportedService(
        name=candidate.name,
        service=None if candidate.service is None else SERVICE.to_proto(candidate.service),
        problems=candidate.problems,
        notes=candidate.notes,
    )


def imported_object(candidate: ObjectCandidate) -> object_pb2.ImportedObject:
    """Returns the outcome for one object."""
    return object_pb2.ImportedObject(
        name=candidate.name,
        object=None if candidate.carried is None else BASIC.to_proto(candidate.carried),
        problems=candidate.problems,
        notes=candidate.notes,
    )
