"""`pilothouse api-keys`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.access_description import is_id, key_of
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import TableOptions
from pilothouse_client.commands.name_completion import complete_api_key, complete_user
from pilothouse_client.commands.options import (
    Format,
    Output,
    ValidateOnly,
    Yes,
    confirm,
)
from pilothouse_client.commands.output import OutputColumn, done, show
from pilothouse_client.commands.recent_proof import with_recent_proof
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.times import parse_span, to_duration, to_timestamp
from pilothouse_client.commands.values import age, moment

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

app = verbs.VerbGroup(no_args_is_help=True, help="API keys for programs.")
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda key: key.name),
    OutputColumn("KEY", lambda key: f"{key.prefix}…"),
    OutputColumn("USER", lambda key: key.username),
    OutputColumn("MAY", lambda key: _limits(key)),
    OutputColumn("EXPIRES", lambda key: moment(key.expire_time), whole=True),
    OutputColumn("USED", lambda key: age(key.last_use_time)),
    OutputColumn("FROM", lambda key: key.last_use_address, wide=True),
    OutputColumn("LAST USE", lambda key: moment(key.last_use_time), wide=True),
    OutputColumn("ID", lambda key: key.api_key_id, whole=True, wide=True),
]
_Key = Annotated[
    str, verbs.Argument(help="Its name or its id, as `list` shows them.", complete=complete_api_key)
]
_Whose = Annotated[
    str, verbs.Option("--user", complete=complete_user, help="User or service account; default: you.")
]
_Keys = Annotated[
    list[str],
    verbs.Argument(
        help="Their names or ids, as `list` shows them.", complete=complete_api_key, metavar="KEY..."
    ),
]
_ExpiresIn = Annotated[str, verbs.Option("--expires-in", help="Such as 12h, 30d; not given: 90 days.")]


def _limits(key: Any) -> str:
    """Returns the permissions of a key, in a few words."""
    where = ",".join(key.namespaces)
    if key.hidden_namespaces:
        where = f"{where or 'nothing'} (+{key.hidden_namespaces} hidden)"
    # A narrow terminal cuts the end, so the most important words come first.
    words = ["replaced"] if key.rotate_time.seconds else []
    words += ["read-only"] if key.read_only else []
    words += [",".join(key.permissions) or "*", f"in {where or '*'}"]
    words += [f"from {','.join(key.allowed_networks)}"] if key.allowed_networks else []
    return " ".join(words)


def _end(expires_in: str) -> Timestamp | None:
    if not expires_in:
        return None
    seconds = parse_span(expires_in, "--expires-in")
    try:
        return to_timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
    except OverflowError:
        raise CommandError(f"--expires-in {expires_in} is too long", 2) from None


def _show_made(answer: Any, output: Format, *, alone: bool) -> None:
    """Shows a new key: the whole response to programs, a separate line to people, or that line alone."""
    if alone:
        say(answer.key)
    elif not output.is_table:
        show(answer, [], output)
    else:
        show(answer.api_key, COLUMNS, output)
        if answer.key:
            say(f"\nstore it now, it is not shown again:\n{answer.key}")


_Alone = Annotated[bool, verbs.Option("-q", "--quiet", help="Print the key and nothing else.")]


@app.command("create")
def create(
    name: Annotated[str, verbs.Argument(help="Name of the key.")],
    permission: Annotated[
        list[str] | None,
        verbs.Option("-p", "--permission", help="<noun>.<verb>, <noun>.* or *; repeat; not given: all."),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        verbs.Option("-n", "--namespace", help="Namespace in which it works; repeat; not given: all."),
    ] = None,
    read_only: Annotated[
        bool, verbs.Option("--read-only", help="The key cannot change or reveal anything.")
    ] = False,
    expires_in: _ExpiresIn = "",
    allow_from: Annotated[
        list[str] | None,
        verbs.Option("--allow-from", help="Address or network that may use it, such as 10.0.0.0/8; repeat."),
    ] = None,
    service_account: Annotated[
        str,
        verbs.Option(
            "--service-account", help="Service account of the key, such as sa:shop:ci; default: you."
        ),
    ] = "",
    quiet: _Alone = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a key; it is shown only once."""
    answer = with_recent_proof(
        lambda client: client.identity.create_api_key(
            name=name,
            permissions=permission or [],
            namespaces=namespace or [],
            read_only=read_only,
            expire_time=_end(expires_in),
            allowed_networks=allow_from or [],
            service_account=service_account,
            validate_only=validate_only,
        )
    )
    _show_made(answer, output, alone=quiet)


@app.command("list")
def list_keys(
    user: _Whose = "",
    all_users: Annotated[
        bool, verbs.Option("--all-users", help="Keys of all users, for administrators.")
    ] = False,
    *,
    options: TableOptions,
) -> None:
    """List valid keys, with their last use. Filter by any field that is shown."""
    options.show(COLUMNS, lambda client: client.identity.list_api_keys, username=user, all_users=all_users)


@app.command("describe")
def describe_keys(keys: _Keys, user: _Whose = "") -> None:
    """Show details of keys: permissions, namespaces, networks, expiry, last use, changes."""
    describe.describe_each("api-keys", keys, user)


@app.command("rotate")
def rotate(
    key: _Key,
    user: _Whose = "",
    overlap: Annotated[
        str, verbs.Option("--overlap", help="Time that the old key stays valid, at most 7d; not given: none.")
    ] = "",
    expires_in: Annotated[
        str, verbs.Option("--expires-in", help="Such as 12h, 30d; not given: as for the old key.")
    ] = "",
    quiet: _Alone = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Replace a key by a new one with the same limits; the new key is shown only once."""
    answer = with_recent_proof(
        lambda client: client.identity.rotate_api_key(
            api_key_id=_id_of(client, key, user, "NOT rotate_time:*"),
            overlap=to_duration(parse_span(overlap, "--overlap")) if overlap else None,
            expire_time=_end(expires_in),
            validate_only=validate_only,
        )
    )
    _show_made(answer, output, alone=quiet)


@app.command("revoke")
def revoke(
    keys: Annotated[
        list[str] | None,
        verbs.Argument(
            help="Their names or ids, as `list` shows them.", complete=complete_api_key, metavar="[KEY]..."
        ),
    ] = None,
    user: _Whose = "",
    everything: Annotated[bool, verbs.Option("--all", help="All keys of the user.")] = False,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Revoke keys: calls with them are refused within a second."""
    if bool(keys) == everything:
        raise CommandError("name keys, or use --all", 2)
    if keys and not validate_only:
        confirm(f"End {many.in_words('key', 'keys', keys)}?", yes)
    with connect() as client:
        ids = {key: key for key in keys or ()}
        if everything:
            ids = {each.api_key_id: each.name for each in client.identity.list_api_keys(username=user)}
            if not ids:
                raise CommandError(
                    f"{user or 'you'} {'has' if user else 'have'} no valid key", 6, "NOT_FOUND"
                )
            if not validate_only:
                confirm(f"End {many.in_words('key', 'keys', list(ids.values()))}?", yes)

        def act(key: str) -> None:
            found = key if everything else _id_of(client, key, user)
            client.identity.revoke_api_key(api_key_id=found, validate_only=validate_only)
            done(f"key {ids[key]} ended")

        many.act_on_each(list(ids), act, done="ended")


def _id_of(client: Any, key: str, user: str, narrowed: str = "") -> str:
    """Returns the id of a key that the user has named by its id or its name."""
    return key if is_id(key) else str(key_of(client, key, user, narrowed).api_key_id)
