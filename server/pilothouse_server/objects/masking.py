"""Masks secret values of documents for callers that may not see them.

A cluster names the secret fields of the kinds that it opens (`secret_paths` of `object_kinds`). A caller without
`config.reveal` in the namespace of an object gets a mask in place of each value, in every response with a document or
status. A document that contains the mask at such a field is refused, because the mask would become the value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.authorization.access import REVEAL, May
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.objects import documents, kinds, repository
from pilothouse_server.objects.facts import SecretPaths
from pilothouse_server.objects.model import CarriedObject, ObjectTexts
from pilothouse_server.rpc.credential_names import REDACTED
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.document_paths import parsed, selected

_STATUS: Final = ("status", "*")


class SecretMask(msgspec.Struct, frozen=True):
    """Masks the secret values of objects for one caller.

    `paths`: by cluster, group and kind. `may`: returns the check of the caller's permissions in a namespace.
    """

    paths: Mapping[tuple[str, str, str], SecretPaths]
    may: Callable[[str], May]

    def texts(self, texts: ObjectTexts) -> ObjectTexts:
        """Returns the texts as the caller may see them."""
        paths = self.paths.get((texts.cluster_name, texts.api_group, texts.kind), ())
        if not paths or self.may(texts.namespace)(REVEAL):
            return texts
        inside = tuple(path[1:] for path in paths if path[0] in _STATUS)
        return msgspec.structs.replace(
            texts,
            document=_masked(texts.document, paths),
            observed_status=_masked(texts.observed_status, inside),
        )

    def carried(self, carried: CarriedObject) -> CarriedObject:
        """Returns the object as the caller may see it."""
        seen = self.texts(carried.texts)
        observed = msgspec.structs.replace(carried.observed, observed_status=seen.observed_status)
        return msgspec.structs.replace(carried, document=seen.document, observed=observed)


async def of_clusters(transaction: ReadTransaction, may: Callable[[str], May]) -> SecretMask:
    """Returns the mask of a caller for all clusters that the transaction may read."""
    found: dict[tuple[str, str, str], SecretPaths] = {}
    for cluster_name, api_group, kind, paths in await repository.secret_fields(transaction):
        key = (cluster_name, api_group, kind)
        # Entries for several versions of a kind apply to the same objects.
        found[key] = (*found.get(key, ()), *map(parsed, paths))
    return SecretMask(found, may)


async def shown(
    transaction: ReadTransaction, carried: CarriedObject, may: Callable[[str], May]
) -> CarriedObject:
    """Returns an object as a caller may see it."""
    if not kinds.is_custom(carried.api_version, carried.kind):
        return carried
    return (await of_clusters(transaction, may)).carried(carried)


def refuse_masks(document: Manifest, paths: SecretPaths) -> None:
    """Raises InvalidArgument for a document that has the mask at a secret path."""
    for path in paths:
        for place, value in selected(document, path):
            if value == REDACTED:
                words = f"is the mask of a secret value ({REDACTED}): give the value itself"
                raise invalid(f"{documents.FIELD}.{documents.path_of(place)}", words)


def _masked(text: str, paths: SecretPaths) -> str:
    if not text:
        return text
    value = json.loads(text)
    places = 0
    for path in paths:
        if not path:
            return json.dumps(REDACTED)
        for place, _ in list(selected(value, path)):
            _parent(value, place)[place[-1]] = REDACTED
            places += 1
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if places else text


def _parent(value: Any, place: tuple[str | int, ...]) -> Any:
    for step in place[:-1]:
        value = value[step]
    return value
