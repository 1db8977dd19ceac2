"""Asks a container's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run of every object checks schema, admission, quota and immutable fields. What was written to try
it out is undone before, so that no lock is held while a cluster is waited for.
"""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.dry_run import dry_run_container, dry_run_container_deletion


async def check_on_cluster(connect: Connect, container: Container) -> None:
    """Have the container's cluster try it out, or its deletion if it is being deleted, and change nothing.

    Raises as `tried`.
    """
    dry_run = dry_run_container if container.deletion_requested_at is None else dry_run_container_deletion
    await tried(connect, container.cluster_name, lambda client: dry_run(client, container))
