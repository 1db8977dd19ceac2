"""The list of all permissions, and the permission that each method requires.

A permission that no method requires gives nothing. So a question about such a permission is treated as a misspelling:
it fails with an error that suggests similar permissions.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Final

from pilothouse_server.authorization.access import OVER_ALL_NAMESPACES, permission_matches
from pilothouse_server.authorization.denials import Question
from pilothouse_server.errors import invalid, missing
from pilothouse_server.rpc.method_rules import Rule

_MOST_NEAR: Final = 8
# The maximum number of characters of the caller's text that are compared.
_LONGEST_COMPARED: Final = 64


class PermissionWords:
    """Permissions and methods by name.

    `known` are all permissions that any method or operation requires, `rules` the access rules of all methods.
    """

    def __init__(self, known: Collection[str], rules: Collection[Rule]) -> None:
        self.known = frozenset(known)
        self._nouns = frozenset(permission.partition(".")[0] for permission in known)
        self._rules = {f"{rule.service}.{rule.name}": rule for rule in rules}
        self._by_name: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_name.setdefault(rule.name, []).append(rule)
        somewhere = {rule.permission for rule in rules if not rule.of_platform}
        of_platform = {rule.permission for rule in rules if rule.of_platform}
        # Permissions that suffice for at least one method that only reads.
        self.reading = frozenset(rule.permission for rule in rules if rule.only_reads and rule.permission)
        # Permissions that no method accepts from a grant in one namespace.
        self._over_all = OVER_ALL_NAMESPACES | (of_platform - somewhere)

    def check_form(self, form: str, field: str) -> None:
        """Raises unless `form` is an existing permission, `<noun>.*` of an existing noun, or `*`.

        Raises:
            InvalidArgument: UNKNOWN_PERMISSION.
        """
        noun, _, verb = form.partition(".")
        if form == "*" or form in self.known or (verb == "*" and noun in self._nouns):
            return
        raise invalid(
            field,
            f"there is no permission {form[:_LONGEST_COMPARED]}{_did_you_mean(self._near(form))}",
            reason="UNKNOWN_PERMISSION",
        )

    def check_one(self, permission: str, field: str) -> None:
        """Raises unless `permission` exists.

        Raises:
            InvalidArgument: UNKNOWN_PERMISSION, or ONE_PERMISSION for a form such as `container.*`.
        """
        self.check_form(permission, field)
        if permission not in self.known:
            raise invalid(
                field,
                "must be a single permission, such as container.get, not a form such as container.*",
                reason="ONE_PERMISSION",
            )

    def covered(self, form: str) -> list[str]:
        """Returns the permissions that a form covers: for `container.*`, each existing `container.<verb>`."""
        return sorted(each for each in self.known if permission_matches(form, each))

    def works_over_all_only(self, permission: str) -> bool:
        """Returns whether the permission works only over all namespaces.

        A grant in one namespace does not give such a permission, or no method accepts it from such a grant.
        """
        return permission in self._over_all

    def question(self, permission: str, namespace: str) -> Question:
        """Returns the question about a permission in a namespace, or over all namespaces if that is empty."""
        over_all = self.works_over_all_only(permission)
        return Question(
            permission,
            namespace,
            "there" if namespace and not over_all else "everywhere",
            over_all,
            permission in self.reading,
        )

    def method(self, name: str, field: str = "method") -> Rule:
        """Returns the rule of a method, by its full name in any common form, or by its last part.

        Raises:
            InvalidArgument: UNKNOWN_METHOD.
        """
        dotted = name.strip("/").replace("/", ".")
        rule = self._rules.get(dotted)
        found = [rule] if rule is not None else self._by_name.get(dotted, [])
        if len(found) == 1:
            return found[0]
        near = _closest(dotted.rpartition(".")[2], self._by_name)
        raise invalid(
            field,
            f"there is no method {name[:_LONGEST_COMPARED]}{_did_you_mean(near)}",
            reason="UNKNOWN_METHOD",
        )

    def question_of(self, rule: Rule, namespace: str) -> Question:
        """Returns the question that decides a call of a method, for a request with this namespace ('' for none).

        Raises:
            InvalidArgument: the method needs a namespace.
        """
        if not rule.namespace_field:
            namespace = ""
        elif rule.in_one_namespace and not namespace:
            raise missing("namespace")
        return Question(
            rule.permission,
            namespace,
            rule.permission_scope(namespace),
            self.works_over_all_only(rule.permission),
            rule.only_reads,
        )

    def _near(self, form: str) -> list[str]:
        noun, _, verb = form.partition(".")
        if noun in self._nouns:
            same = sorted(each for each in self.known if each.startswith(f"{noun}."))
            closest = [f"{noun}.{each}" for each in _closest(verb, (each.partition(".")[2] for each in same))]
            return list(dict.fromkeys([*closest, *same]))[:_MOST_NEAR]
        elsewhere = sorted(each for each in self.known if each.partition(".")[2] == verb)
        nouns = _closest(noun, self._nouns)
        likely = [f"{each}.{verb}" for each in nouns if f"{each}.{verb}" in self.known]
        return list(dict.fromkeys([*likely, *_closest(form, self.known), *elsewhere]))[:_MOST_NEAR]


def _closest(word: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word[:_LONGEST_COMPARED], sorted(known), n=3, cutoff=0.6)


def _did_you_mean(near: Collection[str]) -> str:
    return f"; did you mean {', '.join(near)}?" if near else ""
