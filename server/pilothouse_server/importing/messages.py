"""What became of Deployments that were to be imported."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.messages import CONTAINER
from pilothouse_server.importing.operations import Candidate


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
