"""Registration, change and look-up of clusters.

Whether a cluster responds and grants the required rights was checked before, outside any transaction (`access`). Its
credentials are plain text only there and here, between the request and the encryption; they are encrypted for their
row: the table and the row's uid.
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
    """Credentials that a cluster accepted, and its facts. `missing_rights` are optional ones."""

    credentials: ClusterCredentials
    api_server: str
    version: str
    missing_rights: tuple[Right, ...] = ()


find = repository.find


async def locate(transaction: ReadTransaction, name: str, lock: repository.Lock = "") -> Cluster:
    """The registered cluster of this name; NotFound if there is none. `lock` as `repository.find`."""
    found = await repository.find(transaction, name, lock)
    if found is None:
        raise not_found("cluster", name)
    return found


async def locate_for_namespace(transaction: Transaction, name: str) -> Cluster:
    """The cluster that a namespace is to be made on, kept from being deregistered until the transaction ends.

    Raises:
        NotFound: there is none of this name.
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
    """The clusters, with the servers that watch them. Raises Unavailable."""
    async with store.system_read() as transaction:
        leaders = await repository.leaders(transaction)
    return [msgspec.structs.replace(cluster, leader=leaders.get(cluster.name, "")) for cluster in clusters]


async def put_configured(transaction: Transaction, name: str, api_server: str) -> Cluster:
    """Registers a cluster that the server's own configuration reaches, or renews its address."""
    return await repository.put_configured(transaction, name, api_server)


async def register(
    transaction: Transaction, wanted: Cluster, tried_out: TriedOut, envelopes: Envelopes
) -> Cluster:
    """Registers a cluster that has answered. Only the name, display name, labels and opened kinds of `wanted` are used.

    Raises:
        InvalidArgument: a kind, a path or a gateway is impossible.
        AlreadyExists: the name.
        Unavailable: the active key is held by no key provider of this server.
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
    """Takes the fields named by `paths` from `wanted`, and new credentials; `check` may refuse the stored row.

    Raises:
        InvalidArgument: a kind, a path or a gateway is impossible.
        NotFound: the cluster.
        FailedPrecondition: it is being deregistered, and the call has no new credentials, for which it may be waiting.
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
    """The stored credentials of a cluster; None where it has none. Decrypted once no transaction is held.

    Raises:
        NotFound: the cluster.
        Unavailable: the key is held by no key provider of this server.
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
