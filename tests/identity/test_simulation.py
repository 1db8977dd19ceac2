"""The changes of a grant, compared with a model.

The model checks every word in every namespace before and after the grant.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.authorization.access import OVER_ALL_NAMESPACES, Grant
from pilothouse_server.identity.access.grant_simulation import changes, same_grant
from pilothouse_server.identity.access.permission_words import PermissionWords

_NOW = datetime(2030, 1, 1, tzinfo=UTC)
_ENDS = [None, _NOW + timedelta(days=1), _NOW + timedelta(days=2)]
_WORDS = [f"{noun}.{verb}" for noun in ("pod", "disk") for verb in ("get", "put")]
_WORDS += sorted(OVER_ALL_NAMESPACES)
_KNOWN = PermissionWords(_WORDS, [])
_FORMS = ["*", "pod.*", "disk.*", *_WORDS]
# No grant of the examples is in the last namespace.
_PLACES = {"one": 1, "two": 2, "elsewhere": 3}

_grants = st.builds(
    lambda role, forms, excluded, place, end: Grant(
        role, place, _PLACES[place] if place else None, forms, excluded, end
    ),
    st.sampled_from(["red", "green", "blue"]),
    st.frozensets(st.sampled_from(_FORMS), min_size=1, max_size=3),
    st.frozensets(st.sampled_from(_WORDS), max_size=1),
    st.sampled_from([None, "one", "two"]),
    st.sampled_from(_ENDS),
)


def _days(grants: list[Grant], place: str | None, word: str) -> int:
    """Returns for how many days a word is held in a namespace (None: in all).

    -1 means never, and 9 means without a limit.
    """
    found = -1
    for grant in grants:
        if grant.namespace not in (None, place) or not grant.holds(word):
            continue
        found = max(found, 9 if grant.expires_at is None else (grant.expires_at - _NOW).days)
    return found


@given(
    held=st.lists(_grants, max_size=4, unique_by=lambda grant: (grant.role, grant.namespace)), wanted=_grants
)
def test_the_changes_of_a_grant_equal_those_of_the_model(held: list[Grant], wanted: Grant) -> None:
    after = [grant for grant in held if (grant.role, grant.namespace) != (wanted.role, wanted.namespace)]
    after.append(wanted)
    told = {change.namespace: change for change in changes(held, wanted, _KNOWN)}
    for place in (None, *_PLACES):
        change = told.get(place or "") or (told.get("") if wanted.namespace is None else None)
        for word in _WORDS:
            was, becomes = _days(held, place, word), _days(after, place, word)
            expected = (was < 0 <= becomes, 0 <= was < becomes, 0 <= becomes < was)
            said = (
                (word in change.gained, word in change.extended, word in change.shortened)
                if change is not None
                else (False, False, False)
            )
            assert said == expected, (place, word)


@given(held=st.lists(_grants, max_size=3), wanted=_grants)
def test_a_permission_held_permanently_everywhere_is_no_change(held: list[Grant], wanted: Grant) -> None:
    everything = Grant("everything", None, None, frozenset({"*"}))
    if same_grant(held, wanted) is None:
        assert changes([*held, everything], wanted, _KNOWN) == ()


def test_a_permission_that_no_method_requires_is_no_change() -> None:
    wanted = Grant("odd", None, None, frozenset({"ship.sail", "pod.get"}))
    (change,) = changes([], wanted, _KNOWN)
    assert (change.namespace, change.gained) == ("", ("pod.get",))


def test_the_number_of_reported_namespaces_is_limited() -> None:
    held = [Grant("red", f"n{number:03}", number, frozenset({"pod.get"})) for number in range(1, 300)]
    found = changes(held, Grant("red", None, None, frozenset({"pod.get"})), _KNOWN)
    assert found[0].gained == ("pod.get",)
    assert len(found) == 101
    assert not any(change.is_one for change in found[1:])
