"""The calls about permissions, compared with a model in this file.

The calls are CheckPermission, ExplainPermission, ListPrincipals and SimulateGrant. The model reads the
protos' declarations, the roles' permission patterns and the grants' rows, and no code of the server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import permissions_pb2 as permissions
from pilothouse.options.v1 import options_pb2 as options
from tests.conftest import connection
from tests.identity.server import KNOWN, Caller, IdentityServer
from tests.services import METHODS

# The permissions that docs/security.md lists.
_GUARDS = {
    "audit.hold",
    "container.privileged",
    "object.privileged",
    "object.rbac",
    "storage.host_path",
    "namespace.quota",
    "namespace.security",
}
_SCOPES: dict[str, set[int]] = {}
for _method in METHODS:
    _rule = _method.GetOptions().Extensions[options.method]
    _SCOPES.setdefault(_rule.permission, set()).add(_rule.scope)
_PLATFORM_ONLY = _GUARDS | {
    permission for permission, scopes in _SCOPES.items() if scopes == {options.SCOPE_PLATFORM}
}
_EXCLUDED = {
    "admin": set(),
    "operator": {
        "config.reveal",
        "storage.host_path",
        "container.privileged",
        "object.privileged",
        "object.rbac",
    },
    "developer": {
        "config.reveal",
        "storage.host_path",
        "container.privileged",
        "object.privileged",
        "object.rbac",
    },
}
_PLACES = ("", "here", "there")
_NOUNS = sorted({permission.partition(".")[0] for permission in KNOWN})
_FORMS = ["*", *(f"{noun}.*" for noun in _NOUNS), *sorted(KNOWN)]
_NOW = datetime.now(UTC).replace(microsecond=0)
_NEVER = datetime.max.replace(tzinfo=UTC)
_ENDS = (_NEVER, _NOW + timedelta(days=10), _NOW + timedelta(days=20))
_numbers = count(1)


@dataclass(frozen=True)
class _Role:
    """A shipped role if it has a name, otherwise a role made for the example."""

    shipped: str = ""
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    role: int
    place: str
    ends: datetime


@dataclass(frozen=True)
class _Environment:
    roles: tuple[_Role, ...]
    grants: tuple[_Given, ...]
    wanted: _Given
    forms: tuple[str, ...]


_places = st.sampled_from(_PLACES)
_roles = st.tuples(
    *[
        st.sampled_from(sorted(_EXCLUDED)).map(_Role)
        | st.lists(st.sampled_from(_FORMS), min_size=1, max_size=4, unique=True).map(
            lambda forms: _Role(forms=tuple(forms))
        )
        for _ in range(3)
    ]
)
_given = st.builds(_Given, st.integers(0, 2), _places, st.sampled_from(_ENDS))
_environments = st.builds(
    _Environment,
    _roles,
    st.lists(_given, max_size=4, unique_by=lambda each: (each.role, each.place)).map(tuple),
    _given,
    st.lists(st.sampled_from(_FORMS), min_size=2, max_size=4, unique=True).map(tuple),
)


class _Model:
    """Computes permissions from the grants of one user."""

    def __init__(self, forms: dict[int, tuple[str, ...]], excluded: dict[int, set[str]]) -> None:
        self._forms = forms
        self._excluded = excluded

    def holding(self, grants: tuple[_Given, ...], permission: str, place: str) -> list[_Given]:
        """Returns the grants that give a permission in a namespace.

        '' as `place` stands for all namespaces.
        """
        noun = permission.partition(".")[0]
        return [
            each
            for each in grants
            if {permission, f"{noun}.*", "*"} & set(self._forms[each.role])
            and permission not in self._excluded[each.role]
            and (each.place == "" or (each.place == place and permission not in _PLATFORM_ONLY))
        ]

    def ends(self, grants: tuple[_Given, ...], permission: str, place: str) -> datetime | None:
        """Returns when a permission ends in a namespace, or None if it is not held."""
        return max((each.ends for each in self.holding(grants, permission, place)), default=None)

    def change(
        self, before: tuple[_Given, ...], after: tuple[_Given, ...], place: str
    ) -> tuple[list[str], list[str], list[str]]:
        """Returns the gained, extended and shortened permissions in a namespace."""
        gained, extended, shortened = [], [], []
        for permission in sorted(KNOWN):
            was, becomes = self.ends(before, permission, place), self.ends(after, permission, place)
            if was is None and becomes is not None:
                gained.append(permission)
            elif was is not None and becomes is not None and becomes > was:
                extended.append(permission)
            elif was is not None and becomes is not None and becomes < was:
                shortened.append(permission)
        return gained, extended, shortened


def _covered(form: str) -> list[str]:
    """Returns the permissions that a pattern covers."""
    if form in KNOWN:
        return [form]
    return sorted(each for each in KNOWN if form == "*" or each.startswith(form.removesuffix("*")))


async def _put(
    sql: asyncpg.Connection, environment: _Environment, username: str, namespaces: dict[str, int | None]
) -> dict[int, str]:
    """Writes an example's roles, user and grants; returns the names of the roles."""
    names = {}
    for place, role in enumerate(environment.roles):
        names[place] = role.shipped or f"{username}-{place}"
        if not role.shipped:
            await sql.execute(
                "INSERT INTO roles (name, display_name, permissions) VALUES ($1, $1, $2)",
                names[place],
                json.dumps(role.forms),
            )
    user_id = await sql.fetchval(
        "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash) "
        "VALUES ($1, $1, $1, $1, '!') RETURNING id",
        username,
    )
    for grant in _distinct(environment):
        await sql.execute(
            "INSERT INTO user_roles (user_id, role_id, namespace_id, expires_at) "
            "SELECT $1, id, $3, $4 FROM roles WHERE name = $2",
            user_id,
            names[grant.role],
            namespaces[grant.place],
            None if grant.ends is _NEVER else grant.ends,
        )
    return names


