"""Log-in on a device without a browser: a person types a code elsewhere (RFC 8628).

The server calls the issuer's device endpoint and returns a token of its own, the code for the person, and the seconds
to wait between two polls. A poll that comes on time causes one request to the issuer; a poll that comes too early
causes none. Between two polls the only state is a row (`repository.device_logins`), so any server can handle the next
poll. A poll that its client abandons costs only the wait until the next one.

The transaction that begins the session deletes the row, so a log-in works once, even if several polls arrive when the
person agrees. The issuer's code is encrypted under a key derived from the caller's token, so the contents of the
database cannot complete a log-in.

Each address may have a limited number of pending log-ins, and has a budget of failed ones. Polls are limited
separately: early polls of a pending log-in count against that log-in only, and polls of unknown log-ins count against a
budget of the address that serves no other purpose.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from pilothouse_server.errors import FailedPrecondition, ResourceExhausted, Unauthenticated, Unavailable
from pilothouse_server.identity import tokens
from pilothouse_server.identity.credentials.repository import device_logins
from pilothouse_server.identity.credentials.repository.device_logins import DeviceLogin
from pilothouse_server.identity.credentials.trusted_devices import LoginNames
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.federation.oidc.fetching import issuer_away
from pilothouse_server.identity.federation.oidc.trusted import (
    Granted,
    GrantRefused,
    TrustedIssuer,
    TrustedIssuers,
)
from pilothouse_server.identity.federation.oidc.verify import VerifiedToken
from pilothouse_server.identity.federation.operations.federated_users import Entered, Federation
from pilothouse_server.identity.model import LoginOrigin
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Called with the verified token, also if the call then fails.
Verified = Callable[[VerifiedToken], None]

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
LOGIN_PREFIX: Final = "phc_"
MOST_OF_AN_ADDRESS: Final = 20
# The interval if the issuer names none; RFC 8628, section 3.2.
_USUAL_INTERVAL: Final = 5
_LONGEST_INTERVAL: Final = 300
# The increase of the interval each time that the issuer returns `slow_down`; section 3.5.
_SLOWER_BY: Final = 5
_LONGEST_LIFE_SECONDS: Final = 1800
# The budget of early polls of one log-in: the burst size, and the seconds until one more is allowed.
_EARLY_AT_ONCE: Final = 10
_EARLY_SECONDS_EACH: Final = 1.0
_TOO_EARLY: Final = "polling too fast; wait `interval` seconds between requests (RFC 8628)"
_SLOW_DOWN: Final = "SLOW_DOWN"
_NONCE_LENGTH: Final = 12
_CODE = re.compile(r"[!-~]{1,2000}\Z")
_USER_CODE = re.compile(r"[!-~]([ -~]{0,62}[!-~])?\Z")
_ADDRESS = re.compile(r"https?://[!#-;=?-\[\]_a-z~]{1,2000}\Z")


@dataclass(frozen=True, slots=True)
class Offer:
    """The response of the issuer's device endpoint."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str = field(repr=False)
    life_seconds: int
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class BegunDeviceLogin:
    """A pending log-in: the token for the caller's polls, and the code to show to the person."""

    issuer: str
    login_token: str = field(repr=False)
    offer: Offer
    expires_at: datetime


