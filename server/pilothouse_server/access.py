"""Who may do what: principals, their grants, and the one rule by which a permission is held.

A permission is `<noun>.<verb>`. A role holds permissions in the forms `<noun>.<verb>`, `<noun>.*` and `*`,
less the ones it excludes (only shipped roles exclude any, such as `config.reveal`). A grant gives a role to
a user in one namespace, or in all of them. Nothing is ever denied by a grant: what no grant holds is not
allowed.

What reaches beyond a namespace (`OVER_ALL_NAMESPACES`) no grant in one namespace gives, whatever its role names: else
who administers one would have the nodes that all tenants run on, or lift the limits that were set for it.

`Principal` is immutable and is built once per token and cached; everything here is pure computation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

# Whether the caller holds a permission, where the caller of a function knows the namespace.
May = Callable[[str], bool]

# What works only from a grant over all namespaces.
OVER_ALL_NAMESPACES: Final = frozenset(
    {"audit.hold", "container.privileged", "storage.host_path", "namespace.quota", "namespace.security"}
)
# So many answers whether something is allowed are kept for each principal.
_MOST_ANSWERS = 1000


def permission_matches(held: str, wanted: str) -> bool:
    """Whether the permission `held` of a role covers `wanted`, which may itself be a form such as
    `container.*`.
    """
    if held in ("*", wanted):
        return True
    return held.endswith(".*") and "." in wanted and wanted.split(".", 1)[0] == held[:-2]


@dataclass(frozen=True, slots=True)
class Grant:
    """A living grant: the role's permissions in `namespace`, or in every namespace where that is None.

    `id` is that of its row; 0 where it is only thought of.
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
        """What the grant does not give although its role may name it."""
        return self.excluded if self.namespace_id is None else self.excluded | OVER_ALL_NAMESPACES

    def holds(self, wanted: str) -> bool:
        """Whether this grant gives `wanted`.

        A wanted form (`container.*`, `*`) is given only where nothing that is left out falls inside it.
        """
        if any(
            permission_matches(wanted, excluded) or permission_matches(excluded, wanted)
            for excluded in self.left_out
        ):
            return False
        return any(permission_matches(held, wanted) for held in self.permissions)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller with the grants that live at the moment of loading."""

    user_id: int
    username: str
    grants: tuple[Grant, ...]
    session_id: UUID | None = None
    # Namespaces, of all tenants, whose Kubernetes namespace is somebody's: nothing is done in them.
    foreign_namespaces: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    # Permission -> namespaces; a watch asks for every event. Only where no grant expires.
    _namespaces: dict[str, frozenset[int] | None] = field(default_factory=dict, repr=False, compare=False)
    # (Permission, namespace) -> the grant that holds it; likewise.
    _granting: dict[tuple[str, str | None], Grant | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def allows(self, permission: str, namespace: str | None = None) -> bool:
        """Whether `permission` is held in `namespace`; None asks about all namespaces at once."""
        return self.granting(permission, namespace) is not None

    def granting(self, permission: str, namespace: str | None = None) -> Grant | None:
        """The first grant by which `permission` is held in `namespace`, or in all namespaces at once; None without one.

        Grants that expire between loading and asking are left out at once, so a cached principal never
        outlives them.
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
        """The first grant that holds `permission`, wherever it reaches."""
        return next((grant for grant in self.living_grants() if grant.holds(permission)), None)

    def reaches(self, namespace: str) -> bool:
        """Whether any grant, whatever it holds, lets the caller know that `namespace` exists."""
        return any(grant.namespace in (None, namespace) for grant in self.living_grants())

    def namespaces_with(self, permission: str) -> frozenset[int] | None:
        """Ids of the namespaces in which `permission` is held; None means every one."""
        if permission in self._namespaces:
            return self._namespaces[permission]
        living = self.living_grants()
        holding = {grant.namespace_id for grant in living if grant.holds(permission)}
        found = None if None in holding else frozenset(each for each in holding if each is not None)
        if living is self.grants:
            self._namespaces[permission] = found
        return found

    def living_grants(self) -> tuple[Grant, ...]:
        """The grants that have not expired by now."""
        if not any(grant.expires_at for grant in self.grants):
            # This very tuple: the answer of no other moment will differ.
            return self.grants
        now = datetime.now(UTC)
        return tuple(grant for grant in self.grants if grant.expires_at is None or grant.expires_at > now)
