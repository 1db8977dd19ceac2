"""Sorts documents by kind and converts each.

Deployments, StatefulSets, DaemonSets, Jobs, CronJobs, Services, ServiceAccounts, ConfigMaps, Secrets and
PersistentVolumeClaims have a place on the platform; a `v1` List stands for its items. Objects of carried kinds are
converted unchanged, and so are custom resources whose kind the cluster opens. The Namespace that is applied to must
already exist; this module does not convert its desired state. Every other kind is reported by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pilothouse_manifests.carried import CARRIED, group_of, is_built_in, never_taken
from pilothouse_manifests.cron_jobs import JOB_TEMPLATE_KEY
from pilothouse_manifests.former_versions import removed
from pilothouse_manifests.translator.convert_config import convert_config_map, convert_secret
from pilothouse_manifests.translator.convert_deployment import convert_workload
from pilothouse_manifests.translator.convert_object import convert_object
from pilothouse_manifests.translator.convert_service import convert_service
from pilothouse_manifests.translator.convert_volume import convert_claim
from pilothouse_manifests.translator.fields import Fields
from pilothouse_manifests.translator.manifest import Manifest, RefusedWorkload
from pilothouse_manifests.translator.nodes import Document, InputPosition, Mapping, ScalarNode, describe
from pilothouse_manifests.translator.ordering import (
    ARGO_HOOK,
    ARGO_WAVE,
    HELM_HOOK,
    DocumentOrder,
    note_retention,
    read_order,
)
from pilothouse_manifests.translator.problems import ELSEWHERE, Problems, Reporter
from pilothouse_manifests.translator.weights import ProblemWeight, weight_of_hook, weight_of_kind

WORKLOADS = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
)
SERVICE = ("v1", "Service")
CONFIG_MAP = ("v1", "ConfigMap")
SECRET = ("v1", "Secret")
CLAIM = ("v1", "PersistentVolumeClaim")
LIST = ("v1", "List")
NAMESPACE = ("v1", "Namespace")
POD = ("v1", "Pod")
_SUPPORTED = (*WORKLOADS, SERVICE, CONFIG_MAP, SECRET, CLAIM)


def convert(
    documents: Iterable[Document],
    namespace: str,
    problems: Problems,
    opened: Collection[tuple[str, str]] = (),
    *,
    ordered: bool = False,
) -> Manifest:
    """Returns the manifest of all documents; `ManifestConversion` describes the arguments."""
    conversion = ManifestConversion(namespace, problems, opened, ordered=ordered)
    for document in documents:
        conversion.add(document)
    return conversion.completed()


class ManifestConversion:
    """Turns documents into values, one after the other, for the platform's `namespace`.

    Each field that has no place becomes a problem. `opened`: version and kind of custom resources that the cluster
    opens. `ordered`: the documents are a whole application, which is applied by phases and waves. If it is false, hooks
    are refused.
    """

    def __init__(
        self,
        namespace: str,
        problems: Problems,
        opened: Collection[tuple[str, str]] = (),
        *,
        ordered: bool = False,
    ) -> None:
        self._namespace = namespace
        self._problems = problems
        self._opened = opened
        self._ordered = ordered
        self._seen: dict[str, InputPosition] = {}
        self._manifest = Manifest()

    def add(self, document: Document) -> None:
        """Converts a document, or the items of a List."""
        for each in items_of(document, self._problems):
            identity = _text(each, "apiVersion"), _text(each, "kind")
            carries = each if identity in WORKLOADS else None
            reporter = Reporter(self._problems, _subject(each), identity, carries)
            with Fields(each, "", reporter) as root:
                order = _order_of(root) if self._ordered else None
                if self._ordered and order is None:
                    _read_all(root)
                    continue
                _convert_one(root, self._namespace, self._manifest, self._seen, self._opened, order)
            reporter.note_dropped(each.place)
            if not reporter.usable and (refused := _refused(each, reporter.subject)) is not None:
                self._manifest.refused.append(refused)

    def completed(self) -> Manifest:
        """Returns the manifest, without the documents that a problem made unusable."""
        manifest = self._manifest
        for workload in manifest.workloads:
            if workload.reporter.carried:
                workload.values["extra_fields"] = workload.reporter.carried
        manifest.workloads = [each for each in manifest.workloads if each.reporter.usable]
        manifest.services = [each for each in manifest.services if each.reporter.usable]
        manifest.objects = [each for each in manifest.objects if each.reporter.usable]
        manifest.configs = [each for each in manifest.configs if each.reporter.usable]
        manifest.claims = [each for each in manifest.claims if each.reporter.usable]
        return manifest


def items_of(document: Document, problems: Problems) -> Iterator[Mapping]:
    """Yields the object of a document, or those of a List.

    Anything else becomes a problem."""
    yield from _expanded([document], problems)


def unknown_kinds(documents: Iterable[Document]) -> set[tuple[str, str]]:
    """Returns version and kind of the documents that may be custom resources."""
    found = {(_text(each, "apiVersion"), _text(each, "kind")) for each in _expanded(documents, Problems())}
    return {
        (version, kind)
        for version, kind in found
        if kind
        and not (never_taken(version, kind) or is_built_in(version, kind))
        and (version, kind) != NAMESPACE
    }


def _convert_one(
    root: Fields,
    namespace: str,
    manifest: Manifest,
    seen: dict[str, InputPosition],
    opened: Collection[tuple[str, str]],
    order: DocumentOrder | None,
) -> None:
    identity = (root.text("apiVersion", required=True), root.text("kind", required=True))
    if all(identity) and identity == NAMESPACE:
        _check_namespace(root, namespace)
        return
    if (
        not all(identity)
        or _is_helm_test(root, *identity)
        or not _has_place(root, *identity, opened)
        or (order is None and _refuses_hook(root))
    ):
        _read_all(root)
        return
    if order is None:
        manifest.waves_ignored = manifest.waves_ignored or bool(_annotation(root, ARGO_WAVE))
    elif order != DocumentOrder():
        name = root.reporter.subject.partition("/")[2]
        manifest.orders[group_of(identity[0]), identity[1], name] = order
    if order is not None and identity != CLAIM:
        # Claims are deleted only if the caller requests it.
        note_retention(root, lambda key: _annotation(root, key))
    if identity in WORKLOADS:
        _refuse_name_of_another(root, identity[1], seen)
    subject = root.reporter.subject
    # Two API groups may have a kind of the same name.
    first = seen.setdefault(
        subject if identity in _SUPPORTED else f"{group_of(identity[0])} {subject}", root.place
    )
    if first is not root.place:
        root.reporter.invalid(root.place, "", f"expected each object once, found it again; first at {first}")
    _convert_kind(identity, root, namespace, manifest)


def _refuse_name_of_another(root: Fields, kind: str, seen: dict[str, InputPosition]) -> None:
    """Reports a workload whose container would have the name of another one."""
    name = root.reporter.subject.partition("/")[2]
    for _, other in WORKLOADS:
        before = seen.get(f"{other.lower()}/{name}")
        if name and other != kind and before is not None:
            message = f"cannot be represented: {other} {name!r} at {before} is a container of the same name"
            root.reporter.unusable(root.place, "metadata.name", message)


def _annotation(root: Fields, key: str) -> str:
    return _text(_mapping(_mapping(root.node, "metadata"), "annotations"), key)


def _order_of(root: Fields) -> DocumentOrder | None:
    """Returns a document's place in a whole application.

    None if the document is left out, which is reported."""
    return read_order(root, lambda key: _annotation(root, key))


def _is_helm_test(root: Fields, version: str, kind: str) -> bool:
    """Returns whether the document is a Helm test's pod, which Helm runs on demand only; notes that it is left out."""
    hooks = _annotation(root, HELM_HOOK)
    if (version, kind) != POD or not hooks or weight_of_hook(hooks) is not ProblemWeight.HARMLESS:
        return False
    root.reporter.note(root.place, f"is left out: it is a Helm hook ({hooks}), which runs on demand only")
    return True


