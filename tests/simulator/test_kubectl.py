"""kubectl against `pilothouse simulate-cluster`: the first commands of a new user.

Skipped if kubectl is not installed (Debian: package `kubectl`).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.processes import finished
from tests.simulator.program import simulate_cluster
from tests.waiting import patient

_KUBECTL = shutil.which("kubectl")
_TIMEOUT = f"--timeout={patient(20.0):.0f}s"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(_KUBECTL is None, reason="kubectl is not installed"),
]

_MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: app, image: "busybox:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


class Kubectl:
    """Runs kubectl with the kubeconfig of one cluster."""

    def __init__(self, folder: Path, kubeconfig_text: str) -> None:
        self.folder = folder
        kubeconfig = folder / "kubeconfig.yaml"
        kubeconfig.write_text(kubeconfig_text)
        (folder / "shop.yaml").write_text(_MANIFEST)
        # Its own home, because kubectl caches discovery by server address.
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(folder)}

    async def __call__(self, *arguments: str) -> str:
        """Returns the standard output; fails the test if kubectl fails or takes longer than 30 seconds."""
        assert _KUBECTL is not None
        code, output, errors = await finished(
            _KUBECTL,
            *arguments,
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            seconds=30.0,
        )
        assert code == 0, errors.decode()
        return output.decode()

    async def apply(self) -> str:
        return await self("apply", "--server-side", "--validate=false", "-f", "shop.yaml")


@pytest_asyncio.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with simulate_cluster("--speed", "5") as text:
        yield Kubectl(tmp_path, text)


async def test_apply_rolls_out_and_shows_tables(kubectl: Kubectl) -> None:
    assert await kubectl.apply() == (
        "namespace/shop serverside-applied\n"
        "deployment.apps/web serverside-applied\n"
        "service/web serverside-applied\n"
    )
    status = await kubectl("-n", "shop", "rollout", "status", "deployment/web", _TIMEOUT)
    assert status.endswith('deployment "web" successfully rolled out\n')
    deployments = (await kubectl("-n", "shop", "get", "deployments")).splitlines()
    assert deployments[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert deployments[1].split()[:4] == ["web", "2/2", "2", "2"]
    pods = (await kubectl("-n", "shop", "get", "pods", "--no-headers", "-o", "wide")).splitlines()
    assert [line.split()[1:3] for line in pods] == [["1/1", "Running"]] * 2
    services = await kubectl("-n", "shop", "get", "svc", "web", "--no-headers")
    assert services.split()[1] == "ClusterIP"
    assert services.split()[4] == "80/TCP"


async def test_logs_and_describe(kubectl: Kubectl) -> None:
    await kubectl.apply()
    await kubectl("-n", "shop", "wait", "--for=condition=Available", "deployment/web", _TIMEOUT)
    assert "started" in await kubectl("-n", "shop", "logs", "deployment/web")
    described = await kubectl("-n", "shop", "describe", "deployment", "web")
    assert "2 desired | 2 updated | 2 total | 2 available" in described
    assert "ScalingReplicaSet" in described


async def test_apply_without_flags_leaves_validation_to_the_server(kubectl: Kubectl) -> None:
    await kubectl.apply()
    assert "deployment.apps/web unchanged" not in await kubectl("apply", "-f", "shop.yaml")
    assert "deployment.apps/web unchanged" in await kubectl("apply", "-f", "shop.yaml")
    (kubectl.folder / "bad.yaml").write_text(_MANIFEST.replace("replicas:", "replicaz:"))
    with pytest.raises(AssertionError, match=r'unknown field \\*"spec\.replicaz'):
        await kubectl("apply", "-f", "bad.yaml")
    assert "<EnvVarSource>" in await kubectl("explain", "pod.spec.containers.env")


async def test_drain_evicts_pods_to_other_nodes(kubectl: Kubectl) -> None:
    await kubectl.apply()
    await kubectl("-n", "shop", "rollout", "status", "deployment/web", _TIMEOUT)
    await kubectl("drain", "node-0", "--ignore-daemonsets", "--force", _TIMEOUT)
    await kubectl("-n", "shop", "wait", "--for=condition=Available", "deployment/web", _TIMEOUT)
    on_node = ("--field-selector", "spec.nodeName=node-0", "--no-headers")
    assert await kubectl("get", "pods", "-A", *on_node) == ""


async def test_scale_restart_and_delete(kubectl: Kubectl) -> None:
    await kubectl.apply()
    await kubectl("-n", "shop", "scale", "deployment", "web", "--replicas=3")
    await kubectl("-n", "shop", "rollout", "restart", "deployment", "web")
    await kubectl("-n", "shop", "rollout", "status", "deployment/web", _TIMEOUT)
    history = await kubectl("-n", "shop", "rollout", "history", "deployment/web")
    assert history.splitlines()[-2].split()[0] == "2"
    await kubectl("-n", "shop", "delete", "deployment", "web", "--wait=true", _TIMEOUT)
    await kubectl("delete", "namespace", "shop", _TIMEOUT)
    assert await kubectl("get", "namespaces", "shop", "--ignore-not-found") == ""


async def test_pods_behave_as_annotated_and_faults_are_set(kubectl: Kubectl) -> None:
    annotation = "simulate.pilothouse.dev/behavior=image-pull-error"
    await kubectl("run", "box", "--image=busybox:1", f"--annotations={annotation}")
    waiting = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff"
    await kubectl("wait", waiting, "pod/box", _TIMEOUT)
    (kubectl.folder / "faults.json").write_text('{"latency_seconds": 0.01, "error_code": 503}')
    await kubectl("create", "--raw", "/simulator/faults", "-f", "faults.json")
    shown = json.loads(await kubectl("get", "--raw", "/simulator/faults"))
    assert (shown["latency_seconds"], shown["error_code"]) == (0.01, 503)


_CARRIED = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: "web:reader", namespace: shop}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: "web:reader"}
subjects: [{kind: ServiceAccount, name: web, namespace: shop}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  tls: [{hosts: [shop.example.com], secretName: shop-tls}]
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080}]}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: shop}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: shop, annotations: {simulate.pilothouse.dev/replicas: "3"}}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 4}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: pilothouse, namespace: shop}
spec: {hard: {pods: "10", count/deployments.apps: "5"}}
"""


