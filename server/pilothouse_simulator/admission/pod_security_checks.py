"""The Pod Security Standards of Kubernetes: the violations of the levels `baseline` and `restricted`.

Each check is one function, in the order in which the real server reports them: by name, the checks of baseline first. A
stricter check of `restricted` replaces the baseline check of the same field, so that no field is reported twice. The
texts are as recorded, or those of Kubernetes' own `pod-security-admission`.

These are the checks of the version `latest`. A namespace may pin an older version. Responses name that version, but the
same checks apply.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_CONFINED = ("RuntimeDefault", "Localhost")
_DEFAULT_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
_SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
})  # fmt: skip
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_RESTRICTED_VOLUMES = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip


@dataclass(frozen=True)
class CheckedPod:
    """A pod, or the template of one. `contexts`: the name and the security context of each container."""

    metadata: JsonObject
    spec: JsonObject

    @property
    def containers(self) -> list[JsonObject]:
        return [*(self.spec.get("initContainers") or []), *(self.spec.get("containers") or [])]

    @property
    def contexts(self) -> list[tuple[str, JsonObject]]:
        return [(each.get("name", ""), each.get("securityContext") or {}) for each in self.containers]

    @property
    def context(self) -> JsonObject:
        return self.spec.get("securityContext") or {}

    @property
    def on_windows(self) -> bool:
        """Returns whether the pod runs on Windows, where containers do not have these Linux privileges."""
        return bool((self.spec.get("os") or {}).get("name") == "windows")

    @property
    def has_own_users(self) -> bool:
        """Returns whether the pod has its own user namespace: its root is an unprivileged user on the node."""
        return self.spec.get("hostUsers") is False


@dataclass(frozen=True)
class PodSecurityViolation:
    """One violation by a pod: `reason` in a few words, `detail` with the containers and the required change."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


Check = Callable[[CheckedPod], PodSecurityViolation | None]


def violations(level: str, metadata: JsonObject, spec: JsonObject) -> list[PodSecurityViolation]:
    """Returns the violations of a level; `privileged` has none."""
    pod = CheckedPod(metadata, spec)
    return [found for check in _CHECKS.get(level, ()) if (found := check(pod)) is not None]


def _apparmor(pod: CheckedPod) -> PodSecurityViolation | None:
    setters, values = _setters(
        pod, lambda context: _unless((context.get("appArmorProfile") or {}).get("type"), _CONFINED)
    )
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in (pod.metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR_ANNOTATION)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if annotations:
        setters.append(_plural("annotation", annotations))
        values += annotations
    if not setters:
        return None
    detail = f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(values)}"
    return PodSecurityViolation(_plural("forbidden AppArmor profile", values), detail)


def _capabilities_baseline(pod: CheckedPod) -> PodSecurityViolation | None:
    words = _must_not_add(pod, _DEFAULT_CAPABILITIES)
    return PodSecurityViolation("non-default capabilities", words) if words else None


def _must_not_add(pod: CheckedPod, allowed: Iterable[str]) -> str:
    added = {name: set(_capabilities(context, "add")) - set(allowed) for name, context in pod.contexts}
    names = [name for name, forbidden in added.items() if forbidden]
    if not names:
        return ""
    forbidden = sorted({capability for each in added.values() for capability in each})
    return f"{_named(names)} must not include {_quoted(forbidden)} in securityContext.capabilities.add"


def _host_namespaces(pod: CheckedPod) -> PodSecurityViolation | None:
    shared = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name)]
    return PodSecurityViolation("host namespaces", ", ".join(shared)) if shared else None


def _host_paths(pod: CheckedPod) -> PodSecurityViolation | None:
    names = [volume["name"] for volume in pod.spec.get("volumes") or [] if volume.get("hostPath") is not None]
    return (
        PodSecurityViolation("hostPath volumes", f"{_plural('volume', names)} {_quoted(names)}")
        if names
        else None
    )


def _host_ports(pod: CheckedPod) -> PodSecurityViolation | None:
    ports = {
        container["name"]: [port["hostPort"] for port in container.get("ports") or [] if port.get("hostPort")]
        for container in pod.containers
    }
    names = [name for name, used in ports.items() if used]
    if not names:
        return None
    numbers = sorted({str(port) for used in ports.values() for port in used})
    detail = f"{_named(names)} {_uses(names)} {_plural('hostPort', numbers)} {', '.join(numbers)}"
    return PodSecurityViolation("hostPort", detail)