def _has_place(root: Fields, version: str, kind: str, opened: Collection[tuple[str, str]]) -> bool:
    """Returns whether the platform has a place for the document as a whole; reports the document if not."""
    identity = version, kind
    if identity not in _SUPPORTED and identity not in CARRIED and identity not in opened:
        weight = weight_of_kind(version, kind)
        root.reporter.unusable(root.place, "", _unsupported_kind(version, kind), weight=weight)
        return False
    return True


def _refuses_hook(root: Fields) -> bool:
    """Returns whether the document is a hook, which only an application can run; reports it if so."""
    for key, tool in ((HELM_HOOK, "a Helm hook"), (ARGO_HOOK, "an Argo CD hook")):
        if hooks := _annotation(root, key):
            message = (
                f"{tool} ({hooks}) cannot be represented: it would stay like any other object; {ELSEWHERE}"
            )
            path = f"metadata.annotations[{key}]"
            root.reporter.unusable(root.place, path, message, weight=weight_of_hook(hooks))
            return True
    return False


def _convert_kind(identity: tuple[str, str], root: Fields, namespace: str, manifest: Manifest) -> None:
    if identity in WORKLOADS:
        manifest.workloads.append(convert_workload(root, namespace, identity[1]))
    elif identity == SERVICE:
        manifest.services.append(convert_service(root, namespace))
    elif identity == CONFIG_MAP:
        manifest.configs.append(convert_config_map(root, namespace))
    elif identity == CLAIM:
        manifest.claims.append(convert_claim(root, namespace))
    elif identity == SECRET:
        manifest.configs.append(convert_secret(root, namespace))
    else:
        manifest.objects.append(convert_object(root, namespace))
    # The cluster writes the status; it is not part of the desired state.
    root.drop("status")


