"""Tokens and their stores.

A session has a short-lived access token and a refresh token that works once. Two processes that share a session must
therefore not refresh it at the same time: the second would replay a used token, which ends the session for both. A
store prevents that with `exclusive`: a process that refreshes holds this lock, and first loads the tokens again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

# A token is renewed when this much of its life has passed.
_RENEWAL_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Tokens:
    """Credentials of one session, or an API key alone.

    Times are Unix seconds. `access_expire` is 0 if the token does not expire, or if its expiry is unknown. `repr` omits
    the tokens.

    >>> with Client(address, tokens=Tokens(access_token=token)) as client:
    ...     client.identity.who_am_i().user.username
    'admin'
    """

    access_token: str = field(repr=False)
    access_expire: float = 0.0
    refresh_token: str = field(default="", repr=False)
    refresh_expire: float = 0.0
    received: float = 0.0

    def renewal_due(self, now: float) -> bool:
        """Returns whether to refresh before the next call."""
        return bool(self.refresh_token) and self.is_ageing(now)

    def is_ageing(self, now: float) -> bool:
        """Returns whether most of the token's life has passed.

        This machine's clock measures that life from the moment the token was received. If the token already seemed
        expired then, the clock is wrong, and the result is False."""
        if self.access_expire <= self.received:
            return False
        return now >= self.received + (self.access_expire - self.received) * _RENEWAL_SHARE


class TokenAnswer(Protocol):
    """The common fields of the responses to log-ins and refreshes."""

    access_token: str
    refresh_token: str

    @property
    def access_expire_time(self) -> Timestamp: ...
    @property
    def refresh_expire_time(self) -> Timestamp: ...


class ShortTokenAnswer(Protocol):
    """The response to a token exchange, which has no refresh token."""

    access_token: str

    @property
    def access_expire_time(self) -> Timestamp: ...


def tokens_of(answer: TokenAnswer, now: Callable[[], float] = time.time) -> Tokens:
    """Returns the tokens of a response that was just received."""
    return Tokens(
        access_token=answer.access_token,
        access_expire=_seconds(answer.access_expire_time),
        refresh_token=answer.refresh_token,
        refresh_expire=_seconds(answer.refresh_expire_time),
        received=now(),
    )


def short_tokens_of(answer: ShortTokenAnswer, now: Callable[[], float] = time.time) -> Tokens:
    """Returns the token of a response that was just received, for a session that is not refreshed."""
    expire = _seconds(answer.access_expire_time)
    return Tokens(access_token=answer.access_token, access_expire=expire, received=now())


def _seconds(timestamp: Timestamp) -> float:
    return timestamp.seconds + timestamp.nanos / 1e9


class TokenStore(Protocol):
    """Stores the tokens of one session.

    All methods may block; the asynchronous client calls them in a thread.

    >>> class Printing(MemoryTokenStore):
    ...     def save(self, tokens: Tokens | None) -> None:
    ...         print("renewed" if tokens else "forgotten")
    ...         super().save(tokens)
    >>> store: TokenStore = Printing()
    >>> with Client(address, tokens=store) as client:
    ...     answer = client.login("admin", password)
    renewed
    """

    def load(self) -> Tokens | None: ...

    def save(self, tokens: Tokens | None) -> None:
        """Stores the tokens; None deletes them. Its exceptions end the call."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Returns the lock for a renewal of the tokens; of all processes that share the store, one holds it at a time.
        It may be released in another thread than the one that acquired it."""


class MemoryTokenStore:
    """Tokens of one process. `exclusive` locks nothing: a client renews under its own lock anyway.

    >>> with Client(address, tokens=(store := MemoryTokenStore())) as client:
    ...     answer = client.login("admin", password)
    >>> with Client(address, tokens=store) as again:
    ...     again.identity.who_am_i().user.username
    'admin'
    """

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def exclusive(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()
