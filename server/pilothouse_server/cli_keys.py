"""`pilothouse keys`: the key-encryption keys.

    pilothouse keys add       a new newest key, in the key file of every server
    pilothouse keys rotate    wrap everything by it (asks a running server, as an administrator)
    pilothouse keys remove    take out a key that nothing uses any more

`add`, `list` and `remove` work on the file that the settings name; servers read it again by themselves.

Without its key a value is lost for ever, so `remove` first asks what the key is still needed for: the database where
the settings name one, else the server that one is logged in to. Where neither answers, or the one that does encrypts
under a key that this file does not hold (it is another installation's), only `--force` removes, and keeps a copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pilothouse_server.settings import Settings, SettingsError, load

_FAULT = 1
_USAGE = 2
_LONGEST_PAUSE_SECONDS = 2.0

app = typer.Typer(
    help="Key-encryption keys: add, list, rotate, remove.", no_args_is_help=True, add_completion=False
)
_File = Annotated[Path | None, typer.Option("--file", help="Key file; default: the one of the settings.")]


@app.command("add")
def add(file: _File = None) -> None:
    """Put a new newest key into the key file. It is used from the next `pilothouse keys rotate` on."""
    from pilothouse_server.keys import add_key

    path = _path(file)
    try:
        key_id = add_key(path)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    typer.echo(f"key {key_id} added to {path}")
    typer.echo("give every server this file, then: pilothouse keys rotate", err=True)


@app.command("list")
def list_keys(file: _File = None) -> None:
    """Show the identifiers of the keys in the key file, newest first."""
    from pilothouse_server.keys import KeyRing

    try:
        ring = KeyRing.load(_path(file), create=False)
    except SettingsError as error:
        _fail(str(error))
    for key_id in ring.key_encryption_keys:
        typer.echo(key_id)


@app.command("remove")
def remove(
    key_id: Annotated[str, typer.Argument(help="As `list` shows it.")],
    file: _File = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Do not ask whether it is used; the former file is kept beside it."),
    ] = False,
) -> None:
    """Take a key out of the key file. Refused while anything in the database is encrypted under it."""
    from pilothouse_server.keys import KeyRing, remove_key

    path = _path(file)
    try:
        held = KeyRing.load(path, create=False).key_encryption_keys
        if key_id in held and not force:
            _refuse_needed(key_id, held)
        kept = remove_key(path, key_id, keep=force)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    typer.echo(f"key {key_id} removed from {path}")
    if kept is not None:
        typer.echo(f"the former file is kept as {kept}: delete it once nothing needs the key", err=True)


@app.command("rotate")
def rotate(
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=10_000)] = 1000,
    timeout: Annotated[
        float, typer.Option("--wait-timeout", min=0.1, help="Seconds at most without progress.")
    ] = 10.0,
) -> None:
    """Wrap every data key by the newest key of the server's key file. May be cut off and called again."""
    from pilothouse_client.commands.invocation import connect

    ends = time.monotonic() + timeout
    pause = 0.05
    with connect() as client:
        while True:
            answer = client.config.rotate_keys(batch_size=batch_size)
            if not answer.remaining:
                break
            typer.echo(f"{answer.rotated} rotated, {answer.remaining} remain", err=True)
            if answer.rotated:
                ends, pause = time.monotonic() + timeout, 0.05
                continue
            # What is left may be written by somebody at the moment.
            if time.monotonic() > ends:
                _fail(f"{answer.remaining} data keys could not be rotated: the server's log says which")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    typer.echo(f"everything is encrypted under key {answer.key_id}")


def _refuse_needed(key_id: str, held: Collection[str]) -> None:
    """Ends the command unless it is certain that nothing needs the key."""
    settings = _settings()
    try:
        uses, active = _uses_in_database(settings) if settings.database_url else _uses_by_server()
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known of the key
        _fail(
            f"it cannot be found out whether {key_id} is used: {error}\n"
            "set PILOTHOUSE_DATABASE_URL, or log in to a running server; --force removes it all the same"
        )
    if active not in held:
        _fail(
            f"new values are encrypted under {active or 'no key yet'}, which this key file does not hold: "
            "it is not the key file of this database; --force removes the key all the same"
        )
    if uses.get(key_id):
        _fail(
            f"{key_id} is needed to read {uses[key_id]} stored values, which would be lost for ever: "
            "pilothouse keys rotate first"
        )
    if key_id == active:
        _fail(f"{key_id} is the key that new values are encrypted under: pilothouse keys rotate first")


def _uses_in_database(settings: Settings) -> tuple[Mapping[str, int], str]:
    from pilothouse_server.config.operations import rotation
    from pilothouse_server.store.engine import Database
    from pilothouse_server.store.unit_of_work import Store

    async def ask() -> rotation.KeyUse:
        database = Database.connect(settings)
        try:
            return await rotation.look(Store(database))
        finally:
            await database.close()

    found = asyncio.run(ask())
    return found.uses, found.active


def _uses_by_server() -> tuple[Mapping[str, int], str]:
    from pilothouse_client.commands.invocation import connect

    with connect() as client:
        answer = client.config.rotate_keys(validate_only=True)
    active = next((key.key_id for key in answer.keys if key.active), "")
    return {key.key_id: key.uses for key in answer.keys}, active


def _path(given: Path | None) -> Path:
    return _settings().key_file if given is None else given


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        typer.echo(f"pilothouse: {error}", err=True)
        raise typer.Exit(_USAGE) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"pilothouse: {message}", err=True)
    raise typer.Exit(_FAULT)