class DeviceLogins:
    """Begins and completes log-ins on devices.

    `budgets` are shared with all log-ins at issuers; `key` is the key for the hashes of addresses.
    """

    def __init__(
        self,
        store: Store,
        issuers: TrustedIssuers,
        federation: Federation,
        budgets: FailureBudgets,
        settings: Settings,
        key: bytes,
    ) -> None:
        self._store = store
        self._issuers = issuers
        self._federation = federation
        self._names = LoginNames(key)
        self._budgets = budgets
        self._unknown = FailureBudgets(
            settings.login_failures_per_address,
            message="too many polls from this address for unknown log-ins; retry later",
        )
        self._early = FailureBudgets(
            _EARLY_AT_ONCE, seconds_each=_EARLY_SECONDS_EACH, message=_TOO_EARLY, reason=_SLOW_DOWN
        )

    async def begin(self, issuer_name: str, origin: LoginOrigin) -> BegunDeviceLogin:
        """Requests a code from the issuer.

        Raises:
            NotFound: ISSUER_NOT_FOUND.
            FailedPrecondition: NO_DEVICE_LOGIN, the issuer does not offer log-in by device, or not to this server.
            ResourceExhausted: LOGIN_LIMITED, too many log-ins of the address are pending or were not completed.
            Unavailable: ISSUER_UNAVAILABLE.
        """
        address_hash = self._names.address_hash(origin.address_group)
        await self._check_open(address_hash)
        issuer = self._issuers.of_log_ins(issuer_name)
        self._budgets.take(origin.address_group)
        try:
            offer = await self._offer(issuer)
        except Unavailable:
            self._budgets.give_back(origin.address_group)
            raise
        login_token = tokens.new_token(LOGIN_PREFIX)
        sealed = _sealed(offer.device_code, login_token)
        life = timedelta(seconds=offer.life_seconds)
        async with self._store.system_write("login") as transaction:
            await device_logins.insert_login(
                transaction,
                tokens.token_hash(login_token),
                DeviceLogin(issuer.config.name, sealed, offer.interval_seconds),
                address_hash,
                life,
            )
            return BegunDeviceLogin(issuer.config.name, login_token, offer, transaction.now + life)

    async def complete(self, login_token: str, origin: LoginOrigin, verified: Verified) -> Entered:
        """Asks the issuer whether the person has agreed, and begins the session.

        Raises:
            FailedPrecondition: AUTHORIZATION_PENDING, with the time until the next poll.
            ResourceExhausted: SLOW_DOWN for an early poll; LOGIN_LIMITED after too many polls of unknown log-ins.
            Unauthenticated: INVALID_LOGIN for a log-in that is unknown, was used or has expired; LOGIN_DENIED
                if the person refused; ISSUER_TOKEN_REFUSED; and as `Federation.enter`.
            Unavailable: ISSUER_UNAVAILABLE; the log-in stays pending.
        """
        token_hash = tokens.token_hash(login_token)
        waiting = await self._turn(login_token, token_hash, origin)
        issuer = self._issuers.find(waiting.issuer)
        if issuer is None:
            raise _invalid_login()
        granted = await self._granted(issuer, waiting, login_token, token_hash)
        token = await issuer.verify(granted.id_token, issuer.of_log_ins(None))
        verified(token)
        async with self._store.system_write("login") as transaction:
            if not await device_logins.end(transaction, token_hash):
                raise _invalid_login()
            entered = await self._federation.enter(
                transaction, issuer.config, token, granted.refresh_token, origin
            )
        # Give back the token that `begin` took from the budget.
        self._budgets.succeeded(origin.address_group)
        return entered

    async def _check_open(self, address_hash: bytes) -> None:
        async with self._store.system_read() as transaction:
            waiting = await device_logins.count_of(transaction, address_hash)
        if waiting >= MOST_OF_AN_ADDRESS:
            raise ResourceExhausted(
                (f"{waiting} log-ins of this address are pending: complete one, or wait until they expire"),
                reason="LOGIN_LIMITED",
                retry_after_seconds=60.0,
            )

    async def _offer(self, issuer: TrustedIssuer) -> Offer:
        """Returns the response of the issuer's device endpoint. Raises as `begin`."""
        if not (await issuer.discovery()).device_authorization_endpoint:
            raise _no_device_login(issuer)
        fields = {"scope": " ".join(issuer.config.scopes)}
        status, answer = await issuer.post("device_authorization_endpoint", fields, stranger=True)
        if status == 400 and answer.get("error") == "unauthorized_client":
            raise _no_device_login(issuer)
        offer = _read_offer(answer, issuer.config.address.scheme) if status == 200 else None
        if offer is None:
            raise issuer_away(
                issuer.config.name, f"it responds with {status}, without a valid code for a device"
            )
        return offer

    async def _turn(self, login_token: str, token_hash: bytes, origin: LoginOrigin) -> DeviceLogin:
        """Returns the log-in if a request to its issuer is due. Raises as `complete`."""
        if not tokens.is_well_formed(login_token, LOGIN_PREFIX):
            raise _invalid_login()
        who = token_hash.hex()
        self._early.check(who)
        wait = None
        async with self._store.system_write("login") as transaction:
            waiting = await device_logins.take_turn(transaction, token_hash)
            if waiting is None:
                wait = await device_logins.wait_of(transaction, token_hash)
        if waiting is not None:
            return waiting
        if wait is None:
            self._unknown.take(origin.address_group)
            raise _invalid_login()
        self._early.spend(who)
        raise ResourceExhausted(
            _TOO_EARLY, reason=_SLOW_DOWN, retry_after_seconds=max(1.0, wait.total_seconds())
        )

    async def _granted(
        self, issuer: TrustedIssuer, waiting: DeviceLogin, login_token: str, token_hash: bytes
    ) -> Granted:
        """Returns the issuer's grant once the person has agreed. Raises as `complete`."""
        code = _opened(waiting.sealed_code, login_token)
        try:
            return await issuer.grant({"grant_type": GRANT_TYPE, "device_code": code}, stranger=True)
        except GrantRefused as refusal:
            error = refusal.error
        if error == "authorization_pending":
            raise _pending(waiting.interval_seconds)
        slower = min(waiting.interval_seconds + _SLOWER_BY, _LONGEST_INTERVAL)
        async with self._store.system_write("login") as transaction:
            if error == "slow_down":
                await device_logins.slow_down(transaction, token_hash, slower)
            else:
                await device_logins.end(transaction, token_hash)
        if error == "slow_down":
            raise _pending(slower)
        if error == "access_denied":
            raise Unauthenticated("the person refused this log-in at the issuer", reason="LOGIN_DENIED")
        raise _invalid_login()


