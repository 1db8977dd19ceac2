"""The filled environment, made once for all tests of a process.

It is copied for each test that requests it. Filling an environment takes a hundred calls, which is more than
most tests make in it. A copy has the same rows, and the same keys in the server's folder. It has its own server
and cluster, so nothing is cached in them.

Callers are logged in for a quarter of an hour. An environment older than a few minutes is therefore made again.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store import rewind_detection
from tests.conftest import Database, new_database
from tests.promises import requests
from tests.promises.calling import Caller, token_of
from tests.promises.environment import Environment, copied_environment, prepare, quiet_environment

_GOOD_FOR_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Furnished:
    """A filled environment after its server has ended."""

    database: Database
    folder: Path
    made_at: float
    tokens: Mapping[str, str]
    fields: Mapping[str, requests.Fields]
    made: Mapping[str, Callable[[], requests.Fields]]


class EnvironmentTemplate:
    """Makes the filled environment when it is first requested; `close` drops it."""

    def __init__(self, postgres: EmbeddedPostgres, template: Database, folder: Path) -> None:
        self._postgres = postgres
        self._template = template
        self._folder = folder
        self._stack = AsyncExitStack()
        self._furnished: Furnished | None = None

    @asynccontextmanager
    async def environment(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Environment]:
        """Yields a copy for one test; `folder` is its server's folder."""
        filled_environment = await self.newest()
        shutil.copytree(filled_environment.folder, folder, dirs_exist_ok=True)
        # This file belongs to the source database.
        (folder / rewind_detection.FILE_NAME).unlink(missing_ok=True)
        async with (
            new_database(self._postgres, filled_environment.database.name) as database,
            copied_environment(database, folder, monkeypatch) as environment,
        ):
            for name, token in filled_environment.tokens.items():
                environment.callers[name] = Caller(environment.admin.channel, token)
            # The copy's own fields override the source's, because they contain its cluster's address.
            environment.fields = {**filled_environment.fields, **environment.fields}
            environment.made = {**filled_environment.made}
            yield environment

    async def newest(self) -> Furnished:
        """Returns the source of a copy. A test that breaks the server calls this first."""
        now = asyncio.get_running_loop().time()
        if self._furnished is None or now - self._furnished.made_at > _GOOD_FOR_SECONDS:
            await self.close()
            database = await self._stack.enter_async_context(
                new_database(self._postgres, self._template.name)
            )
            folder = self._folder / database.name
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                async with quiet_environment(database, folder, patch) as environment:
                    await prepare(environment)
                    tokens = {name: token_of(caller) for name, caller in environment.callers.items()}
            self._furnished = Furnished(
                database, folder, now, tokens, {**environment.fields}, {**environment.made}
            )
        return self._furnished

    async def close(self) -> None:
        """Drops the databases."""
        self._furnished = None
        await self._stack.aclose()
        self._stack = AsyncExitStack()
