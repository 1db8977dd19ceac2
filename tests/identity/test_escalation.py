"""The comparison of permissions, against a model that tries every word.

The words are those of a small language.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.authorization.access import (
    OVER_ALL_NAMESPACES,
    Grant,
    KeyLimits,
    KeyNamespace,
    Principal,
    permission_matches,
    within,
)
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.identity.access.escalation import check_covered, holds_form, uncovered
from pilothouse_server.identity.access.operations.permissions import held_everywhere
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES

_NOUNS = ("pod", "disk")
_VERBS = ("get", "put")
# One noun and one verb that no role below names stand for all other words.
_WORDS = [f"{noun}.{verb}" for noun in (*_NOUNS, "door") for verb in (*_VERBS, "see")]
# No grant in one namespace gives these permissions, whatever patterns its role has.
_WORDS += sorted(OVER_ALL_NAMESPACES)
_FORMS = ["*", *(f"{noun}.*" for noun in _NOUNS), *(f"{noun}.{verb}" for noun in _NOUNS for verb in _VERBS)]
_NOW = datetime(2030, 1, 1, tzinfo=UTC)
_ENDS = [None, _NOW + timedelta(days=1), _NOW + timedelta(days=2)]

_forms = st.frozensets(st.sampled_from(_FORMS), max_size=3)
_grants = st.builds(
    lambda permissions, excluded, namespace_id, expires_at: Grant(
        "role", f"n{namespace_id}" if namespace_id else None, namespace_id, permissions, excluded, expires_at
    ),
    _forms,
    st.frozensets(st.sampled_from(_FORMS[1:]), max_size=1),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(_ENDS),
)
_limits = st.builds(
    KeyLimits,
    permissions=st.none()
    | st.frozensets(st.sampled_from([*_FORMS, *sorted(OVER_ALL_NAMESPACES)]), max_size=3),
    namespaces=st.none()
    | st.sets(st.sampled_from([1, 2])).map(
        lambda ids: tuple(KeyNamespace(each, f"n{each}") for each in sorted(ids))
    ),
)


def _gives(grant: Grant, word: str) -> bool:
    def any_of(forms: Iterable[str]) -> bool:
        return any(permission_matches(form, word) for form in forms)

    works_here = grant.namespace_id is None or word not in OVER_ALL_NAMESPACES
    return works_here and any_of(grant.permissions) and not any_of(grant.excluded)


def _words_where_and_when(grants: Iterable[Grant]) -> set[tuple[str, int, int]]:
    """Returns the permissions that grants give: words by namespace and day.

    Namespace 0 is named by no grant; day 2 stands for grants without an expiry.
    """
    given: set[tuple[str, int, int]] = set()
    for grant in grants:
        namespaces = (0, 1, 2) if grant.namespace_id is None else (grant.namespace_id,)
        days = range([*_ENDS[1:], None].index(grant.expires_at) + 1)
        given.update(
            (word, namespace, day)
            for word in _WORDS
            if _gives(grant, word)
            for namespace in namespaces
            for day in days
        )
    return given


@given(wanted=_grants, held=st.lists(_grants, max_size=3))
def test_a_covered_grant_gives_nothing_that_is_not_held(wanted: Grant, held: list[Grant]) -> None:
    missing = uncovered(wanted, held)
    if missing is None:
        assert _words_where_and_when([wanted]) <= _words_where_and_when(held)
    else:
        assert any(permission_matches(missing, word) and _gives(wanted, word) for word in _WORDS)


@given(wanted=_grants, held=st.lists(_grants, max_size=3))
def test_a_grant_is_covered_by_grants_of_its_scope_and_duration(wanted: Grant, held: list[Grant]) -> None:
    # Grants in single namespaces never add up to one in all namespaces, and short grants never to a long one.
    # So only grants with at least the same scope and duration count here.
    as_far = [
        grant
        for grant in held
        if grant.namespace_id in (None, wanted.namespace_id)
        and (
            grant.expires_at is None
            or (wanted.expires_at is not None and grant.expires_at >= wanted.expires_at)
        )
    ]
    held_words = {word for grant in as_far for word in _WORDS if _gives(grant, word)}
    wanted_words = {word for word in _WORDS if _gives(wanted, word)}
    assert (uncovered(wanted, held) is None) == (wanted_words <= held_words)


@given(form=st.sampled_from(_FORMS), held=st.lists(_grants, max_size=3), namespace=st.sampled_from([None, 1]))
def test_a_pattern_is_held_exactly_where_all_its_words_are(
    form: str, held: list[Grant], namespace: int | None
) -> None:
    words = [word for word in _WORDS if permission_matches(form, word)]
    reaching = [grant for grant in held if grant.namespace_id in (None, namespace)]
    expected = all(any(_gives(grant, word) for grant in reaching) for word in words)
    assert holds_form(held, form, namespace) == expected


@given(held=st.lists(_grants, max_size=3))
def test_the_permissions_shown_are_exactly_those_held_everywhere(held: list[Grant]) -> None:
    living = [Grant(g.role, g.namespace, g.namespace_id, g.permissions, g.excluded, None) for g in held]
    shown = held_everywhere(Principal(1, "anna", tuple(living)), _WORDS)
    everywhere = [grant for grant in living if grant.namespace_id is None]
    for word in _WORDS:
        assert any(permission_matches(form, word) for form in shown) == any(
            _gives(grant, word) for grant in everywhere
        )
    assert len(shown) == len(set(shown))


def _asked_of_key_and_owner(held: list[Grant], limits: KeyLimits) -> set[tuple[str, int, int]]:
    """Returns a key's permissions by the model.

    They are those of its owner that match the key's words and namespaces.
    """
    ids = None if limits.namespaces is None else {each.id for each in limits.namespaces}
    return {
        (word, namespace, day)
        for word, namespace, day in _words_where_and_when(held)
        if (limits.permissions is None or any(permission_matches(each, word) for each in limits.permissions))
        and (ids is None or (namespace in ids and word not in OVER_ALL_NAMESPACES))
    }


@given(held=st.lists(_grants, max_size=3), limits=_limits)
def test_a_key_gives_exactly_what_it_and_its_owner_both_give(held: list[Grant], limits: KeyLimits) -> None:
    given_by_key = within(held, limits)
    assert _words_where_and_when(given_by_key) == _asked_of_key_and_owner(held, limits)
    # The key's holder can also not grant or see more than that.
    for grant in given_by_key:
        assert uncovered(grant, held) is None
        assert grant.permissions
        assert limits.namespaces is None or KeyNamespace(grant.namespace_id or 0, grant.namespace or "") in (
            limits.namespaces
        )


def test_the_model_of_keys_detects_excess_permissions() -> None:
    owner = Grant("r", None, None, frozenset({"*"}), frozenset({"pod.put"}))
    limits = KeyLimits(frozenset({"pod.*", "container.privileged"}), (KeyNamespace(1, "n1"),))
    expected = _asked_of_key_and_owner([owner], limits)
    assert expected == {("pod.get", 1, day) for day in range(3)} | {("pod.see", 1, day) for day in range(3)}
    here = Grant("r", "n1", 1, frozenset({"pod.*"}), owner.excluded)
    assert _words_where_and_when(within([owner], limits)) == _words_where_and_when([here]) == expected
    for wrong in (
        owner,
        Grant("r", "n1", 1, owner.permissions, owner.excluded),
        Grant("r", None, None, frozenset({"pod.*"}), owner.excluded),
        Grant("r", "n1", 1, frozenset({"pod.*"})),
    ):
        assert _words_where_and_when([wrong]) != expected


@pytest.mark.parametrize("giver", SHIPPED_ROLES)
@pytest.mark.parametrize("given_role", SHIPPED_ROLES)
def test_each_shipped_role_covers_the_roles_after_it(giver: str, given_role: str) -> None:
    grants = {
        name: Grant(name, None, None, frozenset(role.permissions), role.excluded)
        for name, role in SHIPPED_ROLES.items()
    }
    # Each role covers the roles after it, but only `admin` covers `auditor`, which verifies and exports.
    order = [name for name in SHIPPED_ROLES if name != "auditor"]
    holds = giver in ("admin", given_role) or (
        "auditor" not in (giver, given_role) and order.index(giver) <= order.index(given_role)
    )
    assert (uncovered(grants[given_role], [grants[giver]]) is None) == holds


def test_the_error_names_the_permission_and_the_namespace() -> None:
    wanted = Grant("developer", "shop", 7, frozenset({"container.*"}))
    with pytest.raises(PermissionDenied) as caught:
        check_covered([wanted], [Grant("x", "shop", 7, frozenset({"container.get"}))], 'role "developer"')
    assert caught.value.reason == "ESCALATION"
    assert caught.value.metadata == {"permission": "container.*", "namespace": "shop"}


@pytest.mark.parametrize("permission", sorted(OVER_ALL_NAMESPACES))
def test_platform_permissions_are_neither_held_nor_given_in_one_namespace(permission: str) -> None:
    here, everywhere = (
        Grant("r", "shop", 7, frozenset({permission, "*"})),
        Grant("r", None, None, frozenset({"*"})),
    )
    one, all_ = Principal(1, "anna", (here,)), Principal(2, "bert", (everywhere,))
    assert not one.allows(permission, "shop")
    assert one.granting_somewhere(permission) is None
    assert one.namespaces_with(permission) == frozenset()
    assert not holds_form([here], permission, 7)
    assert all_.allows(permission, "shop")
    assert all_.allows(permission)
    assert holds_form([everywhere], permission, 7)
    # An administrator of one namespace can make other users administrators of it, but not of all namespaces.
    assert uncovered(here, [here]) is None
    assert uncovered(everywhere, [here]) is not None
    # A role with this permission in all namespaces is covered by a grant of the permission there.
    assert uncovered(Grant("r", None, None, frozenset({permission})), [everywhere]) is None
