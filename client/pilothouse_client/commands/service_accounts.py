"""`pilothouse service-accounts`."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse.identity.v1 import api_keys_pb2 as pb
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import TableOptions
from pilothouse_client.commands.name_completion import complete_service_account
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    Yes,
    confirm,
    namespace_or_all,
    namespace_or_default,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, done, show

app = verbs.VerbGroup(no_args_is_help=True, help="Accounts for programs, by namespace.")
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("USERNAME", lambda account: account.username, whole=True),
    OutputColumn("NAMESPACE", lambda account: account.namespace or "-"),
    OutputColumn("DESCRIPTION", lambda account: account.description),
    OutputColumn("CREATED BY", lambda account: account.created_by),
    *AGE_COLUMNS,
]
_Name = Annotated[
    str, verbs.Argument(help="Its name, without the namespace.", complete=complete_service_account)
]
_Platform = Annotated[
    bool, verbs.Option("--platform", help="An account of the platform, not of a namespace.")
]


def _check(namespace: str, platform: bool) -> None:
    # The variable is a default, which --platform overrides.
    if platform and namespace and verbs.is_given("namespace"):
        raise CommandError("-n and --platform exclude each other", 2)


def _where(namespace: str, platform: bool) -> str:
    _check(namespace, platform)
    return "" if platform else namespace_or_default(namespace)


@app.command("create")
def create(
    name: _Name,
    namespace: Namespace = "",
    platform: _Platform = False,
    description: Annotated[str, verbs.Option("--description", help="Purpose, for people.")] = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a service account. Then grant roles to its user name, and create a key for it."""
    with connect() as client:
        made = client.identity.create_service_account(
            namespace=_where(namespace, platform),
            service_account=pb.ServiceAccount(name=name, description=description),
            validate_only=validate_only,
        )
    show(made, COLUMNS, output)


@app.command("list")
def list_accounts(
    namespace: Namespace = "", everywhere: AllNamespaces = False, *, options: TableOptions
) -> None:
    """List service accounts. Filter by any field that is shown."""
    options.show(
        COLUMNS,
        lambda client: client.identity.list_service_accounts,
        namespace=namespace_or_all(namespace, everywhere),
    )


@app.command("describe")
def describe_accounts(
    names: Annotated[list[str], many.names_of("service accounts", complete_service_account, required=True)],
    namespace: Namespace = "",
    platform: _Platform = False,
) -> None:
    """Show details of service accounts: grants, keys, changes."""
    _check(namespace, platform)
    accounts = [f"sa:{name.removeprefix('sa:')}" for name in names] if platform else names
    describe.describe_each("service-accounts", accounts, namespace)


@app.command("delete")
def delete(
    names: Annotated[list[str], many.names_of("service accounts", complete_service_account, required=True)],
    namespace: Namespace = "",
    platform: _Platform = False,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Delete service accounts with their keys and grants."""
    where = _where(namespace, platform)
    if not validate_only:
        confirm(
            f"Delete {many.in_words('service account', 'service accounts', names)} with all keys and grants?",
            yes,
        )
    with connect() as client:

        def act(account: str) -> None:
            # The user may give the user name, which the list shows.
            name = account.removeprefix(f"sa:{where}:" if where else "sa:")
            client.identity.delete_service_account(namespace=where, name=name, validate_only=validate_only)
            done(f"service account {name} deleted")

        many.act_on_each(names, act, done="deleted")
