"""`pilothouse roles`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import TableOptions
from pilothouse_client.commands.name_completion import complete_role
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Output,
    ValidateOnly,
    Yes,
    check_changes,
    confirm,
)
from pilothouse_client.commands.output import OutputColumn, done, show

app = verbs.VerbGroup(no_args_is_help=True, help="Named sets of permissions.")
app.command("describe")(describe.of("roles"))
_PERMISSIONS: OutputColumn[Any] = OutputColumn(
    "PERMISSIONS",
    lambda role: ", ".join([*role.permissions, *(f"-{no}" for no in role.excluded_permissions)]),
    is_text=True,
)
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda role: role.name),
    OutputColumn("SYSTEM", lambda role: "yes" if role.is_system else ""),
    OutputColumn("DESCRIPTION", lambda role: role.description, is_text=True),
    _PERMISSIONS,
]
# In a list of roles, the permissions would leave no room for the other columns.
LIST_COLUMNS = [replace(each, wide=each is _PERMISSIONS) for each in COLUMNS]
_Name = Annotated[str, verbs.Argument(help="Name of the role.", complete=complete_role)]
_Permissions = Annotated[
    list[str] | None,
    verbs.Option("-p", "--permission", help="<noun>.<verb>, <noun>.* or *; repeat for more."),
]
_DisplayName = Annotated[str | None, verbs.Option("--display-name", help="Name for people.")]
_Description = Annotated[str | None, verbs.Option("--description", help="Purpose, for people.")]


@app.command("create")
def create(
    name: _Name,
    permission: _Permissions = None,
    display_name: _DisplayName = None,
    description: _Description = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a role. You cannot give permissions that you do not hold."""
    role = pb.Role(
        name=name,
        display_name=display_name or "",
        description=description or "",
        permissions=permission or [],
    )
    with connect() as client:
        show(client.identity.create_role(role=role, validate_only=validate_only), COLUMNS, output)


@app.command("get")
def get(name: _Name, output: Output = Format.TABLE) -> None:
    """Show a role."""
    with connect() as client:
        show(client.identity.get_role(name=name), COLUMNS, output)


@app.command("list")
def list_roles(options: TableOptions) -> None:
    """List roles. Filter by name, is_system."""
    options.show(LIST_COLUMNS, lambda client: client.identity.list_roles)


@app.command("update")
def update(
    name: _Name,
    permission: _Permissions = None,
    display_name: _DisplayName = None,
    description: _Description = None,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a role. New permissions replace all existing ones."""
    values: dict[str, Any] = {
        "permissions": permission,
        "display_name": display_name,
        "description": description,
    }
    given = {field: value for field, value in values.items() if value is not None}
    check_changes(given)
    with connect() as client:
        changed = client.identity.update_role(
            name=name,
            role=pb.Role(name=name, **given),
            update_mask=FieldMask(paths=list(given)),
            etag=etag,
            validate_only=validate_only,
        )
    show(changed, COLUMNS, output)


@app.command("delete")
def delete(
    names: Annotated[list[str], many.names_of("roles", complete_role, required=True)],
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Delete roles that nobody holds."""
    many.check_etag(etag, names)
    if not validate_only:
        confirm(f"Delete {many.in_words('role', 'roles', names)}?", yes)
    with connect() as client:

        def act(name: str) -> None:
            client.identity.delete_role(name=name, etag=etag, validate_only=validate_only)
            done(f"role {name} deleted")

        many.act_on_each(names, act, done="deleted")
