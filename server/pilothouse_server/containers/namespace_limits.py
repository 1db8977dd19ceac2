"""Checks a container against its namespace's limits, which administrators set.

The limits are for types and number of Services, storage, sources of the cluster, and hosts. A limit is read only if the
container gets something new that it limits. It applies to that create or change only: what a container already has is
never refused.
"""

from __future__ import annotations

from pilothouse_server.config.operations import configs
from pilothouse_server.containers import repository
from pilothouse_server.containers.external_sources import SourceReference, references
from pilothouse_server.containers.extra_fields import check_by_schema, schemas_of
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.guarding import names_new_hosts, refuse_hosts
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.owned_services import NO_SERVICE, owned_services
from pilothouse_server.containers.owned_volumes import needs_more_claims
from pilothouse_server.containers.repository import FactReader, ServiceLimits
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.network.rules import refuse_exceeded_number, refuse_type
from pilothouse_server.storage.rules import refuse_exceeded_storage
from pilothouse_server.values.quantity import Quantity


async def refuse_exceeded_numbers(
    target: FactReader,
    namespace: str,
    wanted: Container,
    stored: Container | None,
    limits: ServiceLimits | None = None,
) -> tuple[int, int]:
    """Returns how many Services and bytes of storage the namespace may have.

    Each number is 0 if there is no limit, or if the container needs no more of it. Raises as the two functions that
    follow do. `limits`: the limits of Services, if they are known.
    """
    services = await _refuse_services(target, namespace, wanted, stored, limits)
    return services, await _refuse_storage(target, namespace, wanted, stored)


async def _refuse_services(
    target: FactReader,
    namespace: str,
    wanted: Container,
    stored: Container | None,
    limits: ServiceLimits | None,
) -> int:
    """Returns how many Services the namespace may have.

    0 if there is no limit, or if the container gets no new Service.

    Raises:
        FailedPrecondition: the namespace does not allow the type of a new Service, or the new type of a present one.
        ResourceExhausted: the namespace's quota of Services is exceeded.
    """
    before = [] if stored is None else owned_services(stored)
    after = owned_services(wanted)
    known = {(service.name, service.type) for service in before}
    new = [service for service in after if (service.name, service.type) not in known]
    if not new:
        return 0
    limits = limits or await repository.service_limits(target, namespace)
    for service in new:
        ports = [(port.service_name or wanted.name, port.service_type) for port in wanted.ports]
        number = next(
            i for i, (name, type_) in enumerate(ports) if name == service.name and type_ != NO_SERVICE
        )
        refuse_type(namespace, limits.types, service.type, f"container.ports[{number}].service_type")
    names, present = {service.name for service in after}, {service.name for service in before}
    if not limits.most or names <= present:
        return 0
    used = limits.used - len(present - names)
    refuse_exceeded_number(namespace, limits.most, used, len(names - present))
    return limits.most


async def _refuse_storage(
    target: FactReader, namespace: str, wanted: Container, stored: Container | None
) -> int:
    """Returns how many bytes of storage the namespace may have.

    0 if there is no limit, or if the container gets no new claims.

    Raises:
        FailedPrecondition: another volume of the namespace already has the name of a new claim.
        ResourceExhausted: the namespace's quota of storage is exceeded.
    """
    if not needs_more_claims(stored, wanted):
        return 0
    limits = await repository.storage_limits(target, namespace, wanted)
    if limits.taken:
        raise FailedPrecondition(
            f'container.stateful_set.claim_templates: a claim of container "{wanted.name}" would be called '
            f'"{limits.taken}", the name of another volume of the namespace: delete that volume, or '
            "rename the template",
            reason="VOLUME_NAME_TAKEN",
            metadata={"container": wanted.name, "volume": limits.taken},
        )
    if not limits.most:
        return 0
    most = Quantity.parse(limits.most).whole
    refuse_exceeded_storage(namespace, limits.most, limits.used, limits.asked)
    return most


async def refuse_unfit(
    target: FactReader, namespace: str, wanted: Container, stored: Container | None
) -> None:
    """Checks new references, hosts and extra fields, in that order.

    They are compared with the namespace and its cluster. `wanted` must be placed in its namespace.

    Raises:
        FailedPrecondition: the namespace does not allow a source of the cluster, or a host.
        InvalidArgument: an extra field does not match the schemas of the cluster's version.
    """
    if new := _new_external(wanted, stored):
        allowed = await repository.allowed_external_sources(target, namespace)
        for each in new:
            configs.refuse_unlisted(namespace, allowed, each.field, each.kind, each.name)
    if names_new_hosts(wanted, stored):
        refuse_hosts(wanted, stored, await repository.allowed_hosts(target, namespace))
    fields = wanted.spec.extra_fields
    if fields and (stored is None or fields != stored.spec.extra_fields):
        found = Findings()
        version = await repository.version_of_cluster(target, namespace)
        known, complete = schemas_of(version)
        check_by_schema(found, wanted, known, complete=complete)
        found.raise_if_any()


def _new_external(wanted: Container, stored: Container | None) -> list[SourceReference]:
    """Returns the external references that the stored container does not have."""
    known = set() if stored is None else {each[1:3] for each in references(stored) if each.external}
    return [each for each in references(wanted) if each.external and each[1:3] not in known]