def _distinct(environment: _Environment) -> tuple[_Given, ...]:
    """Returns one grant for each role and namespace.

    Two of the roles may be the same shipped role.
    """
    found = {}
    for grant in environment.grants:
        shipped = environment.roles[grant.role].shipped
        found[shipped or grant.role, grant.place] = grant
    return tuple(found.values())


def _model(environment: _Environment) -> _Model:
    shipped_forms = {"admin": ("*",), **_SHIPPED}
    return _Model(
        {place: shipped_forms.get(role.shipped, role.forms) for place, role in enumerate(environment.roles)},
        {place: _EXCLUDED.get(role.shipped, set()) for place, role in enumerate(environment.roles)},
    )


_SHIPPED: dict[str, tuple[str, ...]] = {}


async def _read_shipped(root: Caller) -> None:
    if not _SHIPPED:
        for name in ("operator", "developer"):
            role = (await root.GetRole(pb.GetRoleRequest(name=name))).role
            assert set(role.excluded_permissions) == _EXCLUDED[name]
            _SHIPPED[name] = tuple(role.permissions)


async def _namespaces(shared: IdentityServer) -> dict[str, int | None]:
    async with connection(shared.database.admin_dsn) as sql:
        found = {row["name"]: row["id"] for row in await sql.fetch("SELECT id, name FROM namespaces")}
    for name in _PLACES[1:]:
        if name not in found:
            found[name] = await shared.namespace(name)
    return {"": None, **found}


@pytest.mark.full
# Shrinking a failure takes minutes, because each example sends dozens of calls to the server.
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(environment=_environments)
async def test_the_four_calls_agree_with_the_model(
    shared: IdentityServer, root: Caller, environment: _Environment
) -> None:
    """Regression: a grant in one namespace seemed to give platform permissions.

    SimulateGrant reported `user.create` and `cluster.get` as gained.
    """
    await _read_shipped(root)
    namespaces = await _namespaces(shared)
    username = f"model{next(_numbers)}"
    async with connection(shared.database.admin_dsn) as sql:
        names = await _put(sql, environment, username, namespaces)
    model, grants = _model(environment), _distinct(environment)
    for place in _PLACES:
        for form in environment.forms:
            held = all(model.holding(grants, each, place) for each in _covered(form))
            checked = await root.CheckPermission(
                pb.CheckPermissionRequest(permission=form, namespace=place, username=username)
            )
            assert checked.allowed == held, (form, place)
            for permission in _covered(form)[:1]:
                await _asked_one(root, model, grants, names, (username, permission, place))
    await _simulated(root, environment, model, names, username)


async def _asked_one(
    root: Caller,
    model: _Model,
    grants: tuple[_Given, ...],
    names: dict[int, str],
    asked: tuple[str, str, str],
) -> None:
    username, permission, place = asked
    holding = {(names[each.role], each.place) for each in model.holding(grants, permission, place)}
    explained = await root.ExplainPermission(
        permissions.ExplainPermissionRequest(permission=permission, namespace=place, username=username)
    )
    assert explained.allowed == bool(holding), asked
    if holding:
        assert {(each.role, each.namespace) for each in explained.grants} == holding, asked
    listed = await root.ListPrincipals(
        permissions.ListPrincipalsRequest(
            permission=permission, namespace=place, filter=f'username = "{username}"'
        )
    )
    # Without a namespace, ListPrincipals lists the holders in any namespace.
    anywhere = {
        (names[each.role], each.place) for at in _PLACES for each in model.holding(grants, permission, at)
    }
    expected = holding if place else anywhere
    assert {(each.role, each.namespace) for each in listed.principals} == expected, asked


async def _simulated(
    root: Caller, environment: _Environment, model: _Model, names: dict[int, str], username: str
) -> None:
    wanted, before = environment.wanted, _distinct(environment)
    same = [each for each in before if (names[each.role], each.place) == (names[wanted.role], wanted.place)]
    after = (*(each for each in before if each not in same), wanted)
    request = permissions.SimulateGrantRequest(
        username=username, role=names[wanted.role], namespace=wanted.place
    )
    if wanted.ends is not _NEVER:
        request.expire_time.CopyFrom(_stamp(wanted.ends))
    answer = await root.SimulateGrant(request)
    assert answer.granted_already == bool(same)
    told = {change.namespace: change for change in answer.changes}
    for place in _PLACES:
        change = (
            told.get(place) or (told.get("") if wanted.place == "" else None) or permissions.GrantChange()
        )
        said = (list(change.gained), list(change.extended), list(change.shortened))
        assert said == model.change(before, after, place), place


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


async def test_a_grant_in_one_namespace_gains_no_platform_permission(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("cafe")
    await shared.user(root, "ada", log_in=False)
    answer = await root.SimulateGrant(
        permissions.SimulateGrantRequest(username="ada", role="admin", namespace="cafe")
    )
    (change,) = answer.changes
    assert set(change.gained) == KNOWN - _PLATFORM_ONLY
    for permission in ("user.create", "cluster.get", "namespace.create", "role.update"):
        assert permission in KNOWN
        assert permission not in change.gained
