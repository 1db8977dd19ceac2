"""Registration, change and look-up of clusters.

The check that a cluster responds and grants the required rights has already happened, outside any transaction
(`access`). The credentials are plain text only there and here, between the request and the encryption, which binds them
to their row: the table and the row's uid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from pilothouse_server.clusters import object_kinds, repository
from pilothouse_server.clusters.model import Cluster
from pilothouse_server.clusters.tables import SEALED_CREDENTIALS
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import FailedPrecondition, already_exists, not_found
from pilothouse_server.kubernetes import credentials
from pilothouse_server.kubernetes.credentials import ClusterCredentials
from pilothouse_server.kubernetes.rights import Right
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

Check = Callable[[Cluster], None]


class TriedOut(msgspec.Struct, frozen=True):
    """Credentials that a cluster accepted, and its facts.

    `missing_rights`: optional rights that it denies.
    """

    credentials: ClusterCredentials
    api_server: str
    version: str
    missing_rights: tuple[Right, ...] = ()


find = repository.find


async def locate(transaction: ReadTransaction, name: str, lock: repository.Lock = "") -> Cluster:
    """Returns the registered cluster of this name; `lock` as in `repository.find`. Raises NotFound."""
    found = await repository.find(transaction, name, lock)
    if found is None:
        raise not_found("cluster", name)
    return found


async def locate_for_namespace(transaction: Transaction, name: str) -> Cluster:
    """Returns the cluster for a new namespace, locked against deregistration.

    Raises:
        NotFound: there is no cluster of this name.
        FailedPrecondition: it is being deregistered.
    """
    found = await locate(transaction, name, "share")
    refuse_deregistering(found)
    return found


async def refuse_taken(transaction: ReadTransaction, name: str) -> None:
    """Raises AlreadyExists if a cluster of this name is registered."""
    if await repository.find(transaction, name) is not None:
        raise already_exists("cluster", name)


async def list_page(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[Cluster], NextPage]:
    """Returns one page of clusters, and where the next page begins."""
    return await repository.list_clusters(transaction, page)


async def with_leaders(store: Store, clusters: Iterable[Cluster]) -> list[Cluster]:
    """Returns the clusters with the servers that observe them. Raises Unavailable."""
    async with store.system_read() as transaction:
        leaders = await repository.leaders(transaction)
    return [msgspec.structs.replace(cluster, leader=leaders.get(cluster.name, "")) for cluster in clusters]


async def put_configured(transaction: Transaction, name: str, api_server: str) -> Cluster:
    """Registers a cluster that the server's own configuration reaches, or updates its address."""
    return await repository.put_configured(transaction, name, api_server)


async def register(
    transaction: Transaction, wanted: Cluster, tried_out: TriedOut, envelopes: Envelopes
) -> Cluster:
    """Registers a cluster that has responded.

    Only the name, display name, labels and the fields in `object_kinds.FIELDS` of `wanted` are used.

    Raises:
        InvalidArgument: a kind, a path or a gateway is invalid.
        AlreadyExists: the name.
        Unavailable: no key provider of this server has the active key.
    """
    object_kinds.check(wanted)
    await refuse_taken(transaction, wanted.name)
    added = await repository.add(transaction, wanted.name, tried_out.api_server)
    return await repository.change(
        transaction,
        added,
        {
            "display_name": wanted.display_name or None,
            "labels": wanted.labels,
            **{name: object_kinds.column_value(wanted, name) for name in object_kinds.FIELDS},
            **await _sealed(transaction, added, tried_out, envelopes),
        },
    )


async def change(
    transaction: Transaction,
    name: str,
    wanted: Cluster,
    paths: Sequence[str],
    tried_out: TriedOut | None,
    envelopes: Envelopes,
    check: Check,
) -> Cluster:
    """Writes the fields in `paths` from `wanted`, and new credentials; `check` may refuse the stored row.

    Raises:
        InvalidArgument: a kind, a path or a gateway is invalid.
        NotFound: the cluster.
        FailedPrecondition: it is being deregistered, and the call has no new credentials, which it may be waiting for.
    """
    stored = await locate(transaction, name, "update")
    check(stored)
    if tried_out is None:
        refuse_deregistering(stored)
    object_kinds.check(wanted)
    values = {
        path: object_kinds.column_value(wanted, path)
        for path in paths
        if getattr(wanted, path) != getattr(stored, path)
    }
    if tried_out is not None:
        values |= await _sealed(transaction, stored, tried_out, envelopes)
    return await repository.change(transaction, stored, values) if values else stored


async def opened(store: Store, name: str, envelopes: Envelopes) -> ClusterCredentials | None:
    """Returns the stored credentials of a cluster; None if it has none.

    Decrypts them outside the transaction.

    Raises:
        NotFound: the cluster.
        Unavailable: no key provider of this server has the key.
        FailedPrecondition: the ciphertext does not belong to this cluster.
    """
    async with store.system_read() as transaction:
        found = await repository.find_sealed(transaction, name)
    if found is None:
        raise not_found("cluster", name)
    uid, sealed = found
    if sealed is None:
        return None
    await envelopes.at_hand(sealed)
    return credentials.decode(envelopes.open(sealed, SEALED_CREDENTIALS.binding(uid, "")))


def refuse_deregistering(cluster: Cluster) -> None:
    """Raises FailedPrecondition if the cluster is being deregistered."""
    if cluster.status == "deregistering":
        raise FailedPrecondition(
            f'cluster "{cluster.name}" is being deregistered', reason="CLUSTER_DEREGISTERING"
        )


async def _sealed(
    transaction: Transaction, cluster: Cluster, tried_out: TriedOut, envelopes: Envelopes
) -> dict[str, Any]:
    key_id = await encryption_keys.active_key_id(transaction)
    binding = SEALED_CREDENTIALS.binding(cluster.uid, "")
    sealed = envelopes.seal(credentials.encode(tried_out.credentials), binding, key_id)
    return {
        "api_server": tried_out.api_server,
        "version": tried_out.version[:100],
        "credentials": sealed.ciphertext,
        "data_key": sealed.data_key,
        "key_id": sealed.key_id,
        "credentials_expires_at": tried_out.credentials.expires_at,
    }
