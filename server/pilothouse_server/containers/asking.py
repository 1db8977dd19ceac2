"""Asks a container's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run of every object checks schema, admission, quota and immutable fields. What was written to try
it out is undone before, so that no lock is held while a cluster is waited for.
"""

from __future__ import annotations

from pilothouse_server.cluster.dry_run import dry_run_container
from pilothouse_server.cluster.errors import ClusterError
from pilothouse_server.clusters.refusals import refusal, within
from pilothouse_server.containers.live import Connect
from pilothouse_server.containers.model import Container


async def check_on_cluster(connect: Connect, container: Container) -> None:
    """Have the container's cluster try it out, and change nothing.

    Raises:
        InvalidArgument: the cluster finds its objects wrong; with its words and the fields it names.
        FailedPrecondition: the cluster refuses them: a quota, a policy, a right, a name that is taken.
        Unavailable: the cluster does not answer.
    """
    name = container.cluster_name
    try:
        await within(dry_run_container(await connect(name), container), name)
    except ClusterError as error:
        raise refusal(error, name) from error
