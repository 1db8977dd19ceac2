"""Rights over the node, and who may give them to a container.

A program that has them is not held by its container, so a permission of its own is needed, `container.privileged`.
They are what the level `baseline` of the Pod Security Standards forbids, of the fields that there are: privileged
containers, capabilities beyond those that runtimes give by default, no filter of system calls, ports of the node
(https://kubernetes.io/docs/concepts/security/pod-security-standards/). Folders of the node, which it forbids too, have
a permission of their own, `storage.host_path` (see `admission`).

What runs with them already stays: whoever lacks the permission may scale, stop and delete it, and take the rights away,
but not change what it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilothouse_server.containers.model import Container, SeccompProfile, SecurityContext
from pilothouse_server.errors import PermissionDenied

PRIVILEGED_PERMISSION = "container.privileged"
_BASELINE_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip


def refuse_privileges(wanted: Container) -> None:
    """Raises PermissionDenied if the container has rights over the node; names the first of them."""
    for field, words in _privileges(wanted):
        raise PermissionDenied(
            f'permission {PRIVILEGED_PERMISSION} is needed in namespace "{wanted.namespace}": {field} {words}',
            reason="PERMISSION_DENIED",
            metadata={
                "permission": PRIVILEGED_PERMISSION,
                "namespace": wanted.namespace,
                "field": field,
            },
        )


def has_new_host_ports(wanted: Container, stored: Container) -> bool:
    """Whether it would take ports of the node that it does not have."""
    return not _host_ports(wanted) <= _host_ports(stored)


def _host_ports(container: Container) -> set[tuple[int, str]]:
    return {(port.host_port, port.protocol) for port in container.ports if port.host_port}


def _privileges(container: Container) -> Iterator[tuple[str, str]]:
    spec = container.spec
    if spec.pod_security_context is not None:
        yield from _unfiltered("container.pod_security_context", spec.pod_security_context.seccomp_profile)
    yield from _of_context("container.security_context", spec.security_context)
    for number, init in enumerate(spec.init_containers):
        yield from _of_context(f"container.init_containers[{number}].security_context", init.security_context)
    for number, port in enumerate(container.ports):
        if port.host_port:
            yield f"container.ports[{number}].host_port", "is a port of the node itself"


def _of_context(field: str, context: SecurityContext | None) -> Iterator[tuple[str, str]]:
    if context is None:
        return
    if context.privileged:
        yield f"{field}.privileged", "gives all rights of the node"
    beyond = sorted(set(context.capabilities_add) - _BASELINE_CAPABILITIES)
    if beyond:
        yield f"{field}.capabilities_add", f"gives rights beyond those of any container: {', '.join(beyond)}"
    yield from _unfiltered(field, context.seccomp_profile)


def _unfiltered(field: str, profile: SeccompProfile | None) -> Iterator[tuple[str, str]]:
    if profile is not None and profile.type == "Unconfined":
        yield f"{field}.seccomp_profile", "takes the filter of system calls away"
