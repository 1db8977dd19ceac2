"""Explanations of permissions agree with the decisions, for each method of the product and every caller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.authorization import denials
from pilothouse_server.authorization.access import (
    Credential,
    Grant,
    KeyLimits,
    KeyNamespace,
    Principal,
    within,
)
from pilothouse_server.authorization.denials import (
    DatabaseFacts,
    Denial,
    Giver,
    Question,
    asked,
    explain,
    explain_credential,
    metadata,
    reason,
    summary,
)
from pilothouse_server.errors import NotFound, PermissionDenied
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.rpc.interceptors.authorization import authorize, check_credential, explained
from pilothouse_server.rpc.method_rules import Rule
from tests.identity.server import KNOWN, RULES

WORDS = PermissionWords(KNOWN, RULES.values())
ASKING = [rule for rule in RULES.values() if rule.needs_permission]
_PLACES = ("one", "two", "three")
_NOUNS = sorted({permission.partition(".")[0] for permission in KNOWN})
_FORMS = ["*", *(f"{noun}.*" for noun in _NOUNS), *sorted(KNOWN)]
_ENDED = datetime(2020, 1, 1, tzinfo=UTC)


def _grant(role: str, forms: frozenset[str], excluded: frozenset[str], place: str | None) -> Grant:
    return Grant(role, place, _PLACES.index(place) + 1 if place else None, forms, excluded)


_places = st.sampled_from([None, *_PLACES[:2]])
_grants = st.one_of(
    st.builds(
        _grant,
        st.sampled_from(["red", "green"]),
        st.frozensets(st.sampled_from(_FORMS), min_size=1, max_size=4),
        st.frozensets(st.sampled_from(_FORMS[1:]), max_size=1),
        _places,
    ),
    st.builds(
        lambda role, place: _grant(role.name, frozenset(role.permissions), role.excluded, place),
        st.sampled_from(sorted(SHIPPED_ROLES.values(), key=lambda role: role.name)),
        _places,
    ),
)


def _decided(rule: Rule, principal: Principal, namespace: str) -> str:
    """Returns the server's decision about a call."""
    try:
        authorize(rule, principal, namespace)
    except NotFound:
        return "NOT_FOUND"
    except PermissionDenied:
        return "PERMISSION_DENIED"
    return "OK"


def _told(rule: Rule, principal: Principal, namespace: str) -> str:
    """Returns the explanation's result."""
    finding = explain(WORDS.question_of(rule, namespace), principal.living_grants())
    if finding.allowed:
        return "OK"
    return "NOT_FOUND" if finding.denial is Denial.NAMESPACE_NOT_FOUND else "PERMISSION_DENIED"


@given(
    held=st.lists(_grants, max_size=3),
    rule=st.sampled_from(sorted(ASKING, key=lambda rule: rule.method)),
    namespace=st.sampled_from(["", *_PLACES]),
)
def test_the_explanation_agrees_with_the_decision(held: list[Grant], rule: Rule, namespace: str) -> None:
    if not rule.namespace_field:
        namespace = ""
    elif rule.in_one_namespace and not namespace:
        namespace = _PLACES[0]
    principal = Principal(1, "ann", tuple(held))
    assert _told(rule, principal, namespace) == _decided(rule, principal, namespace)


def test_every_method_agrees_for_each_shipped_role_and_namespace() -> None:
    seen = set()
    for rule in ASKING:
        for role in SHIPPED_ROLES.values():
            for held_in in (None, "one"):
                grant = _grant(role.name, frozenset(role.permissions), role.excluded, held_in)
                principal = Principal(1, "ann", (grant,))
                for namespace in ("one", "two", *(() if rule.in_one_namespace else ("",))):
                    where = namespace if rule.namespace_field else ""
                    told = _told(rule, principal, where)
                    assert told == _decided(rule, principal, where), (rule.name, role.name, held_in, where)
                    seen.add(told)
    # The comparison has covered all three outcomes.
    assert seen == {"OK", "NOT_FOUND", "PERMISSION_DENIED"}


