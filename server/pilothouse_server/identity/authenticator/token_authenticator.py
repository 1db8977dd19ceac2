"""From a bearer token to the caller, fast for a token seen a moment ago and never wrong for longer than
that.

A principal is loaded by the system role in one query and kept for at most `principal_cache_seconds` (1 at most),
counted from before the query. So a revoked permission stops working within that time on every replica, even if the
hints below are lost. A hint from the database (`pilothouse_grants`, sent by every change of grants, roles, users and
sessions) drops all kept principals immediately, so usually it takes milliseconds. A load that runs when the hint
comes still answers the calls that requested it before, but its result is not kept, and later calls load again.

Concurrent calls with one token share one query. Refused tokens are not remembered: the checksum already
prevents queries for texts that are not our tokens.

An open stream asks by its session in place of the token (`SessionShown`), which another may have followed. A session
that began by a password alone does not last for its streams, nor as a console session, once its user must have a second
factor: elsewhere its next refresh ends it.

The use of a session or key is recorded at most once a minute, by a task apart from the requests; for a key
with its address.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import PilothouseError, Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.credentials.operations.second_factors import named_roles
from pilothouse_server.identity.credentials.operations.session_tokens import console_lives
from pilothouse_server.identity.credentials.repository import api_keys, sessions
from pilothouse_server.identity.model import EVERY_ROLE, ConsoleLives
from pilothouse_server.rpc.tls.shown import SessionShown
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

log = structlog.get_logger(__name__)

# The caller that a hash belongs to, and its row with `now`, `access_expires_at` and `last_used_at`.
Find = Callable[[ReadTransaction, bytes], Awaitable[tuple[Principal, Row] | None]]

Load = Callable[[bytes, str], Coroutine[Any, Any, Principal]]

TOUCH_EVERY: Final = timedelta(minutes=1)
_TOUCH_GATHER_SECONDS: Final = 0.5
_LARGEST_CACHE: Final = 10_000
_USUAL_LIVES: Final = ConsoleLives(timedelta(hours=12), timedelta(days=7))
_CALLING_SECONDS: Final = 1.0


class TokenAuthenticator:
    """Turns access tokens and API keys into principals. `invalidate` belongs to the feed's `on_grants_changed`."""

    def __init__(
        self,
        store: Store,
        *,
        cache_seconds: float,
        console: ConsoleLives = _USUAL_LIVES,
        factor_roles: Collection[str] = (),
        largest_cache: int = _LARGEST_CACHE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache_seconds = cache_seconds
        self._console = console
        self._factor_roles = frozenset(factor_roles)
        self._largest_cache = largest_cache
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        # Of those the ones that called last, by the token itself: to hash it for each call costs as much as all else
        # that is done to know the caller. Nothing is in it for longer than a second.
        self._calling: dict[str, tuple[float, Principal]] = {}
        self._loading: dict[bytes, asyncio.Task[Principal]] = {}
        self._used: set[bytes] = set()
        # Keys, and where they were used from.
        self._used_keys: dict[bytes, str] = {}
        self._toucher: asyncio.Task[None] | None = None

    @staticmethod
    def of(store: Store, settings: Settings) -> TokenAuthenticator:
        """The authenticator by the settings."""
        return TokenAuthenticator(
            store,
            cache_seconds=settings.principal_cache_seconds,
            console=console_lives(settings),
            factor_roles=named_roles(settings),
        )

    def known(self, token: str | SessionShown) -> Principal | None:
        """The principal of a token that was looked up a moment ago; None where it must be."""
        now = self._clock()
        if isinstance(token, SessionShown):
            kept = self._kept.get(token.session_id.bytes)
            return kept[1] if kept is not None and kept[0] > now else None
        kept = self._calling.get(token)
        if kept is not None and kept[0] > now:
            return kept[1]
        kept = self._kept.get(tokens.token_hash(token))
        if kept is None or kept[0] <= now:
            return None
        self._note_calling(token, kept)
        return kept[1]

    async def authenticate(self, token: str | SessionShown, address: str = "") -> Principal:
        """The principal of a living token, API key or session; `address` is where it is used from, '' if nobody calls.

        Raises:
            Unauthenticated: NO_TOKEN, or INVALID_TOKEN for one that is wrong, has expired or was revoked.
            Unavailable: the database is away.
        """
        if not token:
            raise Unauthenticated(
                'a token is needed: send the metadata "authorization: Bearer <token>"', reason="NO_TOKEN"
            )
        if (known := self.known(token)) is not None:
            return known
        load: Load
        if isinstance(token, SessionShown):
            load, token_hash = self._load_session_itself, token.session_id.bytes
        else:
            load, token_hash = self._loader(token), tokens.token_hash(token)
        loading = self._loading.get(token_hash)
        if loading is None:
            loading = asyncio.create_task(load(token_hash, address), name="load principal")
            self._loading[token_hash] = loading
            loading.add_done_callback(lambda done: self._loaded(token_hash, done))
        # One caller that goes away must not end the query of the others.
        return await asyncio.shield(loading)

    async def namespace_id(self, name: str) -> int | None:
        """Returns the id of a living namespace, whether or not the caller reaches it; for the record of a
        call.

        Raises:
            Unavailable: the database is away.
        """
        async with self._store.system_call() as connection:
            return await grants.find_namespace(ReadTransaction(connection), name)

    async def why_foreign(self, namespace: str) -> str:
        """Why the Kubernetes namespace of this living namespace is not ours, '' where it is, as far as is known.

        Raises:
            Unavailable: the database is away.
        """
        async with self._store.system_call() as connection:
            return await grants.why_foreign(ReadTransaction(connection), namespace)

    def invalidate(self) -> None:
        """Forgets every principal: grants, roles, users or sessions have changed."""
        self._kept.clear()
        self._calling.clear()
        self._loading.clear()

    async def close(self) -> None:
        """Writes the pending notes, and waits for running loads."""
        pending = [task for task in (*self._loading.values(), self._toucher) if task is not None]
        await asyncio.gather(*pending, return_exceptions=True)

    def _loader(self, token: str) -> Load:
        """Returns the function that loads the principal of a token of this form. Raises Unauthenticated if it is not
        one of our tokens.
        """
        if tokens.is_well_formed(token, tokens.ACCESS_PREFIX) or tokens.is_well_formed(
            token, tokens.CONSOLE_PREFIX
        ):
            return self._load_session
        if tokens.is_well_formed(token, tokens.KEY_PREFIX):
            return self._load_key
        raise _invalid_token()

    async def _load_session(self, token_hash: bytes, _address: str) -> Principal:
        principal, session = await self._load(token_hash, sessions.load_principal, self._check_console)
        if session.last_used_at is None or session.now - session.last_used_at >= TOUCH_EVERY:
            self._used.add(token_hash)
            self._note_use()
        return principal

    async def _load_session_itself(self, session_id: bytes, _address: str) -> Principal:
        async def find(transaction: ReadTransaction, session_id: bytes) -> tuple[Principal, Row] | None:
            return await sessions.load_principal_of_session(transaction, UUID(bytes=session_id))

        return (await self._load(session_id, find, self._check_factor))[0]

    async def _load_key(self, token_hash: bytes, address: str) -> Principal:
        principal, key = await self._load(token_hash, api_keys.load_principal)
        # A check of open streams is no use, nor is a call from an address that the key does not accept.
        used = address and principal.credential.admits(address)
        if used and (key.last_used_at is None or key.now - key.last_used_at >= TOUCH_EVERY):
            self._used_keys[token_hash] = address
            self._note_use()
        return principal

    def _check_console(self, principal: Principal, session: Row) -> None:
        if session.console:
            self._check_factor(principal, session)

    def _check_factor(self, principal: Principal, session: Row) -> None:
        """Raises Unauthenticated for a session by a password alone whose user must have a second factor."""
        if session.method == "password" and self._factor_roles:
            held = {grant.role for grant in principal.grants} | {EVERY_ROLE}
            if not self._factor_roles.isdisjoint(held):
                raise _invalid_token()

    async def _load(
        self,
        token_hash: bytes,
        find: Find,
        check: Callable[[Principal, Row], None] = lambda _principal, _row: None,
    ) -> tuple[Principal, Row]:
        started = self._clock()
        async with self._store.system_call() as connection:
            found = await find(ReadTransaction(connection), token_hash)
        if found is None:
            raise _invalid_token()
        principal, row = found
        check(principal, row)
        # After `invalidate` this task is no longer the one for the token: what it read may be what was just changed.
        if self._loading.get(token_hash) is asyncio.current_task():
            lives = (row.access_expires_at - row.now).total_seconds()
            self._keep(token_hash, started + min(self._cache_seconds, lives), principal)
        return principal, row

    def _loaded(self, token_hash: bytes, done: asyncio.Task[Principal]) -> None:
        if self._loading.get(token_hash) is done:
            del self._loading[token_hash]
        if not done.cancelled():
            # Read, so that asyncio does not complain if every caller has gone away.
            done.exception()

    def _keep(self, token_hash: bytes, until: float, principal: Principal) -> None:
        self._kept[token_hash] = (until, principal)
        self._kept.move_to_end(token_hash)
        while len(self._kept) > self._largest_cache:
            self._kept.popitem(last=False)

    def _note_calling(self, token: str, kept: tuple[float, Principal]) -> None:
        if not self._calling:
            asyncio.get_running_loop().call_later(_CALLING_SECONDS, self._calling.clear)
        if len(self._calling) < self._largest_cache:
            self._calling[token] = kept

    def _note_use(self) -> None:
        if self._toucher is None or self._toucher.done():
            self._toucher = asyncio.create_task(self._touch(), name="note use of tokens")

    async def _touch(self) -> None:
        await asyncio.sleep(_TOUCH_GATHER_SECONDS)
        while self._used or self._used_keys:
            used, self._used = self._used, set()
            keys, self._used_keys = self._used_keys, {}
            try:
                async with self._store.system_write("authenticator") as transaction:
                    if used:
                        await sessions.touch(transaction, used, TOUCH_EVERY, self._console)
                    if keys:
                        await api_keys.touch(transaction, keys, TOUCH_EVERY)
            except PilothouseError as error:
                # The next load of a principal notes it again.
                log.warning("use of tokens not noted", reason=error.reason)


def _invalid_token() -> Unauthenticated:
    return Unauthenticated(
        "the token is not valid, has expired or was revoked: refresh the session or log in again",
        reason="INVALID_TOKEN",
    )
