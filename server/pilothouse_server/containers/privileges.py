"""Rights over the node and over others, and who may give them to a container.

A program that has them is not held by its container, so a permission of its own is needed, `container.privileged`,
which works only from a grant over all namespaces: whose containers run on the node is not asked.

They are what the level `baseline` of the Pod Security Standards forbids, as Kubernetes 1.36 checks it (`BASELINE`), and
what it leaves open and reaches beyond the pod all the same (`BEYOND`). The platform has no field for some of it: those
controls have nothing to find, and the manifests' table (`pilothouse_manifests.table`) must not learn their fields
without one. Folders of the node have a permission of their own, `storage.host_path` (see `admission`).

What runs with them already stays: whoever lacks the permission may scale, stop and delete it, but neither change what
it runs nor take the rights away (see `_refuse_loss`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.containers.model import (
    Container,
    HttpGet,
    Probe,
    SeccompProfile,
    SecurityContext,
    TcpSocket,
)
from pilothouse_server.errors import PermissionDenied, over_all_namespaces_needed
from pilothouse_server.values.key_patterns import KeyPatterns

PRIVILEGED_PERMISSION = "container.privileged"


class Finding(msgspec.Struct, frozen=True):
    """A right that a container has: the field that gives it, why it is one, and what it is, wherever it stands."""

    field: str
    words: str
    what: tuple[object, ...]


Find = Callable[[Container], Iterator[Finding]]
# The same of several rules, each with a name.
FindNamed = Callable[[Container], Iterator[tuple[str, Finding]]]


class Control(msgspec.Struct, frozen=True):
    """A rule. `fields` are those of a pod that it restricts; `find` None: the platform has none of them."""

    name: str
    fields: tuple[str, ...]
    find: Find | None = None


_BASELINE_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
_CONFINED = ("RuntimeDefault", "Localhost")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = ("seccomp.security.alpha.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/")
# Taints that keep ordinary pods off the nodes of the control plane.
_CONTROL_PLANE = frozenset({
    "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/controlplane", "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/etcd", "CriticalAddonsOnly",
})  # fmt: skip
_CRITICAL = frozenset({"system-cluster-critical", "system-node-critical"})


def _contexts(container: Container) -> Iterator[tuple[str, SecurityContext]]:
    """The security contexts of the containers of the pod, with their fields."""
    spec = container.spec
    if spec.security_context is not None:
        yield "container.security_context", spec.security_context
    for number, init in enumerate(spec.init_containers):
        if init.security_context is not None:
            yield f"container.init_containers[{number}].security_context", init.security_context


def _privileged(container: Container) -> Iterator[Finding]:
    for field, context in _contexts(container):
        if context.privileged:
            yield Finding(f"{field}.privileged", "gives all rights of the node", ())


def _capabilities(container: Container) -> Iterator[Finding]:
    for field, context in _contexts(container):
        beyond = sorted(set(context.capabilities_add) - _BASELINE_CAPABILITIES)
        if beyond:
            words = f"gives rights beyond those of any container: {', '.join(beyond)}"
            yield Finding(f"{field}.capabilities_add", words, tuple(beyond))


def _seccomp(container: Container) -> Iterator[Finding]:
    profiles: list[tuple[str, SeccompProfile | None]] = []
    if container.spec.pod_security_context is not None:
        profiles.append(
            ("container.pod_security_context", container.spec.pod_security_context.seccomp_profile)
        )
    profiles += [(field, context.seccomp_profile) for field, context in _contexts(container)]
    for field, profile in profiles:
        if profile is not None and profile.type not in _CONFINED:
            yield Finding(
                f"{field}.seccomp_profile", "takes the filter of system calls away", (profile.type,)
            )


def _host_ports(container: Container) -> Iterator[Finding]:
    for number, port in enumerate(container.ports):
        if port.host_port:
            field = f"container.ports[{number}].host_port"
            yield Finding(field, "is a port of the node itself", (port.host_port, port.protocol))


def _probe_hosts(container: Container) -> Iterator[Finding]:
    probes = container.spec.probes
    named: tuple[tuple[str, Probe | None], ...] = (
        ("liveness", probes.liveness),
        ("readiness", probes.readiness),
        ("startup", probes.startup),
    )
    for name, probe in named:
        handler = None if probe is None else probe.handler
        if isinstance(handler, HttpGet | TcpSocket) and handler.host:
            field = f"container.probes.{name}.{handler.__struct_config__.tag}.host"
            words = "makes the node send requests to another address than the pod's"
            yield Finding(field, words, (handler.host,))


def _apparmor(container: Container) -> Iterator[Finding]:
    for field, key, value in _pod_annotations(container):
        confined = value in ("", "runtime/default") or value.startswith("localhost/")
        if key.startswith(_APPARMOR) and not confined:
            yield Finding(field, f'takes the profile of AppArmor away by "{key}"', (key, value))


def _seccomp_annotations(container: Container) -> Iterator[Finding]:
    for field, key, value in _pod_annotations(container):
        confined = value in ("runtime/default", "docker/default") or value.startswith("localhost/")
        if key.startswith(_SECCOMP) and not confined:
            yield Finding(field, f'takes the filter of system calls away by "{key}"', (key, value))


def _tolerations(container: Container) -> Iterator[Finding]:
    for number, toleration in enumerate(container.spec.tolerations):
        if not toleration.key or toleration.key in _CONTROL_PLANE:
            # An empty key is every taint's.
            words = "lets its pods run on the nodes of the control plane"
            yield Finding(f"container.tolerations[{number}]", words, (toleration.key, toleration.effect))


def _priority(container: Container) -> Iterator[Finding]:
    name = container.spec.priority_class
    if name in _CRITICAL:
        words = "evicts pods of others if there is no room for its own"
        yield Finding("container.priority_class", words, (name,))


def _pod_annotations(container: Container) -> Iterator[tuple[str, str, str]]:
    """Annotations that the pods get, with the field: of an imported container those that its pods brought along."""
    taken_over = container.spec.taken_over
    annotations = container.annotations if taken_over is None else taken_over.pod_annotations
    for key, value in annotations.items():
        yield "container.annotations", key, value


def _pod_labels(container: Container) -> Iterator[tuple[str, str, str]]:
    taken_over = container.spec.taken_over
    labels = container.labels if taken_over is None else taken_over.pod_labels
    for key, value in labels.items():
        yield "container.labels", key, value


# https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline, by the names and in the order of the
# checks of Kubernetes 1.36 (staging/src/k8s.io/pod-security-admission/policy). Its lists of fields name `containers`;
# each holds of `initContainers` too.
BASELINE: Final = (
    Control(
        "appArmorProfile",
        (
            f"metadata.annotations[{_APPARMOR}*]",
            "spec.securityContext.appArmorProfile.type",
            "spec.containers[*].securityContext.appArmorProfile.type",
        ),
        _apparmor,
    ),
    Control("capabilities_baseline", ("spec.containers[*].securityContext.capabilities.add",), _capabilities),
    Control("hostNamespaces", ("spec.hostNetwork", "spec.hostPID", "spec.hostIPC")),
    # Of volumes: `storage.host_path`.
    Control("hostPathVolumes", ("spec.volumes[*].hostPath",)),
    Control("hostPorts", ("spec.containers[*].ports[*].hostPort",), _host_ports),
    Control(
        "hostProbesAndHostLifecycle",
        tuple(
            f"spec.containers[*].{handler}.{action}.host"
            for handler in (
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
                "lifecycle.postStart",
                "lifecycle.preStop",
            )
            for action in ("httpGet", "tcpSocket")
        ),
        _probe_hosts,
    ),
    Control("privileged", ("spec.containers[*].securityContext.privileged",), _privileged),
    Control("procMount", ("spec.containers[*].securityContext.procMount",)),
    Control(
        "seLinuxOptions",
        tuple(
            f"{holder}.securityContext.seLinuxOptions.{part}"
            for holder in ("spec", "spec.containers[*]")
            for part in ("type", "user", "role")
        ),
    ),
    Control(
        "seccompProfile_baseline",
        (
            "spec.securityContext.seccompProfile.type",
            "spec.containers[*].securityContext.seccompProfile.type",
        ),
        _seccomp,
    ),
    Control("sysctls", ("spec.securityContext.sysctls[*].name",)),
    Control(
        "windowsHostProcess",
        (
            "spec.securityContext.windowsOptions.hostProcess",
            "spec.containers[*].securityContext.windowsOptions.hostProcess",
        ),
    ),
)
# What the standards leave open. Annotations and labels that others act on have a rule of their own,
# `refuse_guarded_keys`, because a setting names their keys.
BEYOND: Final = (
    # Kubernetes heeds them before 1.27 only.
    Control(
        "seccompAnnotations", tuple(f"metadata.annotations[{key}*]" for key in _SECCOMP), _seccomp_annotations
    ),
    Control("tolerations", ("spec.tolerations[*].key",), _tolerations),
    Control("priorityClassName", ("spec.priorityClassName",), _priority),
)


def findings(container: Container) -> Iterator[tuple[str, Finding]]:
    """The rights over the node and over others that a container has, each with the name of its control."""
    for control in (*BASELINE, *BEYOND):
        if control.find is not None:
            for found in control.find(container):
                yield control.name, found


def refuse_privileges(wanted: Container, stored: Container | None, may: May) -> None:
    """Raises PermissionDenied for the first right that the caller may not give, with its field.

    What runs already keeps its rights; where it would run something else it is asked for all of them again. Nor does
    who may not give one take it away.
    """
    had = _had(stored, wanted, findings)
    for name, found in findings(wanted):
        if (name, found.what) not in had and not may(PRIVILEGED_PERMISSION):
            raise _refused(wanted.namespace, found)
    _refuse_loss(wanted.namespace, wanted, stored, findings, may)


def refuse_guarded_keys(
    namespace: str, wanted: Container, stored: Container | None, guarded: KeyPatterns, may: May
) -> None:
    """Raises PermissionDenied for an annotation or label of the pods that others obey and the caller may not set.

    `guarded`: those of networks, identities and what puts programs of its own into pods. `namespace`: the one that the
    request names, which the container may not know yet.
    """

    def obeyed(container: Container) -> Iterator[tuple[str, Finding]]:
        for pairs in (_pod_annotations, _pod_labels):
            for field, key, value in pairs(container):
                if key in guarded:
                    words = f'sets "{key}", which gives pods networks, identities or programs'
                    yield field, Finding(field, words, (key, value))

    had = _had(stored, wanted, obeyed)
    for field, found in obeyed(wanted):
        if (field, found.what) not in had and not may(PRIVILEGED_PERMISSION):
            raise _refused(namespace, found)
    _refuse_loss(namespace, wanted, stored, obeyed, may)


def gives_more_rights(wanted: Container, stored: Container, guarded: KeyPatterns) -> bool:
    """Returns whether a container would have rights that it has not, or `guarded` annotations or labels of its pods."""

    def rights(container: Container) -> set[object]:
        obeyed = {
            (key, value)
            for pairs in (_pod_annotations, _pod_labels)
            for _, key, value in pairs(container)
            if key in guarded
        }
        return {(name, found.what) for name, found in findings(container)} | obeyed

    return not rights(wanted) <= rights(stored)


def runs_other_things(wanted: Container, stored: Container) -> bool:
    """Whether the pods would differ in what they run or see; their number and labels give no new power."""
    return (wanted.image, wanted.env, wanted.volume_mounts, wanted.volumes, wanted.spec) != (
        stored.image,
        stored.env,
        stored.volume_mounts,
        stored.volumes,
        stored.spec,
    )


def _refuse_loss(
    namespace: str, wanted: Container, stored: Container | None, find: FindNamed, may: May
) -> None:
    """Raises PermissionDenied where a right is taken away by who may not give it.

    Pods keep it until others take their place, which may be held, or fail, for as long as that caller likes: meanwhile
    a program that is run in them has it, and so has what they read.
    """
    if stored is None or may(PRIVILEGED_PERMISSION):
        return
    kept = {(name, found.what) for name, found in find(wanted)}
    for name, found in find(stored):
        if (name, found.what) not in kept:
            words = f"{found.words}, which its pods keep for a while where it is taken away"
            raise _refused(namespace, Finding(found.field, words, found.what))


def _had(stored: Container | None, wanted: Container, find: FindNamed) -> set[tuple[str, tuple[object, ...]]]:
    """What a container has and keeps while it runs what it runs."""
    if stored is None or runs_other_things(wanted, stored):
        return set()
    return {(name, found.what) for name, found in find(stored)}


def _refused(namespace: str, found: Finding) -> PermissionDenied:
    return over_all_namespaces_needed(
        PRIVILEGED_PERMISSION, namespace, f"{found.field} {found.words}", field=found.field
    )
