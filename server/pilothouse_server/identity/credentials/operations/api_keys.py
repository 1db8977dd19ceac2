"""The rules of API keys: a key never gives more than its creator holds, nor more than its user holds.

A key may not name a permission that its user does not hold, nor a form (`container.*`) that its user holds only in
part. Otherwise the key would silently give more once its user is granted more.

Keys are managed in a session. A key cannot make other keys, so revoking a leaked key is enough. A caller who makes or
rotates a key of a service account can act as that account with the key, so the caller must hold all permissions that
the key would give.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pilothouse_server.authorization.access import Grant, KeyLimits, KeyNamespace, Principal, within
from pilothouse_server.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    already_exists,
    invalid,
    not_found,
)
from pilothouse_server.identity import tokens
from pilothouse_server.identity.access.escalation import uncovered
from pilothouse_server.identity.access.operations.escalation_guard import check_caller_covers
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.operations import service_accounts, users
from pilothouse_server.identity.accounts.repository.users import get as get_user
from pilothouse_server.identity.credentials.repository import api_keys
from pilothouse_server.identity.model import ApiKey, MadeKey, ServiceAccount, UserId
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import is_service_account, normalise_username

MOST_KEYS: Final = 50
LONGEST_OVERLAP: Final = timedelta(days=7)
SEEING_OTHERS: Final = "user.get"
CHANGING_OTHERS: Final = "user.update"
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A requested key. Empty `permissions`, `namespaces` and `networks` mean no limit."""

    name: str
    permissions: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    read_only: bool = False
    networks: Sequence[str] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a key.

    `account` and `held` are set for a service account only. `held` are all its grants, also in namespaces that the
    caller may not see.
    """

    user_id: UserId
    username: str
    account: ServiceAccount | None = None
    held: tuple[Grant, ...] = ()


class ApiKeys:
    """Makes and rotates keys. `words` are the existing permissions."""

    def __init__(self, settings: Settings, words: PermissionWords) -> None:
        self._usual = timedelta(days=settings.api_key_days)
        self._longest = timedelta(days=settings.api_key_max_days)
        self._words = words

    async def make(
        self, transaction: Transaction, caller: Principal, owner: Owner, wanted: WantedKey
    ) -> MadeKey:
        """Makes a key of `owner`: the caller, or a service account that the caller manages.

        Raises:
            InvalidArgument: an unknown permission, an invalid network, an end that has passed or is too far away.
            NotFound: a namespace that does not exist or that the caller may not see.
            PermissionDenied: ESCALATION, it would give permissions that the caller does not hold, or it names
                permissions that its user does not hold.
            AlreadyExists: the name.
            ResourceExhausted: TOO_MANY_KEYS.
        """
        now = await transaction.moment()
        networks = _networks(wanted.networks)
        self._check_known(wanted.permissions)
        namespaces = await _namespaces(transaction, caller, wanted.namespaces)
        limits = KeyLimits(
            permissions=frozenset(wanted.permissions) if wanted.permissions else None,
            namespaces=namespaces,
            read_only=wanted.read_only,
        )
        end = self._end(now, wanted.expires_at)
        values = {
            "name": wanted.name,
            "permissions": list(dict.fromkeys(wanted.permissions)) or None,
            "namespace_ids": None if namespaces is None else [each.id for each in namespaces],
            "read_only": wanted.read_only,
            "allowed_networks": networks,
            "expires_at": end,
        }
        if owner.account is None:
            self._check_named(wanted.permissions, caller.living_grants(), namespaces, "you do")
        else:
            await _check_covers(transaction, caller, owner, limits, end)
            whose = f'service account "{owner.username}" does'
            self._check_named(wanted.permissions, owner.held, namespaces, whose)
        await self._make_room(transaction, owner.user_id)
        if await api_keys.name_is_taken(transaction, owner.user_id, wanted.name):
            raise already_exists("api key", wanted.name)
        return await _insert(transaction, owner, values)

    async def rotate(
        self,
        transaction: Transaction,
        caller: Principal,
        found: ApiKey,
        owner: Owner,
        overlap: timedelta,
        expires_at: datetime | None,
    ) -> MadeKey:
        """Makes a key with the limits of `found`; `found` stays valid for `overlap`.

        The new key gets the lifetime that `found` was made with, unless `expires_at` is given.

        Raises:
            InvalidArgument: `overlap` is not from 0 to 7 days; an end that has passed or is too far away.
            PermissionDenied: ESCALATION, as `make`.
            FailedPrecondition: KEY_ROTATED, another key has already replaced it.
            ResourceExhausted: TOO_MANY_KEYS, because both keys count during the overlap.
        """
        now = await transaction.moment()
        if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
            raise invalid("overlap", f"must be from 0 to {LONGEST_OVERLAP.days} days", reason="OUT_OF_RANGE")
        end = self._end(now, expires_at, _lifetime(found))
        if owner.account is not None:
            await _check_covers(transaction, caller, owner, _limits(found), end)
        await self._make_room(transaction, owner.user_id, replacing=not overlap)
        if not await api_keys.rotated(transaction, found.id, now + overlap):
            raise FailedPrecondition(
                f'key "{found.name}" was already rotated: another key has replaced it', reason="KEY_ROTATED"
            )
        values = {
            "name": found.name,
            "permissions": list(found.permissions) or None,
            "namespace_ids": None if found.namespace_ids is None else list(found.namespace_ids),
            "read_only": found.read_only,
            "allowed_networks": list(found.allowed_networks),
            "expires_at": end,
        }
        made = await _insert(transaction, owner, values)
        await grants.notify_changed(transaction)
        return made

    def _end(self, now: datetime, wanted: datetime | None, lifetime: timedelta | None = None) -> datetime:
        if wanted is None:
            # The longest permitted lifetime may have become shorter since the key was made.
            return now + min(lifetime or self._usual, self._longest)
        if wanted <= now:
            raise invalid("expire_time", "must be in the future", reason="EXPIRED")
        if wanted > now + self._longest:
            raise invalid(
                "expire_time",
                f"must be within {self._longest.days} days, the longest lifetime of a key on this server",
                reason="TOO_FAR",
            )
        return wanted

    def _check_named(
        self,
        permissions: Sequence[str],
        held: Sequence[Grant],
        namespaces: tuple[KeyNamespace, ...] | None,
        whose: str,
    ) -> None:
        """Raises unless the key's user, with the grants `held`, fully holds each form in `permissions`.

        It suffices to hold a form in one of the key's namespaces; for a key without such a limit, in any namespace or
        over all. `whose` is a part of the message, such as "you do".

        Raises:
            PermissionDenied: ESCALATION.
        """
        places: list[tuple[str | None, int | None]] = [(None, None)]
        if namespaces is not None:
            places = [(each.name, each.id) for each in namespaces]
        else:
            places += dict.fromkeys((grant.namespace, grant.namespace_id) for grant in held)
        for form in permissions:
            if not any(self._holds(held, form, name, namespace_id) for name, namespace_id in places):
                raise PermissionDenied(
                    f"the key names {form}, which {whose} not hold in its scope: name only permissions of its user",
                    reason="ESCALATION",
                    metadata={"permission": form},
                )

    def _holds(
        self, held: Sequence[Grant], form: str, namespace: str | None, namespace_id: int | None
    ) -> bool:
        """Returns whether the grants together fully hold a form in `namespace`; None means over all namespaces.

        Returns False for a namespace if all permissions of the form work only over all namespaces.
        """
        if namespace is not None and all(map(self._words.works_over_all_only, self._words.covered(form))):
            return False
        wanted = Grant("", namespace, namespace_id, frozenset({form}))
        return uncovered(wanted, held, whenever=True) is None

    def _check_known(self, permissions: Sequence[str]) -> None:
        for place, form in enumerate(permissions):
            if not self._words.covered(form):
                raise invalid(
                    f"permissions[{place}]",
                    "does not match a permission of any call",
                    reason="UNKNOWN_PERMISSION",
                )

    async def _make_room(self, transaction: Transaction, user_id: UserId, *, replacing: bool = False) -> None:
        """Locks the user's row. Raises ResourceExhausted if the user already has the maximum number of keys."""
        if await get_user(transaction, user_id, lock=True) is None:
            raise not_found("user", "of this key")
        await api_keys.end_expired(transaction, user_id)
        living = await api_keys.count(transaction, user_id)
        if living - replacing >= MOST_KEYS:
            raise ResourceExhausted(
                f"a user has at most {MOST_KEYS} valid keys: revoke one first",
                reason="TOO_MANY_KEYS",
                metadata={"limit": str(MOST_KEYS)},
            )


