"""A chart's usual output, and a Gateway with HTTPRoutes: applied completely by one command, unchanged by a second."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator import SimulatedCluster, gateway_definitions
from pilothouse_simulator.values import resources
from tests.conftest import Database, new_database
from tests.harness import PASSWORD, Server, running_server
from tests.main_job.command import Shell
from tests.main_job.test_application import contains
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=3)

CHART = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, labels: {app.kubernetes.io/name: web, helm.sh/chart: web-1.0.0}}
automountServiceAccountToken: true
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}
subjects: [{kind: ServiceAccount, name: web, namespace: shop}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web}
rules:
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [web]
  verbs: [get, watch]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: web}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {}}], ports: [{port: 8080, protocol: TCP}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {nginx.ingress.kubernetes.io/proxy-body-size: 8m}
spec:
  ingressClassName: nginx
  rules:
  - host: web.shop.example.com
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]
  tls: [{hosts: [web.shop.example.com], secretName: web-tls}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers:
      - name: web
        image: nginx:1.27
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: "web:1.0", command: [migrate]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-test, annotations: {helm.sh/hook: test}}
spec: {containers: [{name: wget, image: "busybox:1.37"}]}
"""
WIDGET = """\
apiVersion: shop.example/v1
kind: Widget
metadata: {name: one}
spec: {size: 3, account: web}
"""
DEFINITION = {
    "metadata": {"name": "widgets.shop.example"},
    "spec": {
        "group": "shop.example",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}, "account": {"type": "string"}},
                            }
                        },
                    }
                },
            }
        ],
    },
}
ROUTES = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: istio
  listeners:
  - name: http
    hostname: "*.routes.example.com"
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Same}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  hostnames: [web.routes.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: web, port: 80}]
"""
TYPES = {
    "ServiceAccount": resources.SERVICE_ACCOUNTS,
    "Role": resources.ROLES,
    "RoleBinding": resources.ROLE_BINDINGS,
    "PodDisruptionBudget": resources.POD_DISRUPTION_BUDGETS,
    "NetworkPolicy": resources.NETWORK_POLICIES,
    "HorizontalPodAutoscaler": resources.HORIZONTAL_POD_AUTOSCALERS,
    "Ingress": resources.INGRESSES,
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Yields a server with the Gateway API and widgets, and an operator of two namespaces with hosts."""
    async with (
        new_database(postgres, template_database.name) as database,
        SimulatedCluster(speed=10.0, definitions=(*gateway_definitions(), DEFINITION)) as cluster,
        running_server(database, tmp_path_factory.mktemp("carried"), cluster=cluster) as server,
    ):
        for name in ("shop", "routes"):
            await server.admin.namespaces.create(
                namespace=namespace_pb2.Namespace(name=name, allowed_hosts=[f"*.{name}.example.com"])
            )
        await server.user("olga", {"shop": "operator", "routes": "operator"})
        yield server


async def _logged_in(server: Server, directory: Path) -> Shell:
    shell = Shell(directory)
    login = ("login", "--server", server.address, "--user", "olga", "--password-stdin")
    await shell.succeed(*login, given=PASSWORD + "\n")
    return shell


async def test_the_usual_output_of_a_chart_is_applied_completely(shared: Server, tmp_path: Path) -> None:
    shell = await _logged_in(shared, tmp_path)
    assert shared.cluster is not None
    store = shared.cluster.store
    dry = await shell.run("apply", "-f", "-", "--namespace", "shop", "--dry-run", given=CHART)
    assert dry.code == 0, dry
    assert "ingress/web created (dry run)" in dry.output
    first = await shell.run("apply", "-f", "-", "--namespace", "shop", given=CHART)
    assert first.code == 0, first
    assert "pod/web-test: is left out" in first.errors
    wanted = [item for item in yaml.safe_load_all(CHART) if item["kind"] in TYPES]

    async def lost() -> list[str]:
        found = []
        for item in wanted:
            held: dict[str, Any] = store.get(TYPES[item["kind"]], "shop", item["metadata"]["name"]) or {}
            found += contains(held, {**item, "metadata": {"name": "web"}}, item["kind"])
            found += contains(held.get("metadata"), item["metadata"], f"{item['kind']}.metadata")
        return found

    async def whole() -> bool:
        return store.get(resources.DEPLOYMENTS, "shop", "web") is not None and not await lost()

    await poll_until(whole, seconds=30, what="the objects on the cluster")
    deployment = store.get(resources.DEPLOYMENTS, "shop", "web")
    assert deployment is not None
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "web"
    account = store.get(resources.SERVICE_ACCOUNTS, "shop", "web")
    assert account is not None
    assert account["automountServiceAccountToken"] is True
    again = await shell.succeed("apply", "-f", "-", "--namespace", "shop", given=CHART)
    assert "10 unchanged" in again, again
    changed = CHART.replace("proxy-body-size: 8m", "proxy-body-size: 9m")
    assert "ingress/web updated" in await shell.succeed(
        "apply", "-f", "-", "--namespace", "shop", given=changed
    )
    await _read_by_the_command(shell)


