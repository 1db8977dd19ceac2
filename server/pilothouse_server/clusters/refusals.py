"""Errors for a caller that waits for a cluster: no response in time, or a refusal.

Only few calls wait for a cluster (`validate_only`, import); failures of the reconciler appear as conditions instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pilothouse_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    PilothouseError,
    Unavailable,
    Violation,
)
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    Away,
    ClusterError,
    InternalError,
    Invalid,
    Refused,
    Throttled,
    Unreachable,
)
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.values.resources import NamespaceRef

T = TypeVar("T")
# Returns why the cluster of this name is known not to respond; None if it is not known to be away.
KnownAway = Callable[[str], Away | None]
# Returns a client of the cluster of this name. Raises ClusterError if the cluster cannot be reached, or refuses the
# credentials.
Connect = Callable[[str], Awaitable[ClusterClient]]

# Runs before a call uses the cluster of this name, and acquires its seat. Raises ResourceExhausted.
BeforeCluster = Callable[[str], Awaitable[None]]

SECONDS = 10.0
# The retry delay that callers get for a cluster that is away.
AWAY_SECONDS = 5.0


def unless_away(connect: Connect, known_away: KnownAway) -> Connect:
    """Returns `connect` for calls: it raises Away immediately for a cluster that is known to be away."""

    async def connected(cluster: str) -> ClusterClient:
        if (away := known_away(cluster)) is not None:
            raise away
        return await connect(cluster)

    return connected


def in_a_seat(connect: Connect, before: BeforeCluster) -> Connect:
    """Returns `connect` for calls, each of which first acquires a seat of its cluster."""

    async def connected(cluster: str) -> ClusterClient:
        await before(cluster)
        return await connect(cluster)

    return connected


async def within(work: Awaitable[T], cluster: str, seconds: float = SECONDS) -> T:
    """Returns the result of calls to a cluster, if they end in time. Raises ClusterError."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise Unreachable(f"cluster {cluster!r} did not respond within {seconds:g} s") from None


async def tried(
    connect: Connect,
    namespace_ref: NamespaceRef,
    trial: Callable[[ClusterClient], Awaitable[T]],
) -> T:
    """Returns the result of a trial in a namespace.

    Nothing is tried in a Kubernetes namespace of another owner.

    Raises:
        InvalidArgument: the cluster finds an object wrong; with its message and the fields that it names.
        FailedPrecondition: the cluster refuses it: a quota, a policy, a right, a name that is taken.
        Unavailable: the cluster does not respond.
    """

    async def in_own_namespace() -> T:
        client = await connect(namespace_ref.cluster_name)
        await refuse_foreign(client, namespace_ref)
        return await trial(client)

    try:
        return await within(in_own_namespace(), namespace_ref.cluster_name)
    except ClusterError as error:
        raise refusal(error, namespace_ref.cluster_name) from error


def refusal(error: ClusterError, cluster: str) -> PilothouseError:
    """Returns the error for the caller: the cluster's state and message, with the fields that it names.

    The error is InvalidArgument if the cluster finds an object wrong; FailedPrecondition if a quota, a policy, a right
    or a taken name prevents it, or the credentials are refused; Unavailable if the cluster does not respond, or a
    webhook behind it does not.
    """
    metadata = {"cluster": cluster}
    if (unavailable := unavailability(error, cluster)) is not None:
        return unavailable
    causes = error.causes if isinstance(error, Refused) else ()
    violations = [Violation(cause.field, cause.reason, cause.message) for cause in causes if cause.field]
    metadata |= {"cluster_reason": error.reason}
    if violations:
        metadata["fields"] = ",".join(violation.field for violation in violations)
    kind = InvalidArgument if isinstance(error, Invalid) else FailedPrecondition
    return kind(
        words(error, cluster),
        reason="CLUSTER_REFUSED",
        metadata=metadata,
        violations=violations,
    )


def words(error: ClusterError, cluster: str) -> str:
    """Returns the message about the cluster for this error: `cluster "far" is not available: ...`."""
    return f'cluster "{cluster}" {error.does}: {error.message}'


def unavailability(error: ClusterError, cluster: str) -> Unavailable | None:
    """Returns the error for a cluster that fails or does not respond properly; None if it responds.

    The metadata have `away` if no request was sent because the cluster is known not to respond: an immediate retry
    would be useless.
    """
    if not isinstance(error, Unreachable | Throttled | InternalError):
        return None
    known = isinstance(error, Away)
    return Unavailable(
        words(error, cluster),
        reason="CLUSTER_UNAVAILABLE",
        metadata={"cluster": cluster, **({"away": "true"} if known else {})},
        retry_after_seconds=AWAY_SECONDS if known else getattr(error, "retry_after_seconds", 1.0),
    )
