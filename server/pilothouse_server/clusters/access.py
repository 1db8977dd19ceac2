"""Connects this server to clusters, by its own configuration or stored credentials.

New credentials are tried out before they are stored: the server connects, reads the version, and lists the missing
rights. A caller waits for the cluster during this trial, so it has a deadline and happens outside any transaction.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from pilothouse_server.clusters.operations import registration
from pilothouse_server.clusters.operations.registration import TriedOut
from pilothouse_server.clusters.refusals import KnownAway
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    PilothouseError,
    Unavailable,
    Violation,
)
from pilothouse_server.kubernetes import connection, rights
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.credentials import ClusterCredentials
from pilothouse_server.kubernetes.errors import (
    ClusterError,
    CredentialsRefused,
    Forbidden,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.kubernetes.rights import Right
from pilothouse_server.kubernetes.transport import DEFAULT_LIMITS, TransportLimits
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

_VERSION = re.compile(r"v\d{1,3}\.\d{1,3}[0-9A-Za-z.+-]{0,64}")
Kubeconfigs = Mapping[str, Mapping[str, Any]]


class ClusterAccess:
    """Clients of clusters, and the trial of credentials, which takes at most `seconds`.

    Credentials that callers gave connect only to addresses in `reach`; the server's own configuration to any address.
    """

    def __init__(
        self,
        store: Store,
        envelopes: Envelopes,
        configured: Kubeconfigs,
        *,
        seconds: float = 10.0,
        limits: TransportLimits = DEFAULT_LIMITS,
        reach: Reach = Reach(),  # noqa: B008 - immutable
    ) -> None:
        self._store = store
        self.envelopes = envelopes
        self._configured = configured
        self._seconds = seconds
        self._limits = limits
        self.reach = reach
        # A call checks this before it connects; the composition root sets it.
        self.known_away: KnownAway = _unknown

    def is_configured(self, name: str) -> bool:
        """Returns whether the server's own configuration reaches this cluster."""
        return name in self._configured

    def refuse_configured(self, name: str) -> None:
        """Raises FailedPrecondition for a cluster that the server's own configuration reaches."""
        if self.is_configured(name):
            raise FailedPrecondition(
                f'cluster "{name}" is reached by the server\'s own configuration: change it there',
                reason="CLUSTER_CONFIGURED",
            )

    async def connect(self, name: str) -> ClusterClient:
        """Returns a client of a registered cluster, without connecting yet. Raises ClusterError."""
        kubeconfig = self._configured.get(name)
        if kubeconfig is not None:
            _warn(name, connection.select(kubeconfig, None)[0])
            return await ClusterClient.from_kubeconfig(
                kubeconfig, name=name, allow_files=True, limits=self._limits
            )
        try:
            stored = await registration.opened(self._store, name, self.envelopes)
        except Unavailable as error:
            raise Unreachable(
                f'the credentials of cluster "{name}" cannot be read: {error.message}'
            ) from error
        except PilothouseError as error:
            raise CredentialsRefused(
                f'the credentials of cluster "{name}" cannot be used: {error.message}'
            ) from error
        if stored is None:
            raise CredentialsRefused(f'this server has no credentials for cluster "{name}"')
        return await self._client(stored, name)

    async def try_out(self, name: str, credentials: ClusterCredentials) -> TriedOut:
        """Connects, and reads the facts that the platform needs.

        Raises:
            InvalidArgument: the credentials cannot be used.
            Unavailable: the cluster does not respond in time.
            FailedPrecondition: the cluster refuses the credentials, or denies a right that is not optional.
        """
        try:
            client = await self._client(credentials, name)
        except ClusterError as error:
            raise refusal(error) from error
        try:
            async with asyncio.timeout(self._seconds):
                version = await client.version()
                if not _VERSION.fullmatch(version):
                    raise _unreachable(f'the server of cluster "{name}" is not a Kubernetes API server')
                denied = await rights.denied(client)
        except TimeoutError:
            raise _unreachable(f'cluster "{name}" did not respond within {self._seconds:g} s') from None
        except ClusterError as error:
            raise refusal(error) from error
        finally:
            with suppress(Exception):
                await client.close()
        needed = [right for right in denied if not right.optional]
        if needed:
            raise _rights_missing(name, needed)
        _warn(name, credentials.cluster)
        return TriedOut(credentials, client.server, version, tuple(denied))

    async def denied_rights(self, name: str) -> list[Right]:
        """Returns the needed rights that a registered cluster denies.

        Raises NotFound, and the errors of `try_out`.
        """
        async with self._store.system_read() as transaction:
            await registration.locate(transaction, name)
        try:
            client = await self.connect(name)
        except ClusterError as error:
            raise refusal(error) from error
        try:
            async with asyncio.timeout(self._seconds):
                return await rights.denied(client)
        except TimeoutError:
            raise _unreachable(f'cluster "{name}" did not respond within {self._seconds:g} s') from None
        except ClusterError as error:
            raise refusal(error) from error
        finally:
            await client.close()

    async def _client(self, credentials: ClusterCredentials, name: str) -> ClusterClient:
        if credentials.in_cluster:
            return await ClusterClient.in_cluster(name=name, limits=self._limits)
        return await ClusterClient.from_kubeconfig(
            credentials.kubeconfig(), name=name, limits=self._limits, reach=self.reach
        )


def _unknown(_name: str) -> None:
    """Returns None: by default no cluster is known to be away."""


def _warn(name: str, cluster: Mapping[str, Any]) -> None:
    if why := connection.unprotected(cluster):
        log.warning("cluster is reached unprotected", cluster=name, why=why)


def refusal(error: ClusterError, field: str = "credentials") -> PilothouseError:
    """Returns the caller's error for a failed trial of the credentials in `field`.

    A caller that names an address learns only the HTTP status of the program that responds there, not its message.
    """
    if isinstance(error, CredentialsRefused):
        return InvalidArgument(
            error.message,
            reason="CLUSTER_CREDENTIALS_REFUSED",
            metadata={"field": field},
            violations=(Violation(field, "cluster_credentials_refused", error.message),),
        )
    if isinstance(error, Unauthorized):
        return FailedPrecondition(
            "the cluster does not accept the credentials (401): they are wrong, revoked or expired",
            reason="CLUSTER_UNAUTHORIZED",
        )
    if isinstance(error, Forbidden):
        needed = error.permission if error.permission in {str(right) for right in rights.RIGHTS} else ""
        return FailedPrecondition(
            f"the cluster refuses the request (403): {needed or 'a needed right'} is denied",
            reason="CLUSTER_RIGHTS_MISSING",
            metadata={"rights": needed} if needed else {},
        )
    return _unreachable(
        f"the cluster responds with HTTP status {error.answered}" if error.answered else error.message
    )


def _unreachable(message: str) -> Unavailable:
    return Unavailable(message, reason="CLUSTER_UNREACHABLE")


def _rights_missing(name: str, needed: list[Right]) -> FailedPrecondition:
    said = ", ".join(str(right) for right in needed)
    return FailedPrecondition(
        f'cluster "{name}" denies: {said}; `pilothouse clusters rbac` prints the ClusterRole to grant',
        reason="CLUSTER_RIGHTS_MISSING",
        metadata={"rights": said},
    )
