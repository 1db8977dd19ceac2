"""Authenticates callers by bearer token, with a short-lived cache of principals.

A principal is loaded by the system role in one query and cached for at most `principal_cache_seconds` (at most 1),
counted from before the query. So a revoked permission stops working within that time on every replica, even if the
notifications below are lost. The database sends a notification (`pilothouse_grants`) at every change of grants, roles,
users and sessions. It drops all cached principals immediately, so a revocation usually takes effect within
milliseconds. If a notification arrives during a load, the calls that already wait for the load get its result. The
result is not cached, and later calls load again.

Concurrent calls with one token share one query. Refused tokens are not cached: the checksum already prevents queries
for texts that are not tokens of this server.

An open stream is authenticated again by its session (`SessionShown`) instead of its token, because a refresh may have
replaced the token. If the user of a session that began by a password alone must have a second factor now, the session
is refused for its open streams, and for all calls if it is a console session. Other sessions end at their next refresh.

A separate task records the use of a session or key at most once a minute, for a key with the caller's address.
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

# Returns the caller that a hash belongs to, and its row with `now`, `access_expires_at` and `last_used_at`.
Find = Callable[[ReadTransaction, bytes], Awaitable[tuple[Principal, Row] | None]]

Load = Callable[[bytes, str], Coroutine[Any, Any, Principal]]

TOUCH_EVERY: Final = timedelta(minutes=1)
_TOUCH_GATHER_SECONDS: Final = 0.5
_LARGEST_CACHE: Final = 10_000
_USUAL_LIVES: Final = ConsoleLives(timedelta(hours=12), timedelta(days=7))
_CALLING_SECONDS: Final = 1.0


class TokenAuthenticator:
    """Turns access tokens and API keys into principals.

    `invalidate` belongs to the feed's `on_grants_changed`.
    """

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
        # The entries of `_kept` that were used within the last second, by the token itself: hashing the token for each
        # call costs as much as the rest of the authentication. The whole dict is cleared after a second.
        self._calling: dict[str, tuple[float, Principal]] = {}
        self._loading: dict[bytes, asyncio.Task[Principal]] = {}
        self._used: set[bytes] = set()
        # The hashes of used API keys, and the addresses that they were used from.
        self._used_keys: dict[bytes, str] = {}
        self._toucher: asyncio.Task[None] | None = None

    @staticmethod
    def of(store: Store, settings: Settings) -> TokenAuthenticator:
        """Returns an authenticator with the values of the settings."""
        return TokenAuthenticator(
            store,
            cache_seconds=settings.principal_cache_seconds,
            console=console_lives(settings),
            factor_roles=named_roles(settings),
        )

    def known(self, token: str | SessionShown) -> Principal | None:
        """Returns the cached principal of a token; None if it has to be loaded."""
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
        """Returns the principal of a valid token, API key or session.

        `address` is where the credential is used from; '' for a check that is not a call, such as that of a stream.

        Raises:
            Unauthenticated: NO_TOKEN; INVALID_TOKEN for a token that is wrong, has expired or was revoked.
            Unavailable: the database cannot be reached.
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
        # A caller that is cancelled must not cancel the query that other callers share.
        return await asyncio.shield(loading)

    async def namespace_id(self, name: str) -> int | None:
        """Returns the id of a namespace for the audit record, even if the caller may not see the namespace.

        Returns None if the namespace does not exist.

        Raises:
            Unavailable: the database cannot be reached.
        """
        async with self._store.system_call() as connection:
            return await grants.find_namespace(ReadTransaction(connection), name)

    async def why_foreign(self, namespace: str) -> str:
        """Returns why the Kubernetes namespace of this namespace belongs to another owner; '' if none is known.

        Raises:
            Unavailable: the database cannot be reached.
        """
        async with self._store.system_call() as connection:
            return await grants.why_foreign(ReadTransaction(connection), namespace)

    def invalidate(self) -> None:
        """Drops every cached principal, because grants, roles, users or sessions have changed."""
        self._kept.clear()
        self._calling.clear()
        self._loading.clear()

    async def close(self) -> None:
        """Writes the pending records of use, and waits for running loads."""
        pending = [task for task in (*self._loading.values(), self._toucher) if task is not None]
        await asyncio.gather(*pending, return_exceptions=True)

    def _loader(self, token: str) -> Load:
        """Returns the function that loads the principal of a token of this form.

        Raises Unauthenticated if it has not the form of a token of this server.
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
        # Checks of open streams do not count as a use, nor do calls from an address that the key does not accept.
        used = address and principal.credential.admits(address)
        if used and (key.last_used_at is None or key.now - key.last_used_at >= TOUCH_EVERY):
            self._used_keys[token_hash] = address
            self._note_use()
        return principal

    def _check_console(self, principal: Principal, session: Row) -> None:
        if session.console:
            self._check_factor(principal, session)

    def _check_factor(self, principal: Principal, session: Row) -> None:
        """Raises Unauthenticated if the session began by a password alone and its user must have a second factor."""
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
        # `invalidate` has removed this task if it was called during the load. Then the result may be outdated.
        if self._loading.get(token_hash) is asyncio.current_task():
            lives = (row.access_expires_at - row.now).total_seconds()
            self._keep(token_hash, started + min(self._cache_seconds, lives), principal)
        return principal, row

    def _loaded(self, token_hash: bytes, done: asyncio.Task[Principal]) -> None:
        if self._loading.get(token_hash) is done:
            del self._loading[token_hash]
        if not done.cancelled():
            # Read the exception, so that asyncio does not log it as never retrieved if every caller was cancelled.
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
                # The next load of the principal records the use again.
                log.warning("the use of tokens cannot be recorded", reason=error.reason)


def _invalid_token() -> Unauthenticated:
    return Unauthenticated(
        "the token is not valid, has expired or was revoked: refresh the session or log in again",
        reason="INVALID_TOKEN",
    )
