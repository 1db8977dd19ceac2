"""Principals and their grants, and the one rule that decides whether a permission is held.

A permission is `<noun>.<verb>`. A role holds permissions in the forms `<noun>.<verb>`, `<noun>.*` and `*`, except the
permissions that it excludes (only shipped roles exclude any, such as `config.reveal`). A grant gives a role to a user
in one namespace, or in all of them. A grant never denies anything: a permission that no grant holds is not allowed.

A grant in one namespace never gives a permission with effects outside that namespace (`OVER_ALL_NAMESPACES`), even if
its role names that permission. Otherwise an administrator of one namespace would control the nodes that all tenants run
on, or lift the limits that were set for that namespace.

An API key gives no more than it was made for, and no more than its owner holds: `within` returns the intersection. The
principal of a caller with a key holds only that intersection, so code that checks permissions need not treat keys
specially. The key's limits are in the principal's `credential`.

`Principal` is immutable, built once per token, and cached. Everything here is pure computation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal
from uuid import UUID

# Returns whether the caller holds a permission in a namespace that is already chosen.
May = Callable[[str], bool]

# Permissions that work only from a grant over all namespaces.
OVER_ALL_NAMESPACES: Final = frozenset(
    {
        "audit.hold",
        "cluster.orphans",
        "container.privileged",
        "object.privileged",
        "object.rbac",
        "storage.host_path",
        "namespace.quota",
        "namespace.security",
    }
)
# The permission to see values of secrets. A read-only API key does not give it.
REVEAL: Final = "config.reveal"
CredentialKind = Literal["session", "api_key", "certificate"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The `method` of a session that a program received in a token exchange: nobody logged in.
EXCHANGED: Final = "token_exchange"
# The maximum number of cached decisions per principal.
_MOST_ANSWERS = 1000


def permission_matches(held: str, wanted: str) -> bool:
    """Returns whether the permission `held` of a role covers `wanted`.

    `wanted` may itself be a form such as `container.*`.
    """
    if held in ("*", wanted):
        return True
    return held.endswith(".*") and "." in wanted and wanted.split(".", 1)[0] == held[:-2]


@dataclass(frozen=True, slots=True)
class Grant:
    """A valid grant: the role's permissions in `namespace`, or in every namespace if that is None.

    `id` is the id of its row; 0 for a grant that is not stored, such as a simulated one.
    """

    role: str
    namespace: str | None
    namespace_id: int | None
    permissions: frozenset[str]
    excluded: frozenset[str] = frozenset()
    expires_at: datetime | None = None
    id: int = 0

    @property
    def left_out(self) -> frozenset[str]:
        """The permissions that the grant does not give although its role may name them."""
        return self.excluded if self.namespace_id is None else self.excluded | OVER_ALL_NAMESPACES

    def holds(self, wanted: str) -> bool:
        """Returns whether this grant gives `wanted`.

        A grant gives a form (`container.*`, `*`) only if the form covers none of the permissions that are left out.
        """
        if any(
            permission_matches(wanted, excluded) or permission_matches(excluded, wanted)
            for excluded in self.left_out
        ):
            return False
        return any(permission_matches(held, wanted) for held in self.permissions)


@dataclass(frozen=True, slots=True)
class KeyNamespace:
    """An existing namespace that a key was made for."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits that an API key was made with.

    None in `permissions` or `namespaces` means no limit; an empty set gives nothing. `owner_grants` are the grants that
    its owner holds without the key. They give nothing and serve only to explain a refusal.
    """

    permissions: frozenset[str] | None = None
    namespaces: tuple[KeyNamespace, ...] | None = None
    read_only: bool = False
    owner_grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Credential:
    """The caller's credential: a session's token, an API key or a certificate.

    `id` is the id of its row, and `name` the name that its owner gave it; `method` is how a session began. If
    `networks` is not empty, the credential is refused from an address outside these networks.
    """

    kind: CredentialKind = "session"
    id: str = ""
    name: str = ""
    method: str = ""
    limits: KeyLimits | None = None
    networks: tuple[Network, ...] = ()

    @property
    def is_login(self) -> bool:
        """Whether a person has logged in. A person may manage passwords, keys and sessions."""
        return self.kind == "session" and self.method != EXCHANGED

    @property
    def read_only(self) -> bool:
        """Returns whether the credential only permits reading, even if its owner may do more."""
        return self.limits is not None and self.limits.read_only

    def admits(self, address: str) -> bool:
        """Returns whether the credential is accepted from this address.

        A peer without an address, such as `unix`, is in no network.
        """
        if not self.networks:
            return True
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)


_A_SESSION: Final = Credential()


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller with the grants that were valid when the principal was loaded.

    For a caller with a key, the grants contain only permissions that both the key and its owner give.
    """

    user_id: int
    username: str
    grants: tuple[Grant, ...]
    session_id: UUID | None = None
    credential: Credential = _A_SESSION
    # Namespaces of all tenants whose Kubernetes namespace belongs to another owner: the server changes nothing there.
    foreign_namespaces: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    # Cache of permission -> namespace ids, which a watch reads for every event. Filled only if no grant expires.
    _namespaces: dict[str, frozenset[int] | None] = field(default_factory=dict, repr=False, compare=False)
    # Cache of (permission, namespace) -> the grant that holds it. Filled only if no grant expires.
    _granting: dict[tuple[str, str | None], Grant | None] = field(
        default_factory=dict, repr=False, compare=False
    )
    # The namespaces of the grants; None in the set stands for all namespaces. The field itself is None if a grant
    # expires; then the set is computed at each use.
    _reached: frozenset[str | None] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expires = any(grant.expires_at for grant in self.grants)
        reached = None if expires else frozenset(grant.namespace for grant in self.grants)
        object.__setattr__(self, "_reached", reached)

    @property
    def narrowed(self) -> bool:
        """Whether a key limits the caller to some namespaces, and so hides the user's own records elsewhere."""
        limits = self.credential.limits
        return limits is not None and limits.namespaces is not None

    def allows(self, permission: str, namespace: str | None = None) -> bool:
        """Returns whether `permission` is held in `namespace`; None means over all namespaces."""
        return self.granting(permission, namespace) is not None

    def granting(self, permission: str, namespace: str | None = None) -> Grant | None:
        """Returns the first grant that gives `permission` in `namespace`; None if no grant does.

        `namespace` None means over all namespaces. Grants that expire after loading are ignored immediately, so a
        cached principal never outlives them.
        """
        key = (permission, namespace)
        if key in self._granting:
            return self._granting[key]
        living = self.living_grants()
        found = next(
            (
                grant
                for grant in living
                if (grant.namespace is None or (namespace is not None and grant.namespace == namespace))
                and grant.holds(permission)
            ),
            None,
        )
        if living is self.grants and len(self._granting) < _MOST_ANSWERS:
            self._granting[key] = found
        return found

    def granting_somewhere(self, permission: str) -> Grant | None:
        """Returns the first grant that holds `permission`, in any namespace; None if no grant does."""
        return next((grant for grant in self.living_grants() if grant.holds(permission)), None)

    def reaches(self, namespace: str) -> bool:
        """Returns whether the caller may know that `namespace` exists: any grant there suffices."""
        reached = self._reached
        if reached is None:
            reached = frozenset(grant.namespace for grant in self.living_grants())
        return namespace in reached or None in reached

    def namespaces_with(self, permission: str) -> frozenset[int] | None:
        """Returns the ids of the namespaces in which `permission` is held; None means every namespace."""
        if permission in self._namespaces:
            return self._namespaces[permission]
        living = self.living_grants()
        holding = {grant.namespace_id for grant in living if grant.holds(permission)}
        found = None if None in holding else frozenset(each for each in holding if each is not None)
        if living is self.grants:
            self._namespaces[permission] = found
        return found

    def living_grants(self) -> tuple[Grant, ...]:
        """Returns the grants that have not expired by now."""
        if self._reached is not None:
            # No grant expires. `granting` and `namespaces_with` cache a result only if they get this same tuple.
            return self.grants
        now = datetime.now(UTC)
        return tuple(grant for grant in self.grants if grant.expires_at is None or grant.expires_at > now)


