"""The accounts that an issuer's programs act as: the section `workloads` of an issuer's entry.

    workloads:
      audiences: [pilothouse]
      lifetime_seconds: 900
      accounts:
        - when:
            - {claim: repository, equals: example/shop}
            - {claim: ref, equals: refs/heads/main}
          username: "sa:shop:deployer"

A token must be made for one of the audiences. `client_id`, the audience of people's log-ins, is not allowed among them;
otherwise a person's ID token would serve as a program's token. Only the server's operator can write the rules, because
each rule gives programs the use of an account.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.identity.federation.oidc.documents import DocumentEntry
from pilothouse_server.identity.federation.oidc.rules import ClaimCondition, fits, read_conditions
from pilothouse_server.values.names import normalise_username

LONGEST_SECONDS: Final = 12 * 3600


class WorkloadAccount(msgspec.Struct, frozen=True):
    """Lets a program whose token fulfils all conditions act as the user or service account `username`."""

    place: str
    conditions: tuple[ClaimCondition, ...]
    username: str


class Workloads(msgspec.Struct, frozen=True):
    """The audiences, lifetime and accounts of an issuer's programs.

    `lifetime_seconds` 0: the default applies (`token_exchange.DEFAULT_SECONDS`).
    """

    audiences: frozenset[str]
    accounts: tuple[WorkloadAccount, ...]
    lifetime_seconds: int = 0

    def account(self, claims: Mapping[str, Any], wanted: str) -> WorkloadAccount | None:
        """Returns the first account whose conditions hold; None if there is none.

        If `wanted` is not '', only accounts with this username are considered.
        """
        name = normalise_username(wanted)
        for each in self.accounts:
            if (not wanted or normalise_username(each.username) == name) and fits(each.conditions, claims):
                return each
        return None


def read_workloads(entry: DocumentEntry | None, client_id: str) -> Workloads | None:
    """Returns the section about programs in an issuer's entry; None if there is none. Raises SettingsError."""
    if entry is None:
        return None
    audiences = frozenset(entry.texts("audiences", most=20))
    if client_id in audiences:
        raise entry.wrong("audiences", "must not contain client_id, which is for the log-ins of people")
    workloads = Workloads(
        audiences,
        tuple(_account(each) for each in entry.entries("accounts", needed=True)),
        entry.number("lifetime_seconds", 0, least=0, most=LONGEST_SECONDS),
    )
    entry.finish()
    return workloads


def _account(entry: DocumentEntry) -> WorkloadAccount:
    account = WorkloadAccount(entry.place, read_conditions(entry), entry.text("username", most=50))
    entry.finish()
    return account
