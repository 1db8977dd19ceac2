"""`pilothouse keys`: the key-encryption keys.

    pilothouse keys add       a new newest key, for every server
    pilothouse keys rotate    wrap all data keys with it (done by a running server, for an administrator)
    pilothouse keys remove    remove a key that nothing uses any more

`add`, `list` and `remove` work on the providers that the settings name. Servers read the file and the token
again by themselves; for the environment the commands print the value to set.

A value is lost permanently without its key. So `remove` first checks whether the key is still needed: in the
database if the settings name one, else by a call to the server that the user is logged in to. If neither responds, or
that server encrypts under a key that is not here (it belongs to another installation), only `--force` removes the key;
it keeps a copy of a file. A key of a token is not destroyed, but gets another label.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError, load

if TYPE_CHECKING:
    from pilothouse_server.encryption.hsm.token import PkcsToken

T = TypeVar("T")

_FAULT = 1
_USAGE = 2
_LONGEST_PAUSE_SECONDS = 2.0

app = verbs.VerbGroup(help="Key-encryption keys: add, list, rotate, remove.", no_args_is_help=True)
_File = Annotated[
    Path | None, verbs.Option("--file", help="Key file; default: what PILOTHOUSE_KEY_PROVIDERS names.")
]


@app.command("add")
def add(
    file: _File = None,
    provider: Annotated[
        str, verbs.Option(help="file, environment or pkcs11; default: the first of PILOTHOUSE_KEY_PROVIDERS.")
    ] = "",
) -> None:
    """Create a new key. It encrypts from the next `pilothouse keys rotate` on."""
    from pilothouse_server.encryption import keys

    settings = _settings()
    named = keys.providers(settings) if file is None else (keys.FILE,)
    provider = provider or named[0]
    if provider not in named:
        _fail(f"{PREFIX}KEY_PROVIDERS does not name {provider}, or --file excludes it", _USAGE)
    if provider == keys.ENVIRONMENT:
        text, key_id = keys.new_key()
        say(text)
        say(
            f"key {key_id} is made: put this line before the others in {PREFIX}SECRET_KEYS of every server and start "
            "them again, then: pilothouse keys rotate",
            err=True,
        )
        return
    try:
        if provider == keys.PKCS11:
            key_id, place = (
                _in_token(settings, lambda token: token.add(), writes=True),
                f'token "{settings.pkcs11_token}"',
            )
        else:
            path = _path(settings, file)
            key_id, place = keys.add_key(path), str(path)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    say(f"key {key_id} added to {place}")
    say(f"give every server this {_kind(provider)}, then: pilothouse keys rotate", err=True)


@app.command("list")
def list_keys(file: _File = None) -> None:
    """List the identifiers of the keys, newest first; if there are several providers, with the provider."""
    try:
        held = _held(_settings(), file)
    except SettingsError as error:
        _fail(str(error))
    several = len(set(held.values())) > 1
    for key_id, provider in held.items():
        say(f"{key_id}  {provider}" if several else key_id)


@app.command("remove")
def remove(
    key_id: Annotated[str, verbs.Argument(help="As `list` shows it.")],
    file: _File = None,
    force: Annotated[
        bool,
        verbs.Option("--force", help="Do not check whether the key is used; keep a copy of the key file."),
    ] = False,
) -> None:
    """Remove a key from its provider. This is refused while anything in the database is encrypted under it."""
    from pilothouse_server.encryption import keys

    settings = _settings()
    kept = None
    try:
        held = _held(settings, file)
        provider = held.get(key_id, keys.FILE)
        if key_id in held and not force:
            _refuse_needed(key_id, held)
        if provider == keys.ENVIRONMENT:
            say(f"take key {key_id} out of {PREFIX}SECRET_KEYS of every server, and start them again")
            return
        if provider == keys.PKCS11:
            name = f"{settings.pkcs11_key_label}.removed"
            _in_token(settings, lambda token: token.rename(key_id, name), writes=True)
            say(f'key {key_id} of token "{settings.pkcs11_token}" has the label {name} now')
            return
        path = _path(settings, file)
        kept = keys.remove_key(path, key_id, keep=force)
    except (SettingsError, OSError) as error:
        _fail(str(error))
    say(f"key {key_id} removed from {path}")
    if kept is not None:
        say(f"the former file is kept as {kept}: delete it once nothing needs the key", err=True)


@app.command("rotate")
def rotate(
    batch_size: Annotated[int, verbs.Option("--batch-size", min=1, max=10_000)] = 1000,
    timeout: Annotated[
        float, verbs.Option("--wait-timeout", min=0.1, help="Maximum seconds without progress.")
    ] = 10.0,
) -> None:
    """Wrap every data key with the server's newest key. If it is interrupted, run it again to continue."""
    from pilothouse_client.commands.invocation import connect

    ends = time.monotonic() + timeout
    pause = 0.05
    with connect() as client:
        while True:
            answer = client.config.rotate_keys(batch_size=batch_size)
            if not answer.remaining:
                break
            say(f"{answer.rotated} rotated, {answer.remaining} remain", err=True)
            if answer.rotated:
                ends, pause = time.monotonic() + timeout, 0.05
                continue
            # The remaining values may be those that another transaction writes at the moment.
            if time.monotonic() > ends:
                _fail(f"{answer.remaining} data keys could not be rotated: see the server's log")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    say(f"everything is encrypted under key {answer.key_id}")


