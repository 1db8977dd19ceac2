"""Claims and pod volumes: how the platform represents them, and which ones it refuses."""

from __future__ import annotations

import pytest
from tests.translator.manifests import NAMESPACE, documents, found, in_message, volumes_of, web

from pilothouse.container.v1 import container_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.convert_volume import use_existing_claims, use_present_names
from pilothouse_manifests.translator.manifest import Manifest
from pilothouse_manifests.translator.problems import Problems

ELSEWHERE = (
    "cannot be represented; `kubectl apply` the claim: pods mount it by its name, as an existing claim"
)
CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, labels: {tier: db}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: fast
  resources: {requests: {storage: 1024Mi}}
"""
EVERY = web(
    pod="""\
volumes:
- {name: a, persistentVolumeClaim: {claimName: data, readOnly: true}}
- {name: b, configMap: {name: settings, defaultMode: 0644}}
- {name: c, secret: {secretName: keys}}
- {name: d, hostPath: {path: /var/log}}
- {name: e, emptyDir: {}}
initContainers:
- name: first
  image: busybox:1
  volumeMounts: [{name: b, mountPath: /b}]
""",
    container="""\
volumeMounts:
- {name: a, mountPath: /a}
- {name: b, mountPath: /b, subPath: x}
- {name: c, mountPath: /c, readOnly: true}
- {name: d, mountPath: /d}
- {name: e, mountPath: /e}
""",
)


def manifest(*texts: str) -> Manifest:
    problems = Problems()
    result = convert(documents(*texts), NAMESPACE, problems)
    assert not problems.all, problems.all
    return result


def claim() -> pb.Volume:
    (only,) = volumes_of(manifest(CLAIM)).values()
    return only


def test_an_optional_source_is_a_separate_volume() -> None:
    text = web(
        pod="""\
volumes:
- {name: a, secret: {secretName: keys, optional: true}}
- {name: b, secret: {secretName: keys}}
""",
        container="volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]",
    )
    volumes = volumes_of(manifest(text))
    assert {name: volume.optional for name, volume in volumes.items()} == {
        "optional-secret-keys": True,
        "secret-keys": False,
    }
    assert {volume.source_name for volume in volumes.values()} == {"keys"}


def test_a_claim_is_a_volume() -> None:
    assert claim() == pb.Volume(
        name="data",
        type=pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        size="1024Mi",
        access_modes=["ReadWriteOnce"],
        storage_class="fast",
        labels={"tier": "db"},
    )


def test_the_volumes_of_a_pod_are_volumes_of_the_namespace() -> None:
    result = manifest(CLAIM, EVERY)
    assert use_existing_claims(result.workloads[0], {"data": "data"}) == []
    workload = in_message(*result.workloads)
    mounts = [(mount.volume, mount.mount_path, mount.read_only) for mount in workload.volume_mounts]
    (folder,) = (each.name for each in result.volumes if each.name.startswith("hostpath-"))
    assert mounts == [
        ("data", "/a", True),
        ("configmap-settings", "/b", False),
        ("secret-keys", "/c", True),
        (folder, "/d", False),
        ("e", "/e", False),
    ]
    assert workload.init_containers[0].volume_mounts[0].volume == "configmap-settings"
    assert [each.name for each in workload.empty_dirs] == ["e"]
    implied = {name: each for name, each in volumes_of(result).items() if name != "data"}
    assert implied == {
        "configmap-settings": pb.Volume(
            name="configmap-settings", type=pb.VOLUME_TYPE_CONFIG_MAP, source_name="settings"
        ),
        "secret-keys": pb.Volume(name="secret-keys", type=pb.VOLUME_TYPE_SECRET, source_name="keys"),
        folder: pb.Volume(name=folder, type=pb.VOLUME_TYPE_HOST_PATH, host_path="/var/log"),
    }


def test_a_claim_unknown_to_the_namespace_is_an_existing_claim() -> None:
    (workload,) = manifest(EVERY).workloads
    assert use_existing_claims(workload, {}) == ["data"]
    made = in_message(workload)
    claim = container_pb2.ExistingClaim(claim_name="data", read_only=True)
    assert list(made.pod_volumes) == [container_pb2.PodVolume(name="data", existing_claim=claim)]
    assert [mount.read_only for mount in made.volume_mounts if mount.volume == "data"] == [False]


def test_a_claim_imported_under_another_name_is_mounted_by_that_name() -> None:
    """Another volume already had the claim's name."""
    pod = """\
volumes:
- {name: a, persistentVolumeClaim: {claimName: data}}
- {name: b, persistentVolumeClaim: {claimName: data-2, readOnly: true}}
"""
    text = web(pod=pod, container="volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]")
    result = manifest(CLAIM, text)
    there = {"data": "data-2", "data-2": "data-3"}
    assert use_existing_claims(result.workloads[0], there) == []
    mounts = [(each.volume, each.read_only) for each in in_message(*result.workloads).volume_mounts]
    assert mounts == [("data-2", False), ("data-3", True)]
    use_present_names(result.claims, there)
    assert [each.name for each in result.claims] == ["data-2"]