def meet(one: str, other: str) -> str | None:
    """Returns the intersection of two forms, such as `pod.get` for `pod.*` and `pod.get`; None if it is empty."""
    if permission_matches(one, other):
        return other
    return one if permission_matches(other, one) else None


def within(grants: Iterable[Grant], limits: KeyLimits) -> tuple[Grant, ...]:
    """Returns the intersection of the owner's grants and an API key's limits.

    Permissions that a grant leaves out stay left out. If the key is limited to namespaces, a grant over all namespaces
    becomes one grant for each of them, and so loses the permissions that work only over all namespaces.
    """
    return tuple(
        replace(grant, namespace=name, namespace_id=namespace_id, permissions=permissions)
        for grant in grants
        if (permissions := _permissions_within(grant.permissions, limits.permissions))
        for name, namespace_id in _namespaces_within(grant, limits.namespaces)
    )


def _permissions_within(held: frozenset[str], limit: frozenset[str] | None) -> frozenset[str]:
    if limit is None:
        return held
    return frozenset(form for one in held for other in limit if (form := meet(one, other)) is not None)


def _namespaces_within(
    grant: Grant, limit: tuple[KeyNamespace, ...] | None
) -> list[tuple[str | None, int | None]]:
    if limit is None:
        return [(grant.namespace, grant.namespace_id)]
    return [(each.name, each.id) for each in limit if grant.namespace_id in (None, each.id)]


@lru_cache(maxsize=4096)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
