"""Turns documents into the objects that they ask for, with the translator that the command and the imports use.

    translated   JSON texts → the manifest: each document by itself, without reading the namespace
    settled      the manifest and the objects of the namespace → objects in the form of their nouns

Between the two steps the caller reads the objects that `TranslatedDocuments` names: containers that own Services,
volumes of claims, and config maps and secrets that documents refer to. All faults are found, and each becomes a problem
with its document and path. No problem repeats a value of a document. Both functions yield to the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import msgspec

from pilothouse_manifests.carried import CARRIED, group_of
from pilothouse_manifests.fields import Values
from pilothouse_manifests.translator.attach import (
    WantedContainer,
    attach,
    in_order_of_services,
    owned_services,
)
from pilothouse_manifests.translator.convert import ManifestConversion
from pilothouse_manifests.translator.convert_volume import use_existing_claims, use_present_names
from pilothouse_manifests.translator.externals import SourceName, mark_external, sources_elsewhere
from pilothouse_manifests.translator.json_documents import DocumentError, DocumentPosition, read_document
from pilothouse_manifests.translator.manifest import Manifest, ManifestObject, VolumeObject
from pilothouse_manifests.translator.nodes import InputPosition
from pilothouse_manifests.translator.problems import InputProblem, ProblemReach, Problems
from pilothouse_server.applications.model import (
    NOUNS,
    ApplicationProblem,
    GivenDocument,
    MemberKey,
    MemberNoun,
    ProblemWeight,
    ReadDocuments,
    WantedObject,
)
from pilothouse_server.applications.translation.messages import forms
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import WORKLOADS, has_runs
from pilothouse_server.errors import PilothouseError
from pilothouse_server.objects import documents
from pilothouse_server.runtime.event_loop import Share, cooperatively
from pilothouse_server.values.resources import ObjectWarning

# The reason of a warning about something that is left out without loss.
LEFT_OUT: Final = "LEFT_OUT"
_EXISTING_CLAIM: Final = "EXISTING_CLAIM"
_NO_ORDER: Final = ObjectWarning(
    "NO_ORDER", "", "waves have no effect without an application: all objects are applied at the same time"
)
_MALFORMED: Final = "MALFORMED_DOCUMENT"
# The reasons tell a caller to leave out either the field or the whole document.
_REASONS: Final[Mapping[ProblemReach, str]] = {
    ProblemReach.FIELD: "UNSUPPORTED",
    ProblemReach.DOCUMENT: "UNSUPPORTED_DOCUMENT",
    ProblemReach.INVALID: "INVALID_DOCUMENT",
}
_CORE: Final = "v1"
_VERSION_OF: Final[Mapping[str, str]] = {
    each.kind: "batch/v1" if each.kind in ("Job", "CronJob") else "apps/v1" for each in WORKLOADS.values()
}
# Only labels, annotations and size of a claim can change.
_CLAIM_FIELDS: Final = frozenset({"labels", "annotations", "size"})
_STAGES: Final[Mapping[MemberNoun, int]] = {noun: number for number, noun in enumerate(NOUNS)}
# Kinds that containers, or other kinds in this list, need. All other kinds are written after the containers.
_BEFORE_CONTAINERS: Final = ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget")
_EXTRA_FIELDS: Final = "container.extra_fields"
# Kinds of documents by their lower-case form, which the subjects of problems use.
_KINDS: Final[Mapping[str, str]] = {
    each.lower(): each
    for each in (
        *_VERSION_OF,
        *("Service", "ServiceAccount", "ConfigMap", "Secret", "PersistentVolumeClaim"),
        *(kind for _, kind in CARRIED),
    )
}


@dataclass(slots=True)
class TranslatedDocuments:
    """Documents as far as they can be understood without the namespace."""

    given: Sequence[GivenDocument]
    namespace: str
    manifest: Manifest
    problems: Problems

    @property
    def services(self) -> frozenset[str]:
        """Names of the Services. If a container owns one of them, `settled` needs all containers of the namespace."""
        return frozenset(each.name for each in self.manifest.services)

    @property
    def containers(self) -> frozenset[str]:
        """Names of the containers."""
        return frozenset(each.name for each in self.manifest.workloads)

    @property
    def sources(self) -> frozenset[SourceName]:
        """Kind and name of the config maps and secrets that the documents refer to but do not contain."""
        return frozenset(sources_elsewhere(self.manifest))


class PresentObjects(msgspec.Struct, frozen=True):
    """The objects of a namespace that are needed to understand documents.

    `containers`: those with the documents' names, or all. `volumes`: names of volumes by the names of their claims on
    the cluster. `sources`: the existing ones of `TranslatedDocuments.sources`. `external_sources`: those of the
    namespace.
    """

    containers: tuple[Container, ...] = ()
    volumes: Mapping[str, str] = {}
    sources: frozenset[SourceName] = frozenset()
    external_sources: tuple[str, ...] = ()


async def translated(
    given: Sequence[GivenDocument],
    namespace: str,
    opened: Collection[tuple[str, str]] = (),
    *,
    ordered: bool = False,
) -> TranslatedDocuments:
    """Returns the manifest of documents.

    `opened`: version and kind of the custom resources that the cluster's settings allow. `ordered`: the documents are
    those of an application, with phases and waves.
    """
    problems = Problems()
    conversion = ManifestConversion(namespace, problems, opened, ordered=ordered)
    async for number, document in cooperatively(enumerate(given)):
        place = DocumentPosition(document.source, number + 1, 1)
        try:
            read = read_document(document.json, place)
        except DocumentError as error:
            problems.add(InputProblem(place, "", "", error.words))
            continue
        conversion.add(read)
    return TranslatedDocuments(given, namespace, conversion.completed(), problems)


async def settled(read: TranslatedDocuments, present: PresentObjects) -> ReadDocuments:
    """Returns the objects that the documents ask for in a namespace, with all problems and warnings.

    Each object comes after those that its noun requires: a binding after its Role, an autoscaler after its target.
    """
    manifest, problems, share = read.manifest, read.problems, Share()
    described = [forms.container_values(each) async for each in cooperatively(present.containers)]
    mark_external(
        manifest,
        present.external_sources,
        described,
        lambda kind, name: (kind, name) not in present.sources,
    )
    await share.used()
    warnings = _use_claims(manifest, present.volumes)
    await share.used()
    owned = owned_services(described)
    joined = replace(manifest, services=[each for each in manifest.services if each.name in owned])
    await share.used()
    attached = attach(joined, described)
    await share.used()
    containers = in_order_of_services(attached)
    await share.used()
    wanted = WantedObjects(read)
    for config in manifest.configs:
        make = forms.config_map_of if config.kind == "config_map" else forms.secret_of
        kind = "ConfigMap" if config.kind == "config_map" else "Secret"
        key = MemberKey(config.kind, config.name)
        await wanted.add(key, _CORE, kind, config.place, make(read.namespace, config.values))
    for volume in _distinct(manifest.volumes, problems):
        fields = frozenset[str]() if volume.implied else _CLAIM_FIELDS
        kind = "Volume" if volume.implied else "PersistentVolumeClaim"
        key = MemberKey("volume", volume.name)
        made = forms.volume_of(read.namespace, volume.values)
        await wanted.add(key, _CORE, kind, volume.place, made, fields)
    for service in manifest.services:
        if service.name not in owned:
            key = MemberKey("service", service.name)
            made_service = forms.service_of(read.namespace, service.values)
            await wanted.add(key, _CORE, "Service", service.place, made_service)
    for carried in manifest.objects:
        key = MemberKey("object", carried.name, group_of(carried.api_version), carried.kind)
        made_object = _carried(read.namespace, carried)
        await wanted.add(key, carried.api_version, carried.kind, carried.place, made_object)
    stored = {each.name: each for each in present.containers}
    for container in containers:
        await wanted.add_container(container, stored.get(container.name))
    translation_problems = (problem_of(each) for each in problems.all)
    found = (*translation_problems, *wanted.problems)
    notes = (
        ObjectWarning(LEFT_OUT, each.located, f"{each.place}: {each.message}") for each in problems.notes
    )
    placed = [_placed(each, manifest) async for each in cooperatively(wanted.found)]
    objects = tuple(sorted(placed, key=writing_order))
    unordered = [_NO_ORDER] if manifest.waves_ignored else []
    return ReadDocuments(objects, in_order(found), tuple(chain(notes, warnings, unordered)))


def _placed(wanted: WantedObject, manifest: Manifest) -> WantedObject:
    """Returns an object with its order. A hook keeps one run, so a new run deletes the previous one."""
    order = manifest.orders.get((group_of(wanted.api_version), wanted.kind, wanted.key.name))
    if order is None:
        return wanted
    wanted = msgspec.structs.replace(wanted, order=order)
    value = wanted.value
    if not order.hook or not isinstance(value, Container) or value.spec.runs_kept is not None:
        return wanted
    if not has_runs(value):
        return wanted
    spec = msgspec.structs.replace(value.spec, runs_kept=1)
    fields = None if wanted.fields is None else wanted.fields | {"runs_kept"}
    return msgspec.structs.replace(wanted, value=msgspec.structs.replace(value, spec=spec), fields=fields)


def writing_order(wanted: WantedObject) -> tuple[int, int]:
    """Returns the position of an object in the sequence of writes."""
    if wanted.kind in _BEFORE_CONTAINERS and wanted.key.noun == "object":
        return _STAGES["object"], _BEFORE_CONTAINERS.index(wanted.kind)
    return (_STAGES[wanted.key.noun], 0) if wanted.key.noun != "object" else (len(_STAGES), 0)


class WantedObjects:
    """Collects objects, and the problems of objects whose fields break a rule."""

    def __init__(self, read: TranslatedDocuments) -> None:
        self._namespace = read.namespace
        self.found: list[WantedObject] = []
        self.problems: list[ApplicationProblem] = []
        self._share = Share()

    async def add(
        self,
        key: MemberKey,
        api_version: str,
        kind: str,
        place: InputPosition,
        made: Awaitable[Any],
        fields: frozenset[str] | None = None,
    ) -> None:
        """Adds an object, or the problems found while it was built."""
        wanted = WantedObject(key, api_version, kind, None, place.line - 1, place.file, fields)
        try:
            self.found.append(msgspec.structs.replace(wanted, value=await made))
        except PilothouseError as error:
            self.problems += problems_of(error, wanted)
        await self._share.used()

    async def add_container(self, container: WantedContainer, stored: Container | None) -> None:
        """Adds a container. One without a document of its own is the stored container with other ports."""
        values: Values = container.values
        if container.fields is not None and stored is not None:
            values = {**forms.container_values(stored), **values}
        fields = forms.decided_fields(values) if container.fields is None else container.fields
        key = MemberKey("container", container.name)
        kind = _kind(values)
        made = forms.container_of(self._namespace, values)
        await self.add(key, _VERSION_OF[kind], kind, container.place, made, fields)


def problem_of(found: InputProblem) -> ApplicationProblem:
    """Returns a problem of the translator. For a Secret it names no key: the key may be a misplaced value."""
    kind, _, name = found.subject.partition("/")
    path = found.path.partition("[")[0] if kind == "secret" else found.path
    weight: ProblemWeight | None = None
    if found.weight is not None:
        weight = msgspec.convert(found.weight.word, ProblemWeight)
    return ApplicationProblem(
        document=found.place.line - 1,
        reason=_REASONS[found.reach] if found.subject else _MALFORMED,
        message=found.message,
        kind=_KINDS.get(kind, kind),
        name=name,
        path=path,
        weight=weight,
        source=found.place.file,
    )


def problems_of(error: PilothouseError, wanted: WantedObject) -> list[ApplicationProblem]:
    """Returns the problems that a noun's operation reports about an object, one for each field."""
    problem = ApplicationProblem(
        document=wanted.document,
        reason=error.reason,
        message=error.message,
        kind=wanted.kind,
        name=wanted.key.name,
        permission=error.metadata.get("permission", ""),
        source=wanted.source,
    )
    if not error.violations:
        return [problem]
    return [
        msgspec.structs.replace(
            problem, path=_path(each.field), message=each.description if each.field else error.message
        )
        for each in error.violations
    ]


