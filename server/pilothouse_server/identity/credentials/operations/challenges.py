"""Challenges: the response to a correct password if further steps must follow it.

A challenge is 256 random bits; only their SHA-256 is stored. It is valid for a few minutes, for the same password,
address and device token, and for one log-in. It permits its holder only to complete the log-in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse_server.errors import Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials.operations.login_throttle import Tried
from pilothouse_server.identity.credentials.operations.second_factors import FactorSteps, SecondFactors
from pilothouse_server.identity.credentials.repository import challenges
from pilothouse_server.identity.credentials.repository.challenges import Challenge
from pilothouse_server.identity.model import Enrolment
from pilothouse_server.store.unit_of_work import Transaction

LIFE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Challenged:
    """An incomplete log-in: the challenge, and the steps that are still missing."""

    challenge: str = field(repr=False)
    expires_at: datetime
    steps: FactorSteps
    enrolment: Enrolment | None = None


class Challenges:
    """Issues challenges."""

    def __init__(self, factors: SecondFactors) -> None:
        self._factors = factors

    async def issue(
        self, transaction: Transaction, tried: Tried, checked: PasswordCredentials, steps: FactorSteps
    ) -> Challenged:
        """Returns a challenge for a user whose password was correct; with a seed if one must be enrolled."""
        token = tokens.new_token(tokens.CHALLENGE_PREFIX)
        challenge_hash = tokens.token_hash(token)
        expires_at = await challenges.insert_challenge(
            transaction,
            challenge_hash,
            Challenge(checked.user.id, checked.password_changed_at),
            tried.origin_hash,
            LIFE,
        )
        enrolment = None
        if steps.enrolment:
            # Each log-in gets a seed of its own, so another person who has the password does not learn this one.
            enrolment = await self._factors.enrol(
                transaction, checked.user.id, checked.user.username, challenge_hash.hex(), transaction.now
            )
        return Challenged(token, expires_at, steps, enrolment)


def invalid_challenge() -> Unauthenticated:
    """Returns the error for a challenge that is unknown, used or expired, or that was given to another caller."""
    return Unauthenticated(
        "this log-in has expired or was completed, or began elsewhere: log in again",
        reason="INVALID_CHALLENGE",
    )