async def test_carried_kinds_are_applied_and_shown(kubectl: Kubectl) -> None:
    await kubectl.apply()
    (kubectl.folder / "carried.yaml").write_text(_CARRIED)
    applied = await kubectl("apply", "--server-side", "-f", "carried.yaml")
    assert applied.count("serverside-applied") == 8
    assert (await kubectl("apply", "-f", "carried.yaml")).count("configured") <= 8
    inside = ("-n", "shop")
    await kubectl(*inside, "wait", "--for=jsonpath={.status.currentReplicas}=3", "hpa/web", _TIMEOUT)
    await kubectl(*inside, "wait", "--for=condition=DisruptionAllowed", "pdb/web", _TIMEOUT)
    await kubectl(*inside, "wait", "--for=jsonpath={.status.used.pods}=3", "quota/pilothouse", _TIMEOUT)

    async def row(kind: str) -> list[str]:
        return (await kubectl(*inside, "get", kind, "--no-headers")).splitlines()[-1].split()

    assert (await row("ingress"))[:4] == ["web", "simulated", "shop.example.com", "192.0.2.1"]
    assert (await row("networkpolicy"))[:2] == ["web", "app=web"]
    assert (await row("pdb"))[:4] == ["web", "N/A", "1", "1"]
    assert (await row("hpa"))[:7] == ["web", "Deployment/web", "cpu:", "<unknown>/80%", "1", "4", "3"]
    assert (await row("rolebinding"))[:2] == ["web", "Role/web:reader"]
    assert (await row("quota"))[1:5] == ["count/deployments.apps:", "1/5,", "pods:", "3/10"]
    await kubectl(*inside, "describe", "ingress,netpol,pdb,hpa,role,rolebinding,quota,serviceaccount")
    await kubectl("delete", "-f", "carried.yaml", _TIMEOUT)
    assert await kubectl(*inside, "get", "ingress,netpol,pdb,hpa,role,rolebinding,quota") == ""


_STORES = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: stores.data.example.com}
spec:
  group: data.example.com
  scope: Namespaced
  names: {kind: Store, plural: stores}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, maximum: 3}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
_ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec: {gatewayClassName: simulated, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{name: web}], hostnames: [shop.example.com], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: data.example.com/v1
kind: Store
metadata: {name: main, namespace: shop}
spec: {size: 2}
"""


async def test_custom_resources_are_applied_and_shown(kubectl: Kubectl) -> None:
    await kubectl.apply()
    (kubectl.folder / "stores.yaml").write_text(_STORES)
    (kubectl.folder / "routed.yaml").write_text(_ROUTED)
    await kubectl("apply", "-f", "stores.yaml")
    await kubectl("wait", "--for=condition=Established", "crd/stores.data.example.com", _TIMEOUT)
    applied = await kubectl("apply", "--server-side", "-f", "routed.yaml")
    assert applied.count("serverside-applied") == 3
    assert (await kubectl("apply", "-f", "routed.yaml")).count("configured") <= 3
    inside = ("-n", "shop")
    await kubectl(*inside, "wait", "--for=condition=Programmed", "gateway/web", _TIMEOUT)
    assert (await kubectl(*inside, "get", "gtw", "--no-headers")).split()[:4] == [
        "web", "simulated", "192.0.2.2", "True",
    ]  # fmt: skip
    assert (await kubectl(*inside, "get", "httproutes", "--no-headers")).split()[1] == '["shop.example.com"]'
    assert (await kubectl(*inside, "get", "stores", "--no-headers")).split()[:2] == ["main", "2"]
    with pytest.raises(AssertionError, match="should be less than or equal to 3"):
        await kubectl(*inside, "patch", "store", "main", "--type=merge", "-p", '{"spec":{"size":4}}')
    await kubectl("delete", "crd", "stores.data.example.com", _TIMEOUT)
    with pytest.raises(AssertionError, match=r"could not find the requested resource|resource type"):
        await kubectl(*inside, "get", "stores")