async def _read_by_the_command(shell: Shell) -> None:
    where = ("--namespace", "shop")
    listed = await shell.read("objects", "list", *where)
    assert {each["kind"] for each in listed} == set(TYPES)
    shown = json.loads(await shell.succeed("objects", "get", "ingress", "web", *where, "--document"))
    assert shown["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "9m"}
    budget = json.dumps(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "other"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}},
        }
    )
    await shell.succeed("objects", "create", "-f", "-", *where, given=budget)
    await shell.succeed(
        "objects",
        "update",
        "poddisruptionbudgets",
        "other",
        "-f",
        "-",
        *where,
        given=budget.replace(": 1", ": 2"),
    )
    kinds = await shell.read("objects", "kinds", *where)
    assert {"Ingress", "Pod"} <= {each["kind"] for each in kinds}
    await shell.succeed("objects", "delete", "poddisruptionbudget", "other", "--yes", *where)
    wrong = await shell.run("objects", "get", "pods", "web", *where)
    assert wrong.code == 2
    assert "VERSION/KIND" in wrong.errors


async def test_a_gateway_with_routes_and_a_custom_resource_are_applied_completely(
    shared: Server, tmp_path: Path
) -> None:
    shell = await _logged_in(shared, tmp_path)
    where = ("--namespace", "routes")
    closed = await shell.run("apply", "-f", "-", *where, given=WIDGET)
    assert closed.code != 0
    assert "Widget of shop.example/v1 is not yet supported" in closed.errors
    kind = namespace_pb2.ObjectKind(
        api_version="shop.example/v1", kind="Widget", open_to=namespace_pb2.KIND_OPEN_TO_TENANTS
    )
    kind.refused_paths.append("spec.account")
    await shared.admin.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=[kind]),
        update_mask=FieldMask(paths=["object_kinds"]),
    )
    refused = await shell.run("apply", "-f", "-", *where, given=WIDGET)
    assert "spec.account is among the refused_paths" in refused.errors, refused
    given = f"{ROUTES}---\n{WIDGET.replace(', account: web', '')}"
    assert "3 created" in await shell.succeed("apply", "-f", "-", *where, given=given)

    async def active() -> bool:
        listed = await shell.read("objects", "list", *where)
        return [each["status"] for each in listed] == ["OBJECT_STATUS_ACTIVE"] * 3

    await poll_until(active, seconds=30, what="the gateway, its route and the widget on the cluster")
    assert shared.cluster is not None
    for wanted, plural in ((WIDGET, "widgets"), (ROUTES.split("---\n")[1], "httproutes")):
        item = yaml.safe_load(wanted.replace(", account: web", ""))
        resource = shared.cluster.store.types.custom(item["apiVersion"].partition("/")[0], plural)
        assert resource is not None
        held = shared.cluster.store.get(resource, "routes", item["metadata"]["name"])
        assert contains(held, item, plural) == []
    assert "3 unchanged" in await shell.succeed("apply", "-f", "-", *where, given=given)
    foreign = ROUTES.replace("web.routes.example.com", "web.shop.example.com")
    outside = await shell.run("apply", "-f", "-", *where, given=foreign)
    assert "HOST_NOT_ALLOWED" in outside.errors, outside
