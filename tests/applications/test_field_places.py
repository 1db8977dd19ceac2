"""Problems that only the server finds are reported with the line of their field in the file."""

from __future__ import annotations

import io

import pytest

from pilothouse_client.apply.documents import load
from pilothouse_client.apply.field_places import place_of
from pilothouse_manifests.translator.problems import Problems

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app: web
spec:
  replicas: 2
  minReadySeconds: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
    spec:
      serviceAccountName: builder
      initContainers:
      - name: first
        image: busybox
      containers:
      - name: main
        image: nginx
        env:
        - name: A
          value: a
        - name: LEVEL
          valueFrom:
            configMapKeyRef: {name: settings, key: level}
        resources:
          requests:
            cpu: 100m
            memory: 1Mi
        ports:
        - containerPort: 80
      - name: proxy
        image: envoy
        securityContext:
          privileged: true
"""
_SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ports:
  - port: 80
    nodePort: 8
"""
_CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
"""
_BUDGET = """\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  selector:
    matchLabels: {app: web}
  minAvailable: 1
"""


@pytest.mark.parametrize(
    ("text", "kind", "path", "line"),
    [
        (_DEPLOYMENT, "Deployment", "container.image", 21),
        (_DEPLOYMENT, "Deployment", "container.replicas", 8),
        (_DEPLOYMENT, "Deployment", "container.deployment.min_ready_seconds", 9),
        (_DEPLOYMENT, "Deployment", "container.labels[app]", 5),
        (_DEPLOYMENT, "Deployment", "container.pod_labels", 13),
        (_DEPLOYMENT, "Deployment", "container.service_account", 15),
        (_DEPLOYMENT, "Deployment", "container.env[1].source_name", 25),
        (_DEPLOYMENT, "Deployment", "container.resources.memory_request", 31),
        (_DEPLOYMENT, "Deployment", "container.ports[4].service_name", 32),
        (_DEPLOYMENT, "Deployment", "container.init_containers[0].image", 18),
        (_DEPLOYMENT, "Deployment", "container.sidecars[0].security_context.privileged", 37),
        (_DEPLOYMENT, "Deployment", "spec.template.spec.containers[1].image", 35),
        (_DEPLOYMENT, "Deployment", "container.no_such_field", 1),
        (_DEPLOYMENT, "Deployment", "", 1),
        (_SERVICE, "Service", "service.type", 5),
        (_SERVICE, "Service", "service.ports[0].node_port", 6),
        (_CLAIM, "PersistentVolumeClaim", "volume.size", 8),
        (_BUDGET, "PodDisruptionBudget", "object.document.spec.minAvailable", 7),
        (_BUDGET, "PodDisruptionBudget", "object.document", 1),
    ],
)
def test_an_api_path_is_mapped_to_the_line_of_its_key(text: str, kind: str, path: str, line: int) -> None:
    (document,) = load(["-"], Problems(), io.BytesIO(text.encode()))
    assert place_of(document.root, kind, path).line == line
