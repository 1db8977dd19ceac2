"""The guard alone: it finds each guarded field, and nothing in ordinary objects."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from pilothouse_server.guard import objects
from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import GuardViolation, Keys
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns
from tests.guard.objects import GUARDED, JsonObject, deployment, template

KEYS = Keys(
    KeyPatterns(Settings().service_annotations), KeyPatterns(Settings().guarded_pod_keys, guarding=True)
)


def found_in(document: JsonObject, **more: Any) -> list[GuardViolation]:
    return violations(document, namespace="shop", keys=KEYS, **more)


def test_each_guarded_field_is_found_by_its_path() -> None:
    for guarded in GUARDED:
        (found, *more) = found_in(deployment(guarded))
        assert not more, guarded
        assert found.path.startswith(f"spec.template.{guarded.path}"), guarded
        assert (found.rule, found.permission) == (guarded.rule, guarded.permission), guarded
        assert str(found.steps[-1]) in found.path


@pytest.mark.parametrize(
    ("version", "kind", "way"),
    [
        ("apps/v1", "StatefulSet", "spec"),
        ("apps/v1", "DaemonSet", "spec"),
        ("batch/v1", "Job", "spec"),
        ("batch/v1", "CronJob", "spec.jobTemplate.spec"),
    ],
)
def test_each_guarded_field_is_found_in_the_pods_of_every_kind(version: str, kind: str, way: str) -> None:
    for guarded in GUARDED:
        spec: JsonObject = {"template": template(guarded)}
        if kind == "CronJob":
            spec = {"schedule": "@daily", "jobTemplate": {"spec": spec}}
        metadata = {"name": "web", "namespace": "shop"}
        document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        (found, *more) = found_in(document)
        assert not more, guarded
        assert found.path.startswith(f"{way}.template.{guarded.path}"), guarded
        assert (found.rule, found.permission) == (guarded.rule, guarded.permission), guarded


def test_a_field_missing_from_the_list_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a free field needs the permission once its entry is deleted."""
    ordinary = deployment()
    assert found_in(ordinary) == []
    pod = objects.KINDS["apps/v1", "Deployment"].fields["spec"]["template"]["spec"]
    monkeypatch.delitem(pod["containers"][0], "image")
    assert [each.path for each in found_in(ordinary)] == ["spec.template.spec.containers[0].image"]


ORDINARY_POD: JsonObject = {
    "activeDeadlineSeconds": 100,
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "preference": {
                        "matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]
                    },
                }
            ]
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
            ]
        },
    },
    "automountServiceAccountToken": False,
    "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]},
    "enableServiceLinks": False,
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
    "hostNetwork": False,
    "hostUsers": False,
    "nodeName": "",
    "readinessGates": [{"conditionType": "example.com/ready"}],
    "schedulerName": "default-scheduler",
    "serviceAccountName": "default",
    "securityContext": {
        "fsGroup": 1000,
        "seLinuxOptions": {"type": "container_t"},
        "seccompProfile": {"type": "RuntimeDefault"},
        "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
    },
    "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["app"]}
    ],
    "volumes": [
        {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "b", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 256}]}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {
            "name": "e",
            "projected": {
                "sources": [
                    {"secret": {"name": "s"}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                    {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ]
            },
        },
    ],
    "containers": [
        {
            "name": "main",
            "image": "nginx:1.27",
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "livenessProbe": {
                "httpGet": {"port": "http", "path": "/", "httpHeaders": [{"name": "A", "value": "b"}]}
            },
            "ports": [{"containerPort": 80, "name": "http", "hostPort": 0}],
            "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "1"}},
            "securityContext": {
                "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                "privileged": False,
                "procMount": "Default",
            },
            "tty": True,
            "volumeMounts": [{"name": "a", "mountPath": "/a", "mountPropagation": "None"}],
        }
    ],
    "initContainers": [{"name": "sidecar", "image": "busybox:1.37", "restartPolicy": "Always"}],
}


def test_an_ordinary_pod_has_no_violations() -> None:
    whole = deployment()
    whole["spec"]["template"]["spec"] = deepcopy(ORDINARY_POD)
    assert found_in(whole) == []


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"finalizers": ["example.com/hold"]}, "metadata.finalizers"),
        ({"ownerReferences": []}, "metadata.ownerReferences"),
        ({"generateName": "web-"}, "metadata.generateName"),
        ({"managedFields": []}, "metadata.managedFields"),
        ({"namespace": "kube-system"}, "metadata.namespace"),
        ({"labels": {"pilothouse.dev/container-uid": "u"}}, "metadata.labels[pilothouse.dev/container-uid]"),
        ({"annotations": {"x.pilothouse.dev/y": "z"}}, "metadata.annotations[x.pilothouse.dev/y]"),
    ],
)
def test_metadata_other_than_name_labels_and_annotations_is_never_sent(
    metadata: JsonObject, path: str
) -> None:
    refused = deployment()
    refused["metadata"] |= metadata
    assert [(each.path, each.permission) for each in found_in(refused)] == [(path, "")]


