"""Errors for a caller who waits for a cluster: its response in time, or its own words of refusal.

Only few calls wait for a cluster (`validate_only`, import); failures of the reconciler show as conditions instead.
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
from pilothouse_server.kubernetes.homes import refuse_foreign
from pilothouse_server.values.resources import NamespaceRef

T = TypeVar("T")
# Why the cluster of this name is known not to answer; None where it is not known to be away.
KnownAway = Callable[[str], Away | None]
# A client of the cluster of this name. Raises ClusterError where it cannot be reached or its credentials are refused.
Connect = Callable[[str], Awaitable[ClusterClient]]

# The step before a call asks the cluster of this name. Raises ResourceExhausted.
BeforeCluster = Callable[[str], Awaitable[None]]

SECONDS = 10.0
# When it is worth asking again for a cluster that is away.
AWAY_SECONDS = 5.0


def unless_away(connect: Connect, known_away: KnownAway) -> Connect:
    """Returns `connect` for calls: it raises Away immediately for a cluster that is known to be away."""

    async def connected(cluster: str) -> ClusterClient:
        if (away := known_away(cluster)) is not None:
            raise away
        return await connect(cluster)

    return connected


def in_a_seat(connect: Connect, before: BeforeCluster) -> Connect:
    """Returns `connect` for calls: each first takes its place among those that wait for that cluster."""

    async def connected(cluster: str) -> ClusterClient:
        await before(cluster)
        return await connect(cluster)

    return connected


async def within(work: Awaitable[T], cluster: str, seconds: float = SECONDS) -> T:
    """The outcome of calls of a cluster, if they come in time. Raises ClusterError."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise Unreachable(f"cluster {cluster!r} did not respond within {seconds:g} s") from None


async def tried(
    connect: Connect,
    home: NamespaceRef,
    trial: Callable[[ClusterClient], Awaitable[T]],
) -> T:
    """The result of a trial in a namespace; nothing is tried in a Kubernetes namespace of somebody else.

    Raises:
        InvalidArgument: the cluster finds an object wrong; with its words and the fields it names.
        FailedPrecondition: the cluster refuses it: a quota, a policy, a right, a name that is taken.
        Unavailable: the cluster does not respond.
    """

    async def at_home() -> T:
        client = await connect(home.cluster_name)
        await refuse_foreign(client, home)
        return await trial(client)

    try:
        return await within(at_home(), home.cluster_name)
    except ClusterError as error:
        raise refusal(error, home.cluster_name) from error


def refusal(error: ClusterError, cluster: str) -> PilothouseError:
    """The error for the caller: the state of the cluster, and its own words, with the fields that it names.

    InvalidArgument if it finds an object wrong; FailedPrecondition if a quota, a policy, a right or a taken name
    prevents it, or the credentials are refused; Unavailable if it does not respond, or a webhook behind it does not.
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
    """The message about the cluster for this error: `cluster "far" is not available: ...`."""
    return f'cluster "{cluster}" {error.does}: {error.message}'


def unavailability(error: ClusterError, cluster: str) -> Unavailable | None:
    """The error for a cluster that does not respond properly, or fails; None if it responds.

    The metadata have `away` if it was not asked because it is known not to respond: an immediate retry would be
    useless.
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
