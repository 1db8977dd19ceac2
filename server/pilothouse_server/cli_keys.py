"""`pilothouse keys`: the key-encryption keys.

    pilothouse keys add       a new newest key, in the key file of every server
    pilothouse keys rotate    wrap everything by it (asks a running server, as an administrator)
    pilothouse keys remove    take out a key that nothing uses any more

`add`, `list` and `remove` work on the file that the settings name; servers read it again by themselves.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pilothouse_server.settings import SettingsError, load

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
def remove(key_id: Annotated[str, typer.Argument(help="As `list` shows it.")], file: _File = None) -> None:
    """Take a key out of the key file, once `rotate` has said that nothing remains."""
    from pilothouse_server.keys import remove_key

    path = _path(file)
    try:
        remove_key(path, key_id)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    typer.echo(f"key {key_id} removed from {path}")


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


def _path(given: Path | None) -> Path:
    if given is not None:
        return given
    try:
        return load().key_file
    except SettingsError as error:
        typer.echo(f"pilothouse: {error}", err=True)
        raise typer.Exit(_USAGE) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"pilothouse: {message}", err=True)
    raise typer.Exit(_FAULT)
