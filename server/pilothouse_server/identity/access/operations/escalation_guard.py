"""Checks that the caller holds all that is given or touched, as it stands in this transaction."""

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

    Both the principal of the call, which may be narrower than its user, and the user's grants of this moment, which
    may be fewer than those of the principal, must hold it.

    Raises:
        PermissionDenied: ESCALATION.
    """
    check_covered(wanted, caller.living_grants(), whose, whenever=whenever)
    present = await grants.held_by(transaction, caller.user_id)
    check_covered(wanted, present, whose, whenever=whenever)


def last_administrator(username: str) -> FailedPrecondition:
    """Returns the error for a change that would leave no permanent administrator."""
    return FailedPrecondition(
        f'user "{username}" is the last one who holds every permission without an end: '
        "grant that to another active user first",
        reason="LAST_ADMINISTRATOR",
        metadata={"username": username},
    )
