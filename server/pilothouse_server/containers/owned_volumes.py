"""The claims that a StatefulSet creates from templates; pure functions.

The claims are volumes with an owner. A claim is called TEMPLATE-CONTAINER-ORDINAL, and a pod needs one of each
template. So a container needs the claims of the ordinals of its replicas, even while it is stopped. The retention
policy decides whether claims of other ordinals are kept or deleted. There may be 80,000 claims, so no function lists
all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from pilothouse_manifests.workloads import DELETE
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import ClaimRetention, ClaimTemplate, StatefulSetSettings
from pilothouse_server.storage.model import CLAIM, Volume
from pilothouse_server.values.quantity import Quantity
from pilothouse_server.values.volumes import BLOCK, widest_mode

# The most claims that a response names.
MOST_NAMED = 1000


class ClaimsFate(msgspec.Struct, frozen=True):
    """The first claims that a change of a container leaves without a pod: `kept` by the cluster, or `deleted`."""

    kept: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def templates_of(container: Container) -> tuple[ClaimTemplate, ...]:
    """Returns the templates of the container's claims; none if it is no StatefulSet."""
    workload = container.spec.workload
    return workload.claim_templates if isinstance(workload, StatefulSetSettings) else ()


def owned_volume(container: Container, template_name: str, name: str, *, given_back: bool) -> Volume:
    """Returns the volume of a claim that has no row yet."""
    template = next(each for each in templates_of(container) if each.name == template_name)
    return Volume(
        name=name,
        kubernetes_name=name,
        namespace_ref=container.namespace_ref,
        type=CLAIM,
        size=template.size,
        storage_class=template.storage_class,
        access_mode=widest_mode(template.access_modes),
        access_modes=template.access_modes,
        volume_mode=BLOCK if template.volume_mode == BLOCK else "",
        labels=dict(template.labels),
        annotations=dict(template.annotations),
        owner=container.name,
        owner_id=container.id,
        templated=True,
        given_back=given_back,
    )


def claims_document(container: Container, *, deleting: bool = False) -> dict[str, Any]:
    """Returns the claims that its pods need, as the SQL functions read them; none if the container is `deleting`."""
    numbers = range(0) if deleting or container.deletion_requested_at is not None else _ordinals(container)
    return {
        "templates": [
            {
                "template": each.name,
                "prefix": _prefix(container, each),
                "bytes": Quantity.parse(each.size).whole,
            }
            for each in templates_of(container)
        ],
        "first": numbers.start,
        "last": numbers.stop - 1,
    }


def claims_differ(stored: Container, wanted: Container) -> bool:
    """Returns whether a change needs other claims, or changes the retention of claims that are not needed."""
    if not templates_of(stored) and not templates_of(wanted):
        return False
    return (_ordinals(stored), stored.spec.workload) != (_ordinals(wanted), wanted.spec.workload)


def needs_more_claims(stored: Container | None, wanted: Container) -> bool:
    """Returns whether its pods need claims that they did not need before."""
    if stored is None or not _ordinals(wanted):
        return bool(templates_of(wanted))
    before, after = _ordinals(stored), _ordinals(wanted)
    more = after.start < before.start or after.stop > before.stop
    return bool(templates_of(wanted)) and (more or not _names(wanted) <= _names(stored))


def deleted_by_policy(container: Container) -> bool:
    """Returns whether the cluster deletes claims that the container's pods no longer need."""
    retention = _retention(container)
    going = container.deletion_requested_at is not None
    return (retention.when_deleted if going else retention.when_scaled) == DELETE


def fate_of_deletion(container: Container) -> ClaimsFate:
    """Returns which claims are kept and which are deleted when the container is deleted."""
    names = _first(_claims(container, templates_of(container), range(0)))
    if _retention(container).when_deleted == DELETE:
        return ClaimsFate(deleted=names)
    return ClaimsFate(kept=names)


def fate_of_change(stored: Container, wanted: Container) -> ClaimsFate:
    """Returns which claims without a pod are kept after a change, and which deleted.

    The cluster deletes claims with their pods. So the claims of a stopped container and of removed templates are kept.
    """
    present = _names(wanted)
    without = tuple(each for each in templates_of(stored) if each.name not in present)
    others = tuple(each for each in templates_of(stored) if each.name in present)
    kept = _first(_claims(stored, without, range(0)))
    left = _first(_claims(stored, others, _ordinals(wanted)))
    if _retention(wanted).when_scaled == DELETE and wanted.desired_state == "running":
        return ClaimsFate(kept, left)
    return ClaimsFate((*kept, *left)[:MOST_NAMED])


def why_needed(container: Container, name: str) -> str:
    """Returns why a claim of a container cannot be deleted; empty if no pod needs it."""
    numbers = _ordinals(container) if container.deletion_requested_at is None else range(0)
    for each in templates_of(container):
        prefix = _prefix(container, each)
        ordinal = name.removeprefix(prefix)
        if name.startswith(prefix) and ordinal.isdecimal() and int(ordinal) in numbers:
            return (
                f'the claim of pod {container.kubernetes_name}-{ordinal} of container "{container.name}": set its '
                f"replicas to at most {int(ordinal) - numbers.start}, or delete the container, first"
            )
    return ""


def _ordinals(container: Container) -> range:
    workload = container.spec.workload
    first = workload.first_ordinal if isinstance(workload, StatefulSetSettings) else 0
    return range(first, first + container.replicas)


def _names(container: Container) -> frozenset[str]:
    return frozenset(each.name for each in templates_of(container))


def _prefix(container: Container, template: ClaimTemplate) -> str:
    # A container that is being created has no name on the cluster yet; it will be the container's name.
    return f"{template.name}-{container.kubernetes_name or container.name}-"


def _claims(container: Container, templates: tuple[ClaimTemplate, ...], without: range) -> Iterator[str]:
    for ordinal in _ordinals(container):
        if ordinal not in without:
            for each in templates:
                yield f"{_prefix(container, each)}{ordinal}"


def _first(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(islice(names, MOST_NAMED))


def _retention(container: Container) -> ClaimRetention:
    workload = container.spec.workload
    return workload.claim_retention if isinstance(workload, StatefulSetSettings) else ClaimRetention()