async def owner_of(looking: ReadTransaction, caller: Principal, service_account: str) -> Owner:
    """Returns the owner of a requested key: the caller, or the service account of this name.

    `looking` must see every row, so that it also finds the account's grants in namespaces that the caller may not see.

    Raises:
        NotFound: no service account of this name in a namespace that the caller may see.
        PermissionDenied: the caller does not hold `service_account.create` there.
    """
    if not service_account:
        return Owner(UserId(caller.user_id), caller.username)
    account = await service_accounts.locate(looking, caller, service_account, service_accounts.MAKING)
    return await _owning(looking, account)


async def locate(
    looking: ReadTransaction, caller: Principal, uid: UUID, of_accounts: str, of_users: str = ""
) -> tuple[ApiKey, Owner]:
    """Returns a valid key that the caller may manage, and its owner.

    A caller may manage the own keys; with the permission `of_accounts` in a namespace, also the keys of its service
    accounts; with the permission `of_users` over all namespaces, also the keys of all users. `looking` must see every
    row.

    Raises:
        NotFound: the key does not exist, or the caller may not manage it.
    """
    found = await api_keys.find(looking, uid)
    if found is None:
        raise not_found("api key", str(uid))
    if found.user_id == caller.user_id:
        return found, Owner(found.user_id, found.username)
    if found.of_account:
        try:
            account = await service_accounts.locate(looking, caller, found.username, of_accounts)
        except (NotFound, PermissionDenied):
            raise not_found("api key", str(uid)) from None
        return found, await _owning(looking, account)
    if not (of_users and caller.allows(of_users)):
        raise not_found("api key", str(uid))
    return found, Owner(found.user_id, found.username)