def _check_namespace(root: Fields, namespace: str) -> None:
    with root.part("metadata", required=True) as stated:
        name = stated.text("name", required=True)
        if name and name != namespace:
            message = (
                f"cannot be represented: another namespace than {namespace!r}, the namespace of this command"
            )
            root.reporter.unusable(stated.place_of("name"), stated.path_of("name"), message)
        _read_all(stated)
    _read_all(root)


def _unsupported_kind(version: str, kind: str) -> str:
    if former := removed(version, kind):
        return f"{kind} of {version} is not served since Kubernetes 1.{former.removed}: {former.advice}"
    group = group_of(version)
    known = sorted(
        each for each, of_kind in {*_SUPPORTED, *CARRIED} if of_kind == kind and group_of(each) == group
    )
    if known:
        return f"{kind} of {version} is not supported; expected {kind} of {' or '.join(known)}"
    if why := never_taken(version, kind):
        return f"{kind} of {version} cannot be represented: {why}; or {ELSEWHERE}"
    import difflib

    kinds = sorted({of_kind for each, of_kind in {*_SUPPORTED, *CARRIED} if group_of(each) == group})
    meant = difflib.get_close_matches(kind, kinds, n=1, cutoff=0.8)
    question = f" (did you mean {meant[0]}?)" if meant else ""
    return f"{kind} of {version} is not yet supported{question}; {ELSEWHERE}"


def _expanded(documents: Iterable[Document], problems: Problems) -> Iterator[Mapping]:
    for document in documents:
        root = document.root
        if not isinstance(root, Mapping):
            message = f"expected a mapping with apiVersion and kind, found {describe(root)}"
            Reporter(problems, "document").invalid(root.place, "", message)
        elif (_text(root, "apiVersion"), _text(root, "kind")) == LIST:
            yield from _expanded(_listed(root, problems), problems)
        else:
            yield root


def _listed(root: Mapping, problems: Problems) -> list[Document]:
    reporter = Reporter(problems, "list")
    with Fields(root, "", reporter) as fields:
        fields.text("apiVersion")
        fields.text("kind")
        with fields.part("metadata") as metadata:
            metadata.only_default("resourceVersion", "")
        return [Document(item.place, item.node) for item in fields.items("items")]


def _read_all(root: Fields) -> None:
    """Reads all keys, so that a document which was reported as a whole gets no further problems."""
    for name in root.names():
        root.item(name)


def _refused(root: Mapping, subject: str) -> RefusedWorkload | None:
    """Returns the record of a document that cannot be applied.

    None if it has no pod template."""
    spec = _mapping(root, "spec")
    of_jobs = _mapping(_mapping(spec, JOB_TEMPLATE_KEY), "spec")
    template = _mapping(of_jobs if of_jobs.entries else spec, "template")
    labels = _mapping(_mapping(template, "metadata"), "labels")
    if not template.entries:
        return None
    return RefusedWorkload(subject, {key: _text(labels, key) for key in labels.entries})


def _mapping(root: Mapping, name: str) -> Mapping:
    entry = root.entries.get(name)
    value = entry.value if entry is not None else None
    return value if isinstance(value, Mapping) else Mapping(root.place, {})


def _subject(root: Mapping) -> str:
    name = _text(_mapping(root, "metadata"), "name")
    kind = _text(root, "kind").lower() or "document"
    return f"{kind}/{name}" if name else kind


def _text(root: Mapping, name: str) -> str:
    entry = root.entries.get(name)
    value = entry.value if entry is not None else None
    return value.text if isinstance(value, ScalarNode) and value.kind == "string" else ""