@pytest.mark.parametrize("field", ["finalizers", "ownerReferences", "generateName", "namespace"])
def test_pod_metadata_other_than_labels_and_annotations_is_never_sent(field: str) -> None:
    refused = deployment()
    refused["spec"]["template"]["metadata"][field] = ["x"]
    path = f"spec.template.metadata.{field}"
    assert [(each.path, each.permission) for each in found_in(refused)] == [(path, "")]


def test_keys_of_the_platform_below_an_unlisted_field_are_never_sent() -> None:
    refused = deployment()
    template = {"metadata": {"labels": {"pilothouse.dev/claim-uid": "u"}}}
    refused["spec"]["template"]["spec"]["volumes"] = [
        {"name": "v", "ephemeral": {"volumeClaimTemplate": [template]}}
    ]
    assert [each.permission for each in found_in(refused)] == ["container.privileged", ""]


def test_callers_cannot_use_keys_of_the_platform_at_any_depth() -> None:
    key = "pilothouse.dev/namespace-uid"
    refused = deployment()
    template = refused["spec"]["template"]
    template["metadata"]["labels"][key] = "u"
    refused["spec"]["selector"]["matchLabels"][key] = "u"
    template["spec"]["nodeSelector"] = {key: "u"}
    term = {"labelSelector": {"matchLabels": {key: "u"}}, "topologyKey": "zone"}
    template["spec"]["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    assert {each.rule for each in found_in(refused)} == {"domain"}
    assert len(found_in(refused)) == 4
    assert found_in(refused, ours={key}) == []


@pytest.mark.parametrize(
    "identity",
    [
        {"apiVersion": "apps/v1beta1", "kind": "Deployment"},
        {"apiVersion": "v1", "kind": "Pod"},
        {"apiVersion": "v1", "kind": "Binding"},
        {"apiVersion": "autoscaling/v1", "kind": "Scale"},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"},
        {"apiVersion": ["apps/v1"], "kind": "Deployment"},
        {},
    ],
)
def test_other_versions_kinds_and_subresources_are_never_sent(identity: JsonObject) -> None:
    document = deployment()
    del document["apiVersion"], document["kind"]
    assert [(each.rule, each.permission) for each in found_in({**document, **identity})] == [("kind", "")]


def service(**spec: Any) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"type": "ExternalName"}, "spec.type"),
        ({"externalName": "db.example"}, "spec.externalName"),
        ({"externalIPs": ["10.0.0.1"]}, "spec.externalIPs"),
        ({"clusterIP": "10.0.0.1"}, "spec.clusterIP"),
        ({"clusterIPs": ["10.0.0.1"]}, "spec.clusterIPs"),
        ({"loadBalancerIP": "10.0.0.1"}, "spec.loadBalancerIP"),
        ({"loadBalancerClass": "example.com/internal"}, "spec.loadBalancerClass"),
        ({"healthCheckNodePort": 30000}, "spec.healthCheckNodePort"),
        ({"selector": {}}, "spec.selector"),
        ({"fieldOfLater": True}, "spec.fieldOfLater"),
    ],
)
def test_a_service_that_reaches_beyond_its_pods_needs_a_permission(spec: JsonObject, path: str) -> None:
    assert [(each.path, each.permission) for each in found_in(service(**spec))] == [
        (path, "object.privileged")
    ]


def test_ordinary_services_have_no_violations() -> None:
    for spec in (
        {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "appProtocol": "http", "name": "a"}]},
        {"clusterIP": "None", "clusterIPs": ["None"], "publishNotReadyAddresses": True},
        {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
    ):
        assert found_in(service(**spec)) == []
    annotated = service()
    annotated["metadata"]["annotations"] = {"prometheus.io/port": "80", "cloud.example/public": "true"}
    assert [each.path for each in found_in(annotated)] == ["metadata.annotations[cloud.example/public]"]


def test_values_of_an_unexpected_shape_are_found() -> None:
    for path, value in (("containers", {"name": "main"}), ("volumes", "v"), ("nodeSelector", ["a"])):
        odd = deployment()
        odd["spec"]["template"]["spec"][path] = value
        assert [each.path for each in found_in(odd)] == [f"spec.template.spec.{path}"]
    nested = deployment()
    nested["spec"]["template"]["spec"]["hostname"] = {"a": {"b": 1}}
    assert [each.path for each in found_in(nested)] == ["spec.template.spec.hostname"]
