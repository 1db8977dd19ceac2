"""Hosts of two tenants in many spellings, and patterns of hosts.

No spelling reaches a host of the other tenant.
"""

from __future__ import annotations

import random

import pytest

from pilothouse_server.errors import FailedPrecondition, PermissionDenied, PilothouseError
from pilothouse_server.guard.carrying import admitted_rights
from pilothouse_server.values.hosts import covers, is_covered, normalised, overlap
from tests.guard.carried import Carried, JsonObject, document, place
from tests.guard.test_carried import asks

MINE = ("*.mine.example", "mine.example", "xn--bcher-kva.example")
THEIRS = ("*.theirs.example", "theirs.example", "xn--mnchen-3ya.example")
ALLOWED = [
    *(
        "mine.example",
        "MINE.example",
        "Mine.Example.",
        "mine.example.",
        "www.mine.example",
        "WWW.MINE.EXAMPLE",
    ),
    *(
        "*.mine.example",
        "*.MINE.example.",
        "a.b.c.mine.example",
        "*.a.mine.example",
        "theirs.example.mine.example",
    ),
    *(
        "bücher.example",
        "BÜCHER.example",
        "Bücher.Example.",
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.example",
    ),
    *(
        "bu\u0308cher.example",
        "bücher\u3002example",
        "ｍｉｎｅ.example",
        "0.mine.example",
        "xn--a.mine.example",
    ),
]
REFUSED = [
    *("theirs.example", "THEIRS.example", "Theirs.Example.", "theirs.example.", "www.theirs.example"),
    *(
        "*.theirs.example",
        "*.THEIRS.EXAMPLE.",
        "*.example",
        "*.a.theirs.example",
        "mine.example.theirs.example",
    ),
    *("notmine.example", "*.notmine.example", "mine.example.com", "example", "*.com", "mine"),
    *("münchen.example", "MÜNCHEN.example.", "xn--mnchen-3ya.example", "XN--MNCHEN-3YA.example"),
    *("mu\u0308nchen.example", "ｔｈｅｉｒｓ.example", "theirs\u3002example", "theirs\uff0eexample"),
    *("theirs.example,mine.example", "theirs.example mine.example", " theirs.example", "theirs.example\n"),
    *(
        "theirs.example:443",
        "http://theirs.example",
        "theirs.example/",
        "theirs.example..",
        ".theirs.example",
    ),
    *("**.mine.example", "*mine.example", "a.*.mine.example", "mine.example\x00.theirs.example", "*."),
    *(
        "straße.mine.example",
        "a_b.mine.example",
        "-a.mine.example",
        f"{'a' * 64}.mine.example",
        "\u200d.mine.example",
    ),
    *(f"{'a.' * 130}mine.example", "mïne.example", "bücher.example.theirs.example", "~^theirs\\.example$"),
]
PLACES = (
    "Ingress spec.rules.0.host",
    "Ingress spec.tls.0.hosts",
    "Ingress metadata.annotations",
    "Gateway spec.listeners.0.hostname",
    "Gateway metadata.annotations",
    "HTTPRoute spec.hostnames",
    "HTTPRoute metadata.annotations",
)


def with_host(where: str, host: str) -> JsonObject:
    """Returns an ordinary object with this host at the given path."""
    kind, path = where.split()
    lists = path.endswith(("hosts", "hostnames"))
    annotated = {"external-dns.alpha.kubernetes.io/hostname": host}
    value = annotated if path.endswith("annotations") else [host] if lists else host
    return document(Carried(kind, path, value))


def _refusal(where: str, host: str) -> PilothouseError | None:
    wanted = with_host(where, host)
    # The other hosts in the documents are those of the namespace `shop`.
    facts = place(allowed_hosts=(*MINE, "*.shop.example"))
    try:
        admitted_rights(wanted, None, facts, asks("platform"))
    except (FailedPrecondition, PermissionDenied) as refused:
        return refused
    return None


@pytest.mark.parametrize("where", PLACES)
def test_no_spelling_reaches_a_host_of_another_tenant(where: str) -> None:
    assert len(ALLOWED) + len(REFUSED) >= 40
    for host in ALLOWED:
        assert _refusal(where, host) is None, host
    for host in REFUSED:
        # An annotation may contain several hosts with spaces around each.
        refused = _refusal(where, host)
        assert refused is not None, host
        assert refused.reason == "HOST_NOT_ALLOWED", host


def test_no_host_is_covered_by_the_patterns_of_both_tenants() -> None:
    for host in (*ALLOWED, *REFUSED):
        try:
            name = normalised(host)
        except ValueError:
            continue
        assert not (is_covered(name, MINE) and is_covered(name, THEIRS))


def _name(chosen: random.Random) -> str:
    labels = [chosen.choice(("a", "b", "aa")) for _ in range(chosen.randint(1, 3))]
    return ".".join((*(["*"] if chosen.random() < 0.5 else []), *labels))


def _hosts() -> list[str]:
    labels = ("a", "b", "aa")
    two = [f"{first}.{second}" for first in labels for second in labels]
    three = [f"{first}.{rest}" for first in labels for rest in two]
    return [*labels, *two, *three, *(f"{first}.{rest}" for first in labels for rest in three)]


def test_two_patterns_overlap_exactly_if_both_cover_some_host() -> None:
    chosen, hosts = random.Random(7), _hosts()
    seen = set()
    for _ in range(400):
        first, second = _name(chosen), _name(chosen)
        common = any(covers(first, host) and covers(second, host) for host in hosts)
        assert overlap(first, second) == overlap(second, first) == common, (first, second)
        seen.add(common)
    assert seen == {False, True}


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("*.shop.example", "a.shop.example", True),
        ("*.shop.example", "a.b.shop.example", True),
        ("*.shop.example", "*.shop.example", True),
        ("*.shop.example", "*.b.shop.example", True),
        ("*.shop.example", "shop.example", False),
        ("*.shop.example", "ashop.example", False),
        ("*.b.shop.example", "*.shop.example", False),
        ("shop.example", "*.shop.example", False),
        ("shop.example", "shop.example", True),
    ],
)
def test_a_wildcard_covers_any_number_of_labels(pattern: str, host: str, covered: bool) -> None:
    assert covers(pattern, host) is covered


def test_hosts_are_normalised() -> None:
    for written, normal in (
        ("Shop.Example.", "shop.example"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
    ):
        assert normalised(written) == normal
        assert normalised(normal) == normal
