"""A container deleted in a Kubernetes namespace that was never ours is gone without a request to the cluster.

A refusal because somebody else has the name counts as observed, so `observed_generation` may be 1. Such rows, and their
namespace, once remained for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse_server.config.model import ConfigMap
from pilothouse_server.reconcile.apply.config_reconciler import ConfigReconciler, LoadedConfig
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler, LoadedContainer
from pilothouse_server.reconcile.apply.row_reconciler import WAITING_FOR_NAMESPACE
from pilothouse_server.reconcile.apply.volume_reconciler import LoadedVolume, VolumeReconciler
from pilothouse_server.storage.model import Volume
from tests.kubernetes.containers import container

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


class _Asked(Exception):
    """The code under test sent a request to the cluster."""


class _Cluster:
    def __getattr__(self, name: str) -> Any:
        raise _Asked(name)


async def _is_gone(kind: str, observed_generation: int, *, homeless: bool) -> bool:
    """Returns whether a deleted object counts as gone without a request to the cluster."""
    fields: dict[str, Any] = {"deletion_requested_at": _NOW, "observed_generation": observed_generation}
    cluster: Any = _Cluster()
    nobody: Any = None
    condition = WAITING_FOR_NAMESPACE if homeless else None
    if kind == "container":
        loaded = LoadedContainer(
            container(**fields), namespace_ready=not homeless, service_account_shared=False, read=(_NOW, 0.0)
        )
        return (await ContainerReconciler().act(cluster, loaded)).gone
    if kind == "volume":
        claim = Volume(name="data", type="persistent_volume_claim", size="1Gi", **fields)
        return (await VolumeReconciler().act(cluster, LoadedVolume(claim, condition))).gone
    config = ConfigMap(name="settings", **fields)
    return (await ConfigReconciler("config_map", nobody).act(cluster, LoadedConfig(config, condition))).gone


@pytest.mark.parametrize("observed_generation", [0, 1])
@pytest.mark.parametrize("kind", ["container", "volume", "config map"])
async def test_a_deletion_in_a_foreign_namespace_needs_no_cluster(
    kind: str, observed_generation: int
) -> None:
    assert await _is_gone(kind, observed_generation, homeless=True)


@pytest.mark.parametrize("kind", ["container", "volume", "config map"])
async def test_a_deletion_in_our_namespace_asks_the_cluster(kind: str) -> None:
    with pytest.raises(_Asked):
        await _is_gone(kind, 1, homeless=False)
