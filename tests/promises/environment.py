"""An environment in which every RPC can be tried.

It has two equal namespaces, a deleted one, and users of every role. The users have grants in `own` and none in
`FOREIGN`. They had grants in `GONE` before it was deleted. `MISSING` never existed. The cluster only responds
to requests, and no reconciler runs: nothing changes without a call.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest

from pilothouse_server.applications.following import ApplicationFollower
from pilothouse_server.audit.sinks.runner import SinkRunner
from pilothouse_server.containers import repository
from pilothouse_server.containers.model import Observed
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES, SERVICE_ACCOUNTS, SERVICES
from pilothouse_server.namespaces.manifests import namespace_manifest
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.reconcile.reconciler import Reconciler
from pilothouse_server.reconcile.repository import container_status
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.store.periodic import PeriodicWork
from pilothouse_server.values.resources import Condition
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database, connection, number_changes
from tests.harness import PASSWORD, Server, running_server
from tests.identity.factors import authenticator_code
from tests.promises import requests
from tests.promises.calling import Caller, Outcome, served
from tests.promises.requests import OWN, REQUESTS, UNUSED_IMAGE, request_for, target

# All have the same length, so a response about one namespace can be turned into a response about another byte
# by byte.
FOREIGN, GONE, MISSING = "tenant-b", "tenant-c", "tenant-d"
ROLES = ("admin", "operator", "developer", "responder", "viewer")
# The create requests of the resources that live in a namespace, by noun. They make the targets of mutations.
_MADE = {
    name.removeprefix("Create"): fields
    for name, fields in REQUESTS.items()
    if name.startswith("Create") and "namespace" in fields and name != "CreateServiceAccount"
    if isinstance(fields["namespace"], str)
}
_NEEDS_TARGET = (
    "Update",
    "Delete",
    "Start",
    "Stop",
    "Pause",
    "Resume",
    "Restart",
    "Rollback",
    "Purge",
    "Attach",
    "Detach",
)
_BEFORE = {
    "StartContainer": "StopContainer",
    "ResumeContainer": "PauseContainer",
    "DetachVolume": "AttachVolume",
    "RollbackContainer": "UpdateContainer",
    "PurgeSecret": "UpdateSecret",
}


@dataclass
class Environment:
    """The server, its methods, and callers by name."""

    server: Server
    rules: dict[str, Rule]
    admin: Caller
    callers: dict[str, Caller] = field(default_factory=dict)
    fields: dict[str, requests.Fields] = field(default_factory=dict)
    # Functions that build requests whose fields are valid only briefly, by RPC name.
    made: dict[str, Callable[[], requests.Fields]] = field(default_factory=dict)

    @property
    def stranger(self) -> Caller:
        """Returns a caller without a token."""
        return Caller(self.admin.channel)

    def rule(self, name: str) -> Rule:
        """Returns the rule of the RPC `name`."""
        return next(rule for rule in self.rules.values() if rule.name == name)

    def request(self, rule: Rule) -> Any:
        """Returns a valid request of an RPC."""
        make = self.made.get(rule.name)
        return request_for(rule, self.fields.get(rule.name) if make is None else make())

    def caller_of(self, rule: Rule) -> Caller:
        """Returns the caller of a mutation.

        It is the administrator, or another user if the call ends sessions.
        """
        return self.callers.get(rule.name, self.admin)

    async def call(self, name: str, fields: requests.Fields, caller: Caller | None = None) -> Outcome:
        """Calls an RPC by its name."""
        rule = self.rule(name)
        return await (caller or self.admin).invoke(rule, request_for(rule, fields))

    async def must(self, name: str, fields: requests.Fields, caller: Caller | None = None) -> Any:
        """Returns the response of a call that must succeed."""
        outcome = await self.call(name, fields, caller)
        assert outcome.code == "OK", f"{name} {fields}: {outcome.code} {outcome.message}"
        return outcome.answer

    async def log_in(self, username: str) -> Caller:
        """Returns a caller with a new session, on the environment's channel."""
        answer = await self.must("Login", {"username": username, "password": PASSWORD}, self.stranger)
        return Caller(self.admin.channel, answer.access_token)

    async def make_user(self, name: str, grants: Mapping[str, str] = MappingProxyType({})) -> Caller:
        """Creates a user with roles by namespace, and returns it logged in.

        The namespace '' means all namespaces.
        """
        await self.must("CreateUser", {"user": requests.user(name), "password": PASSWORD})
        for namespace, role in grants.items():
            await self.must("GrantRole", {"username": name, "role": role, "namespace": namespace})
        return await self.log_in(name)

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        """Yields a connection of the superuser.

        No row-level security policy applies to it.
        """
        async with connection(self.server.database.admin_dsn) as opened:
            await number_changes(opened)
            yield opened


