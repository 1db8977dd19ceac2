"""Asks a container's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run of every object checks schema, admission, quota and immutable fields. It happens in a
transaction that is rolled back afterwards, so it has a deadline of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from pilothouse_server.cluster.dry_run import dry_run_container
from pilothouse_server.cluster.errors import ClusterError, Invalid, Refused, Unreachable
from pilothouse_server.containers.live import Connect, caller_error
from pilothouse_server.containers.model import Container
from pilothouse_server.errors import FailedPrecondition, InvalidArgument, PilothouseError, Violation

T = TypeVar("T")

SECONDS = 10.0


async def check_on_cluster(connect: Connect, container: Container) -> None:
    """Have the container's cluster try it out, and change nothing.

    Raises:
        InvalidArgument: the cluster finds its objects wrong; with its words and the fields it names.
        FailedPrecondition: the cluster refuses them: a quota, a policy, a right, a name that is taken.
        Unavailable: the cluster does not answer.
    """
    name = container.cluster_name
    try:
        client = await connect(name)
        await within(dry_run_container(client, container), name)
    except ClusterError as error:
        raise refusal(error, name) from error


async def within(work: Awaitable[T], cluster: str, seconds: float = SECONDS) -> T:
    """The outcome of calls of a cluster, if they come in time. Raises ClusterError."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise Unreachable(f"cluster {cluster!r} did not answer within {seconds:g} s") from None


def refusal(error: ClusterError, cluster: str) -> PilothouseError:
    """What the caller hears of a cluster's no: its own words, with the fields that it names."""
    if not isinstance(error, Refused):
        return caller_error(error, cluster)
    violations = [
        Violation(cause.field, cause.reason, cause.message) for cause in error.causes if cause.field
    ]
    metadata = {"cluster": cluster, "cluster_reason": error.reason, "fields": fields(violations)}
    message = f'cluster "{cluster}" would refuse it: {error.message}'
    if isinstance(error, Invalid):
        return InvalidArgument(message, reason="CLUSTER_REFUSED", metadata=metadata, violations=violations)
    return FailedPrecondition(message, reason="CLUSTER_REFUSED", metadata=metadata, violations=violations)


def fields(violations: Iterable[Violation]) -> str:
    """The fields of violations as one word of metadata."""
    return ",".join(violation.field for violation in violations)
