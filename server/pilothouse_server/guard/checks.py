"""Checks values of single fields that have effects outside the pod.

Each check adds its findings to an `Inspection`. The level `baseline` of the Pod Security Standards forbids most of
these values, as Kubernetes 1.36 checks it (staging/src/k8s.io/pod-security-admission/policy), and allows the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from pilothouse_server.guard.model import HOST_PATH, PRIVILEGED_OBJECT, CarriedFacts, Keys

# The path to a field, as a pair: the path to its parent and the last step. None is the root.
Way = tuple[Any, str | int] | None

_BASELINE_CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
_SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
})  # fmt: skip
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_CONFINED = frozenset({"RuntimeDefault", "Localhost"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = ("seccomp.security.alpha.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/")
# Taints that keep ordinary pods off the nodes of the control plane.
_CONTROL_PLANE = frozenset({
    "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/controlplane", "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/etcd", "CriticalAddonsOnly",
})  # fmt: skip
# Audiences that mean the API server itself.
_API_SERVERS = frozenset({
    "", "https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local",
})  # fmt: skip
_SERVICE_TYPES = frozenset({"", "ClusterIP", "NodePort", "LoadBalancer"})
_DEFAULT_ACCOUNT = ("", "default")
# The rule for service accounts. The platform cannot see the rights of an account that it did not create, so before a
# write, the reconciler checks on the cluster who created the account.
ACCOUNT: Final = "serviceAccount"
UNLISTED: Final = "unlisted"
OBEYED_KEYS: Final = "podKeys"
_LONGEST_VALUE = 100
# The platform sets other metadata itself, or refuses it.
METADATA: Final = "only name, labels and annotations may be given"


class Inspection(Protocol):
    """The walk over one object, which is sent to the Kubernetes `namespace`.

    `keys`: the annotation and label keys that a setting lists.
    """

    keys: Keys
    namespace: str
    facts: CarriedFacts

    def note(
        self, way: Way, rule: str, words: str, *what: str, permission: str = ..., instead: str = ...
    ) -> None:
        """Notes a finding at this path."""

    def unlisted(self, way: Way, value: Any) -> None:
        """Notes a field that no list names, unless its value is empty."""

    def domain(self, way: Way, mapping: dict[str, Any]) -> None:
        """Notes keys of the platform's domain, which only the platform sets."""


Check = Callable[[Any, Inspection, Way], None]


def shown(value: Any) -> str:
    """Returns a value as text of bounded length, different for different values."""
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
    return text if len(text) <= _LONGEST_VALUE else sha256(text.encode()).hexdigest()


def _is_among(value: Any, allowed: Collection[str]) -> bool:
    """Returns whether a value is one of these strings; a list or an object never is."""
    return isinstance(value, str) and value in allowed


def only(*allowed: Any, rule: str, words: str) -> Check:
    """Returns the check of a field that everybody may set to one of these values."""

    def check(value: Any, found: Inspection, way: Way) -> None:
        if value is not None and not any(type(value) is type(each) and value == each for each in allowed):
            found.note(way, rule, words, shown(value))

    return check


def listed(allowed: Collection[str], *, rule: str, words: str) -> Check:
    """Returns the check of a list of strings, in which everybody may use the `allowed` ones."""

    def check(value: Any, found: Inspection, way: Way) -> None:
        if type(value) is not list:
            found.unlisted(way, value)
            return
        beyond = sorted({shown(item) for item in value if not _is_among(item, allowed)})
        if beyond:
            found.note(way, rule, f"{words}: {', '.join(beyond)}", *beyond)

    return check


privileged = only(False, rule="privileged", words="gives all rights of the node")
capabilities = listed(
    _BASELINE_CAPABILITIES, rule="capabilities", words="gives rights beyond those of any container"
)
proc_mount = only("", "Default", rule="procMount", words="shows the node's /proc unmasked")
host_namespace = only(False, rule="hostNamespaces", words="puts pods into a namespace of the node")
host_users = only(False, rule="hostUsers", words="lets pods run as users of the node")
scheduler = only("", "default-scheduler", rule="schedulerName", words="lets another scheduler place pods")
node_name = only("", rule="nodeName", words="puts pods on a node without the scheduler")
runtime_class = only("", rule="runtimeClassName", words="chooses how the node runs pods")
priority_number = only(rule="priority", words="evicts pods of others if there is no room for its own")
priority_class = only("", rule="priority", words="evicts pods of others if there is no room for its own")
preemption = only(
    "", "PreemptLowerPriority", rule="priority", words="decides whether its pods evict those of others"
)
probe_host = only(
    "", rule="probeHosts", words="makes the node send requests to an address other than the pod's"
)
host_address = only("", rule="hostPorts", words="is an address of the node itself")
propagation = only(
    "", "None", "HostToContainer", rule="mountPropagation", words="makes mounts of pods visible on the node"
)
host_process = only(False, rule="windowsHostProcess", words="runs pods on the Windows node itself")


