"""Fields that the platform cannot represent are refused by name, with their line, without further problems."""

from __future__ import annotations

import pytest
from tests.translator.manifests import NAMESPACE, SERVICE, WEB, container, found, problems_of, wanted, web

from pilothouse_client.apply.documents import parse
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.problems import ProblemReach, Problems, listed
from pilothouse_manifests.translator.weights import ProblemWeight

NOT = "cannot be represented"
OWNED = "a container owns service/web by its ports, which do not support it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (web("paused: true"), f"web.yaml:7: deployment/web: spec.paused: {NOT}"),
        (
            web(pod="volumes:\n- name: data\n  emptyDir: {}\n  nfs: {server: a, path: /}"),
            f"web.yaml:16: deployment/web: spec.template.spec.volumes[0].nfs: {NOT} as the source of a volume",
        ),
        (
            web(container="resources:\n  limits:\n    gpu: 1"),
            f"web.yaml:18: deployment/web: spec.template.spec.containers[0].resources.limits.gpu: {NOT}",
        ),
        (
            web(container="env:\n- name: A\n  valueFrom: {fileKeyRef: {key: a}}"),
            f"web.yaml:18: deployment/web: spec.template.spec.containers[0].env[0].valueFrom.fileKeyRef: {NOT}",
        ),
        (
            WEB.replace("containerPort: 8080", "containerPort: 8080, protocol: SCTP"),
            f"web.yaml:17: deployment/web: spec.template.spec.containers[0].ports[0].protocol: {NOT}: SCTP",
        ),
        (
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: nightly}\nspec: {replicas: 2}\n",
            "web.yaml:1: replicaset/nightly: ReplicaSet of apps/v1 cannot be represented: write a Deployment; "
            "or `kubectl apply` it: it will be left alone",
        ),
        (
            WEB.replace("apps/v1", "apps/v1beta1"),
            "web.yaml:1: deployment/web: Deployment of apps/v1beta1 is not served since Kubernetes 1.16: "
            "write apps/v1; spec.selector is required there",
        ),
        (
            "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: web}\n",
            "web.yaml:1: poddisruptionbudget/web: PodDisruptionBudget of policy/v1beta1 is not served since Kubernetes "
            "1.25: write policy/v1; there, an empty spec.selector selects all pods of the namespace instead of none",
        ),
        (
            "apiVersion: autoscaling/v2beta2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\n",
            "web.yaml:1: horizontalpodautoscaler/web: HorizontalPodAutoscaler of autoscaling/v2beta2 is not served "
            "since Kubernetes 1.26: write autoscaling/v2",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web}\n",
            "web.yaml:1: gateway/web: Gateway of networking.istio.io/v1 is not yet supported; "
            "`kubectl apply` it: it will be left alone",
        ),
        (
            WEB.replace("kind: Deployment", "kind: Deploymnt"),
            "web.yaml:1: deploymnt/web: Deploymnt of apps/v1 is not yet supported (did you mean Deployment?); "
            "`kubectl apply` it: it will be left alone",
        ),
        (
            "apiVersion: autoscaling/v3\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\n",
            "web.yaml:1: horizontalpodautoscaler/web: HorizontalPodAutoscaler of autoscaling/v3 is not supported; "
            "expected HorizontalPodAutoscaler of autoscaling/v1 or autoscaling/v2",
        ),
        (
            WEB + "---\n" + SERVICE.replace("{name: web}", "{name: web, labels: {team: red}}"),
            f"web.yaml:21: service/web: metadata.labels[team]: {NOT}: "
            "services get the labels of container/web, which does not have it",
        ),
        (
            WEB + "---\n" + SERVICE + "  sessionAffinity: ClientIP\n",
            f"web.yaml:26: service/web: spec.sessionAffinity: {NOT}: {OWNED}",
        ),
        (
            WEB + "---\n" + SERVICE + "  type: ExternalName\n",
            f"web.yaml:26: service/web: spec.type: {NOT}: {OWNED}",
        ),
        (
            WEB + "---\n" + SERVICE + "  clusterIP: 10.0.0.1\n",
            f"web.yaml:26: service/web: spec.clusterIP: {NOT}: {OWNED}",
        ),
        (
            WEB + "---\n" + SERVICE.replace("{app: web}", "{app: other}"),
            f"web.yaml:19: service/web: spec.selector: {NOT}: "
            "it selects no container, neither of these files nor on the server",
        ),
        (
            WEB + "---\n" + WEB.replace("name: web", "name: canary", 1) + "---\n" + SERVICE,
            f"web.yaml:37: service/web: spec.selector: {NOT}: it selects several containers (web, canary)",
        ),
    ],
)
def test_an_unrepresentable_field_is_refused_by_name(text: str, expected: str) -> None:
    assert found(text) == [expected]
    assert all(problem.reach is not ProblemReach.INVALID for problem in problems_of(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            web("replica: 3"),
            "web.yaml:7: deployment/web: spec.replica: is no field of Kubernetes; did you mean 'replicas'?",
        ),
        (
            web(container="imagePulPolicy: Always"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].imagePulPolicy: is no field of Kubernetes; "
            "did you mean 'imagePullPolicy'?",
        ),
        (
            WEB.replace("image: nginx:1.27", "image: 3"),
            "web.yaml:15: deployment/web: spec.template.spec.containers[0].image: "
            "expected a text, found the integer '3'; put it in quotes",
        ),
        (
            WEB.replace("        image: nginx:1.27\n", ""),
            "web.yaml:14: deployment/web: spec.template.spec.containers[0].image: expected a value, found none",
        ),
        (
            web("replicas: '2'"),
            "web.yaml:7: deployment/web: spec.replicas: expected a whole number, found the string '2'",
        ),
        (
            web("strategy: {type: Replace}"),
            "web.yaml:7: deployment/web: spec.strategy.type: "
            "expected one of RollingUpdate, Recreate, found 'Replace'",
        ),
        (
            web("strategy: {rollingUpdate: {maxSurge: some}}"),
            "web.yaml:7: deployment/web: spec.strategy.rollingUpdate.maxSurge: "
            "expected a whole number or a percentage such as 25%, found the string 'some'",
        ),
        (
            web("replicas: -1"),
            "web.yaml:7: deployment/web: spec.replicas: expected 0 to 2147483647, found -1",
        ),
        (
            WEB.replace("8080", "70000"),
            "web.yaml:17: deployment/web: spec.template.spec.containers[0].ports[0].containerPort: "
            "expected 1 to 65535, found 70000",
        ),
        (
            web(container="resources: {requests: {cpu: lots}}"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].resources.requests.cpu: "
            "expected a quantity such as 100m, 0.5, 64Mi, found 'lots'",
        ),
        (
            web(container="env:\n- {name: A, value: 8080}"),
            "web.yaml:17: deployment/web: spec.template.spec.containers[0].env[0].value: "
            "expected a text, found the integer '8080'; put it in quotes",
        ),
        (
            web(container="env:\n- {name: A, value: '1'}\n- {name: A, value: '2'}"),
            "web.yaml:18: deployment/web: spec.template.spec.containers[0].env[1]: "
            "expected each variable once, found 'A' again",
        ),
        (
            web(container="env:\n- {name: A, value: a, valueFrom: {fieldRef: {fieldPath: status.podIP}}}"),
            "web.yaml:17: deployment/web: spec.template.spec.containers[0].env[0].valueFrom: "
            "expected either value or valueFrom, found both",
        ),
        (
            web(container="livenessProbe: {periodSeconds: 5}"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].livenessProbe: "
            "expected one of httpGet, tcpSocket, exec, grpc, found none",
        ),
        (
            web(container="livenessProbe: {tcpSocket: {port: '80'}}"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].livenessProbe.tcpSocket.port: "
            "expected a port's number or name, found the text '80'",
        ),
        (
            web(container="volumeMounts: [{name: data, mountPath: /data}]"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].volumeMounts[0]: "
            "expected the name of a volume of the pod, found 'data'",
        ),
        (
            web(container="imagePullPolicy: Sometimes"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].imagePullPolicy: "
            "expected one of Always, IfNotPresent, Never, found 'Sometimes'",
        ),
        (
            web(container="command: ls -l"),
            "web.yaml:16: deployment/web: spec.template.spec.containers[0].command: "
            "expected a list, found the string 'ls -l'",
        ),
        (
            WEB.replace("matchLabels: {app: web}", "matchLabels: {app: shop}"),
            "web.yaml:8: deployment/web: spec.selector.matchLabels[app]: "
            "expected a label of the pod template, found 'shop'",
        ),
        (
            WEB.replace(
                "matchLabels: {app: web}", "matchExpressions: [{key: app, operator: NotIn, values: [web]}]"
            ),
            "web.yaml:8: deployment/web: spec.selector.matchExpressions[0]: "
            "expected to select the pod template's labels",
        ),
        (
            WEB.replace("name: web\n", "name: web\n  namespace: other\n", 1),
            "web.yaml:5: deployment/web: metadata.namespace: "
            "expected 'cafe', the namespace of this command, or nothing; found 'other'",
        ),
        (
            WEB.replace("name: web\n", "name: Web_1\n", 1),
            "web.yaml:4: deployment/Web_1: metadata.name: "
            "expected at most 63 lower-case letters, digits and '-', found 'Web_1'",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
            "web.yaml:1: deployment/web: spec: expected a value, found none",
        ),
        ("kind: Service\n", "web.yaml:1: service: apiVersion: expected a value, found none"),
        ("- a\n", "web.yaml:1: document: expected a mapping with apiVersion and kind, found a list"),
        (
            WEB + "---\n" + WEB,
            "web.yaml:19: deployment/web: expected each object once, found it again; first at web.yaml:1",
        ),
        (
            WEB + "---\n" + SERVICE.replace("targetPort: http", "targetPort: grpc"),
            "web.yaml:25: service/web: spec.ports[0].targetPort: "
            "expected the name of a port of container/web with this protocol, found 'grpc'",
        ),
        (
            WEB + "---\n" + SERVICE.replace("port: 80,", "port: 80, nodePort: 30080,"),
            "web.yaml:25: service/web: spec.ports[0].nodePort: "
            "expected none for a service that is neither NodePort nor LoadBalancer",
        ),
        (
            WEB + "---\n" + SERVICE + "  - {port: 81}\n",
            "web.yaml:26: service/web: spec.ports[1].name: expected a name because there are other ports, found none",
        ),
    ],
)
def test_an_invalid_field_is_reported_and_never_skipped(text: str, expected: str) -> None:
    assert found(text) == [expected]
    assert all(problem.reach is ProblemReach.INVALID for problem in problems_of(text))