@asynccontextmanager
async def quiet_environment(
    database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Environment]:
    """Yields a server with the empty namespaces `own` and `FOREIGN`.

    It has an administrator, and no reconciler runs.
    """
    async with _environment(database, directory, monkeypatch, settings, is_copy=False) as made:
        yield made


@asynccontextmanager
async def copied_environment(
    database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    """Yields the same environment on copies of a database and a folder."""
    async with _environment(database, directory, monkeypatch, {}, is_copy=True) as made:
        yield made


@asynccontextmanager
async def _environment(
    database: Database,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Mapping[str, Any],
    *,
    is_copy: bool,
) -> AsyncIterator[Environment]:
    monkeypatch.setattr(Reconciler, "run", _never)
    monkeypatch.setattr(SinkRunner, "run", _never)
    monkeypatch.setattr(PeriodicWork, "run", _never)
    monkeypatch.setattr(ApplicationFollower, "run", _never)
    if not is_copy:
        async with connection(database.admin_dsn) as sql:
            await sql.execute(
                "INSERT INTO clusters (name, api_server) SELECT unnest($1::text[]), 'https://127.0.0.1'",
                ["local", target("DeregisterCluster")],
            )
    async with (
        SimulatedCluster(nodes=1) as cluster,
        running_server(database, directory, cluster=cluster, **settings) as server,
    ):
        channel = server.channel()
        environment = Environment(server, await served(channel), Caller(channel))
        environment.admin = await environment.log_in("admin")
        # This cluster only responds when its registration is tested.
        address = {"apiServer": cluster.url, "token": cluster.token}
        environment.fields["RegisterCluster"] = {
            "cluster": {"name": target("RegisterCluster")},
            "credentials": {"address": address},
        }
        for namespace in (OWN, FOREIGN):
            if not is_copy:
                await environment.must("CreateNamespace", {"namespace": {"name": namespace}})
            await _run_already(environment, cluster, namespace)
        yield environment


async def _run_already(environment: Environment, cluster: SimulatedCluster, namespace: str) -> None:
    """Creates the objects on the cluster that a reconciler and another tool would create.

    These are the namespace, and objects to import.
    """
    async with environment.server.application.store.system_read() as transaction:
        found = await locate_namespace(transaction, namespace)
    client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="local")
    name = target("ImportContainers")
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]},
    }
    try:
        await client.apply(NAMESPACES, namespace_manifest(found))
        await client.apply(
            DEPLOYMENTS,
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            },
        )
        await client.apply(
            SERVICES,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": target("ImportServices"), "namespace": namespace},
                "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
            },
        )
        account: requests.Fields = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": target("ImportObjects"), "namespace": namespace},
        }
        await client.apply(SERVICE_ACCOUNTS, account)
    finally:
        await client.close()


