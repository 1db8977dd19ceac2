"""Label selectors: grammar and meaning as in Kubernetes, and a canonical text that parses to itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.labels import (
    LabelSelector,
    Operator,
    Requirement,
    label_selector_problem,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("  ", ""),
        ("app=web, tier in (b,a), env notin (test)", "app=web,env!=test,tier in (a,b)"),
        ("weight > 3, !legacy", "!legacy,weight>3"),
        ("x==a,x=a", "x=a"),
        ("x in (a)", "x=a"),
        ("x in ()", "x="),
        ("x in (a,)", "x in (,a)"),
        ("x=,y!=", "x=,y!="),
        ("in in (in)", "in=in"),
        ("a.b/c", "a.b/c"),
        ("n>007", "n>7"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert LabelSelector.parse(text).text == canonical


@pytest.mark.parametrize(
    ("text", "position"),
    [
        *(
            ("x,", 3),
            (",x", 1),
            ("x,,y", 3),
            ("x in (a", 8),
            ("x in a", 6),
            ("a b", 3),
            ("x>a", 3),
            ("x<", 3),
        ),
        *(("@x", 1), ("x=-a", 3), ("!x=a", 3), ("x in (a b)", 9), ("!", 2), ("x=a=b", 4), ("а=b", 1)),
        ("x>99999999999999999999", 3),
    ],
)
def test_a_refusal_names_the_position(text: str, position: int) -> None:
    with pytest.raises(InvalidValueError, match=f"^position {position}: "):
        LabelSelector.parse(text)


def test_the_size_of_a_selector_is_limited() -> None:
    assert label_selector_problem(",".join(f"k{i}" for i in range(65))) is not None
    assert label_selector_problem(f"x in ({','.join(f'v{i}' for i in range(300))})") is not None


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("x=a", {"x": "a"}, True),
        ("x=a", {}, False),
        ("x!=a", {}, True),
        ("x!=a", {"x": "a"}, False),
        ("x notin (a,b)", {"x": "c"}, True),
        ("x in (a,b)", {"x": "b"}, True),
        ("x=", {"x": ""}, True),
        ("x=", {}, False),
        ("x", {"x": ""}, True),
        ("!x", {"x": ""}, False),
        ("x>5", {"x": "6"}, True),
        ("x>5", {"x": "5"}, False),
        ("x<5", {"x": "abc"}, False),
        ("x<5", {}, False),
        ("x<5", {"x": "99999999999999999999"}, False),
        ("a=b,c=d", {"a": "b"}, False),
        ("", {}, True),
    ],
)
def test_selectors_match_labels_as_in_kubernetes(text: str, labels: dict[str, str], expected: bool) -> None:
    assert LabelSelector.parse(text).matches(labels) is expected


keys = st.sampled_from(["app", "tier", "a.b/c", "n"])
values = st.sampled_from(["", "web", "db", "1", "7", "x.y"])
requirements = st.one_of(
    st.builds(
        lambda key, operator, chosen: Requirement(key, operator, tuple(sorted(chosen))),
        keys,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.sets(values, min_size=1),
    ),
    st.builds(Requirement, keys, st.sampled_from([Operator.EXISTS, Operator.NOT_EXISTS])),
    st.builds(
        lambda key, operator, number: Requirement(key, operator, (str(number),)),
        keys,
        st.sampled_from([Operator.GREATER, Operator.LESS]),
        st.integers(-10, 10),
    ),
)
selectors = st.lists(requirements, max_size=5).map(lambda found: LabelSelector(tuple(found)))
label_sets = st.dictionaries(keys, values)


@given(selectors, label_sets)
def test_the_text_of_a_selector_round_trips(selector: LabelSelector, labels: dict[str, str]) -> None:
    again = LabelSelector.parse(selector.text)
    assert again.matches(labels) == selector.matches(labels)
    assert LabelSelector.parse(again.text) == again
    assert hash(LabelSelector.parse(again.text)) == hash(again)


@given(label_sets, label_sets)
def test_a_selector_from_labels_matches_supersets(wanted: dict[str, str], labels: dict[str, str]) -> None:
    assert LabelSelector.from_labels(wanted).matches(labels) == (wanted.items() <= labels.items())


def test_the_json_form_of_a_selector() -> None:
    assert LabelSelector.parse("a in (x,y),!b,c>3").to_json() == [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "b", "operator": "DoesNotExist", "values": []},
        {"key": "c", "operator": "Gt", "values": ["3"]},
    ]
    assert not LabelSelector()
    assert LabelSelector().matches({"any": "thing"})


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    if label_selector_problem(text) is None:
        assert LabelSelector.parse(LabelSelector.parse(text).text) == LabelSelector.parse(text)
    else:
        with pytest.raises(InvalidValueError):
            LabelSelector.parse(text)
