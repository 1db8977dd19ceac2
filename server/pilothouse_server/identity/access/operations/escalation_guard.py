"""Checks that the caller holds every permission that is given or affected, as read in this transaction."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.identity.access.escalation import check_covered
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.store.unit_of_work import ReadTransaction


async def check_caller_covers(
    transaction: ReadTransaction,
    caller: Principal,
    wanted: Sequence[Grant],
    whose: str,
    *,
    whenever: bool = False,
) -> None:
    """Raises unless the caller holds everything in `wanted`.

    Two sets of grants must both cover it: the principal's, which an API key may limit, and the user's current grants in
    the database, some of which may have ended since the principal was loaded.

    Raises:
        PermissionDenied: ESCALATION.
    """
    check_covered(wanted, caller.living_grants(), whose, whenever=whenever)
    present = await grants.held_by(transaction, caller.user_id)
    check_covered(wanted, present, whose, whenever=whenever)


def last_administrator(username: str) -> FailedPrecondition:
    """Returns the error for a change that would leave no permanent administrator."""
    return FailedPrecondition(
        f'user "{username}" is the last active user who permanently holds every permission: '
        "grant that to another active user first",
        reason="LAST_ADMINISTRATOR",
        metadata={"username": username},
    )
