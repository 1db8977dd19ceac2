"""The table of manifests' fields imports the standard library alone; the contract fails on a planted import."""

from __future__ import annotations

import grimp
import pytest

from tests.conventions.planting import is_kept


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    # The other houses are in it, so that the contract knows what is forbidden.
    return grimp.build_graph(
        "pilothouse_manifests",
        "pilothouse_client",
        "pilothouse_server",
        "pilothouse_simulator",
        "pilothouse_migrations",
        include_external_packages=True,
        cache_dir=None,
    )


def test_the_contract_is_kept(graph: grimp.ImportGraph) -> None:
    assert is_kept("manifests", graph)


@pytest.mark.parametrize(
    "imported",
    [
        "msgspec",
        "grpc",
        "google",
        "yaml",
        "pilothouse",
        "pilothouse_client.errors",
        "pilothouse_server.errors",
    ],
)
def test_an_import_of_anything_of_ours_or_others_is_found(graph: grimp.ImportGraph, imported: str) -> None:
    assert not is_kept("manifests", graph, ("pilothouse_manifests.sources", imported))
