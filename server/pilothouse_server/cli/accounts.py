"""`pilothouse reset-password --local`: replaces a lost password, on the server's machine.

It works on the database that the settings name, or on the one in the data folder, whether a server runs or
not. Anyone who can read those settings may do it, and nobody else can.
"""

from __future__ import annotations

import asyncio
import getpass
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, NoReturn

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.settings.model import Settings, SettingsError, load

_FAULT = 1
_USAGE = 2


def reset_password(
    username: Annotated[str, verbs.Argument(help="User name.")] = "admin",
    local: Annotated[bool, verbs.Option("--local", help="Change the server's database directly.")] = False,
    password_stdin: Annotated[
        bool,
        verbs.Option(
            "--password-stdin",
            help="Read the new password from standard input; else generate one and show it once.",
        ),
    ] = False,
    remove_second_factor: Annotated[
        bool, verbs.Option("--remove-second-factor", help="Also remove the user's authenticator.")
    ] = False,
) -> None:
    """Set a user's password on the server's machine, for when nobody who may reset it can log in.

    Needs the server's settings (PILOTHOUSE_DATABASE_URL, or PILOTHOUSE_DATA_DIR of `serve --dev`). The user's
    sessions end, and the audit log records the change. If you can log in, use `pilothouse users reset-password`.
    """
    if not local:
        _fail(
            (
                "give --local, on the server's machine; users who can log in use: pilothouse users "
                "reset-password NAME"
            ),
            _USAGE,
        )
    try:
        settings = load()
    except SettingsError as error:
        _fail(str(error), _USAGE)
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else secrets.token_urlsafe(24)
    try:
        asyncio.run(_reset(settings, username, password, without_factor=remove_second_factor))
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        _fail(words, _FAULT)
    if remove_second_factor:
        say(f"{username} has no second factor any more")
    say(f"password of {username} set; the sessions of {username} have ended")
    if not password_stdin:
        say(f"\n  {username}   password  {password}\n  (made now, shown once, not stored)")


async def _reset(settings: Settings, username: str, password: str, *, without_factor: bool) -> None:
    from pilothouse_migrations import schema
    from pilothouse_server.identity.credentials.local_reset import reset_locally
    from pilothouse_server.identity.credentials.password_policy import NewPasswords
    from pilothouse_server.identity.credentials.passwords import Passwords
    from pilothouse_server.store.engine import Database, plain_dsn
    from pilothouse_server.store.unit_of_work import Store

    passwords = Passwords(threads=1)
    try:
        async with _database(settings) as reached:
            await schema.check(plain_dsn(reached.maintenance_database_url or reached.database_url))
            database = Database.connect(reached)
            try:
                await reset_locally(
                    Store(database),
                    NewPasswords(passwords, settings),
                    username,
                    password,
                    {"account": getpass.getuser()},
                    without_factor=without_factor,
                )
            finally:
                await database.close()
    finally:
        passwords.close()


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Settings]:
    """Yields settings for using the server's database."""
    if settings.database_url:
        yield settings
        return
    from pilothouse_server.launch.development import local_database

    async with local_database(settings) as reached:
        yield reached


def _fail(message: str, code: int) -> NoReturn:
    say(f"pilothouse: {message}", err=True)
    raise verbs.Exit(code)
