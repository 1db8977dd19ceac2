"""The stored database of each release: migrated to the present and back, and served with all of its content."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from pilothouse_migrations import roles, runner, schema
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres, program
from tests.conftest import Database, connection, new_database
from tests.harness import PASSWORD, running_server
from tests.main_job.test_application import contains
from tests.migrations.catalogue import as_before, contents, snapshot
from tests.processes import finished
from tests.promises.calling import Caller, served
from tests.promises.requests import OWN, Fields, request_for
from tests.promises.stored_log import log_faults, tree_faults
from tests.upgrade.storing import FOLDER, WHOLE, read_keys
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=3)

_RELEASES = sorted(path.stem for path in FOLDER.glob("*.sql"))


@asynccontextmanager
async def stored(postgres: EmbeddedPostgres, release: str) -> AsyncIterator[Database]:
    """Yields the database of a release as it was stored."""
    async with new_database(postgres) as database:
        async with connection(postgres.dsn()) as admin:
            await admin.execute(
                f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {database.name} TO {roles.OWNER}"
            )
            logins = ", ".join(roles.LOGINS.values())
            await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {database.name} TO {logins}")
        words = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={FOLDER / release}.sql"]
        code, _, errors = await finished(str(program("psql")), *words, database.admin_dsn)
        assert code == 0, errors
        yield database


def data_folder(release: str, folder: Path) -> Path:
    """Creates a server's data folder with the keys of a release."""
    folder.mkdir()
    for name, content in read_keys(FOLDER / f"{release}.keys").items():
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o600)
    return folder


_Contents = dict[str, list[dict[str, Any]]]


def reparsed(lines: set[str]) -> set[str]:
    """Returns lines of a schema without casts: PostgreSQL adds some to constraints as it reads a dump."""
    return {re.sub(r"::\w+( varying)?(\[\])?|[()]", "", line) for line in lines}


def _stored_images(found: _Contents, stored: _Contents) -> _Contents:
    """Returns the rows without images that a migration found in the containers.

    A downgrade keeps those images.
    """
    images = [row for row in found["container_images"] if row in stored["container_images"]]
    return {**found, "container_images": images}


@pytest.mark.parametrize("release", _RELEASES)
async def test_a_stored_release_is_migrated_up_and_down(
    postgres: EmbeddedPostgres, template_database: Database, release: str
) -> None:
    async with connection(template_database.admin_dsn) as admin:
        present = await snapshot(admin)
    async with stored(postgres, release) as database, database.owner() as owner:
        rows, as_stored = await contents(owner), await snapshot(owner)
        assert rows["containers"], "nothing is stored"
        newest = await owner.fetchval("SELECT max(version) FROM schema_migrations")
        known = runner.revisions()

        assert await runner.upgrade(database.maintenance_dsn) == known[known.index(newest) + 1 :]
        await schema.check(database.maintenance_dsn)
        assert reparsed(await snapshot(owner)) == reparsed(present)
        assert _stored_images(as_before(await contents(owner), rows), rows) == rows
        async with connection(database.admin_dsn) as admin:
            assert await log_faults(admin) == []
            assert await tree_faults(admin) == []

        if newest != known[-1]:
            await runner.downgrade(database.maintenance_dsn, newest)
        assert reparsed(await snapshot(owner)) == reparsed(as_stored)
        assert _stored_images(await contents(owner), rows) == rows


@pytest.mark.parametrize("release", _RELEASES)
async def test_a_stored_release_is_served(postgres: EmbeddedPostgres, tmp_path: Path, release: str) -> None:
    async with stored(postgres, release) as database:
        await runner.upgrade(database.maintenance_dsn)
        folder = data_folder(release, tmp_path / "data")
        async with running_server(database, folder) as server:
            channel = server.channel()
            rules = {rule.name: rule for rule in (await served(channel)).values()}
            stranger = Caller(channel)

            async def call(caller: Caller, name: str, fields: Fields) -> Fields:
                outcome = await caller.invoke(rules[name], request_for(rules[name], fields))
                assert outcome.code == "OK", f"{name}: {outcome.code} {outcome.message}"
                answer: Fields = MessageToDict(outcome.answer)
                return answer

            async def log_in(username: str) -> Caller:
                session = await call(stranger, "Login", {"username": username, "password": PASSWORD})
                return Caller(channel, session["accessToken"])

            admin = await log_in("admin")
            # The stored container runs on the cluster with everything that it specifies; the cluster has not had it
            # before.
            whole = {"namespace": OWN, "name": WHOLE["name"]}

            async def container() -> Fields:
                found: Fields = (await call(admin, "GetContainer", whole))["container"]
                return found

            running = await poll_until(
                container,
                lambda found: found["status"] == "CONTAINER_STATUS_RUNNING",
                seconds=60,
                what="the stored container runs",
            )
            assert contains(running, WHOLE, "container") == []
            revealed = await call(admin, "RevealSecret", {"namespace": OWN, "name": "web"})
            assert revealed["data"] == {"key": "dmFsdWU="}
            # Grants apply: an operator of one namespace changes its content and does not see the other namespace.
            operator = await log_in("own-operator")
            change = {"container": {"replicas": 2}, "updateMask": "replicas"}
            await call(operator, "UpdateContainer", {**whole, **change})
            names = await call(operator, "ListNamespaces", {})
            assert [each["name"] for each in names["namespaces"]] == [OWN]
            verified = await call(admin, "VerifyAuditLog", {})
            assert not verified.get("problems"), verified
