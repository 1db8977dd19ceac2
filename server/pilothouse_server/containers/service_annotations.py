"""Annotations of Services, and of pods with their labels, and who may give which.

What a load balancer, a DNS name or a certificate is made by stands in annotations: who sets them reaches beyond the
namespace. Until there is a list of the dangerous ones, keys are free that the setting `service_annotations` names, and
all others need the permission `container.privileged`. What a Service has already stays, whoever changes the container.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.privileges import PRIVILEGED_PERMISSION, refuse_guarded_keys
from pilothouse_server.errors import over_all_namespaces_needed
from pilothouse_server.values.key_patterns import KeyPatterns


class Keys(msgspec.Struct, frozen=True):
    """Keys by who may set them: `free` ones of Services everybody, `guarded` ones of pods few."""

    free: KeyPatterns
    guarded: KeyPatterns


def refuse_keys(namespace: str, wanted: Container, stored: Container | None, keys: Keys, may: May) -> None:
    """Raises PermissionDenied for the first annotation or label that the caller may not set in this namespace."""
    refuse_guarded_keys(namespace, wanted, stored, keys.guarded, may)
    _refuse_annotations(namespace, wanted, stored, keys.free, may)


def _refuse_annotations(
    namespace: str, wanted: Container, stored: Container | None, free: KeyPatterns, may: May
) -> None:
    """Raises PermissionDenied for an annotation that is new, not free, and not the caller's to set; names the first."""
    before = set() if stored is None else {(service, pair) for _, service, pair in _annotations(stored)}
    for number, service, (key, value) in _annotations(wanted):
        if key in free or (service, (key, value)) in before or may(PRIVILEGED_PERMISSION):
            continue
        field = f"container.ports[{number}].service_annotations"
        raise over_all_namespaces_needed(
            PRIVILEGED_PERMISSION, namespace, f'{field} sets "{key}"', field=field
        )


def without_guarded(container: Container, free: KeyPatterns) -> Container:
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
