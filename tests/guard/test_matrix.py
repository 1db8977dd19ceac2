"""Every guarded path of pods × caller × action.

The callers are a namespace's operator and administrator, and the platform administrator. The actions are
create, update, import and ADOPT. A path that a container cannot represent is refused for every caller. Any
other path, as a field or as an extra field, needs its permission, which only the platform administrator
holds. ADOPT has no caller and takes over no guarded path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.containers import guarding, rules
from pilothouse_server.containers.model import Container
from pilothouse_server.errors import InvalidArgument, PermissionDenied
from pilothouse_server.guard.model import GuardViolation, Keys
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.importing import drift_adoption
from pilothouse_server.importing.deployments import convert
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns
from tests.guard.objects import GUARDED, Guarded, deployment
from tests.kubernetes.containers import SHOP

KEYS = Keys(
    KeyPatterns(Settings().service_annotations), KeyPatterns(Settings().guarded_pod_keys, guarding=True)
)
CALLERS = {
    "operator": Principal(
        1, "olga", (Grant("operator", "shop", 1, frozenset(SHIPPED_ROLES["operator"].permissions)),)
    ),
    "administrator": Principal(2, "anna", (Grant("admin", "shop", 1, frozenset({"*"})),)),
    "platform": Principal(3, "root", (Grant("admin", None, None, frozenset({"*"})),)),
}
# Paths that a container cannot represent as a field or as an extra field: an import refuses them for every
# caller.
_PROGRAMS = ("containers", "initContainers")
UNREPRESENTED = {
    "spec.volumes",
    *(f"spec.{programs}[0].volumeMounts" for programs in _PROGRAMS),
    *(
        f"spec.{programs}[0].lifecycle.{hook}.tcpSocket"
        for programs in _PROGRAMS
        for hook in ("postStart", "preStop")
    ),
}


def _container(guarded: Guarded | None, *, imported: bool) -> tuple[Container, tuple[str, ...]]:
    """Returns the container of a Deployment, and the fields it cannot represent."""
    document = deployment(guarded)
    document["metadata"]["uid"] = "u"
    found = convert(document)
    subject = msgspec.structs.replace(found.container, namespace_ref=SHOP, uid="c")
    if imported:
        return subject, found.problems
    taken_over = subject.spec.taken_over
    assert taken_over is not None
    spec = msgspec.structs.replace(subject.spec, taken_over=None)
    labels, annotations = taken_over.pod_labels, taken_over.pod_annotations
    return msgspec.structs.replace(
        subject, spec=spec, labels=labels, annotations=annotations, imported=False
    ), found.problems


def _asks(caller: Principal) -> Callable[[str], bool]:
    return lambda permission: caller.allows(permission, "shop")


def _create(guarded: Guarded, caller: Principal) -> None:
    guarding.admitted(_container(guarded, imported=False)[0], None, KEYS, _asks(caller))


def _update(guarded: Guarded, caller: Principal) -> None:
    stored, _ = _container(None, imported=False)
    guarding.admitted(_container(guarded, imported=False)[0], stored, KEYS, _asks(caller))


def _import(guarded: Guarded, caller: Principal) -> None:
    guarding.admitted(_container(guarded, imported=True)[0], None, KEYS, _asks(caller))


ACTIONS = {"create": _create, "update": _update, "import": _import}


def _refused(action: Callable[[Guarded, Principal], None], guarded: Guarded, caller: Principal) -> str:
    """Returns the missing permission, or '' if the action was allowed."""
    try:
        action(guarded, caller)
    except PermissionDenied as denied:
        return str(denied.metadata["permission"])
    return ""


def _said() -> Iterator[Guarded]:
    """Yields the guarded paths that a container can represent, except `hostUsers`.

    The guarded value of `hostUsers`, true, is also the default.
    """
    plain, _ = _container(None, imported=True)
    for guarded in GUARDED:
        subject, problems = _container(guarded, imported=True)
        if not problems and subject != plain:
            yield guarded


def test_paths_without_a_field_are_refused_by_an_import_for_all_callers() -> None:
    said = {guarded.path for guarded in _said()}
    # One guarded volume, a token for another audience, has a field.
    unsaid = {*UNREPRESENTED, "spec.hostUsers"} - {"spec.volumes"}
    assert said == {guarded.path for guarded in GUARDED} - unsaid
    for guarded in GUARDED:
        _, problems = _container(guarded, imported=True)
        # Only `hostPath` and `clusterTrustBundle` volumes have no field.
        of_volumes = guarded.path == "spec.volumes"
        if of_volumes and guarded.rule != "hostPath" and "clusterTrustBundle" not in str(guarded.value):
            continue
        if guarded.path in UNREPRESENTED:
            last = guarded.path.split(".")[-1 if guarded.path.endswith(("volumes", "Mounts")) else -2]
            assert any(f"{last}" in problem for problem in problems), guarded


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_guarded_path_needs_its_permission(action: str, caller: str) -> None:
    tried = 0
    for guarded in _said():
        needed = "" if caller == "platform" else guarded.permission
        assert _refused(ACTIONS[action], guarded, CALLERS[caller]) == needed, guarded
        tried += 1
    assert tried >= 50


def test_without_the_guard_every_caller_would_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control."""

    def nothing(_document: Any, **_options: Any) -> list[GuardViolation]:
        return []

    monkeypatch.setattr(guarding, "violations", nothing)
    for action in ACTIONS.values():
        assert {_refused(action, guarded, CALLERS["operator"]) for guarded in _said()} == {""}


