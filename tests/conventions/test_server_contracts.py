"""The server's contracts hold, and each fails on an import planted in the wrong direction."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from itertools import combinations, pairwise, permutations, product

import grimp
import pytest

from tests.conventions.planting import is_kept
from tests.conventions.sources import ROOT

SERVER = "pilothouse_server"
NOUNS = ("containers", "storage", "config", "metrics", "audit", "namespaces", "clusters", "identity")


def _rows() -> list[list[str]]:
    """The rows of the contract `layers`, from the top, each with its rooms."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["id"] == "layers")
    return [row.split(" | ") for row in layers]


def _wrong() -> Iterator[tuple[str, str]]:
    """Importer and imported: from each row to the one above, from each noun to all above it, within a row both ways."""
    for above, below in pairwise(_rows()):
        yield from product(below, above)
    for high, low in combinations(NOUNS, 2):
        yield low, high
    for row in _rows():
        yield from permutations(row, 2)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    roots = (SERVER, "pilothouse_client", "pilothouse_manifests", "pilothouse_migrations")
    return grimp.build_graph(*roots, include_external_packages=True, cache_dir=None)


def _module(graph: grimp.ImportGraph, room: str) -> str:
    """A module that stands for the room: one of its own where it is a package."""
    name = f"{SERVER}.{room}"
    return min(graph.find_descendants(name), default=name)


def test_the_nouns_stand_in_the_order_of_the_contract() -> None:
    assert tuple(room for row in _rows() for room in row if room in NOUNS) == NOUNS


@pytest.mark.parametrize("contract", ["layers", "acyclic", "repositories"])
def test_contracts_of_the_server_are_kept(graph: grimp.ImportGraph, contract: str) -> None:
    assert is_kept(contract, graph)


@pytest.mark.parametrize(("importer", "imported"), sorted(set(_wrong())))
def test_an_import_upward_or_beside_breaks_the_order(
    graph: grimp.ImportGraph, importer: str, imported: str
) -> None:
    assert not is_kept("layers", graph, (_module(graph, importer), _module(graph, imported)))


@pytest.mark.parametrize("room", ["attic", "attic.model"])
def test_a_room_without_a_row_breaks_the_order(graph: grimp.ImportGraph, room: str) -> None:
    planted = [f"{SERVER}.attic", f"{SERVER}.{room}"]
    for module in planted:
        graph.add_module(module)
    try:
        assert not is_kept("layers", graph)
    finally:
        for module in planted:
            graph.remove_module(module)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("values.labels", "kubernetes.objects"),
        ("kubernetes.objects", "containers.model"),
        ("clusters.model", "containers.model"),
        ("store.engine", "store.feed"),
        ("containers.model", "containers.operations"),
    ],
)
def test_a_circle_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    back = [
        (f"{SERVER}.{importer}", f"{SERVER}.{imported}"),
        (f"{SERVER}.{imported}", f"{SERVER}.{importer}"),
    ]
    planted = [each for each in back if not graph.direct_import_exists(importer=each[0], imported=each[1])]
    assert not is_kept("acyclic", graph, *planted)


@pytest.mark.parametrize(
    ("importer", "imported", "kept"),
    [
        ("containers.operations", "storage.repository", False),
        ("config.service", "containers.repository.rows", False),
        ("app", "identity.repository.users", False),
        ("reconcile.apply.drift", "storage.repository", True),
        ("importing.messages", "config.repository", True),
        ("containers.events", "containers.repository.rows", True),
    ],
)
def test_a_repository_is_its_nouns_own(
    graph: grimp.ImportGraph, importer: str, imported: str, kept: bool
) -> None:
    planted = (f"{SERVER}.{importer}", f"{SERVER}.{imported}")
    assert is_kept("repositories", graph, planted) is kept