def _refuse_needed(key_id: str, held: Collection[str]) -> None:
    """Ends the command unless it is certain that nothing needs the key."""
    settings = _settings()
    try:
        uses, active = _uses_in_database(settings) if settings.database_url else _uses_by_server()
    except Exception as error:  # noqa: BLE001 - after any failure the uses of the key are unknown
        _fail(
            f"this command cannot check whether {key_id} is used: {error}\n"
            "set PILOTHOUSE_DATABASE_URL, or log in to a running server; --force removes it nevertheless"
        )
    if active not in held:
        _fail(
            f"the key that encrypts new values ({active or 'none yet'}) is not among these keys: "
            "they may not be those of the database; --force removes the key nevertheless"
        )
    if uses.get(key_id):
        _fail(
            f"{key_id} decrypts {uses[key_id]} stored values, which would be lost for ever: run "
            "pilothouse keys rotate first"
        )
    if key_id == active:
        _fail(f"{key_id} encrypts new values: run pilothouse keys rotate first")


def _uses_in_database(settings: Settings) -> tuple[Mapping[str, int], str]:
    from pilothouse_server.app import SEALED
    from pilothouse_server.config.operations import rotation
    from pilothouse_server.store.engine import Database
    from pilothouse_server.store.unit_of_work import Store

    async def ask() -> rotation.KeyUse:
        database = Database.connect(settings)
        try:
            return await rotation.look(Store(database), SEALED)
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


def _held(settings: Settings, file: Path | None) -> dict[str, str]:
    """Returns the provider of each key, by identifier, newest first; `file`: of that key file alone.

    Raises:
        SettingsError: a provider cannot be read.
    """
    from pilothouse_server.encryption import keys

    if file is not None:
        return dict(keys.KeyRing.load(file, create=False).providers)
    ring = keys.KeyRing.of(settings, create=False)
    local = {key_id: ring.providers[key_id] for key_id in ring.key_encryption_keys}
    named = keys.providers(settings)
    if keys.PKCS11 not in named:
        return local
    of_token = dict.fromkeys(_in_token(settings, lambda token: token.keys()), keys.PKCS11)
    return {**of_token, **local} if named[0] == keys.PKCS11 else {**local, **of_token}


def _in_token(settings: Settings, work: Callable[[PkcsToken], Awaitable[T]], *, writes: bool = False) -> T:
    """Returns the result of `work` in the token. Raises SettingsError."""
    from pilothouse_server.encryption.hsm.token import PkcsToken, TokenLocation
    from pilothouse_server.errors import PilothouseError

    async def done() -> T:
        token = PkcsToken(TokenLocation.of(settings, writes=writes))
        try:
            return await work(token)
        except PilothouseError as error:
            raise SettingsError(error.message) from None
        finally:
            await token.close()

    return asyncio.run(done())


def _kind(provider: str) -> str:
    return "token" if provider == "pkcs11" else "file"


def _path(settings: Settings, given: Path | None) -> Path:
    return settings.key_file if given is None else given


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        say(f"pilothouse: {error}", err=True)
        raise verbs.Exit(_USAGE) from None


def _fail(message: str, code: int = _FAULT) -> NoReturn:
    say(f"pilothouse: {message}", err=True)
    raise verbs.Exit(code)