@given(
    owned=st.lists(_grants, max_size=3),
    permissions=st.one_of(st.none(), st.sets(st.sampled_from(_FORMS), min_size=1, max_size=3)),
    namespaces=st.one_of(st.none(), st.lists(st.sampled_from(_PLACES), min_size=1, max_size=2, unique=True)),
    read_only=st.booleans(),
    rule=st.sampled_from(sorted(RULES.values(), key=lambda rule: rule.method)),
    namespace=st.sampled_from(_PLACES),
)
def test_the_explanation_agrees_with_the_decision_for_keys(
    owned: list[Grant],
    permissions: set[str] | None,
    namespaces: list[str] | None,
    read_only: bool,
    rule: Rule,
    namespace: str,
) -> None:
    principal = _by_key(
        owned,
        permissions=permissions,
        namespaces=None if namespaces is None else tuple(namespaces),
        read_only=read_only,
    )
    where = namespace if rule.namespace_field else ""
    decided = _decided(rule, principal, where)
    try:
        check_credential(rule, principal.credential)
    except PermissionDenied:
        # The credential does not suffice for the method, and the explanation uses the same words.
        assert decided == "PERMISSION_DENIED"
        return
    if not rule.needs_permission:
        assert decided == "OK"
        return
    question = WORDS.question_of(rule, where)
    finding = explain_credential(question, explain(question, principal.living_grants()), principal.credential)
    told = "OK" if finding.allowed else "PERMISSION_DENIED"
    assert ("NOT_FOUND" if finding.denial is Denial.NAMESPACE_NOT_FOUND else told) == decided
    if told == "PERMISSION_DENIED" and finding.denial is not Denial.NAMESPACE_NOT_FOUND:
        assert finding.key_refuses or finding.owner_refuses
        assert finding.owner_refuses == (not explain(question, owned, known=True).allowed)


@given(held=st.lists(_grants, max_size=3), permission=st.sampled_from(sorted(KNOWN)))
def test_an_unreachable_namespace_looks_like_a_missing_one(held: list[Grant], permission: str) -> None:
    confined = [grant for grant in held if grant.namespace is not None]
    ended = Grant("old", None, None, frozenset({"*"}), expires_at=_ENDED)
    there = Grant("old", "three", 3, frozenset({"*"}), expires_at=_ENDED)
    beyond = DatabaseFacts((ended, there), (Giver("bob"),))
    foreign = explain(asked(permission, "three"), confined, beyond)
    missing = explain(asked(permission, "never"), confined, beyond)
    assert foreign.denial is Denial.NAMESPACE_NOT_FOUND
    assert foreign.givers == ()
    assert summary(foreign).replace("three", "never") == summary(missing)
    assert [each.grant for each in foreign.considered] == [each.grant for each in missing.considered]


@given(
    held=st.lists(_grants, max_size=3),
    permission=st.sampled_from(sorted(KNOWN)),
    namespace=st.sampled_from(["", "one"]),
)
def test_a_refusal_has_a_summary_and_metadata(held: list[Grant], permission: str, namespace: str) -> None:
    finding = explain(WORDS.question(permission, namespace), held)
    for details in (True, False):
        for of in ("", "ann"):
            words = summary(finding, of, details=details)
            assert permission in words
            assert "None" not in words
            if not details:
                assert not any(f'"{grant.role}"' in words for grant in held)
    told = metadata(finding)
    assert ("why" in told) != finding.allowed
    assert all("," not in name and name in _PLACES for name in told.get("held_in", "one").split(","))


@pytest.mark.parametrize(
    ("held", "question", "denial", "words"),
    [
        ([], asked("container.get", ""), Denial.NO_GRANT, "you have no grant over all namespaces"),
        (
            [_grant("viewer", frozenset({"container.get"}), frozenset(), "one")],
            asked("container.delete", "one"),
            Denial.NO_GRANT,
            'your role "viewer" there does not hold it',
        ),
        (
            [
                _grant("maker", frozenset({"container.delete"}), frozenset(), "two"),
                _grant("v", frozenset({"image.get"}), frozenset(), "one"),
            ],
            asked("container.delete", "one"),
            Denial.ELSEWHERE,
            'you hold it only in namespace "two"',
        ),
        (
            [_grant("developer", frozenset({"config.*"}), frozenset({"config.reveal"}), "one")],
            asked("config.reveal", "one"),
            Denial.EXCLUDED,
            'your role "developer" in namespace "one" excludes it',
        ),
        (
            [_grant("admin", frozenset({"*"}), frozenset(), "one")],
            asked("namespace.quota", "one"),
            Denial.OVER_ALL_NAMESPACES,
            'it requires a grant over all namespaces; your role "admin" in namespace "one" is not enough',
        ),
        (
            [_grant("admin", frozenset({"*"}), frozenset(), "one")],
            WORDS.question("user.get", "one"),
            Denial.OVER_ALL_NAMESPACES,
            'it requires a grant over all namespaces; your role "admin" in namespace "one" is not enough',
        ),
    ],
)
def test_a_refusal_names_its_reason(
    held: list[Grant], question: Question, denial: Denial, words: str
) -> None:
    finding = explain(question, held)
    assert (finding.denial, reason(finding)) == (denial, words)


def test_an_expired_grant_is_reported_with_its_end_and_whom_to_ask() -> None:
    living = [_grant("viewer", frozenset({"container.get"}), frozenset(), "one")]
    ended = Grant("maker", "one", 1, frozenset({"container.*"}), expires_at=_ENDED)
    finding = explain(
        asked("container.delete", "one"), living, DatabaseFacts((ended,), (Giver("bob"), Giver("eve")))
    )
    assert reason(finding) == (
        'your grant of role "maker" in namespace "one" ended at 2020-01-01T00:00:00Z; bob, eve could grant it'
    )
    assert metadata(finding) == {
        "why": "EXPIRED",
        "roles": "maker",
        "ended": "2020-01-01T00:00:00Z",
        "ask": "bob,eve",
    }


