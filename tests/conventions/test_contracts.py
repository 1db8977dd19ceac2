"""Every contract of pyproject.toml is kept, and fails once an import breaks it: one test for each kind of contract.

The violations are derived from the contracts, so that a new contract needs no test of its own. If a planted import
did not break a contract, keeping the contract would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import grimp
import pytest
from importlinter import Contract
from importlinter.api import read_configuration
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

from tests.conventions.contracts import OwnRepositoriesContract, ProtectedWherePresentContract
from tests.conventions.sources import ROOT

pytestmark = pytest.mark.full

Options = dict[str, Any]
Import = tuple[str, str]
CONFIGURATION = read_configuration(str(ROOT / "pyproject.toml"))
CONTRACTS: list[Options] = CONFIGURATION["contracts_options"]
NOUNS = ["containers", "storage", "config", "metrics", "audit", "namespaces", "clusters", "identity"]
# A new module in the server, and one that no contract allows to import a protected module.
ATTIC, STRANGER = "pilothouse_server.attic", "pilothouse_manifests.attic"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    roots = CONFIGURATION["session_options"]["root_packages"]
    return grimp.build_graph(*roots, include_external_packages=True, cache_dir=None)


def _rows(options: Options) -> list[list[str]]:
    """Returns the rows of a contract of layers, from the top. The modules of `a | b` may not import each other."""
    # The modules of `a : b` may import each other: the first one stands for both.
    return [[room.strip(" ()") for room in row.partition(" : ")[0].split(" | ")] for row in options["layers"]]


def _upward(graph: grimp.ImportGraph, options: Options) -> Iterator[Import]:
    """Yields an import from each row to the row above it, and imports both ways between neighbours of a row."""
    containers = [
        container
        for each in options["containers"]
        for container in (sorted(graph.find_matching_modules(each)) if "*" in each else [each])
    ]
    for container in containers:
        rows = [
            [f"{container}.{room}" for room in row if f"{container}.{room}" in graph.modules]
            for row in _rows(options)
        ]
        for above, below in pairwise(row for row in rows if row):
            yield _inside(graph, below[0]), _inside(graph, above[0])
        for row in rows:
            for one, other in pairwise(row):
                yield _inside(graph, one), _inside(graph, other)
                yield _inside(graph, other), _inside(graph, one)


def _inside(graph: grimp.ImportGraph, room: str) -> str:
    """Returns a module of the package, or the package itself if it has none."""
    return min(graph.find_descendants(room), default=room)


def _circles(graph: grimp.ImportGraph, options: Options) -> Iterator[Import]:
    """Yields the reverse of one import between two children of each ancestor."""
    for ancestor in options["ancestors"]:
        yield next(
            (imported, importer)
            for one in sorted(graph.find_children(ancestor))
            for importer in sorted(graph.find_descendants(one) | {one})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported.startswith(f"{ancestor}.") and not f"{imported}.".startswith(f"{one}.")
        )


def _forbidden(graph: grimp.ImportGraph, options: Options) -> Iterator[Import]:
    for source in options["source_modules"]:
        for forbidden in options["forbidden_modules"]:
            yield _inside(graph, source), forbidden


def _strange(graph: grimp.ImportGraph, options: Options) -> Iterator[Import]:
    for protected in options["protected_modules"]:
        if protected in graph.modules:
            yield STRANGER, protected


def _foreign(graph: grimp.ImportGraph, options: Options) -> Iterator[Import]:
    """Yields an import of each repository by a module outside its noun."""
    for room in sorted(graph.find_descendants(options["root"])):
        if room.endswith(".repository"):
            yield ATTIC, _inside(graph, room)


KINDS: dict[str, tuple[type[Contract], Callable[[grimp.ImportGraph, Options], Iterator[Import]]]] = {
    "acyclic_siblings": (AcyclicSiblingsContract, _circles),
    "forbidden": (ForbiddenContract, _forbidden),
    "layers": (LayersContract, _upward),
    "own_repositories": (OwnRepositoriesContract, _foreign),
    "protected_where_present": (ProtectedWherePresentContract, _strange),
}


def _is_kept(graph: grimp.ImportGraph, options: Options, planted: Import | None = None) -> bool:
    made, _ = KINDS[options["type"]]
    contract = made(
        name=options["name"], session_options=CONFIGURATION["session_options"], contract_options=options
    )
    if planted is None:
        return contract.check(graph, verbose=False).kept
    importer, imported = planted
    added = {importer, imported} - graph.modules
    assert added or not graph.direct_import_exists(importer=importer, imported=imported), planted
    graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="")
    try:
        return contract.check(graph, verbose=False).kept
    finally:
        graph.remove_import(importer=importer, imported=imported)
        for module in added:
            graph.remove_module(module)


@pytest.mark.parametrize("kind", KINDS)
def test_each_contract_is_kept_and_each_planted_violation_breaks_it(
    graph: grimp.ImportGraph, kind: str
) -> None:
    contracts = [each for each in CONTRACTS if each["type"] == kind]
    assert contracts
    assert [each["id"] for each in contracts if not _is_kept(graph, each)] == []
    planted = [(each, violation) for each in contracts for violation in KINDS[kind][1](graph, each)]
    assert {each["id"] for each, _ in planted} == {each["id"] for each in contracts}
    assert [(each["id"], *found) for each, found in planted if _is_kept(graph, each, found)] == []


def test_every_kind_of_contract_is_tested() -> None:
    assert {each["type"] for each in CONTRACTS} == set(KINDS)


def test_a_module_outside_of_the_layers_breaks_an_exhaustive_contract(graph: grimp.ImportGraph) -> None:
    exhaustive = [each for each in CONTRACTS if each.get("exhaustive") in (True, "True", "true")]
    assert exhaustive
    for each in exhaustive:
        module = f"{each['containers'][0]}.attic"
        graph.add_module(module)
        try:
            assert not _is_kept(graph, each), each["id"]
        finally:
            graph.remove_module(module)


def test_the_layers_list_the_nouns_in_order() -> None:
    layers = next(each for each in CONTRACTS if each["id"] == "layers")
    assert [room for row in _rows(layers) for room in row if room in NOUNS] == NOUNS
