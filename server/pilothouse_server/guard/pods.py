"""The allow-list of pod fields, Kubernetes 1.30 to 1.37, and checks of values.

A field that is missing here needs `container.privileged`. The lists are read from the top, so a field is free only if
each of its parents is listed. These fields are missing on purpose: volumes of drivers (`csi`, `nfs` …) and generic
ephemeral volumes, which bypass the platform's volumes and quota; `resourceClaims`; `overhead`; `namespaces` and
`namespaceSelector` of pod affinity, which keep pods of other namespaces off nodes; `matchFields` of node affinity,
which name a node; ephemeral containers.
"""

from __future__ import annotations

from typing import Any, Final

from pilothouse_server.guard import checks

# A scalar, or a list of scalars.
FREE: Final = "free"
# A mapping of scalars, with keys that the caller chooses.
WORDS: Final = "words"


def _free(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), FREE)


_LABEL_SELECTOR: dict[str, Any] = {"matchLabels": WORDS, "matchExpressions": [_free("key operator values")]}
_NODE_TERM = {"matchExpressions": [_free("key operator values")]}
_POD_TERM = {"labelSelector": _LABEL_SELECTOR, **_free("topologyKey matchLabelKeys mismatchLabelKeys")}
_POD_AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_POD_TERM],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": FREE, "podAffinityTerm": _POD_TERM}],
}
_AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": FREE, "preference": _NODE_TERM}],
    },
    "podAffinity": _POD_AFFINITY,
    "podAntiAffinity": _POD_AFFINITY,
}
_SHARED_CONTEXT = {
    **_free("runAsGroup runAsNonRoot runAsUser"),
    "appArmorProfile": checks.apparmor,
    "seLinuxOptions": checks.selinux,
    "seccompProfile": checks.seccomp,
    "windowsOptions": {"runAsUserName": FREE, "hostProcess": checks.host_process},
}
_SECURITY_CONTEXT = {
    **_SHARED_CONTEXT,
    **_free("allowPrivilegeEscalation readOnlyRootFilesystem"),
    "capabilities": {"add": checks.capabilities, "drop": FREE},
    "privileged": checks.privileged,
    "procMount": checks.proc_mount,
}
_POD_SECURITY_CONTEXT = {
    **_SHARED_CONTEXT,
    **_free("fsGroup fsGroupChangePolicy seLinuxChangePolicy supplementalGroups supplementalGroupsPolicy"),
    "sysctls": [{"name": checks.sysctl, "value": FREE}],
}
_HTTP_GET = {
    "host": checks.probe_host,
    "httpHeaders": [_free("name value")],
    **_free("path port scheme"),
}
_TCP_SOCKET = {"host": checks.probe_host, "port": FREE}
_HANDLERS = {"exec": {"command": FREE}, "httpGet": _HTTP_GET, "tcpSocket": _TCP_SOCKET}
_PROBE = {
    **_HANDLERS,
    "grpc": _free("port service"),
    **_free("failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds"),
    "terminationGracePeriodSeconds": FREE,
}
_LIFECYCLE_ACTION = {**_HANDLERS, "sleep": {"seconds": FREE}}
_RESOURCES = {"limits": WORDS, "requests": WORDS}
_FIELD_REF = _free("apiVersion fieldPath")
_RESOURCE_FIELD_REF = _free("containerName resource divisor")
_KEY_REF = _free("name key optional")
_CONTAINER = {
    **_free("args command image imagePullPolicy name restartPolicy stdin stdinOnce terminationMessagePath"),
    **_free("terminationMessagePolicy tty workingDir"),
    "env": [
        {
            **_free("name value"),
            "valueFrom": {
                "configMapKeyRef": _KEY_REF,
                "fieldRef": _FIELD_REF,
                "fileKeyRef": _free("volumeName path key optional"),
                "resourceFieldRef": _RESOURCE_FIELD_REF,
                "secretKeyRef": _KEY_REF,
            },
        }
    ],
    "envFrom": [
        {
            "prefix": FREE,
            "configMapRef": _free("name optional"),
            "secretRef": _free("name optional"),
        }
    ],
    "lifecycle": {"postStart": _LIFECYCLE_ACTION, "preStop": _LIFECYCLE_ACTION, "stopSignal": FREE},
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "ports": [
        {
            **_free("containerPort name protocol"),
            "hostIP": checks.host_address,
            "hostPort": checks.host_port,
        }
    ],
    "resizePolicy": [_free("resourceName restartPolicy")],
    "resources": _RESOURCES,
    "restartPolicyRules": [{"action": FREE, "exitCodes": _free("operator values")}],
    "securityContext": _SECURITY_CONTEXT,
    "volumeDevices": [_free("devicePath name")],
    "volumeMounts": [
        {
            **_free("mountPath name readOnly recursiveReadOnly subPath subPathExpr"),
            "mountPropagation": checks.propagation,
        }
    ],
}
_ITEMS = [_free("key path mode")]
_DOWNWARD = [{"path": FREE, "mode": FREE, "fieldRef": _FIELD_REF, "resourceFieldRef": _RESOURCE_FIELD_REF}]
_VOLUME = {
    "name": FREE,
    "configMap": {**_free("name defaultMode optional"), "items": _ITEMS},
    "downwardAPI": {"defaultMode": FREE, "items": _DOWNWARD},
    "emptyDir": _free("medium mode sizeLimit"),
    "hostPath": checks.host_path,
    "persistentVolumeClaim": _free("claimName readOnly"),
    "projected": {
        "defaultMode": FREE,
        "sources": [
            {
                "configMap": {**_free("name optional"), "items": _ITEMS},
                "downwardAPI": {"items": _DOWNWARD},
                "secret": {**_free("name optional"), "items": _ITEMS},
                "serviceAccountToken": {"audience": checks.audience, **_free("expirationSeconds path")},
            }
        ],
    },
    "secret": {**_free("secretName defaultMode optional"), "items": _ITEMS},
}
_POD = {
    **_free("activeDeadlineSeconds automountServiceAccountToken dnsPolicy enableServiceLinks hostname"),
    **_free("restartPolicy setHostnameAsFQDN shareProcessNamespace subdomain"),
    "terminationGracePeriodSeconds": FREE,
    "affinity": _AFFINITY,
    "containers": [_CONTAINER],
    "dnsConfig": {**_free("nameservers searches"), "options": [_free("name value")]},
    "hostAliases": [_free("ip hostnames")],
    "hostIPC": checks.host_namespace,
    "hostNetwork": checks.host_namespace,
    "hostPID": checks.host_namespace,
    "hostUsers": checks.host_users,
    "imagePullSecrets": [{"name": FREE}],
    "initContainers": [_CONTAINER],
    "nodeName": checks.node_name,
    "nodeSelector": WORDS,
    "os": {"name": FREE},
    "preemptionPolicy": checks.preemption,
    "priority": checks.priority_number,
    "priorityClassName": checks.priority_class,
    "readinessGates": [{"conditionType": FREE}],
    "resources": _RESOURCES,
    "runtimeClassName": checks.runtime_class,
    "schedulerName": checks.scheduler,
    "schedulingGates": [{"name": FREE}],
    "securityContext": _POD_SECURITY_CONTEXT,
    "serviceAccount": checks.service_account,
    "serviceAccountName": checks.service_account,
    "tolerations": [(checks.toleration, _free("key operator value effect tolerationSeconds"))],
    "topologySpreadConstraints": [
        {
            **_free("maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy topologyKey whenUnsatisfiable"),
            "labelSelector": _LABEL_SELECTOR,
            "matchLabelKeys": FREE,
        }
    ],
    "volumes": [_VOLUME],
}
LABEL_SELECTOR = _LABEL_SELECTOR
TEMPLATE: dict[str, Any] = {
    "metadata": {
        "name": FREE,
        "labels": checks.obeyed_keys,
        "annotations": checks.pod_annotations,
        **dict.fromkeys(("finalizers", "generateName", "namespace", "ownerReferences"), checks.never_given),
        # `kubectl get -o yaml` shows it as null.
        "creationTimestamp": checks.only(rule=checks.UNLISTED, words="is set by the server"),
    },
    "spec": _POD,
}
