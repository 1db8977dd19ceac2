"""Config maps and secrets that exist on the cluster only (`external`).

A container references them with `external`. The platform neither stores nor reads their values. The namespace's
patterns (`external_sources`), which an administrator sets, decide which names may be referenced; a reference that a
container already has stays. Before each write, the platform reads the object's metadata and type from the cluster. It
refuses tokens of service accounts and releases of Helm, because both give more than values.

References without `external` must not bypass the patterns. An `optional` reference needs no source, so the platform
does not look up its name, and a source of the platform may have the same name as an object that others created on the
cluster. So a container is not written while the cluster's object of a referenced name is not the platform's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from pilothouse_server.config.model import Kind
from pilothouse_server.containers.config_use import WORDS, source_fields
from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.errors import GUARDED, Refused
from pilothouse_server.kubernetes.objects import CONFIG_MAP_METADATA, SECRET_METADATA, Resource, T
from pilothouse_server.kubernetes.ownership import CONFIG_UID
from pilothouse_server.values.names import dns_subdomain_problem

_METADATA: Final = {"config_map": CONFIG_MAP_METADATA, "secret": SECRET_METADATA}
# Each gives more than values: the rights of an account or a node, and the manifests and values of a whole application.
_REFUSED_TYPES: Final = (
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
)
# Certificates that clusters put into every namespace; they are no secret.
_PUBLIC: Final = frozenset({("config_map", "kube-root-ca.crt"), ("config_map", "openshift-service-ca.crt")})


class SourceReference(NamedTuple):
    """A config map or secret by its name, and the field that names it."""

    field: str
    kind: Kind
    name: str
    external: bool


class SourceReader(Protocol):
    """The methods of a client that this module uses."""

    async def find(self, resource: Resource[T], namespace: str | None, name: str) -> T | None:
        """Reads one object, or None."""

    async def select(self, resource: Resource[T], namespace: str, field_selector: str) -> Sequence[T]:
        """Returns the objects with these fields."""


def _each_once(container: Container) -> list[SourceReference]:
    """Returns one reference for each object that must be compared with the cluster's before a write."""
    found: dict[tuple[Kind, str], SourceReference] = {}
    for each in references(container):
        known = found.get((each.kind, each.name))
        # Other names are skipped, because no object can have them.
        if dns_subdomain_problem(each.name) is None and (known is None or each.external):
            found[each.kind, each.name] = each
    return list(found.values())


async def refuse_on_cluster(client: SourceReader, container: Container) -> str:
    """Returns why the container must wait for a source on the cluster, or "".

    The container waits while a source on the cluster is not the platform's, because the platform may be about to take
    the source over. A container that is unchanged since its import keeps the references of its Deployment.

    Raises:
        Refused: containers may not use a secret of this type.
    """
    where = container.kubernetes_namespace
    for each in _each_once(container):
        found = await client.find(_METADATA[each.kind], where, each.name)
        if found is None or found.metadata.label(CONFIG_UID):
            # The source is missing, or the platform created it or took it over.
            continue
        if each.kind == "secret":
            await _refuse_type(client, where, each)
        as_imported = container.imported and container.generation == 1
        if not (each.external or as_imported or each[1:3] in _PUBLIC):
            return (
                f'{each.field}: {WORDS[each.kind]} "{each.name}" exists on the cluster but does not belong to the '
                "platform; import it, or set external, which the namespace's external_sources must allow"
            )
    return ""


async def _refuse_type(client: SourceReader, where: str, secret: SourceReference) -> None:
    for type_ in _REFUSED_TYPES:
        selector = f"metadata.name={secret.name},type={type_}"
        if await client.select(SECRET_METADATA, where, selector):
            words = (
                f'{secret.field}: secret "{secret.name}" is of the type {type_}, which containers may not use'
            )
            raise Refused(words, code=403, status_reason=GUARDED)


def references(container: Container) -> Iterator[SourceReference]:
    """Yields all references to config maps and secrets whose values the container's pods see."""
    for field, item in source_fields(container):
        if item.value_from in WORDS:
            kind: Kind = "secret" if item.value_from == "secret" else "config_map"
            yield SourceReference(f"{field}.source_name", kind, item.source_name, item.external)
    for volume in container.volumes:
        if volume.type in WORDS:
            kind = "secret" if volume.type == "secret" else "config_map"
            yield SourceReference(f'volume "{volume.name}"', kind, volume.source_name, volume.external)