def test_a_claim_is_not_confused_with_a_pod_volume_of_the_same_name() -> None:
    pod = """\
volumes:
- {name: a, persistentVolumeClaim: {claimName: data}}
- {name: data-2, emptyDir: {}}
"""
    problems = Problems()
    result = convert(documents(web(pod=pod)), NAMESPACE, problems)
    use_existing_claims(result.workloads[0], {"data": "data-2"})
    (told,) = problems.all
    assert told.message.endswith(
        "claim 'data' is volume 'data-2' on the platform, but another volume of the pod has this name"
    )


def test_long_source_names_give_short_distinct_volume_names() -> None:
    names = set()
    for source in ("a" * 60 + "x", "a" * 60 + "y"):
        text = web(pod=f"volumes: [{{name: v, configMap: {{name: {source}}}}}]")
        (volume,) = manifest(text).volumes
        assert len(volume.name) <= 63
        names.add(volume.name)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CLAIM.replace("[ReadWriteOnce]", "[]"), "spec.accessModes: expected an access mode, found none"),
        (
            CLAIM.replace("ReadWriteOnce", "ReadWriteTwice"),
            "spec.accessModes: expected a known access mode, found 'ReadWriteTwice'",
        ),
        (
            CLAIM.replace("{storage: 1024Mi}", "{}"),
            "spec.resources.requests.storage: expected a size, found none",
        ),
        (
            CLAIM.replace("fast", '""'),
            f"spec.storageClassName: a claim without any storage class {ELSEWHERE}",
        ),
        (CLAIM + "  volumeMode: Raw\n", "spec.volumeMode: expected one of Filesystem, Block, found 'Raw'"),
        (
            CLAIM + "  volumeName: pv1\n",
            f"spec.volumeName: {ELSEWHERE}",
        ),
        (
            web(pod="volumes: [{name: a, downwardAPI: {items: [{path: d}]}}]"),
            "spec.template.spec.volumes[0].downwardAPI.items[0]: expected one of fieldRef, resourceFieldRef, "
            "found none",
        ),
        (
            web(pod="volumes: [{name: a, configMap: {name: B.c}}]"),
            "spec.template.spec.volumes[0].configMap.name: cannot be represented: "
            "no configmap of the platform can have the name 'B.c'",
        ),
        (
            web(pod="volumes: [{name: a, hostPath: {path: /x, type: Directory}}]"),
            "spec.template.spec.volumes[0].hostPath.type: cannot be represented",
        ),
        (
            web(pod="volumes: [{name: a, emptyDir: {}, hostPath: {path: /x}}]"),
            "spec.template.spec.volumes[0]: expected one source, found hostPath and emptyDir",
        ),
        (
            web(pod="volumes: [{name: a, persistentVolumeClaim: {claimName: b}}, {name: b, emptyDir: {}}]"),
            "spec.template.spec.volumes: cannot be represented: volume 'a' would get the name 'b', which another has",
        ),
    ],
)
def test_an_unrepresentable_volume_field_is_refused_by_name(text: str, expected: str) -> None:
    assert [problem.split(": ", 2)[2] for problem in found(text)] == [expected]
