"""From a certificate that a client has shown to the caller, as the authenticator of tokens does it.

`rpc.tls.clients` decides for each call whether the certificate is accepted, and which user it belongs to. The
user is loaded by one query and kept for at most `principal_cache_seconds`, and dropped by the same hint: a
user who is switched off, or loses a grant, is refused as soon as with a token. Concurrent calls of one user
share one query.
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
        """Returns the principal that was loaded a moment ago; None if it has to be loaded. Raises as
        `authenticate`.
        """
        if isinstance(shown, bytes):
            return self._certificates.known(shown)
        return self._tokens.known(self._checked(shown))

    async def authenticate(self, shown: Shown, address: str = "") -> Principal:
        """The principal; `address` is where a token was used from.

        Raises:
            Unauthenticated: of a token as `TokenAuthenticator`, of a certificate as `CertificateAuthenticator`.
            Unavailable: the database is away.
        """
        if isinstance(shown, bytes):
            return await self._certificates.authenticate(shown)
        return await self._tokens.authenticate(self._checked(shown), address)

    def invalidate(self) -> None:
        """Forgets every principal."""
        self._tokens.invalidate()
        self._certificates.invalidate()

    async def close(self) -> None:
        """Writes the pending notes, and waits for running loads."""
        await self._tokens.close()
        await self._certificates.close()

    def _checked(self, shown: str | TokenOverCertificate | SessionShown) -> str | SessionShown:
        """Returns the token, or the session, if the certificate that accompanies it is accepted."""
        if isinstance(shown, str):
            return shown
        if shown.certificate:
            self._certificates.check(shown.certificate)
        return shown.token if isinstance(shown, TokenOverCertificate) else shown


class CertificateAuthenticator:
    """Turns certificates into principals. `invalidate` belongs to the feed's `on_grants_changed`."""

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
        # By the files' facts about the certificate: a changed fact makes another key.
        self._kept: OrderedDict[Vouched, tuple[float, Principal]] = OrderedDict()
        self._loading: dict[Vouched, asyncio.Task[Principal]] = {}

    def check(self, shown: bytes) -> None:
        """Raises Unauthenticated if the certificate is not accepted for any caller."""
        self._trust.check(shown)

    def known(self, shown: bytes) -> Principal | None:
        """The principal of a certificate that was looked up a moment ago; None where it must be.

        Raises:
            Unauthenticated: it is not taken, or is no user's: the reasons of `ClientTrust.vouch`.
        """
        kept = self._kept.get(self._trust.vouch(shown))
        return kept[1] if kept is not None and kept[0] > self._clock() else None

    async def authenticate(self, shown: bytes) -> Principal:
        """The principal of the user whose certificate it is.

        Raises:
            Unauthenticated: as `known`; CERTIFICATE_USER where the user is not there or may not log in.
            Unavailable: the database is away.
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
        # One caller that goes away must not end the query of the others.
        return await asyncio.shield(loading)

    def invalidate(self) -> None:
        """Forgets every principal: grants, roles or users have changed."""
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
        # After `invalidate` this task is no longer the one: what it read may be what was just changed.
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
            # Read, so that asyncio does not complain if every caller has gone away.
            done.exception()
