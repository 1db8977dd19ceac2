"""Checks of a copy of the tree that has the noun `Route`; run there, as `python -m tests.recipes.checks WORD …`.

- `schema DATABASE`: writes checksums.py, and applies the migrations.
- `serve DATABASE FOLDER`: starts a server and calls it.
- `tests DATABASE`: reports the faults that the tests of all nouns report: isolation of tenants, requests, roles.
- `files NAME …`: removes each of these modules in turn; the server or the client must fail to import without it.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import errors
from pilothouse_client.streams import ChangeKind
from pilothouse_migrations import runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.authorization.access import permission_matches
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.rpc import method_rules
from pilothouse_server.store.backfill import backfill_messages
from pilothouse_server.store.metadata import METADATA
from tests.conftest import Database
from tests.conventions import schema_file
from tests.fields.test_resources import test_every_resource_is_examined
from tests.harness import Server, running_server
from tests.isolation.rules import findings
from tests.migrations.filling import fill
from tests.promises.environment import ROLES
from tests.promises.requests import REQUESTS
from tests.promises.test_tenants_apart import holds
from tests.services import SERVICES
from tests.waiting import poll_until, within

_SPACES = ("own", "other")


async def serve(database: Database, folder: Path) -> None:
    """Creates, watches, lists and deletes routes, as callers with several roles."""
    async with running_server(database, folder, with_cluster=False) as server:
        for name in _SPACES:
            await server.admin.namespaces.create(
                namespace=namespace_pb2.Namespace(name=name, cluster_name="local")
            )
        await server.admin.identity.create_role(
            role=identity_pb2.Role(name="keeper", permissions=["route.create", "route.delete"])
        )
        keeper: Any = await server.user("keeper", {"own": "keeper"})
        viewer: Any = await server.user("viewer", {"own": "viewer"})
        stranger: Any = await server.user("stranger", {"other": "viewer"})
        async with within(20.0), viewer.routes.watch(namespace="own") as changes:
            told = aiter(changes)
            made = await keeper.routes.create(
                namespace="own", route={"name": "web", "host": "web.example", "labels": {"tier": "front"}}
            )
            assert (made.created_by, made.namespace) == ("keeper", "own")
            assert (await _next(told)).resource == made
            await _is_refused(
                errors.PermissionDeniedError, viewer.routes.create(namespace="own", route={"name": "mine"})
            )
            await _is_refused(errors.NotFoundError, stranger.routes.delete(namespace="own", name="web"))
            assert await _kept(server) == 1
            assert [each.host async for each in viewer.routes.list(label_selector="tier=front")] == [
                "web.example"
            ]
            assert [each async for each in stranger.routes.list()] == []
            await _is_rendered_again(server)
            await keeper.routes.delete(namespace="own", name="web")
            gone = await _next(told)
            assert (gone.kind, gone.resource.name) == (ChangeKind.DELETED, "web")
            assert await _kept(server) == 0
            await keeper.routes.create(namespace="own", route={"name": "last", "host": "last.example"})
            await _next(told)
            await _is_refused(errors.FailedPreconditionError, server.admin.namespaces.delete(name="own"))
            await server.admin.namespaces.delete(name="own", cascade=True)
            assert (await _next(told)).kind == ChangeKind.DELETED
        recorded = [
            each async for each in server.admin.audit.list_operations(filter='resource_type = "route"')
        ]
        assert {each.action for each in recorded} >= {"create", "list", "delete"}


async def _next(told: AsyncIterator[Any]) -> Any:
    """Returns the next change of a resource."""
    async for change in told:
        if change.kind not in (ChangeKind.SYNCED, ChangeKind.BOOKMARK):
            return change
    raise AssertionError("the watch has ended")


async def _is_refused(kind: type[Exception], call: Any) -> None:
    try:
        await call
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def _kept(server: Server) -> int:
    async with server.database.system() as sql:
        return int(await sql.fetchval("SELECT count(*) FROM rendered_messages WHERE resource_type = 'route'"))


async def _is_rendered_again(server: Server) -> None:
    async with server.database.system() as sql:
        await sql.execute("DELETE FROM rendered_messages WHERE resource_type = 'route'")
    application = server.application
    await backfill_messages(application.store, application.watched)
    await poll_until(lambda: _kept(server), lambda kept: kept == 1, what="the message is rendered again")


async def find(database: Database) -> list[str]:
    """Returns the faults that the tests of all nouns would report."""
    rules = method_rules.load(SERVICES).values()
    faults = [f"{rule.name} has no request" for rule in rules if rule.name not in REQUESTS]
    for rule, name in itertools.product(rules, ROLES):
        forms = SHIPPED_ROLES[name].permissions
        held = any(permission_matches(form, rule.permission) for form in forms)
        if rule.permission.startswith("route.") and holds(name, rule.permission) != held:
            faults.append(f"the role {name} and {rule.permission}")
    try:
        test_every_resource_is_examined()
    except AssertionError:
        faults.append("a resource is not examined")
    async with database.owner() as owner:
        try:
            await fill(owner)
        except AssertionError as error:
            faults.append(str(error))
        faults += await findings(owner)
    return faults


async def schema(database: Database) -> None:
    """Applies every migration, reverts the newest one and applies it again."""
    path = schema_file.CHECKSUMS
    path.write_text(schema_file.written_checksums(path.read_text("utf-8")), "utf-8")
    await ensure_roles(database.admin_dsn)
    await runner.upgrade(database.maintenance_dsn)
    await runner.downgrade(database.maintenance_dsn, runner.revisions()[-2])
    await runner.upgrade(database.maintenance_dsn)


def take_away(names: Sequence[str]) -> list[str]:
    """Returns the modules that neither the server nor the client needs for its imports."""
    unmissed = []
    for name in names:
        path = Path(name)
        aside = path.rename(path.with_suffix(".aside"))
        try:
            _import_anew()
        except ImportError as error:
            if path.stem not in f"{error.name}.{error.msg}":
                raise
        else:
            unmissed.append(name)
        aside.rename(path)
    _import_anew()
    return unmissed


def _import_anew() -> None:
    app = "pilothouse_server.app"
    for name in [name for name in sys.modules if name == app or ".routes" in name or ".route." in name]:
        del sys.modules[name]
    for table in [each for each in METADATA.tables.values() if each.name == "routes"]:
        METADATA.remove(table)
    importlib.invalidate_caches()
    importlib.import_module(app)
    importlib.import_module("pilothouse_client.nouns.routes")


def main(word: str, *given: str) -> None:
    """Runs the check and prints its faults; the exit code is 1 if there are any."""
    faults: list[str] = []
    if word == "files":
        faults = take_away(given)
    else:
        database = Database(**json.loads(given[0]))
        if word == "serve":
            asyncio.run(serve(database, Path(given[1])))
        elif word == "schema":
            asyncio.run(schema(database))
        else:
            faults = asyncio.run(find(database))
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