def test_all_problems_are_reported_together() -> None:
    text = web(
        "replicas: many",
        pod="volumes: [{name: a, emptyDir: {}, nfs: {}}]",
        container="resources: {limits: {gpu: 1}}",
    )
    assert [line.split(": ")[0] for line in found(text)] == ["web.yaml:7", "web.yaml:14", "web.yaml:18"]


def test_defaults_and_empty_fields_change_nothing() -> None:
    noisy = web(
        """
        minReadySeconds: 0
        paused: false
        """,
        pod="""
        restartPolicy: Always
        dnsPolicy: ClusterFirst
        schedulerName: default-scheduler
        hostNetwork: no
        securityContext: {}
        affinity: {}
        imagePullSecrets: []
        """,
        container="""
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
        tty: false
        resources: {}
        livenessProbe:
        """,
    ).replace("name: web\n", "name: web\n  namespace: cafe\n  creationTimestamp: null\n", 1)
    (plain,), (same,) = wanted(WEB), wanted(noisy + "status: {}\n")
    assert same.values == plain.values
    service = (
        SERVICE + "  sessionAffinity: None\n  internalTrafficPolicy: Cluster\nstatus:\n  loadBalancer: {}\n"
    )
    assert wanted(WEB, service)[0].values == wanted(WEB, SERVICE)[0].values


