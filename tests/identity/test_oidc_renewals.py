"""Sessions of an issuer: grants end with the group that gave them.

Also covers the effects of an unavailable issuer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import api_keys_pb2
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.federation.operations import federated_users
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import SettingsError
from pilothouse_server.store.periodic import earlier_now
from tests.conftest import Database, new_database
from tests.identity.faults import Fault
from tests.identity.issuer import TOKEN, Claims, Registered
from tests.identity.oidc_environment import SECRET, OidcEnvironment, oidc_environment, rule
from tests.identity.server import Caller, Refused, ended, refused, valid
from tests.identity.trusting import CLIENT, config_of
from tests.waiting import poll_until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_environment(
    postgres: EmbeddedPostgres, template_database: Database
) -> AsyncIterator[OidcEnvironment]:
    async with new_database(postgres, template_database.name) as database, oidc_environment(database) as made:
        yield made


@pytest.fixture
def environment(shared_environment: OidcEnvironment) -> OidcEnvironment:
    """Returns the environment, reset; each test uses its own names."""
    shared_environment.at_rest()
    return shared_environment


async def _not_renewed(environment: OidcEnvironment, caller: Caller) -> Refused:
    request = pb.RefreshSessionRequest(refresh_token=caller.refresh_token)
    return await refused(environment.server.stranger, "RefreshSession", request)


async def _asked(environment: OidcEnvironment) -> int:
    return environment.company.asked(TOKEN)


async def _why_it_was_taken(environment: OidcEnvironment, username: str) -> str:
    """Returns the recorded reason why a user lost the grants of rules."""

    async def records() -> list[str]:
        found = await environment.rows(
            "SELECT metadata::text AS facts FROM operation_logs WHERE resource_name = $1 AND request_path = '' "
            "AND action = 'revoke'",
            username,
        )
        return [str(json.loads(row["facts"])["why"]) for row in found]

    (why,) = await poll_until(records, what="the record")
    return why


async def _confirmed_ago(environment: OidcEnvironment, username: str, seconds: int) -> None:
    """Sets the issuer's last confirmation of a user's sessions to `seconds` ago."""
    await environment.rows(
        "UPDATE oidc_sessions SET confirmed_at = now() - make_interval(secs => $2) WHERE identity_id IN ("
        "SELECT i.id FROM federated_identities i JOIN users u ON u.id = i.user_id WHERE u.username = $1)",
        username,
        seconds,
    )


async def test_grants_of_a_group_end_at_the_next_refresh_without_it(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("mover", ["devs", "viewers"])
    assert environment.company.person is not None
    environment.company.person.claims["groups"] = ["viewers"]
    caller = await environment.refresh(caller)
    assert await environment.held(caller) == {("viewer", "", "company")}
    environment.company.person.claims["groups"] = ["devs"]
    caller = await environment.refresh(caller)
    assert await environment.held(caller) == {
        ("developer", "shop", "company"),
        ("developer", "bakery", "company"),
    }
    # A token without groups gives no grants.
    del environment.company.person.claims["groups"]
    assert await environment.held(await environment.refresh(caller)) == set()


async def test_grants_and_revocations_by_rules_are_recorded(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("recorded", ["devs"])
    assert environment.company.person is not None
    environment.company.person.claims["groups"] = ["viewers"]
    caller = await environment.refresh(caller)
    # An unchanged grant leaves no record.
    caller = await environment.refresh(caller)
    environment.company.person.left = True
    await _not_renewed(environment, caller)

    async def records() -> list[tuple[str, str, list[str]]]:
        found = await environment.rows(
            "SELECT action, resource_type, metadata::text AS facts FROM operation_logs "
            "WHERE resource_name = 'recorded' AND request_path = '' ORDER BY sequence"
        )
        return [
            (row["action"], row["resource_type"], json.loads(row["facts"]).get("grants", [])) for row in found
        ]

    recorded = await poll_until(records, lambda found: len(found) == 5, what="five records")
    developer = ["developer in bakery", "developer in shop"]
    assert [(action, kind, sorted(given)) for action, kind, given in recorded] == [
        ("create", "user", []),
        ("grant", "role_grant", developer),
        ("grant", "role_grant", ["viewer in all namespaces"]),
        ("revoke", "role_grant", developer),
        ("revoke", "role_grant", ["viewer in all namespaces"]),
    ]


async def test_rules_do_not_change_manual_grants(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("granted", ["devs"])
    admin = await environment.server.admin()
    await admin.GrantRole(pb.GrantRoleRequest(username="granted", role="operator", namespace="shop"))
    # This turns a rule's grant into a manual one.
    await admin.GrantRole(pb.GrantRoleRequest(username="granted", role="developer", namespace="shop"))
    assert environment.company.person is not None
    environment.company.person.claims["groups"] = []
    caller = await environment.refresh(caller)
    assert await environment.held(caller) == {("operator", "shop", ""), ("developer", "shop", "")}
    environment.company.person.claims["groups"] = ["devs"]
    caller = await environment.refresh(caller)
    assert await environment.held(caller) == {
        ("operator", "shop", ""),
        ("developer", "shop", ""),
        ("developer", "bakery", "company"),
    }
    # A grant by a rule cannot be revoked manually, because the rule would give it again.
    request = pb.RevokeRoleRequest(username="granted", role="developer", namespace="bakery")
    refusal = await refused(admin, "RevokeRole", request)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "GIVEN_BY_RULE")
    await admin.RevokeRole(pb.RevokeRoleRequest(username="granted", role="developer", namespace="shop"))
    listed = await admin.ListRoleGrants(pb.ListRoleGrantsRequest(filter='source = "company"'))
    assert {(grant.username, grant.namespace) for grant in listed.role_grants} >= {("granted", "bakery")}


async def test_an_administrator_by_rule_does_not_count_as_the_last_one(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("chief", ["admins"])
    assert await environment.held(caller) == {("admin", "", "company")}
    request = pb.DeleteUserRequest(username="admin")
    refusal = await refused(caller, "DeleteUser", request)
    assert refusal.reason == "LAST_ADMINISTRATOR"
    # The user is an administrator in every other respect.
    await caller.CreateRole(
        pb.CreateRoleRequest(role=pb.Role(name="by-chief", permissions=["container.get"]))
    )


async def test_a_session_ends_when_the_issuer_refuses(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("gone", ["devs"])
    admin = await environment.server.admin()
    await admin.GrantRole(pb.GrantRoleRequest(username="gone", role="viewer", namespace="shop"))
    assert environment.company.person is not None
    environment.company.person.left = True
    refusal = await _not_renewed(environment, caller)
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "ISSUER_REFUSED")
    await poll_until(partial(ended, caller), seconds=1.0, what="the end of the session")
    # Only the grants of the rules end with the session.
    listed = await admin.ListRoleGrants(pb.ListRoleGrantsRequest(filter='username = "gone"'))
    assert [(grant.role, grant.source) for grant in listed.role_grants] == [("viewer", "")]
    assert not await environment.rows(
        "SELECT 1 FROM user_secrets s JOIN users u ON u.id = s.user_id WHERE u.username = 'gone'"
    )
    assert (await _not_renewed(environment, caller)).reason == "INVALID_REFRESH_TOKEN"


async def test_a_key_loses_the_permissions_that_its_user_loses(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("keeper", ["devs"])
    made = await caller.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(name="ci"))
    key = Caller(environment.server.stub, made.key)
    check = pb.CheckPermissionRequest(permission="container.create", namespace="shop")
    assert (await key.CheckPermission(check)).allowed
    assert environment.company.person is not None
    environment.company.person.left = True
    assert (await _not_renewed(environment, caller)).reason == "ISSUER_REFUSED"

    async def allowed() -> bool:
        return bool((await key.CheckPermission(check)).allowed)

    await poll_until(allowed, lambda answer: not answer, seconds=1.0, what="the end of the key's rights")


async def test_an_id_token_of_another_subject_ends_the_session(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("myself", ["devs"])
    environment.company.forged = lambda claims: environment.company.sign(
        claims | {"sub": "chief", "groups": ["admins"]}
    )
    assert (await _not_renewed(environment, caller)).reason == "ISSUER_REFUSED"
    await poll_until(partial(ended, caller), seconds=1.0, what="the end of the session")


async def test_sessions_continue_for_a_limited_time_without_the_issuer(
    environment: OidcEnvironment,
) -> None:
    caller = await environment.log_in("patient", ["devs"])
    for fault in (Fault.FAILED, Fault.CUT, Fault.NOT_JSON, Fault.THROTTLED):
        environment.company.faults[TOKEN] = fault
        caller = await environment.refresh(caller)
        assert await environment.held(caller) == {
            ("developer", "shop", "company"),
            ("developer", "bakery", "company"),
        }
    await _confirmed_ago(environment, "patient", 3601)
    for _ in range(2):
        refusal = await _not_renewed(environment, caller)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    # The refresh token is not used up: it works once the issuer is back, and then the issuer decides.
    environment.company.faults.clear()
    assert environment.company.person is not None
    environment.company.person.claims["groups"] = ["viewers"]
    assert await environment.held(await environment.refresh(caller)) == {("viewer", "", "company")}


async def test_an_invalid_token_counts_as_no_response(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("doubtful", ["devs"])
    environment.company.forged = lambda claims: environment.other.sign(claims | {"groups": ["admins"]})
    caller = await environment.refresh(caller)
    assert {role for role, _, _ in await environment.held(caller)} == {"developer"}
    await _confirmed_ago(environment, "doubtful", 3601)
    assert (await _not_renewed(environment, caller)).reason == "ISSUER_UNAVAILABLE"


async def test_an_issuer_that_keeps_its_refresh_token_receives_it_again(
    environment: OidcEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await environment.log_in("steady", ["devs"])
    company = environment.company

    def stays(client: Registered, form: dict[str, str]) -> Claims:
        _, person = company._refresh_tokens[form["refresh_token"]]
        return company._answer(client, person, "", offline=False)

    monkeypatch.setattr(company, "_by_refresh_token", stays)
    for groups, role in ((["viewers"], "viewer"), (["admins"], "admin"), (["viewers"], "viewer")):
        assert company.person is not None
        company.person.claims["groups"] = groups
        caller = await environment.refresh(caller)
        assert {held for held, _, _ in await environment.held(caller)} == {role}


async def test_a_refresh_without_an_id_token_counts_as_no_response(
    environment: OidcEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await environment.log_in("speechless", ["devs"])
    honest = environment.company._by_refresh_token

    def without(client: Registered, form: dict[str, str]) -> Claims:
        return {name: value for name, value in honest(client, form).items() if name != "id_token"}

    monkeypatch.setattr(environment.company, "_by_refresh_token", without)
    caller = await environment.refresh(caller)
    await _confirmed_ago(environment, "speechless", 3601)
    assert (await _not_renewed(environment, caller)).reason == "ISSUER_UNAVAILABLE"


async def test_a_wrong_client_secret_ends_no_session(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("unaware", ["devs"])
    environment.company.register(CLIENT, "another secret")
    caller = await environment.refresh(caller)
    assert await valid(caller)
    environment.company.register(CLIENT, SECRET)


async def test_concurrent_refreshes_send_one_request_to_the_issuer(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("hasty", ["devs"])
    asked = environment.company.asked(TOKEN)
    environment.company.faults[TOKEN] = Fault.SLOW
    first = asyncio.create_task(environment.refresh(caller))
    await poll_until(lambda: _asked(environment), lambda count: count > asked, what="the question")
    refusal = await _not_renewed(environment, caller)
    assert (refusal.code, refusal.reason) == ("ABORTED", "REFRESH_UNDER_WAY")
    environment.company.released.set()
    renewed = await first
    environment.company.released.clear()
    assert environment.company.asked(TOKEN) == asked + 1
    assert await valid(renewed)


async def test_a_cancelled_refresh_loses_no_token(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("impatient", ["devs"])
    asked = environment.company.asked(TOKEN)
    environment.company.faults[TOKEN] = Fault.SLOW
    first = asyncio.create_task(environment.refresh(caller))
    await poll_until(lambda: _asked(environment), lambda count: count > asked, what="the question")
    await cancel_and_wait(first)

    async def heard() -> bool:
        return any(task.cancelling() for task in asyncio.all_tasks())

    await poll_until(heard, what="the server's notice of the cancellation")
    environment.company.faults.clear()
    environment.company.released.set()
    # The issuer's next refresh token was stored although no caller waited; otherwise the issuer would refuse
    # now.
    outcomes = await poll_until(
        lambda: asyncio.gather(environment.refresh(caller), return_exceptions=True),
        lambda outcomes: getattr(outcomes[0], "reason", "") != "REFRESH_UNDER_WAY",
        what="the refresh",
    )
    (renewed,) = outcomes
    assert isinstance(renewed, Caller)
    environment.company.released.clear()
    assert await valid(renewed)


async def test_a_replayed_refresh_token_causes_no_request_to_the_issuer(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("replayed", ["devs"])
    renewed = await environment.refresh(caller)
    asked = environment.company.asked(TOKEN)
    assert (await _not_renewed(environment, caller)).reason == "REFRESH_TOKEN_REPLAYED"
    assert environment.company.asked(TOKEN) == asked
    await poll_until(partial(ended, renewed), seconds=1.0, what="the end of the session")


async def test_a_session_without_the_issuers_refresh_token_is_not_renewed(database: Database) -> None:
    async with oidc_environment(database, scopes=("openid",), away_seconds=0) as environment:
        caller = await environment.log_in("brief", ["devs"])
        assert await valid(caller)
        asked = await _asked(environment)
        refusal = await _not_renewed(environment, caller)
        assert refusal.reason == "ISSUER_REFUSED"
        assert refusal.message == (
            "the issuer of this session gave no refresh token, so the session cannot be renewed: log in again"
        )
        assert await _asked(environment) == asked
        await poll_until(partial(ended, caller), seconds=1.0, what="the end of the session")
        # The record contains the reason, too.
        assert await _why_it_was_taken(environment, "brief") == "the issuer gave no refresh token"


async def test_the_reason_of_a_refused_renewal_is_accurate(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("forgotten", ["devs"])
    await environment.rows(
        "DELETE FROM user_secrets WHERE user_id = (SELECT id FROM users WHERE username = $1)", "forgotten"
    )
    asked = await _asked(environment)
    assert "gave no refresh token" in (await _not_renewed(environment, caller)).message
    assert await _asked(environment) == asked
    caller = await environment.log_in("distrusting", ["devs"])
    await environment.rows(
        "UPDATE federated_identities SET issuer = 'https://gone.example.com' WHERE subject = $1",
        "distrusting",
    )
    refusal = await _not_renewed(environment, caller)
    assert refusal.reason == "ISSUER_REFUSED"
    assert refusal.message == (
        "this server no longer trusts the issuer of this session, so it cannot be renewed: log in again"
    )
    assert await _why_it_was_taken(environment, "distrusting") == "the issuer is not trusted any more"
    caller = await environment.log_in("left", ["devs"])
    assert environment.company.person is not None
    environment.company.person.left = True
    refusal = await _not_renewed(environment, caller)
    assert refusal.message == ("the issuer of this session no longer vouches for you: log in again")
    assert await _why_it_was_taken(environment, "left") == "the issuer does not vouch any more"


async def test_expired_logins_are_removed_and_unconfirmed_grants_end(environment: OidcEnvironment) -> None:
    stays, leaves = await environment.log_in("stays", ["devs"]), await environment.log_in("leaves", ["devs"])
    await leaves.Logout(pb.LogoutRequest())
    silent = await environment.log_in("silent", ["devs"])
    await environment.rows("UPDATE oidc_logins SET expires_at = now() - interval '59 minutes'")
    await federated_users.tidy(environment.server.store, await earlier_now(environment.server.store))
    assert await environment.rows("SELECT 1 FROM oidc_logins")
    await environment.rows("UPDATE oidc_logins SET expires_at = now() - interval '61 minutes'")
    await environment.rows(
        "UPDATE federated_identities SET confirmed_until = now() WHERE subject = 'silent' RETURNING id"
    )
    # A database clock that is ahead removes nothing: the server's clock, which is behind, counts.
    await federated_users.tidy(environment.server.store, datetime.now(UTC) - timedelta(days=1))
    assert await environment.rows("SELECT 1 FROM oidc_logins")
    assert await environment.held(silent) != set()
    await federated_users.tidy(environment.server.store, await earlier_now(environment.server.store))
    assert not await environment.rows("SELECT 1 FROM oidc_logins")
    left = (
        "SELECT u.username FROM user_secrets s JOIN users u ON u.id = s.user_id WHERE u.username = ANY ($1)"
    )
    names = ["stays", "leaves", "silent"]
    assert {row["username"] for row in await environment.rows(left, names)} == {"stays", "silent"}
    assert await environment.held(silent) == set()
    assert {role for role, _, _ in await environment.held(stays)} == {"developer"}
    # A user whom the issuer confirms again gets the grants back.
    assert environment.company.person is not None
    assert {role for role, _, _ in await environment.held(await environment.refresh(silent))} == {"developer"}


async def test_a_role_that_rules_give_cannot_be_deleted(database: Database) -> None:
    async with oidc_environment(database, rules=(rule("devs", "deployer"),)) as environment:
        admin = await environment.server.admin()
        for name in ("deployer", "unruled"):
            await admin.CreateRole(
                pb.CreateRoleRequest(role=pb.Role(name=name, permissions=["container.get"]))
            )
        refusal = await refused(admin, "DeleteRole", pb.DeleteRoleRequest(name="deployer"))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ROLE_IN_RULES")
        assert refusal.metadata["issuer"] == "company"
        await admin.DeleteRole(pb.DeleteRoleRequest(name="unruled"))


async def test_rules_may_give_only_existing_roles(environment: OidcEnvironment) -> None:
    good = config_of(environment.company, rules=(rule("devs", "developer"),))
    await federated_users.check_roles(environment.server.store, [good])
    wrong = config_of(environment.company, rules=(rule("devs", "developper"),))
    with pytest.raises(SettingsError) as refusal:
        await federated_users.check_roles(environment.server.store, [wrong])
    assert 'rules[0].role: there is no role "developper"' in str(refusal.value)
