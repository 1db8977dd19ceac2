"""The results of an import of Deployments."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.messages import CONTAINER
from pilothouse_server.importing.operations import Candidate, refused

_UNSHOWN = ("a number of it is greater than it may be here",)


def shown(candidate: Candidate) -> Candidate:
    """Returns the candidate, refused where its container holds a number that no answer can."""
    if candidate.container is None:
        return candidate
    try:
        CONTAINER.to_proto(candidate.container)
    except (OverflowError, TypeError, ValueError):
        return refused(candidate, _UNSHOWN)
    return candidate


def imported_container(candidate: Candidate) -> pb.ImportedContainer:
    """One Deployment's outcome."""
    return pb.ImportedContainer(
        deployment=candidate.deployment,
        container=None if candidate.container is None else CONTAINER.to_proto(candidate.container),
        problems=candidate.problems,
        notes=candidate.notes,
        volumes=candidate.created.volumes,
        config_maps=candidate.created.config_maps,
        secrets=candidate.created.secrets,
    )