def host_port(value: Any, found: Inspection, way: Way) -> None:
    if value is not None and (type(value) is not int or value):
        found.note(way, "hostPorts", "is a port of the node itself", shown(value))


def seccomp(value: Any, found: Inspection, way: Way) -> None:
    _confined(value, found, way, "seccomp", "removes the filter of system calls")


def apparmor(value: Any, found: Inspection, way: Way) -> None:
    _confined(value, found, way, "appArmor", "removes the AppArmor profile")


def _confined(value: Any, found: Inspection, way: Way, rule: str, words: str) -> None:
    if not isinstance(value, dict):
        found.unlisted(way, value)
        return
    kind = value.get("type")
    if not _is_among(kind, _CONFINED):
        found.note(way, rule, words, shown(kind))
    for key, item in value.items():
        if key not in ("type", "localhostProfile"):
            found.unlisted((way, key), item)


def selinux(value: Any, found: Inspection, way: Way) -> None:
    options = value if isinstance(value, dict) else {"": value}
    for key, item in options.items():
        if item and (key != "type" or not _is_among(item, _SELINUX_TYPES)):
            found.note((way, key), "seLinuxOptions", "chooses what SELinux lets pods do", key, shown(item))


def sysctl(value: Any, found: Inspection, way: Way) -> None:
    if not _is_among(value, _SAFE_SYSCTLS):
        found.note(way, "sysctls", f"sets {shown(value)}, which other pods share", shown(value))


def toleration(value: Any, found: Inspection, way: Way) -> None:
    key = value.get("key", "") if isinstance(value, dict) else ""
    if not key or not isinstance(key, str) or key in _CONTROL_PLANE:
        # An empty key tolerates every taint.
        effect = value.get("effect", "") if isinstance(value, dict) else shown(value)
        words = "lets its pods run on the nodes of the control plane"
        found.note(way, "tolerations", words, shown(key), shown(effect))


def service_account(value: Any, found: Inspection, way: Way) -> None:
    if value not in _DEFAULT_ACCOUNT:
        words = "runs pods as a service account whose rights are not checked"
        found.note(way, ACCOUNT, words, shown(value))


def audience(value: Any, found: Inspection, way: Way) -> None:
    if not _is_among(value, _API_SERVERS):
        found.note(
            way, "tokenAudience", "makes a token for an audience other than the API server", shown(value)
        )


def host_path(value: Any, found: Inspection, way: Way) -> None:
    path = value.get("path", "") if isinstance(value, dict) else value
    found.note(way, "hostPath", "is a folder of the node", shown(path), permission=HOST_PATH)


def pod_annotations(value: Any, found: Inspection, way: Way) -> None:
    """Checks annotations of pods: the former ones for profiles, and the keys that operators and meshes obey."""
    obeyed_keys(value, found, way)
    for key, text in value.items() if isinstance(value, dict) else ():
        if key.startswith(_APPARMOR):
            if text not in ("", "runtime/default") and not str(text).startswith("localhost/"):
                words = f'removes the AppArmor profile by "{key}"'
                found.note((way, key), "appArmor", words, key, shown(text))
        elif key.startswith(_SECCOMP):
            # Only Kubernetes before 1.27 applies these annotations.
            usual = text in ("runtime/default", "docker/default") or str(text).startswith("localhost/")
            if not usual:
                words = f'removes the filter of system calls by "{key}"'
                found.note((way, key), "seccomp", words, key, shown(text))


def never_given(value: Any, found: Inspection, way: Way) -> None:
    """Refuses metadata of pods other than labels and annotations, for every caller."""
    found.note(way, "metadata", f"may not be set: {METADATA}", shown(value), permission="")


def obeyed_keys(value: Any, found: Inspection, way: Way) -> None:
    """Checks labels or annotations for guarded keys: they give pods networks, identities or programs."""
    if not isinstance(value, dict):
        found.unlisted(way, value)
        return
    found.domain(way, value)
    guarded = found.keys.guarded
    for key, text in value.items():
        if key in guarded:
            words = f'sets "{key}", which gives pods networks, identities or programs'
            found.note((way, key), OBEYED_KEYS, words, key, shown(text))


def service_type(value: Any, found: Inspection, way: Way) -> None:
    if not _is_among(value, _SERVICE_TYPES):
        words = "sends requests of pods to a name outside of the namespace"
        found.note(way, "serviceType", words, shown(value), permission=PRIVILEGED_OBJECT)


def cluster_ip(value: Any, found: Inspection, way: Way) -> None:
    for address in value if isinstance(value, list) else (value,):
        if address not in ("", "None", None):
            words = "chooses an address of the cluster"
            found.note(way, "clusterIP", words, shown(value), permission=PRIVILEGED_OBJECT)
            return