def _hosts_of_probes(pod: CheckedPod) -> PodSecurityViolation | None:
    hosts = {container["name"]: _hosts(container) for container in pod.containers}
    names = sorted(name for name, used in hosts.items() if used)
    if not names:
        return None
    forbidden = sorted({host for used in hosts.values() for host in used})
    words = _plural("probe or lifecycle host", forbidden)
    return PodSecurityViolation(
        "probe or lifecycle host", f"{_named(names)} {_uses(names)} {words} {_quoted(forbidden)}"
    )


def _hosts(container: JsonObject) -> list[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(name) for name in ("postStart", "preStop")]
    actions = [
        (handler.get(kind) or {}) for handler in handlers if handler for kind in ("httpGet", "tcpSocket")
    ]
    return [action["host"] for action in actions if action.get("host")]


def _privileged(pod: CheckedPod) -> PodSecurityViolation | None:
    names = [name for name, context in pod.contexts if context.get("privileged")]
    detail = f"{_named(names)} must not set securityContext.privileged=true"
    return PodSecurityViolation("privileged", detail) if names else None


def _proc_mount_baseline(pod: CheckedPod) -> PodSecurityViolation | None:
    return None if pod.has_own_users else _proc_mount_restricted(pod)


def _proc_mount_restricted(pod: CheckedPod) -> PodSecurityViolation | None:
    mounts = {name: context.get("procMount") or "Default" for name, context in pod.contexts}
    names = [name for name, mount in mounts.items() if mount != "Default"]
    if not names:
        return None
    values = sorted({mounts[name] for name in names})
    return PodSecurityViolation(
        "procMount", f"{_named(names)} must not set securityContext.procMount to {_quoted(values)}"
    )


def _selinux(pod: CheckedPod) -> PodSecurityViolation | None:
    options = [
        context.get("seLinuxOptions") or {} for context in (pod.context, *(each for _, each in pod.contexts))
    ]

    def bad(context: JsonObject) -> str | None:
        given = context.get("seLinuxOptions") or {}
        wrong = given.get("type", "") not in _SELINUX_TYPES or given.get("user") or given.get("role")
        return given.get("type", "") if wrong else None

    setters, _ = _setters(pod, bad)
    if not setters:
        return None
    types = sorted({given["type"] for given in options if given.get("type", "") not in _SELINUX_TYPES})
    words = [f"{_plural('type', types)} {_quoted(types)}"] if types else []
    words += [
        f"{name} may not be set" for name in ("user", "role") if any(each.get(name) for each in options)
    ]
    detail = f"{' and '.join(setters)} set forbidden securityContext.seLinuxOptions: {'; '.join(words)}"
    return PodSecurityViolation("seLinuxOptions", detail)


def _seccomp_baseline(pod: CheckedPod) -> PodSecurityViolation | None:
    setters, values = _setters(
        pod, lambda context: _unless((context.get("seccompProfile") or {}).get("type"), _CONFINED)
    )
    if not setters:
        return None
    detail = f"{' and '.join(setters)} must not set securityContext.seccompProfile.type to {_quoted(values)}"
    return PodSecurityViolation("seccompProfile", detail)


def _sysctls(pod: CheckedPod) -> PodSecurityViolation | None:
    names = [
        each["name"] for each in pod.context.get("sysctls") or [] if each.get("name") not in _SAFE_SYSCTLS
    ]
    return PodSecurityViolation("forbidden sysctls", ", ".join(names)) if names else None


def _windows_host_process(pod: CheckedPod) -> PodSecurityViolation | None:
    setters, _ = _setters(
        pod, lambda context: "true" if (context.get("windowsOptions") or {}).get("hostProcess") else None
    )
    detail = f"{' and '.join(setters)} must not set securityContext.windowsOptions.hostProcess=true"
    return PodSecurityViolation("hostProcess", detail) if setters else None


def _escalation(pod: CheckedPod) -> PodSecurityViolation | None:
    names = [name for name, context in pod.contexts if context.get("allowPrivilegeEscalation") is not False]
    detail = f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return (
        PodSecurityViolation("allowPrivilegeEscalation != false", detail)
        if names and not pod.on_windows
        else None
    )


