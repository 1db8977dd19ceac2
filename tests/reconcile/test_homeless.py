"""A container that is deleted in a namespace that was never ours on the cluster is gone, and nothing is requested or
deleted there.

That somebody has the name is observed of it, too: such rows were never gone, nor was their namespace.
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
    """The cluster was."""


class _Cluster:
    def __getattr__(self, name: str) -> Any:
        raise _Asked(name)


async def _is_gone(kind: str, observed_generation: int, *, homeless: bool) -> bool:
    """Whether one that is deleted is gone without a look at the cluster."""
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
async def test_what_is_deleted_where_the_name_is_somebodys_is_gone(
    kind: str, observed_generation: int
) -> None:
    assert await _is_gone(kind, observed_generation, homeless=True)


@pytest.mark.parametrize("kind", ["container", "volume", "config map"])
async def test_where_it_is_ours_the_cluster_is_asked(kind: str) -> None:
    with pytest.raises(_Asked):
        await _is_gone(kind, 1, homeless=False)
