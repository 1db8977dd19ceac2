"""Authenticates callers by client certificate, with the same caching as `token_authenticator`.

`rpc.tls.clients` decides for each call whether the certificate is accepted, and which user it belongs to. The user is
loaded by one query, cached for at most `principal_cache_seconds`, and dropped by the same notification. So a user who
is deactivated, or loses a grant, is refused as soon as with a token. Concurrent calls with one certificate share one
query.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pilothouse_server.authorization.access import Credential, Principal
from pilothouse_server.errors import Unauthenticated
from pilothouse_server.identity.authenticator import repository
from pilothouse_server.identity.authenticator.token_authenticator import TokenAuthenticator
from pilothouse_server.rpc.tls.shown import SessionShown, Shown, TokenOverCertificate, Vouched
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

if TYPE_CHECKING:
    from pilothouse_server.rpc.tls.clients import ClientTrust

_LARGEST_CACHE: Final = 10_000


class EitherAuthenticator:
    """Authenticates a caller by a token if there is one, else by the certificate."""

    def __init__(self, tokens: TokenAuthenticator, certificates: CertificateAuthenticator) -> None:
        self._tokens = tokens
        self._certificates = certificates
        self.namespace_id = tokens.namespace_id
        self.why_foreign = tokens.why_foreign

    def known(self, shown: Shown) -> Principal | None:
        """Returns the cached principal; None if it has to be loaded. Raises as `authenticate`."""
        if isinstance(shown, bytes):
            return self._certificates.known(shown)
        return self._tokens.known(self._checked(shown))

    async def authenticate(self, shown: Shown, address: str = "") -> Principal:
        """Returns the principal; `address` is where a token was used from.

        Raises:
            Unauthenticated: for a token as `TokenAuthenticator`, for a certificate as `CertificateAuthenticator`.
            Unavailable: the database cannot be reached.
        """
        if isinstance(shown, bytes):
            return await self._certificates.authenticate(shown)
        return await self._tokens.authenticate(self._checked(shown), address)

    def invalidate(self) -> None:
        """Drops every cached principal."""
        self._tokens.invalidate()
        self._certificates.invalidate()

    async def close(self) -> None:
        """Writes the pending records of use, and waits for running loads."""
        await self._tokens.close()
        await self._certificates.close()

    def _checked(self, shown: str | TokenOverCertificate | SessionShown) -> str | SessionShown:
        """Returns the token or the session. Raises Unauthenticated if its accompanying certificate is not accepted."""
        if isinstance(shown, str):
            return shown
        if shown.certificate:
            self._certificates.check(shown.certificate)
        return shown.token if isinstance(shown, TokenOverCertificate) else shown


class CertificateAuthenticator:
    """Turns certificates into principals.

    `invalidate` belongs to the feed's `on_grants_changed`.
    """

    def __init__(
        self,
        store: Store,
        trust: ClientTrust,
        *,
        cache_seconds: float,
        largest_cache: int = _LARGEST_CACHE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._trust = trust
        self._cache_seconds = cache_seconds
        self._largest_cache = largest_cache
        self._clock = clock
        # The key contains what the trust files state about the certificate, so a changed file makes another key.
        self._kept: OrderedDict[Vouched, tuple[float, Principal]] = OrderedDict()
        self._loading: dict[Vouched, asyncio.Task[Principal]] = {}

    def check(self, shown: bytes) -> None:
        """Raises Unauthenticated if the certificate is not accepted for any caller."""
        self._trust.check(shown)

    def known(self, shown: bytes) -> Principal | None:
        """Returns the cached principal of a certificate; None if it has to be loaded.

        Raises:
            Unauthenticated: the certificate is not accepted, or belongs to no user, as `ClientTrust.vouch`.
        """
        kept = self._kept.get(self._trust.vouch(shown))
        return kept[1] if kept is not None and kept[0] > self._clock() else None

    async def authenticate(self, shown: bytes) -> Principal:
        """Returns the principal of the certificate's user.

        Raises:
            Unauthenticated: as `known`; CERTIFICATE_USER if the user does not exist or may not log in.
            Unavailable: the database cannot be reached.
        """
        vouched = self._trust.vouch(shown)
        kept = self._kept.get(vouched)
        if kept is not None and kept[0] > self._clock():
            return kept[1]
        loading = self._loading.get(vouched)
        if loading is None:
            loading = asyncio.create_task(self._load(vouched), name="load principal")
            self._loading[vouched] = loading
            loading.add_done_callback(lambda done: self._loaded(vouched, done))
        # A caller that is cancelled must not cancel the query that other callers share.
        return await asyncio.shield(loading)

    def invalidate(self) -> None:
        """Drops every cached principal, because grants, roles or users have changed."""
        self._kept.clear()
        self._loading.clear()

    async def close(self) -> None:
        """Waits for running loads."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    async def _load(self, vouched: Vouched) -> Principal:
        started = self._clock()
        credential = Credential("certificate", vouched.fingerprint, vouched.name)
        async with self._store.system_call() as connection:
            found = await repository.load_principal(ReadTransaction(connection), vouched.username, credential)
        if found is None:
            raise Unauthenticated(
                "your certificate belongs to a user that does not exist or may not log in",
                reason="CERTIFICATE_USER",
                metadata={"fingerprint": vouched.fingerprint},
            )
        # `invalidate` has removed this task if it was called during the load. Then the result may be outdated.
        if self._loading.get(vouched) is asyncio.current_task():
            self._kept[vouched] = (started + self._cache_seconds, found)
            self._kept.move_to_end(vouched)
            while len(self._kept) > self._largest_cache:
                self._kept.popitem(last=False)
        return found

    def _loaded(self, vouched: Vouched, done: asyncio.Task[Principal]) -> None:
        if self._loading.get(vouched) is done:
            del self._loading[vouched]
        if not done.cancelled():
            # Read the exception, so that asyncio does not log it as never retrieved if every caller was cancelled.
            done.exception()
