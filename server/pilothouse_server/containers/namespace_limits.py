"""The limits that an administrator sets to the containers of a namespace: types and number of Services, sources of the
cluster.

They are read only for a container that comes to have a Service or a reference that it has not yet, because no other is
refused for them. They hold at the create or the change; present ones stay.
"""

from __future__ import annotations

from pilothouse_server.config.operations import configs
from pilothouse_server.containers import repository
from pilothouse_server.containers.external_sources import SourceReference, references
from pilothouse_server.containers.extra_fields import check_by_schema, schemas_of
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.owned_services import NO_SERVICE, owned_services
from pilothouse_server.network.rules import refuse_exceeded_number, refuse_type
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.unit_of_work import Transaction


async def refuse_services(
    target: Draft | Transaction, namespace: str, wanted: Container, stored: Container | None
) -> int:
    """Returns how many Services the namespace may have, if the container gets a new one and there is a limit; else 0.

    Raises:
        FailedPrecondition: the namespace does not allow the type of a new Service, or the new type of one.
        ResourceExhausted: the quota of the namespace.
    """
    before = [] if stored is None else owned_services(stored)
    after = owned_services(wanted)
    known = {(service.name, service.type) for service in before}
    new = [service for service in after if (service.name, service.type) not in known]
    if not new:
        return 0
    limits = await repository.service_limits(target, namespace)
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


async def refuse_unfit(
    target: Draft | Transaction, namespace: str, wanted: Container, stored: Container | None
) -> None:
    """Compares new references and extra fields with the namespace and its cluster, in that order.

    `wanted` is placed in its namespace.

    Raises:
        FailedPrecondition: a source of the cluster that the namespace does not allow.
        InvalidArgument: extra fields that the version of the cluster does not have so.
    """
    if new := _new_external(wanted, stored):
        allowed = await repository.allowed_external_sources(target, namespace)
        for each in new:
            configs.refuse_unlisted(namespace, allowed, each.field, each.kind, each.name)
    fields = wanted.spec.extra_fields
    if fields and (stored is None or fields != stored.spec.extra_fields):
        found = Findings()
        version = await repository.version_of_cluster(target, namespace)
        known, complete = schemas_of(version)
        check_by_schema(found, wanted, known, complete=complete)
        found.raise_if_any()


def _new_external(wanted: Container, stored: Container | None) -> list[SourceReference]:
    """The external references that a container has not yet."""
    known = set() if stored is None else {each[1:3] for each in references(stored) if each.external}
    return [each for each in references(wanted) if each.external and each[1:3] not in known]