def check_may_end(caller: Principal, uid: UUID) -> None:
    """Raises unless the caller has logged in, or uses the very key that is to be revoked.

    Raises:
        PermissionDenied: SESSION_NEEDED.
    """
    shown = caller.credential
    if not shown.is_login and (shown.kind != "api_key" or shown.id != str(uid)):
        raise PermissionDenied(
            "without a log-in, only the key in use may be revoked: log in to revoke others",
            reason="SESSION_NEEDED",
        )


async def revoke(transaction: Transaction, found: ApiKey) -> None:
    """Revokes a key that `locate` returned.

    Raises:
        NotFound: the key has ended in the meantime.
    """
    if not await api_keys.revoke(transaction, found.id):
        raise not_found("api key", found.uid)
    await grants.notify_changed(transaction)


async def own(transaction: ReadTransaction, caller: Principal) -> ApiKey | None:
    """Returns the key that the caller uses; None if the caller uses another credential."""
    if caller.credential.kind != "api_key":
        return None
    return await api_keys.find(transaction, UUID(caller.credential.id))


async def list_page(
    transaction: ReadTransaction, caller: Principal, username: str, page: PageRequest, *, everybody: bool
) -> tuple[Sequence[ApiKey], NextPage]:
    """Returns one page of valid keys, and where the next page begins.

    The keys are those of the caller, of the named user or service account, or of `everybody`.

    Raises:
        InvalidArgument: a name together with `everybody`.
        NotFound: the user or service account.
        PermissionDenied: `user.get` over all namespaces, or `service_account.list` in its namespace, is needed.
    """
    if everybody and username:
        raise invalid("username", "must be empty if all_users is set", reason="EXCLUSIVE")
    if everybody:
        _check_sees_others(caller)
        return await api_keys.list_keys(transaction, None, page)
    return await api_keys.list_keys(transaction, await _whose(transaction, caller, username), page)


