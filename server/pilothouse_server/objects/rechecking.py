"""Compares Roles and RoleBindings again with the permissions of the users who changed them last.

A Role may be changed after a RoleBinding to it was created, and a user may lose a grant. Programs then have rights that
the user could no longer give. Nothing is deleted: the condition `Permitted` becomes False and names the permission, and
an administrator decides. A user's next change of the object is checked against current permissions in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_manifests.carried import RBAC
from pilothouse_server.authorization.access import Principal
from pilothouse_server.guard.carrying import CarriedPlace, missing
from pilothouse_server.guard.model import UNGUARDED, CarriedFacts
from pilothouse_server.identity.access.operations.grants import held_by_user
from pilothouse_server.kubernetes.conditions import set_condition
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.objects import documents, operations, repository
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.store.unit_of_work import ReadTransaction, Store
from pilothouse_server.values.resources import Condition

PERMITTED: Final = "Permitted"
PERIOD_SECONDS: Final = 30.0
_REASON = "PermissionLost"
_ROWS = 200


async def recheck(store: Store) -> int:
    """Writes the conditions that differ; returns their number."""
    after = written = 0
    while True:
        async with store.system_read() as transaction:
            page = await repository.giving_rights(transaction, after, _ROWS)
            verdicts = await _verdicts(transaction, page)
        for object_id, verdict in verdicts.items():
            written += await _write(store, object_id, verdict)
        if len(page) < _ROWS:
            return written
        after = page[-1][0].id


async def _verdicts(
    transaction: ReadTransaction, page: list[tuple[CarriedObject, int | None]]
) -> dict[int, Condition]:
    """Returns, by object id, the conditions that must be written."""
    users: dict[int, Principal] = {}
    roles: dict[int, Mapping[str, Manifest]] = {}
    found = {}
    for carried, user_id in page:
        if user_id is None:
            continue
        if user_id not in users:
            users[user_id] = Principal(user_id, "", await held_by_user(transaction, user_id))
        namespace_id = int(carried.namespace_id)
        if namespace_id not in roles:
            roles[namespace_id] = await _roles(transaction, namespace_id)
        verdict = _verdict(carried, users[user_id], roles[namespace_id])
        before = next((each for each in carried.observed.conditions if each.type == PERMITTED), None)
        # An object that was always permitted has no condition.
        unchanged = (before.status, before.message) == (verdict.status, verdict.message) if before else False
        if not unchanged and (before is not None or verdict.status == "False"):
            found[carried.id] = verdict
    return found


def _verdict(carried: CarriedObject, user: Principal, roles: Mapping[str, Manifest]) -> Condition:
    facts = CarriedFacts(roles=roles)
    place = CarriedPlace(carried.namespace, carried.kubernetes_namespace, UNGUARDED, facts)

    def may(permission: str) -> bool:
        return user.allows(permission, carried.namespace)

    refused = missing(documents.manifest(carried), place, may)
    if refused is None:
        return Condition(PERMITTED, "True", "Held", "")
    why = f"the user who last changed it is no longer allowed to do so: {refused.message}"
    return Condition(PERMITTED, "False", _REASON, why)


async def _roles(transaction: ReadTransaction, namespace_id: int) -> dict[str, Any]:
    found = await repository.of_kind(transaction, namespace_id, RBAC, "Role")
    return {each.name: documents.manifest(each) for each in found if each.deletion_requested_at is None}


async def _write(store: Store, object_id: int, verdict: Condition) -> int:
    async with store.system_write("periodic") as transaction:
        stored = await repository.get(transaction, object_id, lock=True)
        if stored is None or stored.deletion_requested_at is not None:
            return 0
        now = await transaction.moment()
        conditions = set_condition(stored.observed.conditions, verdict, now)
        observed = msgspec.structs.replace(stored.observed, conditions=conditions)
        written = msgspec.structs.replace(stored, observed=observed)
        await repository.write_conditions(transaction, written)
        transaction.emit(operations.event(written, "modified", stored))
    return 1
