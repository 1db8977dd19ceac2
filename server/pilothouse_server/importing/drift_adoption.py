"""Takes what others changed on a container's Deployment over as what is wanted: a pure function.

Every field of ours that can drift has its place in the model, or none. `adopt` takes over the fields that have one,
each by itself, so that what nobody changed stays as it was asked for. A label or annotation of a container stands on
its pods too, so that adopting one rolls them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from pilothouse_server.containers.model import Container, ContainerSpec
from pilothouse_server.importing.deployments import convert
from pilothouse_server.kubernetes import field_paths, manifests
from pilothouse_server.kubernetes.objects import Manifest

_POD = ".spec.template.spec"
_RESOURCES = {
    ".resources.requests.cpu": "cpu_request",
    ".resources.requests.memory": "memory_request",
    ".resources.limits.cpu": "cpu_limit",
    ".resources.limits.memory": "memory_limit",
}
_PROBES = {".livenessProbe": "liveness", ".readinessProbe": "readiness", ".startupProbe": "startup"}
_OF_MAIN = {".command": "command", ".args": "args", ".securityContext": "security_context"}
_OF_POD = {
    ".nodeSelector": "node_selector",
    ".tolerations": "tolerations",
    ".terminationGracePeriodSeconds": "termination_grace_seconds",
    ".serviceAccountName": "service_account",
    ".imagePullSecrets": "image_pull_secrets",
    ".securityContext": "pod_security_context",
}
_VARIABLE = re.compile(r'\.env\[name="(?P<name>[^"]+)"\]')
_METADATA = re.compile(r"(?:\.spec\.template)?\.metadata\.(?P<map>labels|annotations)\.(?P<key>.+)")


def adopt(container: Container, live: Manifest, paths: Iterable[str]) -> Container:
    """The container with the fields at these paths of its Deployment as they are on the cluster."""
    there = convert(live).container
    for path in paths:
        container = _adopt(container, there, live, path)
    return container


def is_adopted(container: Container, live: Manifest, path: str) -> bool:
    """Whether what is wanted says the same of a field as the cluster does."""
    said = field_paths.value_at(manifests.deployment(container), path)
    return bool(said == field_paths.value_at(live, path))


def _adopt(container: Container, there: Container, live: Manifest, path: str) -> Container:
    main = f'{_POD}.containers[name="{container.spec.pod_container_name}"]'
    if path.startswith(main):
        return _adopt_of_main(container, there, path.removeprefix(main))
    if found := _METADATA.fullmatch(path):
        return _adopt_key(container, live, path, found["map"], found["key"])
    for prefix, name in _OF_POD.items():
        if _within(path, _POD + prefix):
            return _replace_spec(container, **{name: getattr(there.spec, name)})
    return container


def _adopt_of_main(container: Container, there: Container, rest: str) -> Container:
    replace = msgspec.structs.replace
    if rest == ".image":
        return replace(container, image=there.image)
    if name := _RESOURCES.get(rest):
        changed = {name: getattr(there.resources, name)}
        return replace(container, resources=replace(container.resources, **changed))
    if found := _VARIABLE.match(rest):
        return _adopt_variable(container, there, found["name"])
    for prefix, name in _PROBES.items():
        if _within(rest, prefix):
            changed = {name: getattr(there.spec.probes, name)}
            return _replace_spec(container, probes=replace(container.spec.probes, **changed))
    for prefix, name in _OF_MAIN.items():
        if _within(rest, prefix):
            return _replace_spec(container, **{name: getattr(there.spec, name)})
    return container


def _adopt_variable(container: Container, there: Container, name: str) -> Container:
    theirs = {variable.name: variable for variable in there.env}
    kept = (theirs.get(name) if ours.name == name else ours for ours in container.env)
    return msgspec.structs.replace(
        container, env=tuple(variable for variable in kept if variable is not None)
    )


def _adopt_key(container: Container, live: Manifest, path: str, name: str, key: str) -> Container:
    held: dict[str, str] = dict(getattr(container, name))
    if key not in held or (container.spec.taken_over is not None and path.startswith(".spec.template")):
        # One that the platform sets, or that an imported Deployment's pods keep.
        return container
    value = field_paths.value_at(live, path)
    if value is None:
        del held[key]
    else:
        held[key] = value
    changed: dict[str, Any] = {name: held}
    return msgspec.structs.replace(container, **changed)


def _replace_spec(container: Container, **fields: Any) -> Container:
    spec: ContainerSpec = msgspec.structs.replace(container.spec, **fields)
    return msgspec.structs.replace(container, spec=spec)


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))
