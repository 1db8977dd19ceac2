"""Objects of a cluster that cannot be read: a number beyond its column, a text where a number belongs, no name.

An API server never sends such objects. A cluster that was tampered with, or another program in its place, may send one
among thousands. Only that object is left out. It is counted, and named in the log, at most once a minute for each kind.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from pilothouse_server.kubernetes.errors import UNREADABLE
from pilothouse_server.kubernetes.objects import KubernetesObject, Name, ObjectMeta, Opaque

log = structlog.get_logger(__name__)

LEFT_OUT = Counter(
    "pilothouse_cluster_objects_left_out_total", "Objects of clusters that could not be read.", ("kind",)
)
_SECONDS: Final = 60.0


class _Key(msgspec.Struct, rename="camel", gc=False):
    name: Name = ""
    namespace: Name = ""
    resource_version: Opaque = ""


class _Known(msgspec.Struct, gc=False):
    metadata: _Key = msgspec.field(default_factory=_Key)


_decode = msgspec.json.Decoder(_Known).decode


def known(body: msgspec.Raw) -> KubernetesObject:
    """Returns the name and version of an object that cannot be read, as far as these can be read."""
    try:
        key = _decode(body).metadata
    except UNREADABLE:
        return KubernetesObject()
    return KubernetesObject(ObjectMeta(key.name, key.namespace, resource_version=key.resource_version))


class LeftOut:
    """The objects of one cluster that were left out."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        # By kind: the time of the last log line.
        self._named: dict[str, float] = {}

    def note(self, kind: str, key: tuple[str, str]) -> None:
        """Counts an object, and logs its name, unless one of its kind was logged in the last minute."""
        LEFT_OUT.labels(kind).inc()
        now = monotonic()
        if now - self._named.get(kind, now - _SECONDS) < _SECONDS:
            return
        self._named[kind] = now
        namespace, name = key
        log.warning(
            "an object cannot be read and is left out",
            cluster=self._cluster,
            kind=kind,
            namespace=namespace,
            name=name,
        )
