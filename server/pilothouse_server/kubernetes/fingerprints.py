"""Fingerprints of objects in a few characters, so that a later read shows whether anything has changed.

A fingerprint is the resource version that was read, a dot, and a digest of the desired parts of the object: its uid,
generation, labels, annotations and `spec`. (The generation reveals a restored cluster even if the object looks the
same.) Status and managed fields are not part of it, nor annotations that the cluster's controllers write on their own.
The digest covers the API server's own bytes, which are the same in a single response, a list and a watch. A server of
another release may write them differently: then the fingerprints differ, and the comparison reads the object itself.

For config maps and secrets, lists have the metadata alone, and values of secrets must not be stored in any form. So
their digest covers uid and version. Only a write of the values changes that version, because they have no status.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import blake2b
from typing import Any, Final, cast

import msgspec

from pilothouse_server.kubernetes.decoding import AT_ONCE_BYTES, decode
from pilothouse_server.kubernetes.errors import Unreadable
from pilothouse_server.kubernetes.objects import KubernetesObject, Manifest, Resource, T

_DIGEST_BYTES = 15
# Annotations that the controllers of Deployments and claims write on any object.
_BY_CONTROLLERS = (
    "deployment.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
)


# A JSON escape; the two halves of a surrogate pair count as one.
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL
)
_UNSTORABLE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
# An object has 1.5 MiB at most; replacing characters in a larger one would block the event loop.
_MOST_MENDED_BYTES: Final = 2 * 1024 * 1024
# Clusters send non-ASCII characters unescaped, so few responses contain these.
_SUSPECT: Final = (b"\\u0000", b"\\ud", b"\\uD")


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _LongMetadata(msgspec.Struct, rename="camel", gc=False):
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    annotations: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _LongContent(msgspec.Struct, gc=False):
    metadata: _LongMetadata = msgspec.field(default_factory=_LongMetadata)
    spec: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Content(msgspec.Struct, gc=False):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


def read(body: bytes | msgspec.Raw, resource: Resource[T]) -> T:
    """Returns an object, with its fingerprint if the resource has them. Raises Unreadable if it is not an object.

    Characters that no database stores, NUL and halves of surrogate pairs, are replaced. Otherwise one object with such
    characters, such as the event of a probe whose program prints one, would make a whole list unreadable.
    """
    found = decode(_storable(bytes(body)), resource.type)
    if resource.marked:
        msgspec.structs.force_setattr(found, "mark", _mark(body, resource))
    return found


def may_be_unstorable(body: bytes) -> bool:
    """Returns whether a text may have characters that no database stores; its objects are then read one by one."""
    return any(each in body for each in _SUSPECT)


async def mended(body: bytes) -> bytes:
    """Returns a text with characters that no database stores replaced; the work runs in a thread."""
    return await asyncio.to_thread(_mended, body)


def _storable(body: bytes) -> bytes:
    if not may_be_unstorable(body):
        return body
    if len(body) > _MOST_MENDED_BYTES:
        raise Unreadable(
            "the cluster's response cannot be read: it may have characters that cannot be stored, and is too long to "
            "replace them"
        )
    return _mended(body)


def _mended(body: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: b"\\ufffd" if _UNSTORABLE.fullmatch(found[0]) else found[0], body)


def same(mark: str, by_object: str) -> bool:
    """Returns whether an object is unchanged between two fingerprints."""
    return bool(mark) and mark.partition(".")[2] == by_object.partition(".")[2]


def changed(mark: str, before: str) -> bool:
    """Returns whether an object has changed between two fingerprints; False if it has none."""
    return bool(mark) and not same(mark, before)


def older(version: str, by_object: str) -> bool:
    """Returns whether the present version is older than the stored one, as after a restore of the cluster.

    Versions are increasing numbers, which Kubernetes promises since 1.35 and has always done. Other versions prove
    nothing.
    """
    before = by_object.partition(".")[0]
    return version.isdecimal() and before.isdecimal() and int(version) < int(before)


def by_object(*found: tuple[Resource[Any], KubernetesObject]) -> dict[str, str]:
    """Returns the fingerprints of objects by kind and name, in the form that is stored."""
    return {key(resource.kind, each.metadata.name): each.mark for resource, each in found}


def key(kind: str, name: str) -> str:
    """Returns the short name of an object of one resource: `Deployment/web`."""
    return f"{kind}/{name}"


def version_of(manifest: Manifest) -> str:
    """Returns the resource version of an object that was read whole."""
    return cast("str", manifest.get("metadata", {}).get("resourceVersion", ""))


def _mark(body: bytes | msgspec.Raw, resource: Resource[T]) -> str:
    content: Any = decode(body, _Content if len(body) <= AT_ONCE_BYTES else _LongContent)
    metadata = content.metadata
    digest = blake2b(metadata.uid.encode(), digest_size=_DIGEST_BYTES)
    if resource.marked == "version":
        digest.update(metadata.resource_version.encode())
    elif isinstance(metadata, _LongMetadata):
        # The object may have a hundred thousand annotations, so the digest covers their raw bytes. A controller's own
        # annotation then changes it, too, and the comparison reads the object itself.
        for part in (metadata.labels, metadata.annotations, content.spec):
            digest.update(b"%d:" % len(part) + bytes(part))
        digest.update(str(metadata.generation).encode())
    else:
        annotations = {
            name: value
            for name, value in (metadata.annotations or {}).items()
            if not name.startswith(_BY_CONTROLLERS)
        }
        said = (
            metadata.generation,
            sorted((metadata.labels or {}).items()),
            sorted(annotations.items()),
        )
        digest.update(msgspec.json.encode(said))
        digest.update(bytes(content.spec))
    return f"{metadata.resource_version}.{digest.hexdigest()}"