def _capabilities_restricted(pod: CheckedPod) -> PodSecurityViolation | None:
    if pod.on_windows:
        return None
    keeping = [name for name, context in pod.contexts if "ALL" not in _capabilities(context, "drop")]
    words = [f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding := _must_not_add(pod, ("NET_BIND_SERVICE",)):
        words.append(adding)
    return PodSecurityViolation("unrestricted capabilities", "; ".join(words)) if words else None


def _volume_types(pod: CheckedPod) -> PodSecurityViolation | None:
    volumes = [volume for volume in pod.spec.get("volumes") or [] if not _RESTRICTED_VOLUMES & volume.keys()]
    if not volumes:
        return None
    names = [volume["name"] for volume in volumes]
    types = sorted({next(iter(volume.keys() - {"name"}), "unknown") for volume in volumes})
    words = f"{_plural('restricted volume type', types)} {_quoted(types)}"
    return PodSecurityViolation(
        "restricted volume types", f"{_plural('volume', names)} {_quoted(names)} {_uses(names)} {words}"
    )


def _non_root(pod: CheckedPod) -> PodSecurityViolation | None:
    if pod.has_own_users:
        return None
    setters, _ = _setters(pod, lambda context: "false" if context.get("runAsNonRoot") is False else None)
    if setters:
        detail = f"{' and '.join(setters)} must not set securityContext.runAsNonRoot=false"
        return PodSecurityViolation("runAsNonRoot != true", detail)
    silent = [name for name, context in pod.contexts if context.get("runAsNonRoot") is None]
    if not silent or pod.context.get("runAsNonRoot"):
        return None
    return PodSecurityViolation(
        "runAsNonRoot != true", f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true"
    )


def _root_user(pod: CheckedPod) -> PodSecurityViolation | None:
    setters, _ = _setters(pod, lambda context: "0" if context.get("runAsUser") == 0 else None)
    if not setters or pod.has_own_users:
        return None
    return PodSecurityViolation("runAsUser=0", f"{' and '.join(setters)} must not set runAsUser=0")


def _seccomp_restricted(pod: CheckedPod) -> PodSecurityViolation | None:
    if pod.on_windows:
        return None
    if explicit := _seccomp_baseline(pod):
        return explicit
    silent = [name for name, context in pod.contexts if not context.get("seccompProfile")]
    if not silent or pod.context.get("seccompProfile"):
        return None
    words = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return PodSecurityViolation("seccompProfile", f"pod or {_named(silent)} {words}")


def _capabilities(context: JsonObject, kind: str) -> list[str]:
    return (context.get("capabilities") or {}).get(kind) or []


def _unless(value: str | None, allowed: Iterable[str]) -> str | None:
    return None if value is None or value in allowed else value


def _setters(pod: CheckedPod, bad: Callable[[JsonObject], str | None]) -> tuple[list[str], list[str]]:
    """Returns the pod and the containers that set a bad value (the pod first), and the values.

    `bad` returns a bad value, and None for an allowed one.
    """
    found = {name: value for name, context in pod.contexts if (value := bad(context)) is not None}
    of_pod = bad(pod.context)
    setters = [] if of_pod is None else ["pod"]
    if found:
        setters.append(_named(found))
    return setters, sorted({*found.values(), *(() if of_pod is None else (of_pod,))})


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _plural(word: str, items: Collection[Any]) -> str:
    return word if len(items) == 1 else f"{word}s"


def _uses(items: Collection[Any]) -> str:
    return "uses" if len(items) == 1 else "use"


def _named(containers: Collection[str]) -> str:
    return f"{_plural('container', containers)} {_quoted(containers)}"


# The checks of baseline, each with the check of `restricted` that replaces it.
_BASELINE: tuple[tuple[Check, Check | None], ...] = (
    (_apparmor, None),
    (_capabilities_baseline, _capabilities_restricted),
    (_host_namespaces, None),
    (_host_paths, _volume_types),
    (_host_ports, None),
    (_hosts_of_probes, None),
    (_privileged, None),
    (_proc_mount_baseline, _proc_mount_restricted),
    (_selinux, None),
    (_seccomp_baseline, _seccomp_restricted),
    (_sysctls, None),
    (_windows_host_process, None),
)
_CHECKS: dict[str, tuple[Check, ...]] = {
    "baseline": tuple(check for check, _ in _BASELINE),
    "restricted": (
        *(check for check, stricter in _BASELINE if stricter is None),
        _escalation,
        _capabilities_restricted,
        _proc_mount_restricted,
        _volume_types,
        _non_root,
        _root_user,
        _seccomp_restricted,
    ),
}
