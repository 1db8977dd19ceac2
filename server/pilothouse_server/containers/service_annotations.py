"""Annotations of Services, and who may give which.

What a load balancer, a DNS name or a certificate is made by stands in annotations: who sets them reaches beyond the
namespace. Until there is a list of the dangerous ones, keys are free that the setting `service_annotations` names, and
all others need the permission `container.privileged`. What a Service has already stays, whoever changes the container.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pilothouse_server.access import May
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.privileges import PRIVILEGED_PERMISSION
from pilothouse_server.errors import PermissionDenied


class FreeKeys:
    """The keys that everybody may set, as a setting has them: `KEY`, or `PREFIX/*`, separated by commas."""

    def __init__(self, text: str) -> None:
        words = [word for word in (word.strip() for word in text.split(",")) if word]
        self._keys = frozenset(word for word in words if not word.endswith("/*"))
        self._prefixes = tuple(word[:-1] for word in words if word.endswith("/*"))

    def __contains__(self, key: str) -> bool:
        return key in self._keys or key.startswith(self._prefixes)


def refuse_annotations(wanted: Container, stored: Container | None, free: FreeKeys, may: May) -> None:
    """Raises PermissionDenied for an annotation that is new, not free, and not the caller's to set; names the first."""
    before = set() if stored is None else {(service, pair) for _, service, pair in _annotations(stored)}
    for number, service, (key, value) in _annotations(wanted):
        if key in free or (service, (key, value)) in before or may(PRIVILEGED_PERMISSION):
            continue
        field = f"container.ports[{number}].service_annotations"
        raise PermissionDenied(
            f'permission {PRIVILEGED_PERMISSION} is needed in namespace "{wanted.namespace}" to set "{key}" in {field}',
            reason="PERMISSION_DENIED",
            metadata={"permission": PRIVILEGED_PERMISSION, "namespace": wanted.namespace, "field": field},
        )


def without_guarded(container: Container, free: FreeKeys) -> Container:
    """The container without what only few may set: an import leaves it where it is, as somebody else's."""
    ports = tuple(
        msgspec.structs.replace(
            port,
            service_annotations={key: text for key, text in port.service_annotations.items() if key in free},
        )
        for port in container.ports
    )
    return msgspec.structs.replace(container, ports=ports)


def _annotations(container: Container) -> Iterator[tuple[int, str, tuple[str, str]]]:
    """Position of the port, name of the Service, key and value."""
    for number, port in enumerate(container.ports):
        for pair in port.service_annotations.items():
            yield number, port.service_name or container.name, pair
