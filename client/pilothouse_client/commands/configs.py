"""`pilothouse configs`: config maps."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse_client.commands import config_values, describe, many, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.name_completion import complete_config
from pilothouse_client.commands.options import (
    Etag,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    check_changes,
    namespace_or_default,
    pairs,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show
from pilothouse_client.commands.terminal import write_exactly
from pilothouse_client.commands.values import labels, refusal

app = verbs.VerbGroup(no_args_is_help=True, help="Configuration that containers read.")
app.command("describe")(describe.of("configs"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda config_map: config_map.namespace),
    OutputColumn("NAME", lambda config_map: config_map.name),
    OutputColumn("KEYS", lambda config_map: len(config_map.data) + len(config_map.binary_data)),
    OutputColumn("IMMUTABLE", lambda config_map: "yes" if config_map.immutable else ""),
    OutputColumn("APPLIED", refusal),
    OutputColumn("LABELS", lambda config_map: labels(config_map.labels)),
    *AGE_COLUMNS,
]
_Name = Annotated[str, verbs.Argument(help="Name of the config map.", complete=complete_config)]
_Key = Annotated[str, verbs.Option("--key", help="Print only the value of this key.")]


@app.command("create")
def create(
    name: _Name,
    namespace: Namespace = "",
    literal: config_values.Literals = None,
    file: config_values.Files = None,
    env_file: config_values.EnvFiles = None,
    label: config_values.Labels = None,
    annotation: config_values.Annotations = None,
    immutable: config_values.Immutable = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a config map. Files that are not text become binary values."""
    data, binary_data = config_values.split_text(config_values.read_values(literal, file, env_file))
    config_map = pb.ConfigMap(
        name=name,
        data=data,
        binary_data=binary_data,
        immutable=immutable,
        labels=pairs(label or [], "--label"),
        annotations=pairs(annotation or [], "--annotation"),
    )
    with connect() as client:
        made = client.config.create_config_map(
            namespace=namespace_or_default(namespace), config_map=config_map, validate_only=validate_only
        )
    show(made, COLUMNS, output)


@app.command("get")
def get(name: _Name, namespace: Namespace = "", key: _Key = "", output: Output = Format.TABLE) -> None:
    """Show a config map; with --key, one of its values. -o yaml shows all values."""
    with connect() as client:
        found = client.config.get_config_map(namespace=namespace_or_default(namespace), name=name)
    if not key:
        show(found, COLUMNS, output)
    elif key in found.data:
        write_exactly(found.data[key])
    elif key in found.binary_data:
        write_exactly(found.binary_data[key])
    else:
        raise CommandError(f"{name} has no key {key!r}")


@app.command("list")
def list_config_maps(options: NamespacedOptions) -> None:
    """List config maps, or watch them. Filter by name, immutable, labels.KEY."""
    options.show(
        COLUMNS,
        lambda client: client.config.list_config_maps,
        lambda client: client.config.watch_configs,
        chosen=partial(config_values.changes_of, "config_map"),
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
    """Change a config map. Keys that are not given stay, unless --replace is given."""
    data, binary_data = config_values.split_text(config_values.read_values(literal, file, env_file))
    config_values.check_replaced(replace, remove)
    paths = [
        path
        for path, given in (
            ("data", replace),
            ("binary_data", replace),
            ("immutable", immutable),
            ("labels", label is not None),
            ("annotations", annotation is not None),
        )
        if given
    ]
    check_changes(paths, data, binary_data, remove)
    with connect() as client:
        answer = client.config.update_config_map(
            namespace=namespace_or_default(namespace),
            name=name,
            config_map=pb.ConfigMap(
                data=data if replace else {},
                binary_data=binary_data if replace else {},
                immutable=immutable,
                labels=pairs(label or [], "--label"),
                annotations=pairs(annotation or [], "--annotation"),
            ),
            update_mask=FieldMask(paths=paths),
            set_data={} if replace else data,
            set_binary_data={} if replace else binary_data,
            remove_keys=remove or [],
            etag=etag,
            validate_only=validate_only,
            restart_containers=restart,
        )
    config_values.report_consequences(answer)
    show(answer.config_map, COLUMNS, output)


_CONFIG_MAPS = many.ListedNoun(
    "config map",
    "config maps",
    COLUMNS,
    lambda client, where, selector: client.config.list_config_maps(namespace=where, label_selector=selector),
    complete_config,
)
app.command("delete")(
    many.deletion_verb(
        _CONFIG_MAPS,
        "Delete config maps. A config map that is in use is refused.",
        lambda client: client.config.delete_config_map,
    )
)
