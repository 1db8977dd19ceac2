"""The table: the Kubernetes key of each field of a container, a volume and a config.

The name of the value, as in the API and in the server's model, is on the left; the key is on the right. A key that
Kubernetes has and the platform does not (`workingDir` …) is never named, because a source reports every unread key. The
only exceptions are keys that may have their default, because live objects and manifests written by tools state them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pilothouse_manifests.fields import (
    Chosen,
    Constant,
    Encoded,
    Entry,
    Field,
    FieldPart,
    Flag,
    Group,
    Names,
    Nested,
    Number,
    NumberOrPercent,
    Numbers,
    OneOf,
    PortField,
    QuantityField,
    Repeated,
    Rest,
    Text,
    Texts,
    Values,
    Variable,
    Words,
)
from pilothouse_manifests.sources import INT64_MAXIMUM, NOT_REPRESENTED, MappingSource

_ID = Number(maximum=INT64_MAXIMUM, optional=True)
_LARGEST_PORT = 65535
# Permission bits of a file.
MODE = Number(maximum=0o777, optional=True)
# The API's default for the seconds that pods have to end.
GRACE_SECONDS = 30
# The lists of a pod's programs; the first program of `containers` is the main one.
CONTAINERS = "containers"
INIT_CONTAINERS = "initContainers"

SECCOMP_PROFILE = FieldPart(
    "seccomp_profile",
    (
        Field("type", "type", Text(("RuntimeDefault", "Unconfined", "Localhost")), required=True),
        Field("localhost_profile", "localhostProfile", Text()),
    ),
)
SECURITY_CONTEXT = FieldPart(
    "security_context",
    (
        Field("run_as_user", "runAsUser", _ID),
        Field("run_as_group", "runAsGroup", _ID),
        Field("run_as_non_root", "runAsNonRoot", Flag(optional=True)),
        Field("allow_privilege_escalation", "allowPrivilegeEscalation", Flag(optional=True)),
        Field("privileged", "privileged", Flag(optional=True)),
        Field("read_only_root_filesystem", "readOnlyRootFilesystem", Flag(optional=True)),
        Group(
            "capabilities",
            (Field("capabilities_add", "add", Texts()), Field("capabilities_drop", "drop", Texts())),
        ),
        Field("seccomp_profile", "seccompProfile", Nested(SECCOMP_PROFILE)),
    ),
    defaults=(("procMount", "Default"),),
)
POD_SECURITY_CONTEXT = FieldPart(
    "pod_security_context",
    (
        Field("run_as_user", "runAsUser", _ID),
        Field("run_as_group", "runAsGroup", _ID),
        Field("run_as_non_root", "runAsNonRoot", Flag(optional=True)),
        Field("fs_group", "fsGroup", _ID),
        Field("fs_group_change_policy", "fsGroupChangePolicy", Text(("OnRootMismatch", "Always"))),
        Field("supplemental_groups", "supplementalGroups", Numbers()),
        Field("seccomp_profile", "seccompProfile", Nested(SECCOMP_PROFILE)),
    ),
    defaults=(("supplementalGroupsPolicy", "Merge"),),
)

_KEY_REFERENCE: tuple[Entry, ...] = (
    Field("source_name", "name", Text(), required=True),
    Field("source_key", "key", Text(), required=True),
    Field("optional", "optional", Flag()),
)
# A field of the pod itself. Server-side apply treats it as one value, which without the version would differ from the
# API's.
FIELD_REFERENCE = (
    "field_ref",
    "fieldRef",
    FieldPart(
        "field_ref",
        (Constant("apiVersion", "v1"), Field("source_key", "fieldPath", Text(), required=True)),
    ),
)
AMOUNT_REFERENCE = (
    "resource_field_ref",
    "resourceFieldRef",
    FieldPart(
        "resource_field_ref",
        (
            Field("source_name", "containerName", Text()),
            Field("source_key", "resource", Text(), required=True),
            Field("divisor", "divisor", QuantityField(), default="0", written=True),
        ),
    ),
)
ENV_VAR = FieldPart(
    "env",
    (
        Field("name", "name", Text(), required=True),
        Variable(
            "value",
            "value_from",
            "valueFrom",
            (
                FIELD_REFERENCE,
                ("config_map", "configMapKeyRef", FieldPart("config_map", _KEY_REFERENCE)),
                ("secret", "secretKeyRef", FieldPart("secret", _KEY_REFERENCE)),
                AMOUNT_REFERENCE,
            ),
        ),
    ),
)
_WHOLE_SOURCE: tuple[Entry, ...] = (
    Field("source_name", "name", Text(), required=True),
    Field("optional", "optional", Flag()),
)
ENV_FROM = FieldPart(
    "env_from",
    (
        Field("prefix", "prefix", Text()),
        Chosen(
            "value_from",
            (
                ("config_map", "configMapRef", FieldPart("config_map", _WHOLE_SOURCE)),
                ("secret", "secretRef", FieldPart("secret", _WHOLE_SOURCE)),
            ),
        ),
    ),
)
# Other resources: Kubernetes' own, and devices of other vendors.
_OTHER_RESOURCE = r"ephemeral-storage|hugepages-[0-9]+[KMGTPE]i|[^/]+/[^/]+"
RESOURCES = FieldPart(
    "resources",
    (
        Group(
            "requests",
            (
                Field("cpu_request", "cpu", QuantityField()),
                Field("memory_request", "memory", QuantityField()),
                Rest("requests", _OTHER_RESOURCE),
            ),
        ),
        Group(
            "limits",
            (
                Field("cpu_limit", "cpu", QuantityField()),
                Field("memory_limit", "memory", QuantityField()),
                Rest("limits", _OTHER_RESOURCE),
            ),
        ),
    ),
)
VOLUME_MOUNT = FieldPart(
    "volume_mounts",
    (
        Field("volume", "name", Text(), required=True),
        Field("mount_path", "mountPath", Text(), required=True),
        Field("read_only", "readOnly", Flag()),
        Field("sub_path", "subPath", Text()),
    ),
    defaults=(("mountPropagation", "None"), ("recursiveReadOnly", "Disabled")),
)

HTTP_HEADER = FieldPart(
    "http_headers", (Field("name", "name", Text(), required=True), Field("value", "value", Text()))
)
HTTP_GET = FieldPart(
    "http_get",
    (
        Field("path", "path", Text(), default="/"),
        PortField("port", "port_name", "port", required=True),
        Field("scheme", "scheme", Text(("HTTP", "HTTPS")), default="HTTP"),
        Field("host", "host", Text()),
        Field("http_headers", "httpHeaders", Repeated(HTTP_HEADER)),
    ),
)
PROBE = FieldPart(
    "probe",
    (
        OneOf(
            "handler",
            (
                (
                    "http_get",
                    "httpGet",
                    HTTP_GET,
                ),
                (
                    "tcp_socket",
                    "tcpSocket",
                    FieldPart(
                        "tcp_socket",
                        (
                            PortField("port", "port_name", "port", required=True),
                            Field("host", "host", Text()),
                        ),
                    ),
                ),
                ("exec", "exec", FieldPart("exec", (Field("command", "command", Texts()),))),
                (
                    "grpc",
                    "grpc",
                    FieldPart(
                        "grpc",
                        (
                            Field("port", "port", Number(1, _LARGEST_PORT), required=True),
                            Field("service", "service", Text()),
                        ),
                    ),
                ),
            ),
        ),
        Field("initial_delay_seconds", "initialDelaySeconds", Number()),
        Field("period_seconds", "periodSeconds", Number(), default=10),
        Field("timeout_seconds", "timeoutSeconds", Number(), default=1),
        Field("success_threshold", "successThreshold", Number(), default=1),
        Field("failure_threshold", "failureThreshold", Number(), default=3),
        Field("termination_grace_seconds", "terminationGracePeriodSeconds", Number(minimum=1)),
    ),
)


# An action at one moment of a program's life.
LIFECYCLE_HANDLER = FieldPart(
    "lifecycle_handler",
    (
        OneOf(
            "handler",
            (
                ("exec", "exec", FieldPart("exec", (Field("command", "command", Texts()),))),
                ("http_get", "httpGet", HTTP_GET),
                (
                    "sleep",
                    "sleep",
                    FieldPart(
                        "sleep",
                        (
                            Field(
                                "seconds",
                                "seconds",
                                Number(maximum=INT64_MAXIMUM, optional=True),
                                required=True,
                            ),
                        ),
                    ),
                ),
            ),
        ),
    ),
)
LIFECYCLE = FieldPart(
    "lifecycle",
    (
        Field("post_start", "postStart", Nested(LIFECYCLE_HANDLER)),
        Field("pre_stop", "preStop", Nested(LIFECYCLE_HANDLER)),
    ),
)


def _with_protocol(port: Values, source: MappingSource) -> Values | None:
    if port.get("protocol") == "SCTP":
        source.unsupported("protocol", f"{NOT_REPRESENTED}: SCTP")
        return None
    return {"protocol": "TCP", **port}


# Media of an emptyDir other than the node's disk.
MEDIUM = re.compile(r"Memory|HugePages(-[1-9][0-9]*[KMG]i)?")


def _with_medium(empty_dir: Values, source: MappingSource) -> Values:
    medium = empty_dir.get("medium", "")
    if medium and not MEDIUM.fullmatch(medium):
        source.invalid("medium", f"expected Memory, HugePages or HugePages-SIZE, found {medium!r}")
        return {**empty_dir, "medium": ""}
    return empty_dir


_PROTOCOL = Field("protocol", "protocol", Text(("TCP", "UDP", "SCTP")), default="TCP")
# A port that pods declare.
POD_PORT = FieldPart(
    "ports",
    (
        Field("container_port", "containerPort", Number(1, _LARGEST_PORT), required=True),
        _PROTOCOL,
        Field("name", "name", Text()),
        Field("host_port", "hostPort", Number(maximum=_LARGEST_PORT)),
    ),
    check=_with_protocol,
)
# A port of a program next to the main one.
PROGRAM_PORT = FieldPart("ports", POD_PORT.entries, check=_with_protocol)
# A port of a Service; `target` is the number of a port of its pods or its name.
SERVICE_PORT = FieldPart(
    "ports",
    (
        Field("name", "name", Text()),
        _PROTOCOL,
        Field("service_port", "port", Number(1, _LARGEST_PORT), required=True),
        PortField("container_port", "target_name", "targetPort"),
        Field("node_port", "nodePort", Number(maximum=_LARGEST_PORT)),
        Field("app_protocol", "appProtocol", Text()),
    ),
    check=_with_protocol,
)


def usual_pull_policy(container: Values) -> str:
    """Returns the API's default pull policy, which depends on the image's tag."""
    name, at, _ = str(container.get("image", "")).partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if not at and tag in ("", "latest") else "IfNotPresent"


def _program(port: FieldPart, *, apart: bool) -> tuple[Entry, ...]:
    """Returns the fields that all programs of a pod have.

    `apart`: whether a change of the ports by others can be adopted."""
    return (
        Field("image", "image", Text(), required=True),
        Field(
            "image_pull_policy",
            "imagePullPolicy",
            Text(("Always", "IfNotPresent", "Never")),
            default=usual_pull_policy,
        ),
        Field("command", "command", Texts()),
        Field("args", "args", Texts()),
        Field("env", "env", Repeated(ENV_VAR, keys=("name",), called="variable")),
        # An entry that another manager adds could read any secret of the namespace.
        Field("env_from", "envFrom", Repeated(ENV_FROM), adopted=False),
        Field("resources", "resources", Nested(RESOURCES, apart=True)),
        # A mount names a volume of the pod, which does not determine the platform's volume that another manager means.
        Field(
            "volume_mounts",
            "volumeMounts",
            Repeated(VOLUME_MOUNT, by="mountPath", keys=("mountPath",)),
            adopted=False,
        ),
        Field("security_context", "securityContext", Nested(SECURITY_CONTEXT)),
        Field(
            "ports",
            "ports",
            Repeated(port, by="containerPort", keys=("containerPort", "protocol")),
            adopted=apart,
        ),
        Field("probes.liveness", "livenessProbe", Nested(PROBE)),
        Field("probes.readiness", "readinessProbe", Nested(PROBE)),
        Field("probes.startup", "startupProbe", Nested(PROBE)),
        Field("lifecycle", "lifecycle", Nested(LIFECYCLE, apart=True)),
    )


_PROGRAM_DEFAULTS = (
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("stdin", False),
    ("stdinOnce", False),
    ("tty", False),
)
_OTHER_PROGRAM = (
    Field("name", "name", Text(), required=True, adopted=False),
    *_program(PROGRAM_PORT, apart=True),
)
INIT_CONTAINER = FieldPart(
    "init_containers",
    (*_OTHER_PROGRAM, Field("restart_policy", "restartPolicy", Text(("Always",)), adopted=False)),
    defaults=_PROGRAM_DEFAULTS,
)
SIDECAR = FieldPart("sidecars", _OTHER_PROGRAM, defaults=_PROGRAM_DEFAULTS)
MAIN_CONTAINER = FieldPart(
    "container",
    (
        Field("pod_container_name", "name", Text(), required=True, adopted=False),
        # The platform has a container's ports and those of its Services in one list.
        *_program(POD_PORT, apart=False),
    ),
    defaults=_PROGRAM_DEFAULTS,
)

TOLERATION = FieldPart(
    "tolerations",
    (
        Field("key", "key", Text()),
        Field("operator", "operator", Text(("Equal", "Exists"))),
        Field("value", "value", Text()),
        Field("effect", "effect", Text(("NoSchedule", "PreferNoSchedule", "NoExecute"))),
        Field("toleration_seconds", "tolerationSeconds", _ID),
    ),
)
# The template's spec, without its containers and its volumes.
POD = FieldPart(
    "pod",
    (
        Field("service_account", "serviceAccountName", Text(), default="default", alias="serviceAccount"),
        Field("automount_service_account_token", "automountServiceAccountToken", Flag(optional=True)),
        Field("image_pull_secrets", "imagePullSecrets", Names("secret")),
        Field("priority_class", "priorityClassName", Text()),
        Field(
            "termination_grace_seconds",
            "terminationGracePeriodSeconds",
            Number(maximum=INT64_MAXIMUM, optional=True),
            default=GRACE_SECONDS,
        ),
        Field("pod_security_context", "securityContext", Nested(POD_SECURITY_CONTEXT)),
        Field("pod_resources", "resources", Nested(RESOURCES, apart=True)),
        Field("node_selector", "nodeSelector", Words()),
        Field("tolerations", "tolerations", Repeated(TOLERATION, by="key")),
        Field("init_containers", INIT_CONTAINERS, Repeated(INIT_CONTAINER, keys=("name",)), adopted=False),
    ),
    defaults=(
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("preemptionPolicy", "PreemptLowerPriority"),
        ("hostNetwork", False),
        ("hostPID", False),
        ("hostIPC", False),
        ("hostUsers", True),
    ),
)
ROLLING_UPDATE, RECREATE = "RollingUpdate", "Recreate"
_OPTIONAL_NUMBER = Number(optional=True)
# The settings of a Deployment.
DEPLOYMENT_SETTINGS = FieldPart(
    "deployment",
    (
        Group(
            "strategy",
            (
                Field(
                    "deployment.strategy", "type", Text((ROLLING_UPDATE, RECREATE)), default=ROLLING_UPDATE
                ),
                Group(
                    "rollingUpdate",
                    (
                        Field("deployment.max_surge", "maxSurge", NumberOrPercent(), default="25%"),
                        Field(
                            "deployment.max_unavailable", "maxUnavailable", NumberOrPercent(), default="25%"
                        ),
                    ),
                ),
            ),
        ),
        Field("deployment.min_ready_seconds", "minReadySeconds", Number()),
        Field(
            "deployment.progress_deadline_seconds", "progressDeadlineSeconds", _OPTIONAL_NUMBER, default=600
        ),
        Field("deployment.revision_history_limit", "revisionHistoryLimit", _OPTIONAL_NUMBER, default=10),
    ),
)
# A Deployment's spec, apart from its selector and its template.
DEPLOYMENT = FieldPart(
    "deployment",
    (
        Field("replicas", "replicas", Number(optional=True), adopted=False),
        Field("hold_rollout", "paused", Flag(), adopted=False),
        *DEPLOYMENT_SETTINGS.entries,
    ),
)

# The source of a pod's volume, by the platform's word for the type; the names are those of the volume.
CLAIM_SOURCE = FieldPart(
    "persistent_volume_claim",
    (
        Field("kubernetes_name", "claimName", Text(), required=True),
        Field("read_only", "readOnly", Flag()),
    ),
)
_FILES = (("defaultMode", 420),)  # 0644, the default for files from a config map or a secret
_OPTIONAL = Field("optional", "optional", Flag())
VOLUME_SOURCES: dict[str, tuple[str, FieldPart]] = {
    "persistent_volume_claim": ("persistentVolumeClaim", CLAIM_SOURCE),
    "config_map": (
        "configMap",
        FieldPart(
            "config_map", (Field("source_name", "name", Text(), required=True), _OPTIONAL), defaults=_FILES
        ),
    ),
    "secret": (
        "secret",
        FieldPart(
            "secret", (Field("source_name", "secretName", Text(), required=True), _OPTIONAL), defaults=_FILES
        ),
    ),
    "host_path": (
        "hostPath",
        FieldPart(
            "host_path", (Field("host_path", "path", Text(), required=True),), defaults=(("type", ""),)
        ),
    ),
    "empty_dir": (
        "emptyDir",
        FieldPart(
            "empty_dirs",
            (
                Field("medium", "medium", Text()),
                Field("size_limit", "sizeLimit", QuantityField()),
                Field("mode", "mode", Number(maximum=0o1777, optional=True)),
            ),
            check=_with_medium,
        ),
    ),
}
# The key of a pod's volumes, a list by name; no field of a container has this key.
VOLUMES = "volumes"

# A Service's spec, apart from its type, selector and ports.
SERVICE = FieldPart(
    "service",
    (),
    defaults=(
        ("sessionAffinity", "None"),
        ("internalTrafficPolicy", "Cluster"),
        ("externalTrafficPolicy", "Cluster"),
        ("ipFamilyPolicy", "SingleStack"),
        ("allocateLoadBalancerNodePorts", True),
        ("publishNotReadyAddresses", False),
    ),
)

# A PersistentVolumeClaim's spec.
CLAIM = FieldPart(
    "claim",
    (
        Group("resources", (Group("requests", (Field("size", "storage", QuantityField()),)),)),
        Field("access_modes", "accessModes", Texts()),
        Field("storage_class", "storageClassName", Text()),
        Field("volume_mode", "volumeMode", Text(("Filesystem", "Block")), default="Filesystem"),
    ),
)
# A ConfigMap and a Secret as a whole, without their metadata. A secret is sent as `data`, never as `stringData`: for
# `stringData`, the API server records other managed fields than it writes, and a key left out later would stay.
CONFIG_MAP = FieldPart(
    "config_map",
    (
        Field("data", "data", Words()),
        Field("binary_data", "binaryData", Encoded()),
        Field("immutable", "immutable", Flag()),
    ),
)
SECRET = FieldPart(
    "secret",
    (
        Field("type", "type", Text()),
        Field("data", "data", Encoded(hidden=True)),
        Field("immutable", "immutable", Flag()),
    ),
)


def fields_of(entries: tuple[Entry, ...]) -> Iterator[Field]:
    """Yields the fields among entries, including those of groups."""
    for entry in entries:
        if isinstance(entry, Field):
            yield entry
        elif isinstance(entry, Group):
            yield from fields_of(entry.entries)


def key_of(part: FieldPart, name: str) -> str:
    """Returns the key of a part's value in Kubernetes."""
    return next(field.key for field in fields_of(part.entries) if field.name == name)


def names_of(part: FieldPart) -> tuple[str, ...]:
    """Returns the names of a part's values, each once."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in _names(part.entries)))


def _names(entries: tuple[Entry, ...]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, Field | Rest):
            yield entry.name
        elif isinstance(entry, Group):
            yield from _names(entry.entries)