async def populate(environment: Environment, *namespaces: str) -> None:
    """Makes the target of every mutation in each namespace.

    It also makes the users and roles that some mutations need.
    """
    # Only administrators may change an object that an administrator made. The user's name occurs in responses,
    # so it must not contain the name of a namespace.
    maker_name = "-".join(("maker", *(each[-1] for each in namespaces)))
    without_power = await environment.make_user(maker_name, {"": "operator"})
    for namespace in namespaces:
        for noun, fields in _MADE.items():
            method = f"Create{noun}"
            if any(rule.name == method for rule in environment.rules.values()):
                for thing in ("web", *_targets(environment, noun)):
                    renamed = json.loads(json.dumps(fields).replace(target(method), thing))
                    maker = without_power if noun == "Object" else None
                    await environment.must(method, {**renamed, "namespace": namespace}, maker)
        for method, before in _BEFORE.items():
            if any(rule.name == method for rule in environment.rules.values()):
                fields = {"namespace": namespace, "name": target(method)}
                if "mountPath" in REQUESTS[before]:
                    fields["mountPath"] = "/elsewhere"
                await environment.must(before, {**REQUESTS[before], **fields})
        await _make_ended_job(environment, namespace)
        await _make_applications(environment, namespace)
    for namespace in namespaces:
        account = {"namespace": namespace, "serviceAccount": {"name": target("DeleteServiceAccount")}}
        await environment.must("CreateServiceAccount", account)
    for method in ("RotateApiKey", "RevokeApiKey"):
        made = await environment.must("CreateApiKey", {"name": target(method)})
        environment.fields[method] = {"apiKeyId": made.api_key.api_key_id}
    for method in ("UpdateUser", "DeleteUser", "ResetPassword", "GrantRole", "RevokeRole"):
        await environment.must("CreateUser", {"user": requests.user(target(method)), "password": PASSWORD})
    await environment.must("GrantRole", REQUESTS["RevokeRole"])
    await environment.must(
        "CreateAuditSink",
        {"auditSink": {**REQUESTS["CreateAuditSink"]["auditSink"], "name": target("DeleteAuditSink")}},
    )
    for method in ("UpdateRole", "DeleteRole"):
        await environment.must("CreateRole", {"role": requests.role(target(method))})
    for method in ("Logout", "ChangePassword", "Reauthenticate", "RevokeSession"):
        environment.callers[method] = await environment.make_user(target(method))
    await _enrol(environment)
    await environment.log_in(target("RevokeSession"))
    sessions = await environment.must("ListSessions", {}, environment.callers["RevokeSession"])
    other = next(session for session in sessions.sessions if not session.current)
    environment.fields["RevokeSession"] = {"sessionId": other.session_id}
    async with environment.sql() as sql:
        name, tag = UNUSED_IMAGE.split(":")
        await sql.execute("INSERT INTO container_images (name, tag) VALUES ($1, $2)", name, tag)
        operation = await sql.fetchval(
            "SELECT operation_id FROM operation_logs WHERE resource_name = $1 ORDER BY sequence LIMIT 1", OWN
        )
    environment.fields["GetOperation"] = {"operationId": str(operation)}


async def _make_applications(environment: Environment, namespace: str) -> None:
    """Applies the applications that calls are tried on.

    One of them is applied twice, so that it can be rolled back.
    """
    if not any(rule.name == "ApplyApplication" for rule in environment.rules.values()):
        return
    targets = (target(f"{verb}Application") for verb in ("Delete", "Pause", "Resume", "Rollback"))
    for name in ("web", *targets):
        fields = {"namespace": namespace, **requests.application(name, level="info")}
        await environment.must("ApplyApplication", fields)
    changed = requests.application(target("RollbackApplication"), level="debug")
    await environment.must("ApplyApplication", {"namespace": namespace, **changed})


async def _make_ended_job(environment: Environment, namespace: str) -> None:
    """Makes a Job whose first run has ended, as an observer would write it."""
    name = target("RunContainer")
    job = {"name": name, "image": "nginx:1.27", "job": {}}
    await environment.must("CreateContainer", {"namespace": namespace, "container": job})
    async with environment.server.application.store.system_write() as transaction:
        stored = await repository.find(transaction, namespace, name, lock=True)
        assert stored is not None
        observed = Observed(
            status="succeeded", conditions=(Condition("Complete", "True", made_from=stored.kubernetes_name),)
        )
        change = Change(stored, observed, stored.observed_generation)
        await container_status.write(transaction, [change], "kubernetes")


