"""Takes over orphans: objects with the platform's label that the database does not know, as after restoring a backup.

This is an ordinary import with two differences. The platform's label does not prevent the import if the sweep has
listed the object. And the new row keeps the uid in the label, so from the commit on the object belongs to the platform,
its pods are found as before, and the next sweep recognizes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.clusters.model import OrphanedObject
from pilothouse_server.clusters.operations.orphans import Read, Resolved, uids_of
from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.config.model import Kind
from pilothouse_server.containers import admission
from pilothouse_server.containers.repository import stream_containers
from pilothouse_server.containers.workloads import WORKLOADS
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import PilothouseError
from pilothouse_server.guard.model import Keys
from pilothouse_server.importing import dependencies, messages, operations, services
from pilothouse_server.importing.dependencies import Dependencies, Discovered, Existing
from pilothouse_server.importing.operations import Candidate
from pilothouse_server.importing.services import ServiceCandidate
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import on_cluster
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.store.unit_of_work import Transaction

IMPORT_PERMISSION = "container.import"
_SERVICE_PERMISSIONS = ("service.import", "service.create")
# Returns the rights over Services of a caller with such permissions.
RightsOver = Callable[[May], ServiceRights]
_KINDS: dict[str, Kind] = {"ConfigMap": "config_map", "Secret": "secret"}
_NOUNS: dict[str, str] = {"ConfigMap": "config map", "Secret": "secret"}


class FoundConfig(msgspec.Struct, frozen=True):
    """A config map or secret that is imported without a workload."""

    orphan: OrphanedObject
    discovered: Discovered
    problems: tuple[str, ...]


class FoundInNamespace(msgspec.Struct, frozen=True):
    """The orphans in one namespace: workloads, config maps and secrets, and Services that no container owns.

    `services`: those that are imported by themselves. `others`: the rest, with the reasons. `runs`: orphans that are
    runs of a workload and come with it.
    """

    namespace: Namespace
    workloads: tuple[tuple[OrphanedObject, Candidate], ...]
    configs: tuple[FoundConfig, ...]
    services: tuple[tuple[OrphanedObject, ServiceCandidate], ...]
    others: tuple[Resolved, ...]
    may: May
    runs: tuple[tuple[OrphanedObject, Candidate], ...] = ()


class FoundOrphans:
    """The orphans that an import has found on the cluster. `refused`: orphans that are not imported, and why."""

    def __init__(self, envelopes: Envelopes, keys: Keys, rights: RightsOver) -> None:
        self._envelopes = envelopes
        self._keys = keys
        self._rights = rights
        self.found: list[FoundInNamespace] = []
        self.refused: list[Resolved] = []

    async def create(self, transaction: Transaction) -> list[Resolved]:
        """Creates the rows that can be created; a failure of one orphan does not affect the others.

        Raises:
            NotFound: a namespace.
            FailedPrecondition: a namespace is inactive or being deleted.
        """
        resolved = list(self.refused)
        for item in self.found:
            # Services come first, because they take a stronger lock on the namespace.
            resolved += await self._services(transaction, item)
            taken = await operations.create(
                transaction,
                item.namespace.name,
                [candidate for _, candidate in item.workloads],
                self._envelopes,
                self._keys,
                item.may,
            )
            imported = [
                _resolved(item.namespace, orphan, candidate, item.runs)
                for (orphan, _), candidate in zip(item.workloads, taken, strict=True)
            ]
            resolved += imported
            # The Services and the runs of a container come with it.
            came_along = {key for each in imported for key in each.taken}
            resolved += [each for each in item.others if _key(each.orphan) not in came_along]
            resolved += [await self._config(transaction, item.namespace, each) for each in item.configs]
        return resolved

    async def _services(self, transaction: Transaction, found: FoundInNamespace) -> list[Resolved]:
        if not found.services:
            return []
        namespace, wanted = found.namespace, [candidate for _, candidate in found.services]
        made = await services.create(transaction, namespace.name, wanted, self._rights(found.may))
        return [
            Resolved(orphan, problems=candidate.problems)
            if candidate.service is None
            else Resolved(
                orphan,
                imported_as=f"service {namespace.name}/{candidate.name}",
                notes=candidate.notes,
                taken=(_key(orphan),),
            )
            for (orphan, _), candidate in zip(found.services, made, strict=True)
        ]

    async def _config(self, transaction: Transaction, namespace: Namespace, found: FoundConfig) -> Resolved:
        orphan = found.orphan
        if found.problems:
            return Resolved(orphan, problems=found.problems)
        try:
            async with transaction.attempt():
                locked = await admission.locked_namespace(transaction, namespace.name)
                await dependencies.create(transaction, locked, found.discovered, self._envelopes)
        except PilothouseError as error:
            return Resolved(orphan, problems=(error.message,))
        name = f"{_NOUNS[orphan.kind]} {namespace.name}/{orphan.name}"
        return Resolved(orphan, imported_as=name, taken=(_key(orphan),))


class OrphanImports:
    """Implements `OrphanImporter` of the noun clusters."""

    def __init__(self, connect: Connect, envelopes: Envelopes, keys: Keys, rights: RightsOver) -> None:
        """Takes `rights`, which returns the rights over Services of a caller with such permissions."""
        self._connect = connect
        self._envelopes = envelopes
        self._keys = keys
        self._rights = rights

    async def discover(
        self, read: Read, cluster: str, orphans: Sequence[OrphanedObject], may: Callable[[str], May]
    ) -> FoundOrphans:
        """Reads the orphans from the cluster, outside any transaction. `may` takes the name of a namespace.

        Raises:
            Unavailable: the cluster does not respond in time.
            FailedPrecondition: the cluster denies reading.
        """
        by_namespace: dict[str, list[OrphanedObject]] = defaultdict(list)
        for orphan in orphans:
            by_namespace[orphan.kubernetes_namespace].append(orphan)
        async with read() as transaction:
            namespaces = await on_cluster(transaction, cluster, sorted(by_namespace))
            listed = await uids_of(transaction, cluster)
            existing = {
                name: msgspec.structs.replace(
                    await dependencies.find_existing(transaction, namespace),
                    containers={
                        each.uid: each.name
                        async for each in stream_containers(transaction, namespace_id=namespace.id)
                    },
                )
                for name, namespace in namespaces.items()
            }
        result = FoundOrphans(self._envelopes, self._keys, self._rights)
        for name, group in by_namespace.items():
            if why := _refusal(namespaces.get(name), may):
                result.refused += [Resolved(orphan, problems=(why,)) for orphan in group]
                continue
            namespace = namespaces[name]
            found = await self._in_namespace(namespace, group, existing[name], may(namespace.name), listed)
            result.found.append(found)
        return result

    async def _in_namespace(
        self,
        namespace: Namespace,
        orphans: Sequence[OrphanedObject],
        existing: Existing,
        may: May,
        listed: frozenset[str],
    ) -> FoundInNamespace:
        workloads: list[tuple[OrphanedObject, Candidate]] = []
        for type_ in WORKLOADS.values():
            of_kind = [orphan for orphan in orphans if orphan.kind == type_.kind]
            if not of_kind:
                continue
            wanted = operations.Wanted([orphan.name for orphan in of_kind], kinds=(type_.name,))
            candidates = await operations.discover(self._connect, namespace, wanted, existing, may, listed)
            shown = [messages.shown(operations.without_guarded(each, self._keys)) for each in candidates]
            workloads += zip(of_kind, shown, strict=True)
        workloads, runs = _without_runs(workloads)
        configs = [orphan for orphan in orphans if orphan.kind in _KINDS]
        found = await self._configs(namespace, configs, existing, may, listed)
        here = {each.uid: each.container.name for _, each in workloads if each.container is not None}
        known = services.Orphans(listed, existing.containers | here)
        standing, others = await self._standing(namespace, orphans, may, known)
        others += tuple(Resolved(orphan, problems=each.problems) for orphan, each in runs)
        return FoundInNamespace(namespace, tuple(workloads), found, standing, others, may, tuple(runs))

    async def _standing(
        self,
        namespace: Namespace,
        orphans: Sequence[OrphanedObject],
        may: May,
        known: services.Orphans,
    ) -> tuple[tuple[tuple[OrphanedObject, ServiceCandidate], ...], tuple[Resolved, ...]]:
        """Returns the Services that are imported by themselves, and the others with the reasons."""
        of_kind = {orphan.name: orphan for orphan in orphans if orphan.kind == "Service"}
        if not of_kind:
            return (), ()
        found = await services.discover(self._connect, namespace, list(of_kind), "", self._rights(may), known)
        missing = next((each for each in _SERVICE_PERMISSIONS if not may(each)), "")
        standing: list[tuple[OrphanedObject, ServiceCandidate]] = []
        others: list[Resolved] = []
        for candidate in found:
            orphan, problems = of_kind[candidate.name], candidate.problems
            if candidate.service is not None and missing:
                problems = (_needs(missing, namespace),)
            if problems:
                others.append(Resolved(orphan, problems=problems))
            else:
                standing.append((orphan, candidate))
        return tuple(standing), tuple(others)

    async def _configs(
        self,
        namespace: Namespace,
        orphans: Sequence[OrphanedObject],
        existing: Existing,
        may: May,
        listed: frozenset[str],
    ) -> tuple[FoundConfig, ...]:
        if not orphans:
            return ()
        cluster = namespace.cluster_name

        async def look() -> tuple[FoundConfig, ...]:
            client = await self._connect(cluster)
            await refuse_foreign(client, namespace.ref)
            theirs = Dependencies(client, namespace, existing, may, listed)
            found = [(orphan, await theirs.source(_KINDS[orphan.kind], orphan.name)) for orphan in orphans]
            return tuple(FoundConfig(orphan, each, problems) for orphan, (each, problems) in found)

        try:
            return await within(look(), cluster, operations.SECONDS)
        except ClusterError as error:
            raise refusal(error, cluster) from error


def _refusal(namespace: Namespace | None, may: Callable[[str], May]) -> str:
    """Returns why no object of a namespace can be imported; empty if they can be."""
    if namespace is None:
        return (
            "its Kubernetes namespace does not belong to the platform: take it over by "
            "CreateNamespace with `adopt`"
        )
    if namespace.status != "active":
        return f'namespace "{namespace.name}" is inactive: activate it first'
    if not may(namespace.name)(IMPORT_PERMISSION):
        return _needs(IMPORT_PERMISSION, namespace)
    return ""


def _needs(permission: str, namespace: Namespace) -> str:
    return f'permission {permission} is needed in namespace "{namespace.name}" to import it'


def _without_runs(
    workloads: Sequence[tuple[OrphanedObject, Candidate]],
) -> tuple[list[tuple[OrphanedObject, Candidate]], list[tuple[OrphanedObject, Candidate]]]:
    """Returns the workloads, and separately the Jobs that are runs of a CronJob or earlier runs of a Job."""
    newest: dict[str, int] = {}
    for _, each in workloads:
        if each.container is not None and each.kind == "job":
            newest[each.uid] = max(newest.get(each.uid, 0), each.container.spec.run)
    kept, runs = [], []
    for orphan, each in workloads:
        if each.runs_of:
            runs.append((orphan, each))
        elif each.kind == "job" and each.container is not None and each.container.spec.run < newest[each.uid]:
            words = f"it is a former run of {each.container.name}: import the newest"
            former = msgspec.structs.replace(
                each, container=None, problems=(words,), runs_of=each.container.name
            )
            runs.append((orphan, former))
        else:
            kept.append((orphan, each))
    return kept, runs


def _resolved(
    namespace: Namespace,
    orphan: OrphanedObject,
    candidate: Candidate,
    runs: Sequence[tuple[OrphanedObject, Candidate]],
) -> Resolved:
    container = candidate.container
    if container is None:
        return Resolved(orphan, problems=candidate.problems)
    where, made, taken_over = orphan.kubernetes_namespace, candidate.created, container.spec.taken_over
    owned = () if taken_over is None else taken_over.services
    claims = [volume.kubernetes_name for volume, _ in candidate.discovered.volumes if volume.is_claim]
    named = {
        "Service": [service.name for service in owned],
        "ConfigMap": made.config_maps,
        "Secret": made.secrets,
        "PersistentVolumeClaim": claims,
        "ServiceAccount": [container.spec.service_account] if container.spec.service_account else [],
    }
    taken = [(kind, where, name) for kind, names in named.items() for name in names]
    taken += [_key(each) for each, run in runs if run.runs_of in (container.kubernetes_name, container.name)]
    return Resolved(
        orphan,
        imported_as=f"container {namespace.name}/{container.name}",
        notes=candidate.notes,
        taken=(_key(orphan), *taken),
    )


def _key(orphan: OrphanedObject) -> tuple[str, str, str]:
    return (orphan.kind, orphan.kubernetes_namespace, orphan.name)
