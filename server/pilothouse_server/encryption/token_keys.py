"""Keys that stay in a token: the wrapping keys that they protect, and the cache of those.

A PKCS#11 token (an HSM) encrypts and decrypts with keys that never leave it, and each request to it takes time. So it
does not wrap the data key of every value: it wraps *wrapping keys*, 32 random bytes each. A wrapping key wraps the data
keys of the values that this server writes for some minutes, 256 at most. A stored data key contains its wrapping key in
the form that the token has wrapped, so nothing but the token is needed to open it.

Values are sealed and opened within transactions, which must not wait for the token. So if a wrapping key is not cached,
`KeyNotAtHand` is raised, the transaction ends, `bring` fetches the key from the token, and the work starts again (`rpc`
does so for every unary call). A wrapping key is cached for ten minutes at most: if a token is removed, the stored
values become unreadable within that time.

A wrapping key that the token cannot decrypt is remembered for as long, and refused like any changed value.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from pilothouse_server.errors import FailedPrecondition, Unavailable

log = structlog.get_logger(__name__)

ENCRYPTION_KEY_MISSING = "ENCRYPTION_KEY_MISSING"
KEPT_SECONDS = 600.0
MOST_USES = 256
_MOST_KEPT = 2048
# The number of queues that requests to the token are spread over.
_TURNS = 64
_RENEWED_EVERY_SECONDS = 60.0
_KEY_LENGTH = 32


class Token(Protocol):
    """A token. Every method raises Unavailable if it does not respond, is unavailable, or does not have the key."""

    async def keys(self) -> Mapping[str, str]:
        """Returns the names of the token's keys, by identifier, newest first."""

    async def wrap(self, key_id: str, plaintext: bytes) -> bytes:
        """Encrypts 32 bytes with one of its keys."""

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Decrypts them. Raises FailedPrecondition if another key encrypted them, or they were changed."""

    async def close(self) -> None:
        """Ends the session."""


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """A wrapping key in plain form, and as the token has wrapped it."""

    key: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "WrappingKey()"


@dataclass(frozen=True, slots=True)
class WantedTokenKey:
    """A key that is not cached: the wrapping key of a stored value.

    If `wrapped` is None, it is one that encrypts new values.
    """

    key_id: str
    wrapped: bytes | None = None


class KeyNotAtHand(Unavailable):
    """A wrapping key is not cached and must be fetched from the token first.

    A caller that catches it ends its transaction, awaits `bring`, and starts again, so that no transaction is open
    during the call. If nothing catches it, the client gets UNAVAILABLE and retries.
    """

    def __init__(self, keys: TokenKeys, wanted: Sequence[WantedTokenKey]) -> None:
        super().__init__(
            "the encryption key must first be fetched from the token; retry",
            reason="ENCRYPTION_KEY_NOT_AT_HAND",
            metadata={"key_id": wanted[0].key_id},
            retry_after_seconds=0.1,
        )
        self.wanted = tuple(wanted)
        self._keys = keys

    async def bring(self) -> None:
        """Fetches the keys from the token.

        Raises Unavailable, also for a key that the token does not have.
        """
        await self._keys.bring(self.wanted)


@dataclass(slots=True)
class _Sealing:
    """The wrapping key that currently encrypts new values.

    It serves until `until` (monotonic), and for `uses_left` more values.
    """

    key: WrappingKey
    until: float
    uses_left: int = MOST_USES

    def serves(self) -> bool:
        """Returns whether it may encrypt another value."""
        return self.uses_left > 0 and self.until >= time.monotonic()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A cached wrapping key; `key` is None if the token refused to unwrap it."""

    key: bytes | None
    until: float