def _read_offer(answer: Mapping[str, Any], scheme: str) -> Offer | None:
    """Returns the parsed response; None if a field is wrong, or if the page's scheme is weaker than the issuer's."""
    complete = answer.get("verification_uri_complete", "")
    texts = (answer.get("device_code"), answer.get("user_code"), answer.get("verification_uri"))
    forms = (_CODE, _USER_CODE, _ADDRESS)
    life, interval = answer.get("expires_in"), answer.get("interval", _USUAL_INTERVAL)
    if not all(isinstance(text, str) and form.match(text) for text, form in zip(texts, forms, strict=True)):
        return None
    if not (_is_seconds(life) and _is_seconds(interval) and str(texts[2]).startswith(scheme)):
        return None
    return Offer(
        str(texts[0]),
        str(texts[1]),
        str(texts[2]),
        complete
        if isinstance(complete, str) and _ADDRESS.match(complete) and complete.startswith(scheme)
        else "",
        min(int(life), _LONGEST_LIFE_SECONDS),
        min(max(int(interval), 1), _LONGEST_INTERVAL),
    )


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 10**9


def _sealed(device_code: str, login_token: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return nonce + _box(login_token).encrypt(nonce, device_code.encode(), None)


def _opened(sealed: bytes, login_token: str) -> str:
    """Returns the issuer's code, which only the caller's token decrypts."""
    return _box(login_token).decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], None).decode()


def _box(login_token: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # The token is random, so it needs no slow key derivation. The database stores its plain SHA-256, not this HMAC.
    return AESGCM(hmac.digest(login_token.encode(), b"the code of a device", "sha256"))


def _pending(seconds: int) -> FailedPrecondition:
    return FailedPrecondition(
        "nobody has approved this log-in yet: retry after the delay in RetryInfo",
        reason="AUTHORIZATION_PENDING",
        retry_after_seconds=float(seconds),
    )


def _invalid_login() -> Unauthenticated:
    return Unauthenticated(
        "this log-in is unknown, expired or completed: begin another", reason="INVALID_LOGIN"
    )


def _no_device_login(issuer: TrustedIssuer) -> FailedPrecondition:
    return FailedPrecondition(
        f'the issuer "{issuer.config.name}" does not offer log-in by device: use the browser',
        reason="NO_DEVICE_LOGIN",
        metadata={"issuer": issuer.config.name},
    )