async def _whose(transaction: ReadTransaction, caller: Principal, username: str) -> UserId:
    if not username or normalise_username(username) == normalise_username(caller.username):
        return UserId(caller.user_id)
    if is_service_account(username):
        return (await service_accounts.locate(transaction, caller, username, service_accounts.SEEING)).id
    _check_sees_others(caller)
    return (await users.locate(transaction, username)).id


def _check_sees_others(caller: Principal) -> None:
    if not caller.allows(SEEING_OTHERS):
        raise PermissionDenied(
            f"permission {SEEING_OTHERS} is needed to see others' keys",
            reason="PERMISSION_DENIED",
            metadata={"permission": SEEING_OTHERS},
        )


async def _owning(looking: ReadTransaction, account: ServiceAccount) -> Owner:
    held = await grants.held_by(looking, account.id, whatever_status=True)
    return Owner(account.id, account.username, account, held)


async def _insert(transaction: Transaction, owner: Owner, values: Mapping[str, object]) -> MadeKey:
    key = tokens.new_token(tokens.KEY_PREFIX)
    stored = await api_keys.insert_key(
        transaction,
        {
            **values,
            "user_id": owner.user_id,
            "account_namespace_id": None if owner.account is None else owner.account.namespace_id,
            "key_hash": tokens.token_hash(key),
            "prefix": tokens.shown_part(key),
        },
    )
    return MadeKey(stored, key)


def _limits(key: ApiKey) -> KeyLimits:
    return KeyLimits(
        permissions=frozenset(key.permissions) if key.permissions else None,
        namespaces=None if key.namespace_ids is None else key.kept_to,
        read_only=key.read_only,
    )


async def _check_covers(
    transaction: ReadTransaction, caller: Principal, owner: Owner, limits: KeyLimits, end: datetime
) -> None:
    """Raises unless the caller holds all permissions that a key of a service account would give, until the key ends."""
    given = [_until(grant, end) for grant in within(owner.held, limits)]
    await check_caller_covers(transaction, caller, given, f'service account "{owner.username}"')


def _until(grant: Grant, end: datetime) -> Grant:
    ends = end if grant.expires_at is None else min(end, grant.expires_at)
    return replace(grant, expires_at=ends)


def _lifetime(key: ApiKey) -> timedelta | None:
    """Returns the lifetime that a key was made with; None if unknown."""
    if key.created_at is None or key.expires_at is None:
        return None
    return key.expires_at - key.created_at


async def _namespaces(
    transaction: ReadTransaction, caller: Principal, names: Sequence[str]
) -> tuple[KeyNamespace, ...] | None:
    found = []
    for name in dict.fromkeys(names):
        number = await grants.find_namespace(transaction, name) if caller.reaches(name) else None
        if number is None:
            raise not_found("namespace", name)
        found.append(KeyNamespace(number, name))
    return tuple(found) if names else None


def _networks(given: Sequence[str]) -> list[str]:
    networks = []
    for place, each in enumerate(given):
        try:
            network = ipaddress.ip_network(each)
        except ValueError:
            raise invalid(
                f"allowed_networks[{place}]",
                "must be an IP address, or a network without host bits, such as 10.0.0.0/8",
                reason="NO_NETWORK",
            ) from None
        if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
            # IPv4 callers on an IPv6 socket are compared by their IPv4 address, so store the network as IPv4.
            low = int(network.network_address) & 0xFFFFFFFF
            network = ipaddress.IPv4Network((low, network.prefixlen - 96))
        networks.append(str(network))
    return list(dict.fromkeys(networks))
