"""Fields of a workload that the API does not name are carried as JSON, by their paths."""

from __future__ import annotations

import json

from tests.translator.manifests import WEB, container, found, wanted, web

from pilothouse_manifests import extra_fields

POD = "spec.template.spec"


def carried(text: str) -> dict[str, object]:
    (only,) = wanted(text)
    fields = only.values.get("extra_fields", {})
    assert [extra_fields.spelled(extra_fields.parse(path)) for path in fields] == list(fields)
    return {path: json.loads(value) for path, value in fields.items()}


def test_fields_of_the_pod_and_of_its_programs_are_carried() -> None:
    text = web(
        pod="""\
hostNetwork: true
enableServiceLinks: false
dnsConfig: {options: [{name: ndots, value: "2"}]}
initContainers: [{name: first, image: b, workingDir: /a}]
""",
        container="""\
tty: true
terminationMessagePolicy: FallbackToLogsOnError
lifecycle: {preStop: {sleep: {seconds: 5}}, stopSignal: SIGUSR1}
""",
    )
    assert carried(text + "      - {name: proxy, image: envoy, stdin: true}\n") == {
        f"{POD}.hostNetwork": True,
        f"{POD}.enableServiceLinks": False,
        f"{POD}.dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        f"{POD}.initContainers[name=first].workingDir": "/a",
        f"{POD}.containers[name=server].tty": True,
        f"{POD}.containers[name=server].terminationMessagePolicy": "FallbackToLogsOnError",
        f"{POD}.containers[name=server].lifecycle.stopSignal": "SIGUSR1",
        f"{POD}.containers[name=proxy].stdin": True,
    }


def test_selector_expressions_are_carried_unless_the_container_lacks_them() -> None:
    path, expressions = "spec.selector.matchExpressions", [{"key": "app", "operator": "Exists"}]
    text = WEB.replace(
        "  selector:\n", "  selector:\n    matchExpressions: [{key: app, operator: Exists}]\n", 1
    )
    made = container(text)
    assert dict(made.extra_fields) == {path: json.dumps(expressions)}
    assert dict(container(text, existing=[made]).extra_fields) == dict(made.extra_fields)
    # A selector is immutable.
    assert dict(container(text, existing=[container(WEB)]).extra_fields) == {}


def test_defaults_that_the_api_does_not_set_in_templates_are_carried() -> None:
    stated = {"enableServiceLinks": True, "setHostnameAsFQDN": False, "shareProcessNamespace": False}
    text = web(pod="\n".join(f"{key}: {json.dumps(value)}" for key, value in stated.items()))
    assert carried(text) == {f"{POD}.{key}": value for key, value in stated.items()}


def test_a_volume_with_an_unnamed_source_is_carried_and_mounted() -> None:
    text = web(
        pod="""\
volumes:
- {name: data, nfs: {server: files.example, path: /a}}
- {name: keys, csi: {driver: secrets-store.csi.k8s.io, readOnly: true}}
- {name: scratch, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}}
""",
        container="volumeMounts: [{name: data, mountPath: /data}, {name: keys, mountPath: /keys}]",
    )
    assert carried(text) == {
        f"{POD}.volumes[name=data].nfs": {"server": "files.example", "path": "/a"},
        f"{POD}.volumes[name=keys].csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True},
        f"{POD}.volumes[name=scratch].ephemeral": {
            "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}
        },
    }
    (made,) = wanted(text)
    assert [each["volume"] for each in made.values["volume_mounts"]] == ["data", "keys"]


def test_defaults_are_not_carried_and_a_faulty_volume_is_refused() -> None:
    assert carried(web(pod="hostNetwork: false\ndnsPolicy: ClusterFirst", container="tty: false")) == {}
    assert carried(WEB) == {}
    (told,) = found(web(pod="volumes: [{name: data, nfs: {path: /}}]"))
    assert told.endswith('spec.template.spec.volumes[0].nfs: must have the field "server"')


def test_a_misspelt_field_is_refused_instead_of_carried() -> None:
    (told,) = found(web(container="terminationMessagePolcy: File"))
    assert "did you mean" in told


def test_a_carried_field_of_another_type_is_refused_by_its_path() -> None:
    told = found(web(pod="hostAliases: [{ip: 1, hostnames: db}]", container='tty: "yes"'))
    assert [line.partition("spec.template.spec")[2] for line in told] == [
        ".hostAliases[0].ip: must be a text, not a whole number",
        ".hostAliases[0].hostnames: must be a list, not a text",
        ".containers[0].tty: must be true or false, not a text",
    ]
    (told_once,) = found(
        web(pod="topologySpreadConstraints: [{maxSkew: 1, whenUnsatisfiable: DoNotSchedule}]")
    )
    assert told_once.endswith('topologySpreadConstraints[0]: must have the field "topologyKey"')
