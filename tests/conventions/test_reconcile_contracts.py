"""The order of reconcile's rooms holds, and fails on an import planted in the wrong direction."""

from __future__ import annotations

import grimp
import pytest

from tests.conventions.planting import is_kept

RECONCILER = "reconciler"
CONTAINERS, DRIFT = "apply.container_reconciler", "apply.drift"
OBSERVER, INFORMER = "observe.container_observer", "observe.informer"
WORKER, LEASED_CLIENT = "queue.worker", "queue.leased_client"
WORK = "repository.work_queue"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("pilothouse_server", include_external_packages=True, cache_dir=None)


def _planted(importer: str, imported: str) -> tuple[str, str]:
    return f"pilothouse_server.reconcile.{importer}", f"pilothouse_server.reconcile.{imported}"


@pytest.mark.parametrize("contract", ["reconcile", "reconcile-acyclic"])
def test_contracts_of_reconcile_are_kept(graph: grimp.ImportGraph, contract: str) -> None:
    assert is_kept(contract, graph)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        (WORK, WORKER),
        (WORK, RECONCILER),
        (WORKER, CONTAINERS),
        (WORKER, OBSERVER),
        (WORKER, RECONCILER),
        (OBSERVER, RECONCILER),
        (CONTAINERS, RECONCILER),
        # Neither knows the other: they meet in the database and on the cluster.
        (OBSERVER, CONTAINERS),
        (CONTAINERS, OBSERVER),
    ],
)
def test_an_import_upward_or_aside_breaks_the_order(
    graph: grimp.ImportGraph, importer: str, imported: str
) -> None:
    assert not is_kept("reconcile", graph, _planted(importer, imported))


def test_a_module_outside_the_order_breaks_it(graph: grimp.ImportGraph) -> None:
    graph.add_module("pilothouse_server.reconcile.attic")
    try:
        assert not is_kept("reconcile", graph)
    finally:
        graph.remove_module("pilothouse_server.reconcile.attic")


@pytest.mark.parametrize(
    ("importer", "imported"), [(INFORMER, OBSERVER), (DRIFT, CONTAINERS), (LEASED_CLIENT, WORKER)]
)
def test_a_circle_of_modules_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    assert not is_kept("reconcile-acyclic", graph, _planted(importer, imported))


def test_a_circle_within_kubernetes_is_found(graph: grimp.ImportGraph) -> None:
    planted = ("pilothouse_server.kubernetes.errors", "pilothouse_server.kubernetes.client")
    assert not is_kept("reconcile-acyclic", graph, planted)