def _written(guarded: Guarded) -> str:
    """Returns the path as server-side apply writes it."""
    path = guarded.path.replace("containers[0]", 'containers[name="main"]')
    path = path.replace("initContainers[0]", 'initContainers[name="init"]')
    if guarded.path.startswith("metadata."):
        (key,) = guarded.value
        path = f"{path}.{key}"
    return f".spec.template.{path}"


@pytest.mark.parametrize("imported", [False, True])
def test_adopt_takes_over_no_guarded_path(imported: bool) -> None:
    stored, _ = _container(None, imported=imported)
    for guarded in GUARDED:
        live = deployment(guarded)
        live["metadata"]["uid"] = "u"
        adopted = drift_adoption.adopt_allowed(stored, live, [_written(guarded)], KEYS.guarded)
        assert adopted == stored, guarded
        assert not drift_adoption.is_adopted(adopted, live, _written(guarded)), guarded
    # The control: a field that every caller may set is taken over.
    live = deployment(Guarded("spec.terminationGracePeriodSeconds", 5, ""))
    live["metadata"]["uid"] = "u"
    path = ".spec.template.spec.terminationGracePeriodSeconds"
    taken = drift_adoption.adopt_allowed(stored, live, [path], KEYS.guarded)
    assert taken.spec.termination_grace_seconds == 5


@pytest.mark.parametrize("caller", CALLERS)
def test_an_extra_field_needs_the_permission_of_its_path(caller: str) -> None:
    plain, _ = _container(None, imported=False)
    tried = set()
    for guarded in GUARDED:
        way = f"spec.template.{guarded.path.replace('containers[0]', 'containers[name=main]')}"
        fields = {way: json.dumps(guarded.value)}
        spec = msgspec.structs.replace(plain.spec, extra_fields=fields)
        try:
            wanted = rules.checked(msgspec.structs.replace(plain, spec=spec))
        except InvalidArgument:
            # An API field sets this path, or the pods have no such item.
            continue
        needed = "" if caller == "platform" else guarded.permission
        for stored in (None, plain):
            try:
                guarding.admitted(wanted, stored, KEYS, _asks(CALLERS[caller]))
                refused = ""
            except PermissionDenied as denied:
                refused = str(denied.metadata["permission"])
            assert refused == needed, guarded
        tried.add(guarded.path)
    assert {"spec.hostNetwork", "spec.nodeName", "spec.fieldOfLater", "spec.hostUsers"} <= tried
    assert "spec.containers[0].securityContext.procMount" in tried
