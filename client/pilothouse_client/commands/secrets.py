"""`pilothouse secrets`. Only `reveal` shows values."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_client.commands import config_values, describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.name_completion import complete_secret
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    Yes,
    check_changes,
    confirm,
    namespace_or_default,
    pairs,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, done, show, show_all
from pilothouse_client.commands.terminal import write_exactly
from pilothouse_client.commands.values import labels, refusal

app = verbs.VerbGroup(no_args_is_help=True, help="Encrypted configuration that containers read.")
app.command("describe")(describe.of("secrets"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda secret: secret.namespace),
    OutputColumn("NAME", lambda secret: secret.name),
    OutputColumn("TYPE", lambda secret: secret.type),
    OutputColumn("KEYS", lambda secret: len(secret.key_sizes)),
    OutputColumn("IMMUTABLE", lambda secret: "yes" if secret.immutable else ""),
    OutputColumn("APPLIED", refusal),
    OutputColumn("LABELS", lambda secret: labels(secret.labels)),
    *AGE_COLUMNS,
]
_REVEALED: list[OutputColumn[Any]] = [
    OutputColumn("KEY", lambda row: row[0]),
    OutputColumn("VALUE", lambda row: row[1]),
]
_Name = Annotated[str, verbs.Argument(help="Name of the secret.", complete=complete_secret)]


@app.command("create")
def create(
    name: _Name,
    namespace: Namespace = "",
    type_: Annotated[str, verbs.Option("--type", help="Such as kubernetes.io/tls; default Opaque.")] = "",
    literal: config_values.Literals = None,
    file: config_values.Files = None,
    env_file: config_values.EnvFiles = None,
    label: config_values.Labels = None,
    annotation: config_values.Annotations = None,
    immutable: config_values.Immutable = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a secret. Prefer --from-file for values: other users can read a command line."""
    secret = pb.Secret(
        name=name,
        type=type_,
        data=config_values.read_values(literal, file, env_file),
        immutable=immutable,
        labels=pairs(label or [], "--label"),
        annotations=pairs(annotation or [], "--annotation"),
    )
    with connect() as client:
        made = client.config.create_secret(
            namespace=namespace_or_default(namespace), secret=secret, validate_only=validate_only
        )
    show(made, COLUMNS, output)


@app.command("get")
def get(name: _Name, namespace: Namespace = "", output: Output = Format.TABLE) -> None:
    """Show a secret, without its values."""
    with connect() as client:
        found = client.config.get_secret(namespace=namespace_or_default(namespace), name=name)
    show(found, COLUMNS, output)


@app.command("list")
def list_secrets(options: NamespacedOptions) -> None:
    """List secrets, or watch them, without their values. Filter by name, type, immutable, labels.KEY."""
    options.show(
        COLUMNS,
        lambda client: client.config.list_secrets,
        lambda client: client.config.watch_configs,
        chosen=partial(config_values.changes_of, "secret"),
    )


@app.command("update")
def update(
    name: _Name,
    namespace: Namespace = "",
    literal: config_values.Literals = None,
    file: config_values.Files = None,
    env_file: config_values.EnvFiles = None,
    remove: config_values.Remove = None,
    replace: config_values.Replace = False,
    label: config_values.Labels = None,
    annotation: config_values.Annotations = None,
    immutable: config_values.Immutable = False,
    restart: config_values.Restart = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a secret. Keys that are not given stay, unless --replace is given; you need not know their values."""
    values = config_values.read_values(literal, file, env_file)
    config_values.check_replaced(replace, remove)
    paths = [
        path
        for path, given in (
            ("data", replace),
            ("immutable", immutable),
            ("labels", label is not None),
            ("annotations", annotation is not None),
        )
        if given
    ]
    check_changes(paths, values, remove)
    with connect() as client:
        answer = client.config.update_secret(
            namespace=namespace_or_default(namespace),
            name=name,
            secret=pb.Secret(
                data=values if replace else {},
                immutable=immutable,
                labels=pairs(label or [], "--label"),
                annotations=pairs(annotation or [], "--annotation"),
            ),
            update_mask=FieldMask(paths=paths),
            set_data={} if replace else values,
            remove_keys=remove or [],
            etag=etag,
            validate_only=validate_only,
            restart_containers=restart,
        )
    config_values.report_consequences(answer)
    show(answer.secret, COLUMNS, output)


_SECRETS = many.ListedNoun(
    "secret",
    "secrets",
    COLUMNS,
    lambda client, where, selector: client.config.list_secrets(namespace=where, label_selector=selector),
    complete_secret,
)
app.command("delete")(
    many.deletion_verb(
        _SECRETS,
        "Delete secrets. A secret that is in use is refused.",
        lambda client: client.config.delete_secret,
    )
)


@app.command("purge")
def purge(
    names: Annotated[list[str] | None, many.names_of("secrets", complete_secret)] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: many.Everything = False,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Remove the former values of secrets, which revisions keep. The current values stay."""
    where = namespace_or_default(namespace)
    with connect() as client:
        meant = many.chosen(client, _SECRETS, where, many.Meant(names, selector, everything))
        if not validate_only:
            confirm(f"Remove the former values of {_SECRETS.in_words(where, meant)}?", yes)

        def act(name: str) -> None:
            purged = client.config.purge_secret(namespace=where, name=name, validate_only=validate_only)
            done(f"secret {name}: {purged} former version{'' if purged == 1 else 's'} purged")

        many.act_on_each(meant, act, done="purged")


@app.command("reveal")
def reveal(
    name: _Name,
    namespace: Namespace = "",
    key: Annotated[str, verbs.Option("--key", help="Print only the value of this key.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show the values of a secret. The audit log records it."""
    with connect() as client:
        answer = client.config.reveal_secret(
            namespace=namespace_or_default(namespace), name=name, keys=[key] if key else []
        )
    if key and output.is_table:
        write_exactly(answer.data[key])
    elif not output.is_table:
        show(answer, [], output)
    else:
        show_all([(each, _shown(value)) for each, value in sorted(answer.data.items())], _REVEALED, output)


def _shown(value: bytes) -> str:
    text = config_values.as_text(value)
    return f"({len(value)} bytes; use --key)" if text is None else text
