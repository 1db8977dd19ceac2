"""`pilothouse users`."""

from __future__ import annotations

from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import ScopeOptions
from pilothouse_client.commands.name_completion import complete_user
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Output,
    ValidateOnly,
    Yes,
    check_changes,
    complete_words,
    confirm,
    enum_number,
)
from pilothouse_client.commands.output import OutputColumn, done, show
from pilothouse_client.commands.secret_input import FromStdin, read_password
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import age, enum_label, moment

app = verbs.VerbGroup(no_args_is_help=True, help="People and programs that use the platform.")
app.command("describe")(describe.of("users"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("USERNAME", lambda user: user.username),
    OutputColumn("STATUS", lambda user: enum_label(user, "status")),
    OutputColumn("EMAIL", lambda user: user.email),
    OutputColumn("FULL NAME", lambda user: user.full_name),
    OutputColumn("LOGIN", lambda user: age(user.last_login_time)),
    OutputColumn("SECOND FACTOR", lambda user: "yes" if user.second_factor else ""),
    OutputColumn("LAST LOGIN", lambda user: moment(user.last_login_time), wide=True),
]
_Username = Annotated[str, verbs.Argument(help="User name.", complete=complete_user)]
EndKeys = Annotated[bool, verbs.Option("--end-keys", help="End all API keys of the user, too.")]
_Email = Annotated[str | None, verbs.Option("--email", help="E-mail address.")]
_FullName = Annotated[str | None, verbs.Option("--full-name", help="Full name.")]
_AvatarUrl = Annotated[str | None, verbs.Option("--avatar-url", help="Address of a picture.")]
_Status = Annotated[
    str | None,
    verbs.Option("--status", complete=complete_words(pb.UserStatus), help="active, inactive or locked."),
]


def _user(username: str, values: dict[str, str | None]) -> tuple[pb.User, list[str]]:
    """Returns the user, and the names of the fields that were given."""
    given: dict[str, Any] = {field: value for field, value in values.items() if value is not None}
    if "status" in given:
        given["status"] = enum_number(pb.UserStatus, given["status"], "--status")
    return pb.User(username=username, **given), list(given)


@app.command("create")
def create(
    username: _Username,
    email: Annotated[str, verbs.Option("--email", help="E-mail address.")],
    full_name: _FullName = None,
    avatar_url: _AvatarUrl = None,
    status: _Status = None,
    password_stdin: FromStdin = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a user; the command asks for the password."""
    user, _ = _user(
        username, {"email": email, "full_name": full_name, "avatar_url": avatar_url, "status": status}
    )
    password = read_password(f"Password of {username}", from_stdin=password_stdin, repeat=True)
    with connect() as client:
        made = client.identity.create_user(user=user, password=password, validate_only=validate_only)
    show(made, COLUMNS, output)


@app.command("get")
def get(username: _Username, output: Output = Format.TABLE) -> None:
    """Show a user."""
    with connect() as client:
        show(client.identity.get_user(username=username), COLUMNS, output)


@app.command("list")
def list_users(options: ScopeOptions) -> None:
    """List users, or watch them. Filter by status, username."""
    options.show(COLUMNS, lambda client: client.identity.list_users, "user")


@app.command("update")
def update(
    username: _Username,
    email: _Email = None,
    full_name: _FullName = None,
    avatar_url: _AvatarUrl = None,
    status: _Status = None,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a user. A user who becomes inactive or locked loses all sessions."""
    user, paths = _user(
        username, {"email": email, "full_name": full_name, "avatar_url": avatar_url, "status": status}
    )
    check_changes(paths)
    with connect() as client:
        changed = client.identity.update_user(
            username=username,
            user=user,
            update_mask=FieldMask(paths=paths),
            etag=etag,
            validate_only=validate_only,
        )
    show(changed, COLUMNS, output)


@app.command("delete")
def delete(
    usernames: Annotated[list[str], many.names_of("users", complete_user, required=True)],
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Delete users: their sessions and grants end immediately."""
    many.check_etag(etag, usernames)
    if not validate_only:
        confirm(f"Delete {many.in_words('user', 'users', usernames)}?", yes)
    with connect() as client:

        def act(username: str) -> None:
            client.identity.delete_user(username=username, etag=etag, validate_only=validate_only)
            done(f"user {username} deleted")

        many.act_on_each(usernames, act, done="deleted")


@app.command("reset-password")
def reset_password(
    username: _Username,
    password_stdin: FromStdin = False,
    one_time_code: Annotated[
        bool, verbs.Option("--one-time-code", help="Print a code with which the user sets a new password.")
    ] = False,
    end_keys: EndKeys = False,
) -> None:
    """Set another user's password and end all sessions of that user. A second factor stays, and so do API keys unless
    --end-keys is given."""
    password = ""
    if not one_time_code:
        password = read_password(f"New password of {username}", from_stdin=password_stdin, repeat=True)
    with connect() as client:
        answer = client.identity.reset_password(
            username=username, new_password=password, one_time_code=one_time_code, revoke_keys=end_keys
        )
    if one_time_code:
        say(f"\n  {answer.one_time_code}\n")
        say(
            (
                f"{username} can log in with this code in place of a password, once, until "
                f"{moment(answer.expire_time)}"
            ),
            err=True,
        )
    else:
        done(f"password of {username} set")
    keys_left(answer.valid_api_keys, username)


def keys_left(number: int, username: str = "") -> None:
    """Writes to standard error how many API keys remain valid after a new password; '' means the caller."""
    if number:
        whose = f" --user {username}" if username else ""
        say(
            f"API keys of {username or 'your account'} that remain valid: {number}; they are listed by: "
            f"pilothouse api-keys list{whose} (--end-keys ends all of them with the password)",
            err=True,
        )


@app.command("reset-second-factor")
def reset_second_factor(username: _Username, yes: Yes = False) -> None:
    """Remove a user's lost authenticator, and end all sessions of that user."""
    confirm(f"Let {username} log in without a second factor?", yes)
    with connect() as client:
        client.identity.reset_second_factor(username=username)
    done(f"{username} has no second factor any more")
