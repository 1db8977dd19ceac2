"""`pilothouse backup` and `pilothouse restore`.

    pilothouse backup                  make a backup now
    pilothouse backup list             those of a folder
    pilothouse backup verify PATH      every byte of one, as a restore would read it
    pilothouse backup key FILE         a key file to encrypt them under
    pilothouse restore PATH            into an empty database; --dev: into a new data folder

They work on the database that the settings name for the maintenance login, or else on the one that
`pilothouse serve --dev` runs in the data folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Coroutine
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError, database_secured, load

if TYPE_CHECKING:
    from pilothouse_server.backup.manifests import Backup

_FAULT = 1
_USAGE = 2

backup = verbs.VerbGroup(help="Back up the database, and manage backups.", invoke_without_command=True)
_Folder = Annotated[
    Path | None,
    verbs.Option(
        "--directory", help="Folder of the backups; default PILOTHOUSE_BACKUP_DIR, else backups in DATA_DIR."
    ),
]
_KeyFile = Annotated[
    Path | None,
    verbs.Option("--key-file", help="Key file of the backup; default PILOTHOUSE_BACKUP_KEY_FILE."),
]
_Path = Annotated[Path, verbs.Argument(help="The folder of one backup.")]


@backup.main_verb()
def make(
    context: verbs.Context,
    directory: _Folder = None,
    key_file: _KeyFile = None,
    with_master_keys: Annotated[
        bool,
        verbs.Option(
            "--with-master-keys",
            help="Include the file of the master keys; needs a key file to encrypt it.",
        ),
    ] = False,
) -> None:
    """Back up the database, and print the path of the backup."""
    if context.invoked_subcommand is not None:
        return
    from pilothouse_server.app import SEALED
    from pilothouse_server.backup import making

    settings = _settings()
    master_key_file = _master_key_file(settings) if with_master_keys else None
    plan = making.Plan(
        dsn=_maintenance_url(settings),
        folder=_folder(settings, directory),
        key_file=key_file or settings.backup_key_file,
        master_key_file=master_key_file,
        sealed=SEALED,
    )
    made: Backup = _run(making.make(plan))
    say(made.path)
    if not made.manifest.encrypted_under:
        say(
            (
                f"it is {_protection(made)}: anybody who reads it can read the database. Name a key file "
                f"by --key-file or {PREFIX}BACKUP_KEY_FILE (pilothouse backup key FILE makes one)"
            ),
            err=True,
        )
    _say_what_else(made, _held_by(master_key_file))
    master_keys = settings.key_file.resolve()
    if master_keys.exists() and made.path.resolve().is_relative_to(master_keys.parent):
        say(
            (
                f"it is next to the master keys ({settings.key_file}): anybody who takes both can read "
                "its secrets. Name another folder by --directory or PILOTHOUSE_BACKUP_DIR, or copy it "
                "elsewhere"
            ),
            err=True,
        )


@backup.command("list")
def list_backups(directory: _Folder = None) -> None:
    """List the backups in a folder, oldest first."""
    from pilothouse_server.backup import manifests
    from pilothouse_server.backup.manifests import Backup

    folder = _folder(_settings(), directory)

    async def found() -> list[Backup | Path]:
        return manifests.found_in(folder)

    for each in _run(found()):
        if isinstance(each, Backup):
            say(
                f"{each.path.name}  {_moment(each.manifest.created_at)}  {each.bytes:>12} bytes  "
                f"migration {each.manifest.schema_version}  {_protection(each)}"
            )
        else:
            say(f"{each.name}  cannot be read; for the reason: pilothouse backup verify {each}")


@backup.command("verify")
def verify(path: _Path, key_file: _KeyFile = None) -> None:
    """Verify a backup: every byte of it, as a restore would read it. Nothing is written."""
    from pilothouse_server.backup import verifying

    found: verifying.Verified = _run(verifying.verify(path, key_file or _settings().backup_key_file))
    manifest = found.backup.manifest
    say(
        f"{path} is whole: database {manifest.database} of {_moment(manifest.created_at)}, migration "
        f"{manifest.schema_version}, audit log up to record {manifest.audit_sequence}, "
        f"root hash of its newest sealed head {manifest.audit_head or 'none'}; "
        f"{_protection(found.backup)}"
    )


@backup.command("key")
def make_key(file: Annotated[Path, verbs.Argument(help="The file to create.")]) -> None:
    """Create a key file to encrypt backups with. Do not store it with the backups."""
    from pilothouse_server.backup import sealing

    async def made() -> str:
        return sealing.make_key_file(file)

    say(f"key {_run(made())} made in {file}")
    say("store a copy apart from the backups: without it they cannot be read", err=True)


def restore(
    path: _Path,
    admin_url: Annotated[
        str,
        verbs.Option(
            help="postgresql:// URL of a superuser, for the empty database; missing roles are created."
        ),
    ] = "",
    key_file: _KeyFile = None,
    master_keys_to: Annotated[
        Path | None,
        verbs.Option("--master-keys-to", help="Write the master keys of the backup to this new file."),
    ] = None,
    dev: Annotated[
        bool,
        verbs.Option(
            "--dev", help="Restore into a data folder without a database, for `pilothouse serve --dev`."
        ),
    ] = False,
) -> None:
    """Restore a backup into an empty database, whole or not at all.

    The target is the database of --admin-url, else of the maintenance login in the settings, or with --dev the data
    folder. A new history of events begins: servers refuse resume tokens of earlier watches. Start servers on the
    database as usual; they compare the clusters with it.
    """
    from pilothouse_server.backup import restoring

    settings = _settings()
    if dev and admin_url:
        _fail("--dev and --admin-url exclude each other", _USAGE)

    async def restored_to(url: str) -> Backup:
        order = restoring.Order(
            path=path,
            dsn=url,
            key_file=key_file or settings.backup_key_file,
            makes_roles=dev or bool(admin_url),
            master_keys_to=master_keys_to,
        )
        return await restoring.restore(order)

    async def restored_for_development() -> Backup:
        from pilothouse_server.launch.development import new_database

        async with new_database(settings) as url:
            return await restored_to(url)

    if dev:
        restored = _run(restored_for_development())
    else:
        restored = _run(
            restored_to(_secured(admin_url, settings) if admin_url else _maintenance_url(settings))
        )
    say(f"{path} is restored: as of {_moment(restored.manifest.created_at)}")
    if restoring.is_older(restored):
        say("it was made by an earlier release; run: pilothouse migrate up", err=True)
    _say_what_else(restored)


def _master_key_file(settings: Settings) -> Path:
    from pilothouse_server.encryption.keys import FILE, providers

    try:
        named = providers(settings)
    except SettingsError as error:
        _fail(str(error), _USAGE)
    if FILE not in named:
        _fail(
            f"--with-master-keys needs the key provider file, but {PREFIX}KEY_PROVIDERS names {', '.join(named)}",
            _USAGE,
        )
    return settings.key_file


def _held_by(file: Path | None) -> frozenset[str]:
    """Returns the identifiers of the keys in a key file that the backup includes."""
    from pilothouse_server.encryption.keys import KeyRing

    return frozenset() if file is None else frozenset(KeyRing.load(file, create=False).key_encryption_keys)


def _say_what_else(found: Backup, along: Collection[str] | None = None) -> None:
    """Prints the keys that the backup needs but does not include; `along`: those that it includes, if known."""
    from pilothouse_server.backup import manifests

    has_file = found.find(manifests.MASTER_KEYS) is not None
    if has_file and along is None:
        return
    missing = [
        key_id for key_id in found.manifest.master_key_ids if not has_file or key_id not in (along or ())
    ]
    if missing:
        say(
            (
                f"its secrets can be read only with the keys {' and '.join(missing)}, which it does not include: "
                "back them up separately (the key file, the setting or the token that has them)"
            ),
            err=True,
        )


def _protection(found: Backup) -> str:
    under = found.manifest.encrypted_under
    return f"encrypted under {under}" if under else "not encrypted"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _folder(settings: Settings, given: Path | None) -> Path:
    return given or settings.backup_dir or settings.data_dir / "backups"


def _maintenance_url(settings: Settings) -> str:
    url = settings.maintenance_database_url or settings.database_url
    if not url:
        from pilothouse_server.launch.development import running_database

        url = running_database(settings)
    if not url:
        _fail(
            f"{PREFIX}MAINTENANCE_DATABASE_URL or {PREFIX}DATABASE_URL must be set: `pilothouse serve --dev` does "
            f"not run in {settings.data_dir}",
            _USAGE,
        )
    return url


def _secured(url: str, settings: Settings) -> str:
    """Returns a URL of the command line with its degree of TLS, by the same rules as for settings."""
    try:
        return database_secured("--admin-url", url, settings.database_ca_file, os.environ)
    except SettingsError as error:
        _fail(str(error), _USAGE)


def _settings() -> Settings:
    try:
        return load(os.environ)
    except SettingsError as error:
        _fail(str(error), _USAGE)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs `work` to the end; reports a known failure in one line, without a traceback."""
    try:
        return asyncio.run(work)
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        _fail(words, _FAULT)


def _fail(message: str, code: int) -> NoReturn:
    say(f"pilothouse: {message}", err=True)
    raise verbs.Exit(code)