def in_order(problems: Collection[ApplicationProblem]) -> tuple[ApplicationProblem, ...]:
    """Returns problems in the order of the documents; problems without a document come last."""
    return tuple(sorted(problems, key=lambda each: (each.document < 0, each.document)))


def _path(field: str) -> str:
    """Returns the path in the document if the API carries the field only as an extra field; else the field itself."""
    if field.startswith(f'{_EXTRA_FIELDS}["') and field.endswith('"]'):
        return field[len(_EXTRA_FIELDS) + 2 : -2]
    return field


def _kind(values: Values) -> str:
    named = (each.kind for name, each in WORKLOADS.items() if name in values)
    return next(named, "Deployment")


async def _carried(namespace: str, carried: ManifestObject) -> Any:
    given = await forms.object_of(namespace, json.dumps(carried.document, ensure_ascii=False))
    return documents.completed(given, (namespace,))


def _use_claims(manifest: Manifest, present: Mapping[str, str]) -> list[ObjectWarning]:
    """Makes pods mount claims that are not volumes of the namespace as existing claims; returns a warning for each."""
    known = {each.name: each.name for each in manifest.claims} | dict(present)
    use_present_names(manifest.claims, present)
    return [
        ObjectWarning(
            _EXISTING_CLAIM,
            workload.reporter.subject,
            f"{workload.place}: claim {claim!r} is not a volume of the namespace: it must exist on the cluster, "
            "and the platform neither counts nor deletes it",
        )
        for workload in manifest.workloads
        for claim in use_existing_claims(workload, known)
    ]


def _distinct(volumes: Sequence[VolumeObject], problems: Problems) -> list[VolumeObject]:
    """Returns each volume once: several pods may imply the same volume."""
    first: dict[str, VolumeObject] = {}
    for each in volumes:
        other = first.setdefault(each.name, each)
        if other.values != each.values:
            words = f"volume {each.name!r} differs from the volume of the same name at {other.place}"
            problems.add(InputProblem(each.place, each.reporter.subject, "", words))
    return list(first.values())
