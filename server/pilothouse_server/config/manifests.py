"""Builds the Kubernetes object of a config map or secret, with only the fields that the platform manages.

The table of `pilothouse_manifests` has the names of these fields.
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
    """Returns the ConfigMap; `metadata` is the result of `config_metadata`."""
    said = _write_config_map(_ConfigMap(data, binary_data, immutable))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **said}


def secret(metadata: Manifest, type_: str, values: Mapping[str, bytes], *, immutable: bool) -> Manifest:
    """Returns the Secret with its plain values. Send it to the cluster and nowhere else."""
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
    """Returns the metadata of a ConfigMap or Secret, with the caller's labels and the platform's.

    The platform's labels override in the keys that it selects by. `taken_over`: adds only the label by which the
    platform finds the object. It lacks the namespace's uid so that the sweep does not delete it: a database restored
    from before the import does not know the object, which others may use.
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
