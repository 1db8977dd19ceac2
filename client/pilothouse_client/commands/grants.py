"""`pilothouse grants`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pilothouse_client.commands import describe, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import ScopeOptions
from pilothouse_client.commands.name_completion import complete_role, complete_user
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    namespace_or_all,
    one_namespace,
)
from pilothouse_client.commands.output import OutputColumn, done, show
from pilothouse_client.commands.terminal import say, say_prose
from pilothouse_client.commands.times import parse_span, to_timestamp
from pilothouse_client.commands.values import moment

app = verbs.VerbGroup(no_args_is_help=True, help="Roles that users hold, by namespace.")
app.command("describe")(describe.of("grants"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("USERNAME", lambda grant: grant.username),
    OutputColumn("ROLE", lambda grant: grant.role),
    OutputColumn("NAMESPACE", lambda grant: grant.namespace or "*"),
    OutputColumn("EXPIRES", lambda grant: moment(grant.expire_time), whole=True),
    OutputColumn(
        "ASSIGNED BY", lambda grant: grant.assigned_by or (grant.source and f"rules of {grant.source}")
    ),
]
_Username = Annotated[str, verbs.Argument(help="User who holds the role.", complete=complete_user)]
_Role = Annotated[str, verbs.Argument(help="Name of the role.", complete=complete_role)]
_Everywhere = Annotated[bool, verbs.Option("-A", "--all-namespaces", help="In every namespace.")]
_ExpiresIn = Annotated[str, verbs.Option("--expires-in", help="Such as 8h, 30d; not given: never.")]


@app.command("create")
def create(
    username: _Username,
    role: _Role,
    namespace: Namespace = "",
    everywhere: _Everywhere = False,
    expires_in: _ExpiresIn = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Grant a role in the namespace of -n, else of the context; with -A, or without either, in every namespace.

    Granting the role again changes its expiry.
    """
    namespace = _where(namespace, everywhere)
    with connect() as client:
        grant = client.identity.grant_role(
            username=username,
            role=role,
            namespace=namespace,
            expire_time=_end(expires_in),
            validate_only=validate_only,
        )
    show(grant, COLUMNS, output)


@app.command("simulate")
def simulate(
    username: _Username,
    role: _Role,
    namespace: Namespace = "",
    everywhere: _Everywhere = False,
    expires_in: _ExpiresIn = "",
    output: Output = Format.TABLE,
) -> None:
    """Show the changes that a grant would make, without making them."""
    namespace = _where(namespace, everywhere)
    with connect() as client:
        answer = client.identity.simulate_grant(
            username=username, role=role, namespace=namespace, expire_time=_end(expires_in)
        )
    if not output.is_table:
        show(answer, [], output)
        return
    say_prose(answer.summary, err=False)
    for change in answer.changes:
        say(f"in {change.namespace or 'every namespace'}:")
        for verb, permissions in (
            ("gains", change.gained),
            ("keeps longer", change.extended),
            ("loses sooner", change.shortened),
        ):
            if permissions:
                say_prose(f"  {verb} {', '.join(permissions)}", err=False)
    if answer.partial:
        say("grants over all namespaces, which you may not read, are not counted", err=True)


def _where(given: str, everywhere: bool) -> str:
    """Returns the namespace of a grant, which its table always shows.

    Empty means every namespace."""
    found = namespace_or_all(given, everywhere)
    one_namespace.set("")
    return found


def _end(expires_in: str) -> Any:
    """Returns the time of `--expires-in`; None if the option was not given."""
    if not expires_in:
        return None
    seconds = parse_span(expires_in, "--expires-in")
    try:
        return to_timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
    except OverflowError:
        raise CommandError(f"--expires-in {expires_in} is too long", 2) from None


@app.command("delete")
def delete(
    username: _Username, role: _Role, namespace: Namespace = "", everywhere: _Everywhere = False
) -> None:
    """Revoke a grant in the namespace of -n, else of the context; with -A, or without either, in every namespace."""
    namespace = _where(namespace, everywhere)
    with connect() as client:
        client.identity.revoke_role(username=username, role=role, namespace=namespace)
    done(f"{username} no longer holds {role} in {namespace or 'every namespace'} by that grant")


@app.command("list")
def list_grants(
    namespace: Namespace = "", everywhere: AllNamespaces = False, *, options: ScopeOptions
) -> None:
    """List grants, or watch them. Filter by username, role."""
    where = namespace_or_all(namespace, everywhere)
    options.show(COLUMNS, lambda client: client.identity.list_role_grants, "grant", where)
