"""From a config map or secret to its Kubernetes object: our own fields and no others.

The table of `pilothouse_manifests` has their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pilothouse_manifests.table import CONFIG_MAP, SECRET
from pilothouse_manifests.writing import writer
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import (
    CONFIG_UID,
    MANAGED_BY,
    MANAGER,
    NAMESPACE,
    NAMESPACE_UID,
    label_value,
    without_empty,
)


class _ConfigMap(NamedTuple):
    data: Mapping[str, str]
    binary_data: Mapping[str, bytes]
    immutable: bool


class _Secret(NamedTuple):
    type: str
    data: Mapping[str, bytes]
    immutable: bool


_write_config_map = writer(CONFIG_MAP)
_write_secret = writer(SECRET)


def config_map(
    metadata: Manifest, data: Mapping[str, str], binary_data: Mapping[str, bytes], *, immutable: bool
) -> Manifest:
    """The ConfigMap; `metadata` is the result of `config_metadata`."""
    said = _write_config_map(_ConfigMap(data, binary_data, immutable))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **said}


def secret(metadata: Manifest, type_: str, values: Mapping[str, bytes], *, immutable: bool) -> Manifest:
    """The Secret, with its values in the clear: it goes to the cluster and nowhere else."""
    said = _write_secret(_Secret(type_, values, immutable))
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **said}


def config_metadata(
    *,
    name: str,
    kubernetes_namespace: str,
    namespace: str,
    namespace_uid: str,
    uid: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    taken_over: bool = False,
) -> Manifest:
    """The metadata of either, with the caller's labels and ours; ours override in keys by which we select.

    `taken_over`: only the label by which we find it. Without the namespace's uid the sweep leaves it alone: a database
    restored from before the import does not know it, and others may.
    """
    ours = {MANAGED_BY: MANAGER, NAMESPACE: label_value(namespace), NAMESPACE_UID: namespace_uid}
    return without_empty(
        {
            "name": name,
            "namespace": kubernetes_namespace,
            "labels": {**labels, **({} if taken_over else ours), CONFIG_UID: uid},
            "annotations": dict(annotations),
        }
    )
