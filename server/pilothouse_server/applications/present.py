"""Reads the objects of a namespace from all nouns, with one statement for each noun."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Final

from pilothouse_server.applications.documents import PresentObjects, TranslatedDocuments
from pilothouse_server.applications.model import MemberKey, WantedObject
from pilothouse_server.config.operations import configs, secrets
from pilothouse_server.containers.operations import stream as stream_containers
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.network.operations import stream as stream_services
from pilothouse_server.objects.operations import stream as stream_objects
from pilothouse_server.storage.operations import stream as stream_volumes
from pilothouse_server.store.unit_of_work import ReadTransaction

Stored = Mapping[MemberKey, Any]

_STREAMS: Final[Mapping[str, Callable[..., AsyncIterator[Any]]]] = {
    "container": stream_containers,
    "service": stream_services,
    "object": stream_objects,
    "volume": stream_volumes,
    "config_map": lambda transaction, **where: configs.stream(transaction, "config_map", **where),
    "secret": lambda transaction, **where: configs.stream(transaction, "secret", **where),
}


async def for_translation(
    transaction: ReadTransaction, namespace: Namespace, read: TranslatedDocuments
) -> PresentObjects:
    """Returns the objects of a namespace that are needed to understand documents."""
    containers = [
        each
        async for each in stream_containers(transaction, namespace_id=namespace.id)
        if each.deletion_requested_at is None
    ]
    volumes = {
        each.kubernetes_name: each.name
        async for each in stream_volumes(transaction, namespace_id=namespace.id)
        if each.kubernetes_name
    }
    sources = frozenset(
        [
            (kind, each.name)
            for kind in configs.KINDS
            if any(named == kind for named, _ in read.sources)
            async for each in configs.stream(transaction, kind, namespace_id=namespace.id)
        ]
    )
    return PresentObjects(tuple(containers), volumes, sources, tuple(namespace.external_sources))


async def stored_objects(
    transaction: ReadTransaction, namespace: Namespace, nouns: Collection[str]
) -> dict[MemberKey, Any]:
    """Returns the objects of these nouns by key, without those that a container owns or that are being deleted."""
    found: dict[MemberKey, Any] = {}
    for noun in sorted(nouns):
        async for each in _STREAMS[noun](transaction, namespace_id=namespace.id):
            if each.deletion_requested_at is None and not getattr(each, "owner", ""):
                found[_key(noun, each)] = each
    return found


async def secret_values(
    transaction: ReadTransaction, wanted: Collection[WantedObject], stored: Stored, envelopes: Envelopes
) -> dict[MemberKey, dict[str, bytes]]:
    """Returns the values of the stored secrets that documents ask for."""
    keys = [each.key for each in wanted if each.key.noun == "secret" and each.key in stored]
    found = await secrets.reveal_many(transaction, [stored[key] for key in keys], envelopes)
    return {key: found[stored[key].id] for key in keys}


def _key(noun: Any, stored: Any) -> MemberKey:
    if noun == "object":
        return MemberKey(noun, stored.name, stored.api_group, stored.kind)
    return MemberKey(noun, stored.name)
