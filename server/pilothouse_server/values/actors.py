"""Names for records that no user caused; users may not have these names.

A status history has `triggered_by`, and a record without a user has a name. A user of the same name could make their
own actions look like the server's. The other reserved names are those that readers would take for the server or for
nobody.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from pilothouse_server.values.names import normalise_username

SYSTEM: Final = "system"
TriggeredBy = Literal["user", "kubernetes", "system"]
# Parts of the server that write without a user (`Store.system_write`).
PARTS: Final = (
    "authenticator",
    "configuration",
    "key rotation",
    "leases",
    "login",
    "observer",
    "periodic",
    "reconciler",
    "roll-ups",
    "seal",
    "token exchange",
    "usage",
    "usage days",
)
RESERVED_USERNAMES: Final = frozenset(
    {SYSTEM, "kubernetes", "pilothouse", "root", "anonymous", *get_args(TriggeredBy), *PARTS}
)


def is_reserved_username(username: str) -> bool:
    """Returns whether no new user may have this name, in any case or Unicode form."""
    return normalise_username(username) in RESERVED_USERNAMES
