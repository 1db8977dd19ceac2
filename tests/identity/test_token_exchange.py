"""A program exchanges its platform's token for a short session.

Covers the session's account, its duration, and the rules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1.token_exchange_pb2 import ExchangeTokenRequest
from pilothouse_client import AsyncClient, Tokens, Workload
from pilothouse_server.identity.federation.oidc.issuers import load_issuers
from pilothouse_server.identity.federation.operations.token_exchange import REFUSED_AT_ONCE
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.outbound.destinations import LOOPBACK, Reach
from pilothouse_server.rpc.refusals import Bounds
from pilothouse_server.settings.model import Settings, SettingsError
from tests.conftest import Database, new_database, number_changes
from tests.identity.issuer import Issuer, issuer
from tests.identity.server import Caller, IdentityServer, Refused, heard_until_limited, refused, valid
from tests.identity.trusting_server import AUDIENCE, CLIENT, accounts, entry, trusting
from tests.waiting import poll_until

JOB = {"repository": "example/shop", "ref": "refs/heads/main"}
POD = {"namespace": "ci", "pod": {"name": "p-1"}, "serviceaccount": {"name": "deployer", "uid": "6c1f"}}


@dataclass
class Environment:
    """A server that trusts a CI platform, a cluster, and a company.

    The company has no workload rules.
    """

    server: IdentityServer
    admin: Caller
    forge: Issuer
    company: Issuer
    cluster: Issuer

    def token(self, **claims: Any) -> str:
        """Returns an honest token of a job on the main branch."""
        return self.forge.sign(self.forge.claims("repo:example/shop", AUDIENCE, **(JOB | claims)))

    async def exchange(self, token: str, **fields: Any) -> Any:
        return await self.server.stranger.ExchangeToken(ExchangeTokenRequest(subject_token=token, **fields))

    async def refused(self, token: str, **fields: Any) -> tuple[str, str, str]:
        """Returns the code, reason and rule of a refusal."""
        refusal = await refused(
            self.server.stranger, "ExchangeToken", ExchangeTokenRequest(subject_token=token, **fields)
        )
        return refusal.code, refusal.reason, refusal.metadata.get("rule", "")

    def caller(self, answer: Any) -> Caller:
        return Caller(self.server.stub, answer.access_token)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def environment(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    given = accounts(
        ("robot", JOB),
        ("auditor", {"repository": "example/shop"}),
        ("ghost", {"repository": "example/ghosts"}),
        ("closed", {"repository": "example/closed"}),
        lifetime_seconds=600,
    )
    kubernetes = accounts(lifetime_seconds=7200)
    kubernetes["accounts"] = [
        {
            "username": "sa:shop:deployer",
            "when": [
                {"claim": ["kubernetes.io", "namespace"], "equals": "ci"},
                {"claim": ["kubernetes.io", "serviceaccount", "name"], "equals": "deployer"},
            ],
        }
    ]
    async with (
        issuer() as forge,
        issuer() as company,
        issuer() as cluster,
        new_database(postgres, template_database.name) as database,
        trusting(
            database,
            tmp_path_factory.mktemp("issuers"),
            entry("forge", forge, workloads=given),
            entry("company", company, client_id=CLIENT),
            entry("cluster", cluster, workloads=kubernetes),
            trusted_proxies="127.0.0.1",
        ) as server,
    ):
        admin = await server.admin()
        await server.namespace("shop")
        await server.user(admin, "robot", ("developer", "shop"), log_in=False)
        await server.user(admin, "auditor", ("viewer", ""), log_in=False)
        await admin.CreateServiceAccount(
            keys_pb.CreateServiceAccountRequest(
                namespace="shop", service_account=keys_pb.ServiceAccount(name="deployer")
            )
        )
        await admin.GrantRole(
            pb.GrantRoleRequest(username="sa:shop:deployer", role="viewer", namespace="shop")
        )
        await server.user(admin, "closed", log_in=False)
        await admin.UpdateUser(
            pb.UpdateUserRequest(
                username="closed",
                user=pb.User(status=pb.USER_STATUS_INACTIVE),
                update_mask=FieldMask(paths=["status"]),
            )
        )
        yield Environment(server, admin, forge, company, cluster)


async def test_a_job_gets_the_account_of_its_rule(environment: Environment) -> None:
    answer = await environment.exchange(environment.token())
    assert (answer.user.username, answer.token_type) == ("robot", "Bearer")
    assert answer.issued_token_type == "urn:ietf:params:oauth:token-type:access_token"
    me = await environment.caller(answer).WhoAmI(pb.WhoAmIRequest())
    assert [(grant.role, grant.namespace) for grant in me.grants] == [("developer", "shop")]
    async with environment.server.database.system() as connection:
        query = "SELECT method FROM sessions WHERE access_token_hash = sha256($1::text::bytea)"
        assert await connection.fetchval(query, answer.access_token) == "token_exchange"


async def test_a_kubernetes_service_account_is_matched_by_its_claims(environment: Environment) -> None:
    def token(**changes: Any) -> str:
        claims = environment.cluster.claims("system:serviceaccount:ci:deployer", AUDIENCE)
        # The API server signs them in this form: the audience in a list, no `typ`, a name for the key.
        claims |= {"aud": [AUDIENCE], "nbf": claims["iat"], "kubernetes.io": POD | changes}
        return environment.cluster.key.sign(claims, environment.cluster.key.header(typ=None))

    answer = await environment.exchange(token(), username="sa:shop:deployer")
    assert answer.user.username == "sa:shop:deployer"
    me = await environment.caller(answer).WhoAmI(pb.WhoAmIRequest())
    assert [(grant.role, grant.namespace) for grant in me.grants] == [("viewer", "shop")]
    refusal = ("PERMISSION_DENIED", "WORKLOAD_NOT_ALLOWED", "")
    assert await environment.refused(token(namespace="other")) == refusal
    assert await environment.refused(token(serviceaccount={"name": "default"})) == refusal
    assert await environment.refused(token(serviceaccount="deployer")) == refusal


async def test_a_new_key_of_the_issuer_is_accepted_immediately(environment: Environment) -> None:
    claims = environment.cluster.claims(
        "system:serviceaccount:ci:deployer", AUDIENCE, **{"kubernetes.io": POD}
    )
    former = environment.cluster.sign(claims)
    assert (await environment.exchange(former)).user.username == "sa:shop:deployer"
    environment.cluster.rotate()
    assert (await environment.exchange(environment.cluster.sign(claims))).user.username == "sa:shop:deployer"
    assert await environment.refused(former) == ("UNAUTHENTICATED", "ISSUER_TOKEN_REFUSED", "key")


async def test_a_session_lasts_for_the_shortest_of_its_limits(environment: Environment) -> None:
    def left(answer: Any) -> float:
        end: datetime = answer.access_expire_time.ToDatetime(UTC)
        return (end - datetime.now(UTC)).total_seconds()

    now = int(datetime.now(UTC).timestamp())
    # The limits are the rule's 600 s, the requested lifetime, and the remaining lifetime of the token.
    assert 500 < left(await environment.exchange(environment.token(exp=now + 3600))) <= 600
    assert (
        20
        < left(await environment.exchange(environment.token(exp=now + 3600), lifetime=timedelta(seconds=60)))
        <= 60
    )
    assert (
        left(await environment.exchange(environment.token(exp=now + 200), lifetime=timedelta(hours=9))) <= 200
    )
    # An expired token is refused even within the clock skew, because no session may outlive its token.
    assert await environment.refused(environment.token(exp=now - 5)) == (
        "UNAUTHENTICATED",
        "ISSUER_TOKEN_REFUSED",
        "expiry",
    )
    too_short = await environment.refused(environment.token(), lifetime=timedelta(0))
    assert too_short == ("INVALID_ARGUMENT", "TOO_SHORT", "")
    # Another issuer's entry permits more than the default of 900 s.
    claims = environment.cluster.claims(
        "system:serviceaccount:ci:deployer", AUDIENCE, **{"kubernetes.io": POD}
    )
    long = await environment.exchange(environment.cluster.sign({**claims, "exp": now + 10_000}))
    assert 7000 < left(long) <= 7200


async def test_a_session_ends_when_its_access_token_expires(environment: Environment) -> None:
    robot = environment.caller(await environment.exchange(environment.token()))
    assert await valid(robot)
    async with environment.server.database.system() as connection:
        ended = await connection.execute(
            "UPDATE sessions SET access_expires_at = now() - interval '1 s', "
            "refresh_expires_at = now() - interval '1 s' WHERE access_token_hash = sha256($1::text::bytea)",
            robot.access_token,
        )
        assert ended == "UPDATE 1"

    async def is_taken() -> bool:
        return await valid(robot)

    assert await poll_until(is_taken, lambda taken: not taken, what="the end of the session") is False


async def test_only_accounts_of_matching_rules_can_be_requested(environment: Environment) -> None:
    assert (await environment.exchange(environment.token(), username="auditor")).user.username == "auditor"
    assert (await environment.exchange(environment.token(), username="Auditor")).user.username == "auditor"
    elsewhere = environment.token(ref="refs/heads/pulled")
    assert (await environment.exchange(elsewhere)).user.username == "auditor"
    refusal = ("PERMISSION_DENIED", "WORKLOAD_NOT_ALLOWED", "")
    # An account that no rule gives, one that does not exist, and one that may not log in get the same
    # refusal.
    assert await environment.refused(elsewhere, username="robot") == refusal
    assert await environment.refused(environment.token(), username="admin") == refusal
    assert await environment.refused(environment.token(repository="example/other")) == refusal
    assert await environment.refused(environment.token(repository="example/ghosts")) == refusal
    assert await environment.refused(environment.token(repository="example/closed")) == refusal
    assert await environment.refused(environment.token(repository=["example/shop"])) == refusal
    assert await environment.refused(environment.token(repository=None)) == refusal


async def test_issuers_without_workload_rules_give_no_sessions(environment: Environment) -> None:
    unknown = ("UNAUTHENTICATED", "ISSUER_TOKEN_REFUSED", "issuer")
    trusted_for_people = environment.company.sign(environment.company.claims("ada", CLIENT))
    assert await environment.refused(trusted_for_people) == unknown
    assert (
        await environment.refused(
            environment.company.sign(environment.company.claims("ada", AUDIENCE, **JOB))
        )
        == unknown
    )
    assert await environment.refused(environment.admin.access_token) == (*unknown[:2], "form")
    wrong_type = await environment.refused(
        environment.token(), subject_token_type="urn:ietf:params:oauth:token-type:saml2"
    )
    assert wrong_type == ("INVALID_ARGUMENT", "UNKNOWN_TOKEN_TYPE", "")


async def test_a_session_ends_within_a_second_when_its_account_is_closed(environment: Environment) -> None:
    caller = environment.caller(await environment.exchange(environment.token(), username="robot"))
    assert await valid(caller)

    async def closed(status: pb.UserStatus.ValueType) -> None:
        await environment.admin.UpdateUser(
            pb.UpdateUserRequest(
                username="robot", user=pb.User(status=status), update_mask=FieldMask(paths=["status"])
            )
        )

    async def is_taken() -> bool:
        return await valid(caller)

    await closed(pb.USER_STATUS_INACTIVE)
    await poll_until(is_taken, lambda taken: not taken, seconds=1.0, what="the end of the session")
    assert await environment.refused(environment.token(), username="robot") == (
        "PERMISSION_DENIED",
        "WORKLOAD_NOT_ALLOWED",
        "",
    )
    await closed(pb.USER_STATUS_ACTIVE)
    assert not await valid(caller), "what has ended stays ended"


async def test_a_program_cannot_create_lasting_credentials(environment: Environment) -> None:
    robot = environment.caller(await environment.exchange(environment.token()))
    change = pb.ChangePasswordRequest(current_password="x" * 12, new_password="y" * 12)
    for rpc, request in (("ChangePassword", change), ("ListSessions", pb.ListSessionsRequest())):
        refusal = await refused(robot, rpc, request)
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "SESSION_NEEDED")


async def test_the_record_names_the_subject_and_issuer_of_the_token(environment: Environment) -> None:
    subject = "repo:example/recorded"
    token = environment.forge.sign(environment.forge.claims(subject, AUDIENCE, repository="example/shop"))
    await environment.exchange(token)
    query = (
        "SELECT username, metadata::text AS metadata, request_body::text AS body FROM operation_logs "
        "WHERE request_path LIKE '%ExchangeToken' AND resource_name = $1"
    )

    async def record() -> Any:
        async with environment.server.database.system() as connection:
            return await connection.fetchrow(query, subject)

    found = await poll_until(record, lambda row: row is not None, what="the record")
    assert found["username"] == "auditor"
    assert f'"subject": "{subject}"' in found["metadata"]
    assert f'"issuer": "{environment.forge.url}"' in found["metadata"]
    assert token not in found["body"]


async def test_known_keys_work_while_the_issuer_is_away(environment: Environment) -> None:
    await environment.exchange(environment.token())
    known = environment.forge.keys
    await environment.forge.go_away()
    try:
        await environment.exchange(environment.token())
        environment.forge.rotate()
        code, reason, _ = await environment.refused(environment.token())
        assert (code, reason) == ("UNAUTHENTICATED", "ISSUER_TOKEN_REFUSED")
    finally:
        environment.forge.keys = known
        await environment.forge.come_back()


async def test_an_address_that_shows_only_forged_tokens_is_limited(environment: Environment) -> None:
    forged = environment.token()[:-20]
    most = Settings().login_failures_per_address
    assert set(await reasons(environment, "198.51.100.9", *[forged] * most)) == {"ISSUER_TOKEN_REFUSED"}
    await heard_until_limited(lambda: reason(environment, "198.51.100.9", forged))
    assert await reason(environment, "198.51.100.10", environment.token()) == "taken"
    # Accepted tokens use up no budget, however many are shown.
    shown = await reasons(environment, "198.51.100.11", *(environment.token() for _ in range(most + 20)))
    assert set(shown) == {"taken"}


async def reason(environment: Environment, address: str, token: str) -> str:
    """Returns the outcome of a token that is shown from an address."""
    try:
        await environment.server.at(address).ExchangeToken(ExchangeTokenRequest(subject_token=token))
    except Refused as refusal:
        return refusal.reason
    return "taken"


async def reasons(environment: Environment, address: str, *tokens: str) -> list[str]:
    """Returns the outcomes of tokens shown one after the other from an address."""
    return [await reason(environment, address, token) for token in tokens]


def of_another(environment: Environment, subject: str, **claims: Any) -> str:
    """Returns a token of a job whose repository no rule names."""
    return environment.forge.sign(
        environment.forge.claims(subject, AUDIENCE, repository="example/other", **claims)
    )


async def test_a_broken_job_does_not_block_other_jobs_of_its_address(environment: Environment) -> None:
    address, broken = "198.51.100.21", of_another(environment, "repo:example/broken")
    heard = await reasons(environment, address, *[broken] * REFUSED_AT_ONCE)
    assert heard == ["WORKLOAD_NOT_ALLOWED"] * REFUSED_AT_ONCE
    await heard_until_limited(lambda: reason(environment, address, broken))
    assert await reasons(environment, address, *(environment.token() for _ in range(14))) == ["taken"] * 14
    # The limit of the broken job does not apply to the next job.
    assert await reasons(environment, address, of_another(environment, "repo:example/next")) == [
        "WORKLOAD_NOT_ALLOWED"
    ]


async def test_expired_tokens_count_against_their_job_and_not_its_address(environment: Environment) -> None:
    address = "198.51.100.22"
    now = int(datetime.now(UTC).timestamp())
    expired = of_another(environment, "repo:example/slow", iat=now - 7200, exp=now - 3600)
    heard = await reasons(environment, address, *[expired] * REFUSED_AT_ONCE)
    assert heard == ["ISSUER_TOKEN_REFUSED"] * REFUSED_AT_ONCE
    await heard_until_limited(lambda: reason(environment, address, expired))
    # The limit also applies to the job's next valid token, but not to another job's.
    assert await reasons(environment, address, environment.token()) == ["taken"]


async def test_the_failures_of_a_rule_are_recorded_and_summed(environment: Environment) -> None:
    subject, address = "repo:example/summed", "198.51.100.23"
    heard = await reasons(environment, address, *[of_another(environment, subject)] * REFUSED_AT_ONCE)
    assert heard == ["WORKLOAD_NOT_ALLOWED"] * REFUSED_AT_ONCE
    environment.server.audit.flush()
    query = (
        "SELECT count(*) FILTER (WHERE metadata ->> 'summed' IS NULL) AS singly, "
        "coalesce(sum((metadata ->> 'summed')::int), 0)::int AS summed FROM operation_logs "
        "WHERE request_path LIKE '%ExchangeToken' AND metadata ->> 'reason' = 'WORKLOAD_NOT_ALLOWED' "
        "AND (resource_name = $1 OR metadata -> 'names' ? $1)"
    )

    async def counted() -> tuple[int, int]:
        async with environment.server.database.system() as connection:
            await number_changes(connection)
            row = await connection.fetchrow(query, subject)
        return row["singly"], row["summed"]

    of_a_kind = Bounds().of_a_kind
    await poll_until(
        counted, lambda found: found == (of_a_kind, REFUSED_AT_ONCE - of_a_kind), what="the records"
    )


async def test_a_token_for_several_audiences_must_name_this_server_in_azp(environment: Environment) -> None:
    several = ["https://other.example.com", AUDIENCE]
    assert await environment.refused(environment.token(aud=several)) == (
        "UNAUTHENTICATED",
        "ISSUER_TOKEN_REFUSED",
        "azp",
    )
    assert await environment.refused(environment.token(aud=several, azp=several[0])) == (
        "UNAUTHENTICATED",
        "ISSUER_TOKEN_REFUSED",
        "azp",
    )
    assert (await environment.exchange(environment.token(aud=several, azp=AUDIENCE))).user.username == "robot"
    # With one audience `azp` is not checked: Google's tokens name the requesting service account there.
    assert (await environment.exchange(environment.token(azp="1234"))).user.username == "robot"


async def test_the_client_exchanges_tokens_automatically(environment: Environment, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(environment.token(exp=int(datetime.now(UTC).timestamp()) + 600) + "\n")
    address = environment.server.address
    async with AsyncClient(address, workload=Workload.from_file(path)) as client:
        assert (await client.identity.who_am_i()).user.username == "robot"
        await client.logout()
    async with AsyncClient(address) as client:
        answer = await client.exchange_token(Workload.from_file(path, "auditor", lifetime=30.0))
        assert answer.user.username == "auditor"
        assert (await client.identity.who_am_i()).user.username == "auditor"
    shown = []

    def subject_token() -> str:
        shown.append(path.read_text())
        return shown[-1].strip()

    # The client replaces an ended session without an error.
    async with AsyncClient(
        address, workload=Workload(subject_token), tokens=Tokens(access_token="pht_ended")
    ) as client:
        assert (await client.identity.who_am_i()).user.username == "robot"
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audiences": []}, "workloads.audiences: must be a list of 1 to 20 different texts"),
        ({"audiences": [CLIENT]}, "workloads.audiences: must not contain client_id"),
        ({"accounts": []}, "workloads.accounts: must be a list of 1 to 500 entries"),
        ({"accounts": [{"username": "robot", "when": []}]}, "accounts[0].when: must be a list"),
        ({"accounts": [{"when": [{"claim": "sub", "equals": "x"}]}]}, "accounts[0].username: must be a text"),
        ({"lifetime_seconds": 10**6}, "workloads.lifetime_seconds: must be a whole number from 0"),
        ({"audience": "x"}, "workloads.audience: is not a known key"),
    ],
)
def test_an_error_in_the_file_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    import json

    workloads = accounts(("robot", JOB)) | changes
    path = tmp_path / "issuers.yaml"
    one = {
        "name": "forge",
        "issuer": "https://forge.example.com",
        "client_id": CLIENT,
        "workloads": workloads,
    }
    path.write_text(json.dumps({"issuers": [one]}))
    with pytest.raises(SettingsError) as caught:
        load_issuers(path, Reach(LOOPBACK))
    assert words in str(caught.value)
    assert str(caught.value).startswith("PILOTHOUSE_OIDC_ISSUERS_FILE.issuers[0].workloads")
