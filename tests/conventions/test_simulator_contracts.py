"""The simulator's contracts hold, and each fails on an import planted in the wrong direction."""

from __future__ import annotations

from itertools import combinations

import grimp
import pytest

from tests.conventions.planting import is_kept

ROOMS = {
    # the order of the contract, each with a module that stands for the room
    "cluster": "cluster",
    "api": "api.watch",
    "nodes": "nodes.kubelet",
    "exec": "exec.shell",
    "controllers": "controllers.scheduler",
    "admission": "admission.quotas",
    "store": "store.store",
    "values": "values.quantities",
}
UPWARD = [(low, high) for high, low in combinations(ROOMS, 2)]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "pilothouse_simulator", "pilothouse_server", include_external_packages=True, cache_dir=None
    )


def _module(room: str) -> str:
    return f"pilothouse_simulator.{ROOMS[room]}"


@pytest.mark.parametrize(
    "contract", ["simulator", "simulator-process", "simulator-layers", "simulator-acyclic"]
)
def test_contracts_of_the_simulator_are_kept(graph: grimp.ImportGraph, contract: str) -> None:
    assert is_kept(contract, graph)


@pytest.mark.parametrize(("low", "high"), UPWARD)
def test_an_import_upward_breaks_the_order(graph: grimp.ImportGraph, low: str, high: str) -> None:
    assert not is_kept("simulator-layers", graph, (_module(low), _module(high)))


def test_a_module_outside_the_order_breaks_it(graph: grimp.ImportGraph) -> None:
    graph.add_module("pilothouse_simulator.attic")
    try:
        assert not is_kept("simulator-layers", graph)
    finally:
        graph.remove_module("pilothouse_simulator.attic")


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("store.events", "store.store"),
        ("api.context", "api.watch"),
        ("nodes.pod_probes", "nodes.pod_worker"),
        ("values.clock", "store.event_recorder"),
    ],
)
def test_a_circle_of_modules_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    planted = (f"pilothouse_simulator.{importer}", f"pilothouse_simulator.{imported}")
    assert not is_kept("simulator-acyclic", graph, planted)


def test_an_import_of_the_server_is_found(graph: grimp.ImportGraph) -> None:
    assert not is_kept(
        "simulator", graph, ("pilothouse_simulator.cluster", "pilothouse_server.runtime.log_lines")
    )


@pytest.mark.parametrize("importer", ["launch.development", "cli.server", "app"])
def test_the_simulator_in_the_servers_process_is_found(graph: grimp.ImportGraph, importer: str) -> None:
    assert not is_kept(
        "simulator-process", graph, (f"pilothouse_server.{importer}", "pilothouse_simulator.cluster")
    )
