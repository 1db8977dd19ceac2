"""Promise 4: every RPC × every role × {own, foreign, gone, missing}.

A call in a namespace that a caller does not reach ends exactly like a call in one that does not exist: same
code, message and trailing metadata. The same holds for questions about permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.authorization.access import Principal
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.rpc.method_rules import Rule
from tests.conftest import Database, new_database
from tests.gateway.callers import by_http
from tests.identity.replica import by_exchanged_token
from tests.promises.calling import Outcome, put
from tests.promises.environment import FOREIGN, GONE, MISSING, ROLES, Environment, prepare, quiet_environment
from tests.promises.requests import OWN, request_for
from tests.tls.replica import by_certificate
from tests.waiting import patient, runs_out

# The table of roles in docs/security.md, written out again: the permissions of each role, and the exceptions
# from its patterns.
_READS = ("get", "list", "watch", "query")
_HELD: dict[str, tuple[str, ...]] = {
    "operator": (
        *(
            "container.*",
            "storage.*",
            "service.*",
            "object.*",
            "application.*",
            "config.*",
            "metrics.*",
            "cluster.get",
            "cluster.list",
        ),
        *(f"namespace.{verb}" for verb in ("get", "list", "watch", "update", "create", "delete")),
        *(f"audit.{verb}" for verb in _READS),
    ),
    "developer": (
        *("container.*", "storage.*", "service.*", "object.*", "application.*", "config.*"),
        *(f"{noun}.{verb}" for noun in ("namespace", "metrics", "audit") for verb in _READS),
    ),
}
# The permissions of these roles beyond reading.
_ADDED: dict[str, set[str]] = {
    "viewer": set(),
    "responder": {
        f"container.{verb}"
        for verb in ("logs", "start", "stop", "pause", "resume", "restart", "run", "scale")
    },
}
_NOT_HELD = {"operator": {"config.reveal"}, "developer": {"config.reveal"}}
# The roles that are tried for callers of the HTTP gateway, and for those known by a certificate or an exchanged
# token.
_SOME = ("developer",)
# Attempts of a call that is refused with TOO_MANY_CALLS.
_TRIES = 10
# The counts of these RPCs cannot be separated by namespace.
_NOT_BY_A_NARROWED_KEY = ("GetUserOperationStats",)


def _not_over_all(rule: Rule) -> bool:
    return rule.name not in _NOT_BY_A_NARROWED_KEY


# Callers by API key: the caller whose permissions they have left, and the RPCs that the key allows.
BY_KEY: dict[str, tuple[str, Callable[[Rule], bool]]] = {
    "admin of own by key": ("admin of own", lambda _: True),
    "admin of own by a key of all": ("admin of own", _not_over_all),
    "operator of own by a key of all": ("operator of own", _not_over_all),
    "admin of own as an account": ("admin of own", lambda _: True),
    "viewer of all by a key of an admin": ("viewer of all", lambda _: True),
    # SimulateGrant needs the same permissions as the grant itself.
    "admin of all by a reading key": (
        "admin of all",
        lambda rule: rule.only_reads and rule.name != "SimulateGrant",
    ),
}
# Roles that run or see containers may read images; users and roles belong to administrators.
_VIEWED = {
    "container",
    "image",
    "storage",
    "service",
    "object",
    "application",
    "config",
    "namespace",
    "metrics",
    "audit",
}


def holds(role: str, permission: str) -> bool:
    """Returns whether a shipped role has a permission."""
    if role == "admin":
        return True
    noun, verb = permission.split(".")
    if noun in _VIEWED and noun == "image":
        return verb in _READS
    if role in _ADDED:
        return (noun in _VIEWED and verb in _READS) or permission in _ADDED[role]
    if permission in _NOT_HELD[role]:
        return False
    return permission in _HELD[role] or f"{noun}.*" in _HELD[role]


def by_key(environment: Environment) -> dict[str, tuple[str, Callable[[Rule], bool]]]:
    """Returns the callers by API key, or none if the environment has none."""
    return BY_KEY if any(caller in environment.callers for caller in BY_KEY) else {}


def namespace_path(rule: Rule) -> str:
    """Returns the field in which a request names its namespace, or ''."""
    return rule.namespace_field


def refused_for_lack_of_permission(outcome: Outcome) -> bool:
    """Returns whether the caller reached the resource but lacks the permission."""
    return outcome.code == "PERMISSION_DENIED"


async def tried(
    environment: Environment, caller: str, rule: Rule, namespace: str = "", *, allowed: bool = False
) -> Outcome:
    """Returns the outcome of the RPC for a caller.

    The call is in `namespace` if it is given. A stream that the caller may read can be silent: with `allowed`
    it gets a short deadline. On a slow machine, more concurrent calls of a caller run than its share allows.
    The calls that are refused for that reason are repeated.
    """
    request = environment.request(rule)
    if namespace:
        put(request, namespace_path(rule), namespace)
    if rule.has_validate_only:
        request.validate_only = True
    # A refusal has a long deadline, because the machine may be slow.
    seconds = 1.0 if rule.streams and allowed else 30.0
    tries = _TRIES
    while True:
        outcome = await environment.callers[caller].invoke(rule, request, timeout=patient(seconds))
        tries -= 1
        if outcome.reason != "TOO_MANY_CALLS" or not tries:
            return outcome


async def gathered(work: Collection[Any]) -> list[Any]:
    """Returns the results of calls, of which 32 run concurrently."""
    limit = asyncio.Semaphore(32)

    async def one(item: Any) -> Any:
        async with limit:
            return await item

    return await asyncio.gather(*(one(item) for item in work))


def permitted_rules(environment: Environment) -> list[Rule]:
    """Returns the RPCs that need a permission."""
    return [rule for rule in environment.rules.values() if rule.access == options.ACCESS_PERMISSION]


async def told_apart(
    environment: Environment, rules: Collection[Rule], roles: Sequence[str] = ROLES
) -> list[str]:
    """Returns the calls that distinguish a foreign from a missing namespace.

    A deleted namespace must not be distinguishable either.
    """

    async def look(caller: str, rule: Rule) -> list[str]:
        missing, *others = [await tried(environment, caller, rule, name) for name in (MISSING, FOREIGN, GONE)]
        found = []
        for name, outcome in zip((FOREIGN, GONE), others, strict=True):
            if _with_name(outcome.shown, name, MISSING) != missing.shown:
                found.append(f"{caller} {rule.name} {name}: {outcome.code} {outcome.message}")
        return found

    callers = [f"{role} of own" for role in roles] + ["nobody"]
    callers += [caller for caller, (as_whom, _) in by_key(environment).items() if as_whom.endswith(" of own")]
    scoped = [rule for rule in rules if namespace_path(rule)]
    results = await gathered([look(caller, rule) for caller in callers for rule in scoped])
    return [fault for faults in results for fault in faults]


def _with_name(shown: Any, name: str, instead: str) -> Any:
    """Returns a response with the name of a namespace replaced everywhere."""
    if isinstance(shown, tuple):
        return tuple(_with_name(part, name, instead) for part in shown)
    if isinstance(shown, bytes):
        return shown.replace(name.encode(), instead.encode())
    return shown.replace(name, instead)


async def wrongly_allowed_or_refused(
    environment: Environment, rules: Collection[Rule], roles: Sequence[str] = ROLES
) -> list[str]:
    """Returns the deviations of a role's permissions from the table."""
    expected: list[tuple[str, Rule, bool]] = []
    for rule in rules:
        scoped = bool(namespace_path(rule))
        for role in roles:
            held = holds(role, rule.permission)
            anywhere = rule.scope == options.SCOPE_ANY
            expected.append((f"{role} of all", rule, held))
            expected.append((f"{role} of own", rule, held and (scoped or anywhere)))
        expected.append(("nobody", rule, False))
        as_others = {caller: allowed for caller, of_rule, allowed in expected if of_rule is rule}
        for caller, (as_whom, may) in by_key(environment).items():
            expected.append((caller, rule, as_others[as_whom] and may(rule) and not rule.session_only))
    # The calls are sorted by caller, so that few calls of one method run concurrently: some methods have a
    # bound.
    expected.sort(key=itemgetter(0))
    outcomes = await gathered(
        [tried(environment, caller, rule, allowed=allowed) for caller, rule, allowed in expected]
    )
    faults = []
    for (caller, rule, allowed), outcome in zip(expected, outcomes, strict=True):
        refused = refused_for_lack_of_permission(outcome) or (
            caller == "nobody" and outcome.code == "NOT_FOUND" and bool(namespace_path(rule))
        )
        if refused == allowed:
            faults.append(f"{caller} {rule.name}: {outcome.code} {outcome.message}")
    return faults


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenants_environment(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    """Yields the environment with users of every role.

    The tests of this module do not change it.
    """
    with pytest.MonkeyPatch.context() as patching:
        async with (
            new_database(postgres, template_database.name) as database,
            quiet_environment(
                database,
                tmp_path_factory.mktemp("tenants"),
                patching,
                http_listen="127.0.0.1:0",
                # The callers log in once for all tests of the module.
                session_access_seconds=86400,
            ) as made,
        ):
            await prepare(made, tenants=True)
            yield made


async def test_tenants_cannot_distinguish_a_foreign_from_a_missing_namespace(
    tenants_environment: Environment,
) -> None:
    assert await told_apart(tenants_environment, permitted_rules(tenants_environment)) == []


@pytest.mark.full
async def test_a_server_that_tells_them_apart_is_found(
    tenants_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Principal, "reaches", lambda _self, namespace: namespace != MISSING)
    rules = [tenants_environment.rule("GetContainer")]
    faults = await told_apart(tenants_environment, rules)
    assert any(
        fault.startswith(f"viewer of own GetContainer {FOREIGN}: PERMISSION_DENIED") for fault in faults
    )


@pytest.mark.parametrize("part", range(3))
async def test_roles_have_the_permissions_of_the_table(tenants_environment: Environment, part: int) -> None:
    """Checks a third of the RPCs, which needs more than two thousand calls.

    Each third has the time limit of a test.
    """
    assert (
        await wrongly_allowed_or_refused(tenants_environment, permitted_rules(tenants_environment)[part::3])
        == []
    )


@pytest.mark.parametrize("part", [6, pytest.param(1, marks=pytest.mark.full)])
async def test_the_http_gateway_applies_the_same_rules(tenants_environment: Environment, part: int) -> None:
    async with by_http(tenants_environment, without=BY_KEY) as environment:
        # The gateway does not offer PortForward, because a browser cannot open a socket on its machine.
        rules = [rule for rule in permitted_rules(environment) if rule.name != "PortForward"][::part]
        assert await told_apart(environment, rules, _SOME) == []
        assert await wrongly_allowed_or_refused(environment, rules, _SOME) == []


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize("known_by", [by_certificate, by_exchanged_token])
async def test_callers_without_a_login_reach_exactly_what_their_user_reaches(
    tenants_environment: Environment,
    tmp_path: Path,
    known_by: Callable[..., AbstractAsyncContextManager[Environment]],
) -> None:
    async with known_by(tenants_environment, tmp_path) as environment:
        rules = [rule for rule in permitted_rules(environment) if not rule.session_only]
        # The other tests check each role. A role with some of the permissions suffices to show whose
        # permissions these callers have.
        assert await told_apart(environment, rules, _SOME) == []
        assert await wrongly_allowed_or_refused(environment, rules, _SOME) == []
        looked_after = [rule for rule in environment.rules.values() if rule.session_only]
        assert len(looked_after) > 5
        for rule in looked_after:
            outcome = await tried(environment, "admin of all", rule)
            assert (outcome.code, outcome.reason) == ("PERMISSION_DENIED", "SESSION_NEEDED"), rule.name


@pytest.mark.full
async def test_a_role_that_may_too_much_is_found(
    tenants_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Principal, "granting", lambda self, *_arguments: self.grants[0])
    faults = await wrongly_allowed_or_refused(
        tenants_environment, [tenants_environment.rule("CreateContainer")]
    )
    assert any(fault.startswith("viewer of own CreateContainer: OK") for fault in faults)


async def test_missing_resources_in_the_own_namespace_return_not_found(
    tenants_environment: Environment,
) -> None:
    asked = 0
    for rule in permitted_rules(tenants_environment):
        request = tenants_environment.request(rule)
        if not namespace_path(rule) or not hasattr(request, "name") or namespace_path(rule) == "name":
            continue
        if rule.action == "apply":
            # This call would create an application that does not exist.
            continue
        request.name = "nothing"
        outcome = await tenants_environment.callers["admin of own"].invoke(rule, request)
        if rule.shape == "unary_unary":
            assert (outcome.code, outcome.reason.endswith("_NOT_FOUND")) == ("NOT_FOUND", True), rule.name
            asked += 1
    assert asked > 20


_ASKED = ("container.get", "config.reveal", "namespace.quota", "user.get", "grant.create", "role.list")
_METHODS = ("GetContainer", "RevealSecret", "GrantRole", "ListContainers", "DeleteNamespace", "CreateUser")


def _questions(namespace: str) -> list[tuple[str, dict[str, Any]]]:
    permissions = [{"permission": permission, "namespace": namespace} for permission in _ASKED]
    methods = [{"method": method, "namespace": namespace} for method in _METHODS]
    return [
        *(("CheckPermission", fields) for fields in permissions),
        *(("ExplainPermission", fields) for fields in (*permissions, *methods)),
        ("ExplainPermissions", {"questions": [*permissions, *methods]}),
    ]


async def _heard(environment: Environment, caller: str, namespace: str) -> list[Any]:
    """Returns the answers to all questions about a namespace.

    The namespace's name is replaced in them.
    """

    def told(outcome: Outcome) -> Any:
        body = b"".join(answer.SerializeToString(deterministic=True) for answer in outcome.answers)
        return (
            outcome.code,
            outcome.message.replace(namespace, MISSING),
            body.replace(namespace.encode(), MISSING.encode()),
        )

    found = []
    for method, fields in _questions(namespace):
        rule = environment.rule(method)
        outcome = await environment.callers[caller].invoke(rule, request_for(rule, fields))
        assert outcome.code == "OK", (method, fields, outcome.message)
        found.append((method, fields.get("permission") or fields.get("method"), told(outcome)))
    return found


async def answered_apart(environment: Environment) -> list[str]:
    """Returns the answers that distinguish a foreign from a missing namespace.

    A deleted namespace must not be distinguishable either.
    """
    faults = []
    for caller in [*(f"{role} of own" for role in ROLES), "admin of own by a key of all", "nobody"]:
        missing = await _heard(environment, caller, MISSING)
        for name in (FOREIGN, GONE):
            heard = await _heard(environment, caller, name)
            faults += [
                f"{caller} {name}: {one} != {other}"
                for one, other in zip(heard, missing, strict=True)
                if one != other
            ]
    return faults


async def test_permission_questions_do_not_reveal_a_foreign_namespace(
    tenants_environment: Environment,
) -> None:
    assert await answered_apart(tenants_environment) == []


@pytest.mark.full
async def test_a_server_whose_answers_tell_them_apart_is_found(
    tenants_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Principal.living_grants

    def too_many(principal: Principal) -> Any:
        grants = real(principal)
        return (*grants, *(type(grant)(grant.role, FOREIGN, 999, grant.permissions) for grant in grants))

    monkeypatch.setattr(Principal, "living_grants", too_many)
    assert any("ExplainPermission" in fault for fault in await answered_apart(tenants_environment))


async def test_a_refusal_names_only_users_that_the_caller_may_see(
    tenants_environment: Environment,
) -> None:
    """A refusal names only users of the caller's namespace who can grant it.

    It names neither other tenants nor the platform's own users.
    """
    outcome = await tenants_environment.call(
        "DeleteContainer", {"namespace": OWN, "name": "web"}, tenants_environment.callers["viewer of own"]
    )
    assert outcome.code == "PERMISSION_DENIED"
    assert "own-admin" in outcome.message
    assert "all-" not in outcome.message
    nobody = await tenants_environment.call("ListUsers", {}, tenants_environment.callers["nobody"])
    assert nobody.message == "permission user.list is needed (you have no grant over all namespaces)"


async def heard_of(environment: Environment, caller: str, name: str, *, watched: float) -> list[str]:
    """Returns the reading RPCs whose responses to the caller contain `name`.

    Streams are read for `watched` seconds.
    """

    async def ask(rule: Rule) -> list[str]:
        request = environment.request(rule)
        path = namespace_path(rule)
        if path and not rule.in_one_namespace:
            put(request, path, "")
        if rule.has_page_size:
            request.page_size = 1000
        outcome = await environment.callers[caller].invoke(
            rule, request, most=200, timeout=watched if rule.streams else patient(30.0)
        )
        told = b"".join(answer.SerializeToString() for answer in outcome.answers)
        return [rule.name] if name.encode() in told + outcome.message.encode() else []

    reads = [rule for rule in environment.rules.values() if rule.only_reads and not rule.public]
    return [name for found in await gathered([ask(rule) for rule in reads]) for name in found]


@pytest.mark.full(minutes=10)
async def test_a_caller_of_one_namespace_never_sees_the_name_of_another(
    tenants_environment: Environment,
) -> None:
    async with tenants_environment.sql() as sql:
        # The summaries are those of the last hourly refresh.
        await sql.execute("REFRESH MATERIALIZED VIEW container_summary")
    # A caller's own records contain the names that the caller has requested.
    own_words = {"ListOperations", "ExportAuditLog", "WatchOperations"}
    assert (
        set(await heard_of(tenants_environment, "admin of own", FOREIGN, watched=runs_out(1.5))) <= own_words
    )
    assert (
        await heard_of(tenants_environment, "admin of own by a key of all", FOREIGN, watched=runs_out(1.5))
        == []
    )
    # The checker finds the name in the responses to a caller who may see it.
    heard = await heard_of(tenants_environment, "admin of all", FOREIGN, watched=patient(1.5))
    # Only lists without a newest page: the newest page of others may contain only later records.
    lists = {"ListNamespaces", "ListContainers", "ExportAuditLog", "ListSecrets", "ListServiceAccounts"}
    assert lists | {"WatchContainers", "WatchConfigs", "GetNamespaceSummary"} <= set(heard)


async def test_a_key_of_one_namespace_does_not_see_records_of_another(
    tenants_environment: Environment,
) -> None:
    session, key = (
        tenants_environment.callers[caller] for caller in ("admin of all", "admin of own by a key of all")
    )
    await tenants_environment.must("GetNamespace", {"name": FOREIGN}, session)
    listed = await tenants_environment.must(
        "ListOperations", {"filter": f'resource_name = "{FOREIGN}"'}, session
    )
    for found in listed.operations:
        wanted = {"operationId": found.operation_id}
        assert (await tenants_environment.call("GetOperation", wanted, session)).code == "OK"
        assert (await tenants_environment.call("GetOperation", wanted, key)).code == "NOT_FOUND"
        assert (await tenants_environment.call("ProveOperation", wanted, key)).code == "NOT_FOUND"
    assert listed.operations