async def _enrol(environment: Environment) -> None:
    """Makes the users of the authenticator calls.

    Two have an authenticator, one has an authenticator that awaits its code, and one has none.
    """
    for method in ("EnrolTotp", "ConfirmTotp", "DisableTotp", "ResetSecondFactor"):
        caller = environment.callers[method] = await environment.make_user(target(method))
        if method == "EnrolTotp":
            continue
        seed = base64.b32decode((await environment.must("EnrolTotp", {}, caller)).secret)

        def confirm(seed: bytes = seed) -> requests.Fields:
            return {"code": authenticator_code(seed, time.time())}

        if method == "ConfirmTotp":
            environment.made[method] = confirm
        else:
            await environment.must("ConfirmTotp", confirm(), caller)
    # An administrator makes this call.
    del environment.callers["ResetSecondFactor"]


async def end_namespace(environment: Environment, name: str) -> None:
    """Deletes a namespace completely.

    This is the caller's part, and the reconciler's part after the cluster has deleted its objects.
    """
    await environment.must("DeleteNamespace", {"name": name, "cascade": True})
    async with environment.sql() as sql, sql.transaction():
        found = await sql.fetchval("SELECT id FROM namespaces WHERE name = $1 AND deleted_at IS NULL", name)
        for table in ("objects", "services", "containers", "volumes", "config_maps", "secrets", "user_roles"):
            await sql.execute(f"DELETE FROM {table} WHERE namespace_id = $1", found)
        await sql.execute("UPDATE namespaces SET deleted_at = now() WHERE id = $1", found)


async def prepare(environment: Environment, *, tenants: bool = False) -> None:
    """Fills the environment.

    With `tenants` it also has the foreign and the deleted namespace, and users of every role.
    """
    if not tenants:
        await populate(environment, OWN)
        return
    await environment.must("CreateNamespace", {"namespace": {"name": GONE}})
    await populate(environment, OWN, FOREIGN, GONE)
    for role in ROLES:
        environment.callers[f"{role} of own"] = await environment.make_user(
            f"own-{role}", {OWN: role, GONE: role}
        )
        environment.callers[f"{role} of all"] = await environment.make_user(f"all-{role}", {"": role})
    environment.callers["nobody"] = await environment.make_user("nobody")
    await make_keys(environment)
    await end_namespace(environment, GONE)


async def make_keys(environment: Environment) -> None:
    """Makes callers with API keys, and a service account.

    Each is named after the caller whose permissions it has left.
    """
    viewer = list(SHIPPED_ROLES["viewer"].permissions)
    for caller, owner, limits in (
        ("admin of own by key", "admin of own", {}),
        ("admin of own by a key of all", "admin of all", {"namespaces": [OWN, GONE]}),
        ("operator of own by a key of all", "operator of all", {"namespaces": [OWN, GONE]}),
        ("viewer of all by a key of an admin", "admin of all", {"permissions": viewer}),
        ("admin of all by a reading key", "admin of all", {"readOnly": True}),
    ):
        made = await environment.must("CreateApiKey", {"name": caller, **limits}, environment.callers[owner])
        environment.callers[caller] = Caller(environment.admin.channel, made.key)
    await environment.must("CreateServiceAccount", {"namespace": OWN, "serviceAccount": {"name": "robot"}})
    for namespace in (OWN, GONE):
        grant = {"username": f"sa:{OWN}:robot", "role": "admin", "namespace": namespace}
        await environment.must("GrantRole", grant)
    made = await environment.must("CreateApiKey", {"name": "robot", "serviceAccount": f"sa:{OWN}:robot"})
    environment.callers["admin of own as an account"] = Caller(environment.admin.channel, made.key)


def _targets(environment: Environment, noun: str) -> list[str]:
    names = {rule.name for rule in environment.rules.values()}
    return [target(f"{verb}{noun}") for verb in _NEEDS_TARGET if f"{verb}{noun}" in names]


async def _never(_self: object) -> None:
    await asyncio.Event().wait()
