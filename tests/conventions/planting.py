"""The contracts of pyproject.toml, held against a graph of imports in which a test plants one more.

Positive control: a contract that a planted import does not break says nothing by being kept.
"""

from __future__ import annotations

import grimp
from importlinter import Contract
from importlinter.api import read_configuration
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

from tests.conventions.contracts import OwnRepositoriesContract, ProtectedWherePresentContract
from tests.conventions.sources import ROOT

_TYPES: dict[str, type[Contract]] = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "forbidden": ForbiddenContract,
    "layers": LayersContract,
    "own_repositories": OwnRepositoriesContract,
    "protected_where_present": ProtectedWherePresentContract,
}


def is_kept(identifier: str, graph: grimp.ImportGraph, *planted: tuple[str, str]) -> bool:
    """Whether the contract of this id is kept by `graph` with each planted import (importer, imported) added.

    Raises StopIteration where pyproject.toml has no such contract.
    """
    configuration = read_configuration(str(ROOT / "pyproject.toml"))
    options = next(each for each in configuration["contracts_options"] if each.get("id") == identifier)
    contract = _TYPES[options["type"]](
        name=options["name"], session_options=configuration["session_options"], contract_options=options
    )
    for importer, imported in planted:
        if graph.direct_import_exists(importer=importer, imported=imported):
            raise ValueError(f"{importer} imports {imported} already: plant another")
        graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="")
    try:
        return contract.check(graph, verbose=False).kept
    finally:
        for importer, imported in planted:
            graph.remove_import(importer=importer, imported=imported)
