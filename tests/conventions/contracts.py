"""The contract types of import-linter that pyproject.toml uses in addition to the built-in ones.

`protected_where_present`: import-linter's own `protected` contract refuses to run while a module that it names is not
in the graph, for example a library that nothing imports yet or a module that is still to come. This contract skips
such a module, so that a contract can be written before the first file that it concerns, and applies from then on.

`own_repositories`: one contract for the repositories of all nouns, including future ones. It finds repositories by
their name, so that a new noun needs no contract of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import grimp
from importlinter import Contract, ContractCheck, fields, output
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


class OwnRepositoriesContract(Contract):
    """Only its own noun and the packages `allowed_importers` may import `<root>.<noun>…repository`.

    A noun is a package directly under the root. Its inner packages have their own repositories and share the noun's
    transactions, so each may call the repositories of the others; a contract of layers orders them.
    """

    type_name = "own_repositories"

    root = fields.StringField()
    allowed_importers = fields.ListField(subfield=fields.StringField())

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        del verbose
        found = sorted(self._illegal(graph))
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["found"]:
            output.print(f"{importer} is not allowed to import {imported}: call the operations of the noun.")

    def _illegal(self, graph: grimp.ImportGraph) -> Iterator[tuple[str, str]]:
        allowed: list[str] = self.allowed_importers  # type: ignore[assignment]
        rooms = (
            module for module in graph.find_descendants(str(self.root)) if module.endswith(".repository")
        )
        for repository in rooms:
            noun = ".".join(repository.split(".")[: str(self.root).count(".") + 2])
            for module in {repository} | graph.find_descendants(repository):
                for importer in graph.find_modules_that_directly_import(module):
                    if not any(f"{importer}.".startswith(f"{package}.") for package in (noun, *allowed)):
                        yield importer, module
