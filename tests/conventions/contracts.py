"""The contract type of import-linter that pyproject.toml uses for "only these may import that".

import-linter's own `protected` contract refuses to run while a module that it names is not in the graph:
a library that nobody imports yet, or the repository of a noun that is still to come. Here such a module is
passed over, so that a contract can be written down before the first file it speaks of, and holds from then.
"""

from __future__ import annotations

import grimp
from importlinter import ContractCheck
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.imports import ModuleExpression


class ProtectedWherePresentContract(ProtectedContract):
    """Only `allowed_importers` import `protected_modules` directly; protected modules may be absent."""

    type_name = "protected_where_present"

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        for field in ("protected_modules", "allowed_importers"):
            expressions: list[ModuleExpression] = getattr(self, field)
            setattr(self, field, [each for each in expressions if _is_present(each, graph)])
        return super().check(graph, verbose)


def _is_present(expression: ModuleExpression, graph: grimp.ImportGraph) -> bool:
    return expression.has_wildcard_expression() or expression.expression in graph.modules