def test_a_managed_by_label_is_kept_unless_it_names_pilothouse() -> None:
    def labels(value: str) -> dict[str, str]:
        text = WEB.replace(
            "labels: {app: web}", f"labels: {{app: web, app.kubernetes.io/managed-by: {value}}}", 1
        )
        return dict(container(text).labels)

    assert labels("Helm") == {"app": "web", "app.kubernetes.io/managed-by": "Helm"}
    assert labels("pilothouse") == {"app": "web"}


def test_skipping_leaves_out_the_field_or_document_and_reports_it() -> None:
    problems = Problems()
    text = "---\n".join(
        [
            web(
                "paused: true",
                pod="volumes: [{name: data, emptyDir: {}, nfs: {path: /data}}]",
                container="volumeMounts: [{name: data, mountPath: /data}]",
            ),
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: settings}\nspec: {a: b}\n",
        ]
    )
    manifest = convert(parse(text, "web.yaml", problems), NAMESPACE, problems)
    assert [workload.values for workload in manifest.workloads] == [
        convert(parse(WEB, "web.yaml", problems), NAMESPACE, problems).workloads[0].values
    ]
    assert problems.refused(ProblemWeight.SECURITY) == ()
    assert [(each.subject, each.path) for each in problems.skipped(ProblemWeight.SECURITY)] == [
        ("deployment/web", "spec.paused"),
        ("deployment/web", "spec.template.spec.volumes[0].nfs"),
        ("deployment/web", "spec.template.spec.containers[0].volumeMounts[0]"),
        ("replicaset/settings", ""),
    ]
    assert len(problems.refused(None)) == 4


def test_annotations_of_a_service_are_stored_with_its_ports() -> None:
    annotations = "metadata: {name: web, annotations: {prometheus.io/scrape: 'true'}}"
    (made,) = wanted(WEB, SERVICE.replace("metadata: {name: web}", annotations))
    assert made.values["ports"][0]["service_annotations"] == {"prometheus.io/scrape": "true"}


def test_a_document_of_the_target_namespace_is_accepted() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}, labels: {{team: a}}}}\nspec: {{finalizers: [a]}}\n"
    (made,) = wanted(text.format(NAMESPACE) + "---\n" + WEB)
    assert made.name == "web"
    assert found(text.format("other")) == [
        "web.yaml:3: namespace/other: metadata.name: cannot be represented: another namespace than "
        f"{NAMESPACE!r}, the namespace of this command"
    ]


def test_another_namespace_in_all_documents_is_one_problem() -> None:
    text = WEB.replace("name: web\n", "name: web\n  namespace: other\n", 1)
    more = [text.replace("name: web\n", f"name: web-{number}\n", 1) for number in range(2)]
    assert listed(problems_of("---\n".join([text, *more]))) == [
        f"web.yaml:5: deployment/web: metadata.namespace: expected {NAMESPACE!r}, the namespace of this "
        "command, or nothing; found 'other'; the same in deployment/web-0 (line 24), "
        "deployment/web-1 (line 43)"
    ]
