"""The rules for a workload's settings, by its kind, and for changes that need a new object."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from pilothouse_manifests.table import RECREATE, ROLLING_UPDATE
from pilothouse_manifests.workloads import DELETE, ON_DELETE, ORDERED_READY, PARALLEL, RETAIN
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.manifests import NO_NODE
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import (
    ClaimTemplate,
    DaemonSetSettings,
    DeploymentSettings,
    StatefulSetSettings,
)
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.errors import FailedPrecondition, invalid
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.quantity import normalise

_NUMBER_OR_PERCENT = re.compile(r"(?:0|[1-9][0-9]{0,9})%?")
_INT32_MAXIMUM = 2**31 - 1
_DEADLINE_SECONDS = 600
# The controller appends a hash to the name, and the result must fit into a label's value.
LONGEST_STATEFUL_NAME: Final = 52
_NO_REPLICAS = (
    "must be unset for a DaemonSet: it has a pod on each node that matches node_selector and tolerations"
)
_ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


def check_workload(found: Findings, container: Container) -> None:
    """Notes each broken rule of the settings."""
    workload = container.spec.workload
    if NO_NODE in container.spec.node_selector:
        found.add("container.node_selector", "reserved", f'"{NO_NODE}" is set by the platform alone')
    if isinstance(workload, StatefulSetSettings):
        _check_stateful_set(found, container, workload)
    elif isinstance(workload, DaemonSetSettings):
        _check_daemon_set(found, container, workload)
    elif isinstance(workload, DeploymentSettings):
        _check_deployment(found, workload)


def normal_form(container: Container) -> Container:
    """Returns the container with the quantities of its settings in normal form.

    Raises:
        InvalidValueError: a text is no quantity.
    """
    workload = container.spec.workload
    if not isinstance(workload, StatefulSetSettings) or not workload.claim_templates:
        return container
    templates = tuple(
        msgspec.structs.replace(each, size=normalise(each.size) if each.size else "")
        for each in workload.claim_templates
    )
    changed = msgspec.structs.replace(workload, claim_templates=templates)
    return msgspec.structs.replace(container, spec=msgspec.structs.replace(container.spec, workload=changed))


def replacing(
    merge: Callable[[Container], Container], *, replace: bool, scales: bool = False, again: bool = False
) -> Callable[[Container], Container]:
    """Wraps `merge` with checks of fields that Kubernetes makes immutable.

    The result raises InvalidArgument if the kind changes, and FailedPrecondition if an immutable setting changes and
    `replace` is false. With `replace` it marks the container, so that its object is deleted and created again.
    `scales`: the caller gives the number of replicas; for a DaemonSet, that raises InvalidArgument. `again`: the object
    is deleted and created again although no setting changes, for example because others created it; for a kind without
    immutable settings, that raises InvalidArgument.
    """

    def merged(stored: Container) -> Container:
        wanted = merge(stored)
        type_ = workload_type(stored)
        if workload_type(wanted) is not type_:
            words = f"its kind is immutable ({type_.name}): delete the container and create another one"
            raise invalid(f"container.{wanted.workload_kind}", words)
        if type_.per_node and wanted.replicas != stored.replicas:
            if scales:
                raise invalid("container.replicas", _NO_REPLICAS)
            wanted = msgspec.structs.replace(wanted, replicas=stored.replicas)
        changed = [name for name in type_.fixed if _fixed(stored, name) != _fixed(wanted, name)]
        if again and not type_.fixed:
            raise invalid("replace", f"a {type_.kind} has no immutable settings: name the fields to change")
        if not changed and not again:
            return wanted
        if not replace:
            raise FailedPrecondition(
                f"container.{type_.name}.{changed[0]}: immutable in a {type_.kind} that exists; set `replace` to "
                "delete it, without its pods and claims, and create it again",
                reason="REPLACE_NEEDED",
                metadata={"field": f"container.{type_.name}.{changed[0]}"},
            )
        spec = msgspec.structs.replace(wanted.spec, replaced_generation=stored.generation + 1)
        return msgspec.structs.replace(wanted, spec=spec)

    return merged


def scaled(replicas: int) -> Callable[[Container], Container]:
    """Returns a function that sets the number of pods; it raises InvalidArgument for a kind without that number."""

    def merged(stored: Container) -> Container:
        type_ = workload_type(stored)
        if not type_.scales:
            words = (
                _NO_REPLICAS
                if type_.per_node
                else f"must be unset for a {type_.kind}: update its parallelism"
            )
            raise invalid("replicas", words)
        return msgspec.structs.replace(stored, replicas=replicas)

    return merged


def _fixed(container: Container, name: str) -> object:
    try:
        value = getattr(normal_form(container).spec.workload, name)
    except InvalidValueError:
        return None
    return ORDERED_READY if name == "pod_management" and not value else value


def _check_deployment(found: Findings, workload: DeploymentSettings) -> None:
    field = "container.deployment"
    found.one_of(f"{field}.strategy", workload.strategy, (ROLLING_UPDATE, RECREATE))
    for name in ("max_surge", "max_unavailable"):
        text = getattr(workload, name)
        if text and workload.strategy == RECREATE and _NUMBER_OR_PERCENT.fullmatch(text):
            found.add(f"{field}.{name}", "unused", f"is only allowed with strategy {ROLLING_UPDATE}")
        else:
            _check_share(found, f"{field}.{name}", text, bounded=name == "max_unavailable")
    if _is_zero(workload.max_surge) and _is_zero(workload.max_unavailable):
        found.add(f"{field}.max_unavailable", "minimum", "must not be 0 if max_surge is 0, too")
    deadline = workload.progress_deadline_seconds
    if (_DEADLINE_SECONDS if deadline is None else deadline) <= workload.min_ready_seconds:
        rule = f"must be more than min_ready_seconds ({workload.min_ready_seconds})"
        found.add(f"{field}.progress_deadline_seconds", "minimum", rule)


def _check_stateful_set(found: Findings, container: Container, workload: StatefulSetSettings) -> None:
    field = "container.stateful_set"
    if len(container.name) > LONGEST_STATEFUL_NAME:
        words = f"must not be longer than {LONGEST_STATEFUL_NAME} characters for a StatefulSet"
        found.add("container.name", "max_length", words)
    found.one_of(f"{field}.pod_management", workload.pod_management, (ORDERED_READY, PARALLEL))
    found.one_of(f"{field}.update_strategy", workload.update_strategy, (ROLLING_UPDATE, ON_DELETE))
    for name in ("when_deleted", "when_scaled"):
        found.one_of(
            f"{field}.claim_retention.{name}", getattr(workload.claim_retention, name), (RETAIN, DELETE)
        )
    if workload.update_strategy == ON_DELETE:
        for name in ("update_partition", "max_unavailable"):
            if getattr(workload, name):
                found.add(
                    f"{field}.{name}", "unused", f"is only allowed with update_strategy {ROLLING_UPDATE}"
                )
    elif _is_zero(workload.max_unavailable):
        found.add(f"{field}.max_unavailable", "minimum", "must not be 0")
    else:
        _check_share(found, f"{field}.max_unavailable", workload.max_unavailable, bounded=True)
    _check_claims(found, container, workload.claim_templates)


def _check_daemon_set(found: Findings, container: Container, workload: DaemonSetSettings) -> None:
    field = "container.daemon_set"
    if not container.uid and not container.imported and container.replicas != 1:
        found.add("container.replicas", "unused", _NO_REPLICAS)
    found.one_of(f"{field}.update_strategy", workload.update_strategy, (ROLLING_UPDATE, ON_DELETE))
    surges = bool(workload.max_surge) and not _is_zero(workload.max_surge)
    for name in ("max_unavailable", "max_surge"):
        text = getattr(workload, name)
        if text and workload.update_strategy == ON_DELETE:
            found.add(f"{field}.{name}", "unused", f"is only allowed with update_strategy {ROLLING_UPDATE}")
        else:
            _check_share(found, f"{field}.{name}", text, bounded=True)
    if _is_zero(workload.max_unavailable) and not surges:
        found.add(f"{field}.max_unavailable", "minimum", "must not be 0 if max_surge is 0, too")
    if surges and workload.max_unavailable and not _is_zero(workload.max_unavailable):
        found.add(f"{field}.max_surge", "unused", "must be 0 unless max_unavailable is 0 or unset")


def _check_claims(found: Findings, container: Container, templates: tuple[ClaimTemplate, ...]) -> None:
    field, spec = "container.stateful_set.claim_templates", container.spec
    found.unique(field, enumerate(each.name for each in templates), "the name")
    others = {each.name for each in spec.empty_dirs} | {each.name for each in spec.pod_volumes}
    for number, each in enumerate(templates):
        at = f"{field}[{number}]"
        if not each.name:
            found.missing(f"{at}.name")
        elif each.name in others:
            found.add(f"{at}.name", "unique", f'a volume of the pods is called "{each.name}", too')
        if not each.size:
            found.missing(f"{at}.size")
        else:
            _check_quantity(found, f"{at}.size", each.size)
        for mode in each.access_modes:
            found.one_of(f"{at}.access_modes", mode, _ACCESS_MODES)
        found.one_of(f"{at}.volume_mode", each.volume_mode, ("Filesystem", "Block"))


def _check_quantity(found: Findings, field: str, text: str) -> None:
    try:
        normalise(text)
    except InvalidValueError as error:
        found.add(field, "quantity", str(error))


def _check_share(found: Findings, field: str, text: str, *, bounded: bool) -> None:
    """Notes a text that is neither a number nor a percentage; `bounded`: of at most 100%."""
    if not text:
        return
    if not _NUMBER_OR_PERCENT.fullmatch(text) or int(text.removesuffix("%")) > _INT32_MAXIMUM:
        found.add(field, "format", "must be a whole number or a percentage such as 25%")
    elif bounded and text.endswith("%") and int(text[:-1]) > 100:
        found.add(field, "maximum", "must not be above 100%")


def _is_zero(text: str) -> bool:
    return text in ("0", "0%")
