"""The contracts of rpc hold, and each fails on an import planted in the wrong direction."""

from __future__ import annotations

import grimp
import pytest

from tests.conventions.planting import is_kept


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "pilothouse_server", "pilothouse_manifests", include_external_packages=True, cache_dir=None
    )


@pytest.mark.parametrize("contract", ["rpc", "rpc-acyclic"])
def test_contracts_of_rpc_are_kept(graph: grimp.ImportGraph, contract: str) -> None:
    assert is_kept(contract, graph)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("rpc.wire", "kubernetes.events"),
        ("rpc.converter.pairing", "clusters.messages"),
        ("watch.hub", "kubernetes.objects"),
    ],
)
def test_an_import_of_kubernetes_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    planted = (f"pilothouse_server.{importer}", f"pilothouse_server.{imported}")
    assert not is_kept("rpc", graph, planted)


@pytest.mark.parametrize("imported", ["grpc", "pilothouse_server.rpc.call", "pilothouse_server.rpc.pipeline"])
def test_an_import_of_grpc_or_the_rest_by_admission_is_found(graph: grimp.ImportGraph, imported: str) -> None:
    assert is_kept("admission", graph)
    assert not is_kept("admission", graph, ("pilothouse_server.rpc.admission.seats", imported))


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("field_checks", "validation"), ("call", "watch"), ("converter.pairing", "converter.code")],
)
def test_a_circle_of_modules_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    planted = (f"pilothouse_server.rpc.{importer}", f"pilothouse_server.rpc.{imported}")
    assert not is_kept("rpc-acyclic", graph, planted)