def test_lists_are_bounded() -> None:
    held = [Grant("maker", f"n{number}", number, frozenset({"container.delete"})) for number in range(1, 200)]
    finding = explain(asked("container.delete", ""), held)
    assert len(finding.considered) == denials.MOST_CONSIDERED
    assert metadata(finding)["held_in"].count(",") == denials.MOST_NAMED - 1
    assert len(reason(finding)) < 200


def test_refusals_for_other_reasons_are_unchanged() -> None:
    principal = Principal(1, "ann", ())
    for denied in (
        PermissionDenied("no", reason="ESCALATION", metadata={"permission": "container.get"}),
        PermissionDenied("no", reason="PERMISSION_DENIED", metadata={"permission": "*"}),
        PermissionDenied("no", reason="PERMISSION_DENIED"),
    ):
        assert explained(denied, principal) is denied
    denied = PermissionDenied("no", reason="PERMISSION_DENIED", metadata={"permission": "container.get"})
    assert explained(denied, None) is denied
    told = explained(denied, principal)
    assert (told.message, told.metadata["why"]) == ("no (you have no grant over all namespaces)", "NO_GRANT")


def test_a_temporary_grant_is_explained_with_its_expiry() -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    for_a_while = Grant("maker", "one", 1, frozenset({"container.*"}), expires_at=until)
    question = asked("container.get", "one")
    assert summary(explain(question, [for_a_while])) == (
        'container.get in namespace "one" is allowed by role "maker" in namespace "one", '
        f"until {until:%Y-%m-%dT%H:%M:%SZ}"
    )
    for_good = Grant("owner", "one", 1, frozenset({"*"}))
    assert summary(explain(question, [for_a_while, for_good])).endswith('by role "owner" in namespace "one"')


@pytest.mark.parametrize(
    ("owned", "limits", "permission", "namespace", "refuses"),
    [
        # (whether the key refuses, whether its owner does); None if the call is allowed or the namespace unknown.
        ("*", {"permissions": {"container.get"}}, "container.get", "one", None),
        ("*", {"permissions": {"container.get"}}, "container.delete", "one", (True, False)),
        ("container.get", {"permissions": None}, "container.delete", "one", (False, True)),
        ("container.get", {"permissions": {"container.get"}}, "container.delete", "one", (True, True)),
        ("*", {"permissions": None, "read_only": True}, "container.delete", "one", (True, False)),
        ("*", {"permissions": None, "read_only": True}, "container.get", "one", None),
        ("*", {"permissions": None, "namespaces": ("one",)}, "namespace.quota", "one", (True, False)),
        ("*", {"permissions": None, "namespaces": ("one",)}, "container.get", "", (True, False)),
        ("container.*", {"permissions": None, "namespaces": ("one",)}, "container.get", "one", None),
    ],
)
def test_a_refusal_names_whether_the_key_or_its_owner_refuses(
    owned: str, limits: dict[str, Any], permission: str, namespace: str, refuses: tuple[bool, bool] | None
) -> None:
    principal = _by_key([Grant("owned", None, None, frozenset({owned}))], **limits)
    question = WORDS.question(permission, namespace)
    finding = explain_credential(question, explain(question, principal.living_grants()), principal.credential)
    if refuses is None:
        assert finding.allowed
    else:
        assert (finding.key_refuses, finding.owner_refuses) == refuses
        assert (finding.denial is Denial.CREDENTIAL) == (not refuses[1])
        assert "owned" not in summary(finding) or refuses[1]


def test_a_key_learns_nothing_of_its_owners_other_namespaces() -> None:
    owner = [_grant("boss", frozenset({"*"}), frozenset(), place) for place in _PLACES[:2]]
    principal = _by_key(owner, permissions=None, namespaces=("one",))
    told = []
    for namespace in ("two", "never"):
        question = WORDS.question("container.get", namespace)
        finding = explain_credential(
            question, explain(question, principal.living_grants()), principal.credential
        )
        assert finding.denial is Denial.NAMESPACE_NOT_FOUND
        told.append((summary(finding).replace(namespace, "x"), finding.considered))
    assert told[0] == told[1]


def _by_key(
    owner: list[Grant],
    *,
    permissions: set[str] | None,
    namespaces: tuple[str, ...] | None = None,
    read_only: bool = False,
) -> Principal:
    places = (
        None
        if namespaces is None
        else tuple(KeyNamespace(_PLACES.index(name) + 1, name) for name in namespaces)
    )
    held = None if permissions is None else frozenset(permissions)
    limits = KeyLimits(held, places, read_only, tuple(owner))
    return Principal(
        1, "ann", within(owner, limits), credential=Credential("api_key", "7", "ci", limits=limits)
    )