class TokenKeys:
    """The keys of one token, and the cached wrapping keys."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._names: Mapping[str, str] = {}
        self._sealing: dict[str, _Sealing] = {}
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._turns = [asyncio.Lock() for _ in range(_TURNS)]
        self._failure: Unavailable | None = None
        self._failed_at = 0.0

    @property
    def names(self) -> Mapping[str, str]:
        """The names of the token's keys, by identifier, newest first, as of the last request."""
        return self._names

    async def refresh(self) -> None:
        """Lists the token's keys. Raises Unavailable; the known keys stay as they were."""
        self._names = await self._token.keys()

    def sealing_key(self, key_id: str) -> WrappingKey:
        """Returns the wrapping key that encrypts the next value. Raises KeyNotAtHand."""
        found = self._sealing.get(key_id)
        if found is None or not found.serves():
            raise KeyNotAtHand(self, [WantedTokenKey(key_id)])
        found.uses_left -= 1
        return found.key

    def opening_key(self, key_id: str, wrapped: bytes) -> bytes:
        """Returns the wrapping key of a stored value.

        Raises:
            KeyNotAtHand: it must be fetched first, with `bring`.
            FailedPrecondition: the token refused it.
        """
        kept = self._kept.get(wrapped)
        if kept is None or kept.until < time.monotonic():
            raise KeyNotAtHand(self, [WantedTokenKey(key_id, wrapped)])
        if kept.key is None:
            raise refused()
        return kept.key

    async def bring(self, wanted: Sequence[WantedTokenKey]) -> None:
        """Fetches the wanted keys from the token.

        Raises Unavailable, also for a key that it does not have.
        """
        if any(each.key_id not in self._names for each in wanted):
            await self.refresh()
        for each in wanted:
            if each.key_id not in self._names:
                raise key_missing(each.key_id)
        for each in wanted:
            await self._bring_once(each)

    async def keep_sealing(self) -> None:
        """Renews the sealing key before it expires, until cancelled, so that one is nearly always cached."""
        away = False
        while True:
            await asyncio.sleep(_RENEWED_EVERY_SECONDS)
            try:
                for key_id, sealing in list(self._sealing.items()):
                    left = sealing.until - time.monotonic()
                    if left < -KEPT_SECONDS:
                        del self._sealing[key_id]
                    elif left < KEPT_SECONDS / 2 or sealing.uses_left < MOST_USES / 2:
                        await self._begin_sealing(key_id)
            except Unavailable as error:
                if not away:
                    log.warning("the token of the encryption keys cannot be used", reason=error.reason)
                away = True
            else:
                away = False

    def forget(self) -> None:
        """Clears the cache of wrapping keys."""
        self._sealing.clear()
        self._kept.clear()

    async def close(self) -> None:
        """Clears the cache, and ends the session of the token."""
        self.forget()
        await self._token.close()

    async def _bring_once(self, wanted: WantedTokenKey) -> None:
        """Requests a key from the token once for all concurrent callers; if that fails, it fails for all of them."""
        began = time.monotonic()
        async with self._turns[hash(wanted) % _TURNS]:
            if self._is_at_hand(wanted):
                return
            if self._failure is not None and self._failed_at > began:
                raise Unavailable(
                    self._failure.message, reason=self._failure.reason, metadata=self._failure.metadata
                )
            try:
                if wanted.wrapped is None:
                    await self._begin_sealing(wanted.key_id)
                else:
                    await self._open(wanted.key_id, wanted.wrapped)
            except Unavailable as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise

    def _is_at_hand(self, wanted: WantedTokenKey) -> bool:
        if wanted.wrapped is None:
            sealing = self._sealing.get(wanted.key_id)
            return sealing is not None and sealing.serves()
        kept = self._kept.get(wanted.wrapped)
        return kept is not None and kept.until >= time.monotonic()

    async def _begin_sealing(self, key_id: str) -> None:
        key = secrets.token_bytes(_KEY_LENGTH)
        made = WrappingKey(key, await self._token.wrap(key_id, key))
        until = time.monotonic() + KEPT_SECONDS
        self._sealing[key_id] = _Sealing(made, until)
        self._keep(made.wrapped, _Kept(key, until))

    async def _open(self, key_id: str, wrapped: bytes) -> None:
        try:
            key = await self._token.unwrap(key_id, wrapped)
        except FailedPrecondition:
            key = None
        if key is not None and len(key) != _KEY_LENGTH:
            key = None
        self._keep(wrapped, _Kept(key, time.monotonic() + KEPT_SECONDS))

    def _keep(self, wrapped: bytes, kept: _Kept) -> None:
        self._kept[wrapped] = kept
        self._kept.move_to_end(wrapped)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def key_missing(key_id: str) -> Unavailable:
    """Returns the error for a key-encryption key that this server does not have."""
    return Unavailable(
        f'no key provider of this server has the encryption key "{key_id}": give every replica the same keys',
        reason=ENCRYPTION_KEY_MISSING,
        metadata={"key_id": key_id},
    )


def refused() -> FailedPrecondition:
    """Returns the error for a stored value that was changed."""
    return FailedPrecondition(
        "the stored value cannot be decrypted: it was moved from another row, or changed",
        reason="CIPHERTEXT_REFUSED",
    )
