"""`pilothouse audit sinks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client.commands import describe, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import TableOptions
from pilothouse_client.commands.name_completion import complete_sink
from pilothouse_client.commands.options import (
    Format,
    Output,
    ValidateOnly,
    Yes,
    complete_words,
    confirm,
    enum_number,
)
from pilothouse_client.commands.output import OutputColumn, done, show
from pilothouse_client.commands.values import age, enum_label

app = verbs.VerbGroup(no_args_is_help=True, help="Receivers of audit records.")
app.command("describe")(describe.of("audit-sinks"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda sink: sink.name),
    OutputColumn("KIND", lambda sink: enum_label(sink, "kind")),
    OutputColumn("STATUS", lambda sink: enum_label(sink, "status")),
    OutputColumn("ADDRESS", lambda sink: sink.address),
    OutputColumn("REQUIRED", lambda sink: "yes" if sink.required else ""),
    OutputColumn("LAG", lambda sink: sink.lag_records),
    OutputColumn("OLDEST", lambda sink: age(sink.oldest_pending_time)),
    OutputColumn("DELIVERED", lambda sink: age(sink.last_delivered_time), wide=True),
    OutputColumn("MESSAGE", lambda sink: sink.message),
]
_Name = Annotated[str, verbs.Argument(help="Name of the sink.", complete=complete_sink)]


@app.command("create")
def create(
    name: _Name,
    kind: Annotated[
        str,
        verbs.Option("--kind", complete=complete_words(pb.AuditSinkKind), help="file, http, syslog or otlp."),
    ],
    address: Annotated[
        str, verbs.Option("--address", help="https://…, tls://host:port, or the plain name of a file.")
    ],
    form: Annotated[
        str,
        verbs.Option("--format", complete=complete_words(pb.AuditSinkFormat), help="ocsf or cloudevents."),
    ] = "",
    required: Annotated[
        bool, verbs.Option("--required", help="Keep records until this sink has them.")
    ] = False,
    ca_file: Annotated[
        str, verbs.Option("--ca-file", help="PEM file of authorities to trust for the sink.")
    ] = "",
    certificate_file: Annotated[
        str, verbs.Option("--client-certificate-file", help="PEM file of the certificate for the sink.")
    ] = "",
    key_file: Annotated[str, verbs.Option("--client-key-file", help="PEM file of its key.")] = "",
    signing_key_file: Annotated[
        str, verbs.Option("--signing-key-file", help="File of the key that signs each request.")
    ] = "",
    headers_file: Annotated[
        str,
        verbs.Option("--headers-file", help="File of headers for each request, one per line: Name: value."),
    ] = "",
    rotate_bytes: Annotated[
        int, verbs.Option("--rotate-bytes", min=0, help="Bytes at which a file is full; 0: 64 MiB.")
    ] = 0,
    keep_files: Annotated[
        int, verbs.Option("--keep-files", min=0, help="Number of full files to keep; 0: all.")
    ] = 0,
    start_after: Annotated[
        int | None,
        verbs.Option(
            "--start-after", min=0, help="Send only records after this one; default: all stored ones."
        ),
    ] = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a sink, which receives all records at least once and in the order of the log.

    The command reads credentials from files. The server stores them encrypted and never shows them again.
    """
    sink = pb.AuditSink(
        name=name,
        kind=pb.AuditSinkKind.ValueType(enum_number(pb.AuditSinkKind, kind, "--kind")),
        address=address,
        format=pb.AuditSinkFormat.ValueType(enum_number(pb.AuditSinkFormat, form, "--format")),
        required=required,
        certificate_authority=_text(ca_file),
        client_certificate=_text(certificate_file),
        rotate_bytes=rotate_bytes,
        keep_files=keep_files,
    )
    credentials = pb.AuditSinkCredentials(
        headers=_headers(headers_file),
        signing_key=_text(signing_key_file).strip(),
        client_key=_text(key_file),
    )
    with connect() as client:
        made = client.audit.create_audit_sink(
            audit_sink=sink,
            credentials=credentials,
            start_after_sequence=start_after,
            validate_only=validate_only,
        )
    show(made, COLUMNS, output)


@app.command("list")
def list_sinks(options: TableOptions) -> None:
    """List sinks, with the progress of each."""
    options.show(COLUMNS, lambda client: client.audit.list_audit_sinks)


@app.command("delete")
def delete(name: _Name, yes: Yes = False, validate_only: ValidateOnly = False) -> None:
    """Delete a sink and its position: it receives no more records."""
    confirm(f"Send no more records to {name}, and delete its position?", yes or validate_only)
    with connect() as client:
        client.audit.delete_audit_sink(name=name, validate_only=validate_only)
    done(f"{name} deleted")


def _text(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise CommandError(f"{path} cannot be read as text", 2) from None


def _headers(path: str) -> dict[str, str]:
    found = {}
    for line in _text(path).splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            raise CommandError(f"each line of {path} must be a header, Name: value", 2)
        found[name.strip()] = value.strip()
    return found
