"""Guarded paths of carried objects that arrive through import and ADOPT."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pilothouse_server.authorization.access import May
from pilothouse_server.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from pilothouse_server.guard.carrying import found_in
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.objects import adoption, documents, guarding
from pilothouse_server.objects.facts import KindFacts
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.resources import NamespaceId
from tests.guard.carried import GUARDED, KEYS, NEVER, ORDINARY, Carried, document, place
from tests.guard.test_carried import CALLERS, HOLDS, asks
from tests.guard.test_hosts import MINE, PLACES, REFUSED, with_host

SHOP = Namespace(NamespaceId(1), "uid", "shop", "shop", "local")


def _carried(found: dict[str, Any]) -> CarriedObject:
    """Returns an object in the form in which its row stores it."""
    text = json.dumps({key: value for key, value in found.items() if key != "status"})
    carried = documents.completed(CarriedObject(document=text), ("shop",))
    return msgspec.structs.replace(carried, namespace_ref=SHOP.ref)


def _import_refused(guarded: Carried, caller: str) -> str | None:
    """Returns the missing permission or the reason, as `test_carried.refused` does."""
    rights = ObjectRights(Labelling(KeyPatterns(""), asks(caller)), KEYS)
    facts = KindFacts(place(**dict(guarded.facts)).facts)
    try:
        rights.check(SHOP, None, _carried(document(guarded)), facts)
    except PermissionDenied as denied:
        return str(denied.metadata["permission"])
    except FailedPrecondition as denied:
        return denied.reason
    except InvalidArgument:
        return NEVER
    return None


@pytest.mark.parametrize("caller", CALLERS)
def test_an_import_needs_the_permission_of_each_guarded_path(caller: str) -> None:
    for guarded in GUARDED:
        if guarded.path == "status":
            # An import leaves out the status, which belongs to the cluster.
            continue
        needed = None if guarded.needs in HOLDS[caller] else guarded.needs
        assert _import_refused(guarded, caller) == needed, guarded


def _adopted(guarded: Carried, may: May) -> bool:
    """Returns whether ADOPT gives the object a right that it lacked.

    `may` contains the caller's permissions.
    """
    stored, home = _carried(ORDINARY[guarded.kind]), place(**dict(guarded.facts))

    def allowed(before: CarriedObject, wanted: CarriedObject) -> None:
        guarding.admitted(before, wanted, home, may)

    paths = list(field_paths.differing(ORDINARY[guarded.kind], document(guarded), ORDINARY[guarded.kind]))
    adopted = adoption.adopt(stored, document(guarded), paths, allowed)
    had = {each.right for each in found_in(documents.manifest(stored), home)}
    return not {each.right for each in found_in(documents.manifest(adopted), home)} <= had


def test_adopt_takes_over_no_guarded_path_of_a_carried_object() -> None:
    for guarded in GUARDED:
        assert not _adopted(guarded, lambda _: False), guarded
    # The control: with all permissions, ADOPT takes over many paths.
    assert sum(_adopted(guarded, lambda _: True) for guarded in GUARDED) > 10


@pytest.mark.parametrize("where", PLACES)
def test_adopt_takes_over_no_spelling_of_a_host_of_another_tenant(where: str) -> None:
    home = place(allowed_hosts=(*MINE, "*.shop.example"))
    stored = _carried(with_host(where, "www.mine.example"))

    def allowed(before: CarriedObject, wanted: CarriedObject) -> None:
        guarding.admitted(before, wanted, home, asks("platform"))

    def adopted(host: str) -> CarriedObject:
        live, before = with_host(where, host), documents.manifest(stored)
        return adoption.adopt(stored, live, list(field_paths.differing(before, live, before)), allowed)

    for host in REFUSED:
        assert adopted(host) == stored, host
    # The control: another host of the tenant itself is taken over.
    assert adopted("shop.mine.example") != stored
