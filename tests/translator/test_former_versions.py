"""Former API versions of kinds, checked against Kubernetes' own life cycles and its schemas of 1.25 to 1.37.

The numbers come from the functions `APILifecycleDeprecated` and `APILifecycleRemoved` of `k8s.io/api`, branches 1.20 to
1.37. The schemas show which release was the last to serve a version.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from pilothouse_manifests.carried import group_of, never_taken
from pilothouse_manifests.former_versions import FORMER, deprecated, removed
from pilothouse_manifests.schemas import tables
from pilothouse_manifests.schemas.openapi import definitions_of

LIFE_CYCLES = """
extensions/v1beta1 Deployment DaemonSet ReplicaSet: 8 16
extensions/v1beta1 NetworkPolicy: 9 16
extensions/v1beta1 Ingress: 14 22
apps/v1beta1 Deployment StatefulSet: 8 16
apps/v1beta2 Deployment StatefulSet DaemonSet ReplicaSet: 9 16
networking.k8s.io/v1beta1 Ingress: 19 22
rbac.authorization.k8s.io/v1alpha1 Role RoleBinding: 17 22
rbac.authorization.k8s.io/v1beta1 Role RoleBinding: 17 22
batch/v1beta1 CronJob: 21 25
policy/v1beta1 PodDisruptionBudget: 21 25
autoscaling/v2beta1 HorizontalPodAutoscaler: 22 25
autoscaling/v2beta2 HorizontalPodAutoscaler: 23 26
storage.k8s.io/v1alpha1 CSIStorageCapacity: 21 24
storage.k8s.io/v1beta1 CSIStorageCapacity: 24 27
resource.k8s.io/v1beta1 ResourceClaim ResourceClaimTemplate: 35 38
resource.k8s.io/v1beta2 ResourceClaim ResourceClaimTemplate: 36 39
"""
# Alpha versions without a life cycle, and the release that dropped them.
DROPPED = {
    ("batch/v2alpha1", "CronJob"): 21,
    ("resource.k8s.io/v1alpha2", "ResourceClaim"): 31,
    ("resource.k8s.io/v1alpha2", "ResourceClaimTemplate"): 31,
    ("resource.k8s.io/v1alpha3", "ResourceClaim"): 34,
    ("resource.k8s.io/v1alpha3", "ResourceClaimTemplate"): 34,
    ("scheduling.k8s.io/v1alpha1", "Workload"): 36,
    ("scheduling.k8s.io/v1alpha2", "Workload"): 37,
    ("scheduling.k8s.io/v1alpha2", "PodGroup"): 37,
}
# These kinds belong to the cluster, or are not written by people.
NOT_TAKEN = frozenset({
    "IPAddress", "ServiceCIDR", "DeviceClass", "DeviceTaintRule", "ResourceSlice", "ResourceClass",
    "StorageVersionMigration", "VolumeAttributesClass", "PodSchedulingContext", "ResourceClaimParameters",
    "ResourceClassParameters", "LeaseCandidate", "WatchEvent", "Status",
})  # fmt: skip
_FIRST_SCHEMA = 25


@cache
def _served(minor: int) -> frozenset[tuple[str, str]]:
    """Returns the versions and kinds of a release's schemas. kubernetes-validate has those older than the tables."""
    if minor >= tables.OLDEST:
        whole = json.loads(gzip.decompress((Path(tables.__file__).parent / tables.FILE).read_bytes()))
        numbers = whole["versions"][f"1.{minor}"]
        definitions = dict(whole["definitions"][number] for number in numbers)
    else:
        spec = find_spec("kubernetes_validate")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema"
        file = folder / f"v1.{minor}.0-local-strict" / "_definitions.json"
        definitions = definitions_of(json.loads(file.read_text()))
    kinds = [each["kind"] for each in definitions.values() if isinstance(each, dict) and "kind" in each]
    return frozenset((version, kind) for version, _, kind in (each.partition(" ") for each in kinds))


def test_the_table_matches_the_life_cycles() -> None:
    expected = {key: (minor, minor) for key, minor in DROPPED.items()}
    for line in LIFE_CYCLES.strip().splitlines():
        words, _, numbers = line.partition(": ")
        version, *kinds = words.split()
        first, last = map(int, numbers.split())
        expected.update(((version, kind), (first, last)) for kind in kinds)
    assert {key: (each.deprecated, each.removed) for key, each in FORMER.items()} == expected


def test_each_release_serves_a_version_until_it_is_removed() -> None:
    for (version, kind), former in FORMER.items():
        for minor in range(_FIRST_SCHEMA, tables.NEWEST + 1):
            if minor >= former.removed:
                assert (version, kind) not in _served(minor), (version, kind, minor)
        if former.removed > _FIRST_SCHEMA:
            last = min(former.removed - 1, tables.NEWEST)
            assert (version, kind) in _served(last), (version, kind, last)
        assert (former.present, kind) in _served(tables.NEWEST), (version, kind)
        assert removed(former.present, kind) is None
        assert deprecated(former.present, kind) is None
        assert (removed(version, kind) is None) == (former.removed > tables.OLDEST)


@pytest.mark.parametrize("minor", range(tables.OLDEST, tables.NEWEST))
def test_a_version_dropped_by_a_release_is_in_the_table(minor: int) -> None:
    gone = _served(minor) - _served(minor + 1)
    missing = [key for key in gone if key not in FORMER and _is_taken(*key)]
    assert missing == []


def test_a_beta_version_with_a_stable_successor_is_in_the_table() -> None:
    newest = _served(tables.NEWEST)
    stable = {(group_of(version), kind) for version, kind in newest if re.fullmatch(r".*\bv\d+", version)}
    found = {
        (version, kind)
        for version, kind in newest
        if re.search(r"(alpha|beta)\d+$", version) and (group_of(version), kind) in stable
    }
    assert {key for key in found if _is_taken(*key)} == {
        (f"resource.k8s.io/{version}", kind)
        for version in ("v1beta1", "v1beta2")
        for kind in ("ResourceClaim", "ResourceClaimTemplate")
    }
    assert {key for key in found if _is_taken(*key)} <= FORMER.keys()


def _is_taken(version: str, kind: str) -> bool:
    of_lists = kind.endswith("List")
    return not of_lists and kind not in NOT_TAKEN and never_taken(version, kind) is None
