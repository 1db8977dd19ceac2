"""`pilothouse audit head, prove, verify, export, publish`: the audit log as others verify it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client import audit_verifier
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Filter, Format, Namespace, Output
from pilothouse_client.commands.output import Column, show, show_all
from pilothouse_client.commands.values import moment
from pilothouse_client.errors import UnavailableError

if TYPE_CHECKING:
    from pilothouse_client import Client

_FORMAT = "pilothouse-audit-export/1"
_BEGINNING = f'{{"format":"{_FORMAT}"'.encode()
_WIDTH = 256
# An export that is cut goes on so often in a row without a record in between.
_ATTEMPTS = 5
_HEAD: list[Column[Any]] = [
    Column("LOG", lambda head: head.origin),
    Column("SIZE", lambda head: head.size),
    Column("ROOT", lambda head: head.root_hash),
    Column("SEALED", lambda head: moment(head.seal_time)),
    Column("WITNESSES", lambda head: " ".join(head.witnesses) or "-"),
]
_FINDING: list[Column[Any]] = [
    Column("FAULT", lambda each: pb.AuditFault.Name(each.fault).removeprefix("AUDIT_FAULT_")),
    Column("FIRST", lambda each: each.first_sequence),
    Column("LAST", lambda each: each.last_sequence),
    Column("DESCRIPTION", lambda each: each.description),
]

FromCheckpoint = Annotated[
    Path | None,
    typer.Option(
        "--from-checkpoint", help="A checkpoint that you kept, of this log.", exists=True, dir_okay=False
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    verbs: dict[str, Callable[..., None]] = {
        "head": head,
        "prove": prove,
        "verify": verify,
        "export": export,
        "publish": publish,
    }
    for name, verb in verbs.items():
        app.command(name)(verb)


def head(
    size: Annotated[int, typer.Option("--size", min=0, help="The head of this size; 0: the newest.")] = 0,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Only the signed checkpoint, to be kept.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show the newest sealed head of the log, who cosigned it, and the keys of each history of the log."""
    with connect() as client:
        found = client.audit.get_audit_head(size=size)
    if checkpoint:
        sys.stdout.write(found.checkpoint)
        return
    show(found, _HEAD, output)
    if output is Format.TABLE:
        # A checkpoint of a former history is verified by that history's key.
        typer.echo("\nverifier keys:")
        for history in found.histories or [found]:
            for key in history.verifier_keys:
                typer.echo(f"  {key}")


def prove(
    operation_id: Annotated[str, typer.Argument(help="As `list` shows it.")],
    sequence: Annotated[
        int, typer.Option("--sequence", min=0, help="Of a stream's two records, that at this place.")
    ] = 0,
    record: Annotated[
        Path | None, typer.Option("--record", help="File to write the record to, as it is hashed.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the proof that a record stands in the log (C2SP tlog-proof); its leaf's data is the record's SHA-256."""
    with connect() as client:
        found = client.audit.prove_operation(operation_id=operation_id, sequence=sequence)
    _check_proof(found)
    if record is not None:
        record.write_bytes(found.record.encode())
    if output is Format.TABLE:
        sys.stdout.write(found.proof)
    else:
        show(found, [], output)


def _check_proof(found: pb.ProveOperationResponse) -> None:
    """Raises CommandError where the record is not that of the log: its database shows another one than was recorded."""
    digest = hashlib.sha256(found.record.encode()).digest()
    hashes = [base64.b64decode(each) for each in found.hashes]
    try:
        size, root = audit_verifier.head(found.head.checkpoint, found.head.verifier_keys[0])[1:]
        leaf = hashlib.sha256(b"\x00" + digest).digest()
        proven = audit_verifier.root_of(leaf, found.leaf_index, size, hashes) == root
    except audit_verifier.WRONG:
        proven = False
    if not proven:
        raise CommandError(
            f"record {found.sequence} is not the one that stands in the log at its place: verify the log"
        )


def verify(
    from_checkpoint: FromCheckpoint = None,
    offline: Annotated[
        Path | None,
        typer.Option(
            "--offline", help="An export to verify instead, without a server.", exists=True, dir_okay=False
        ),
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="With --offline: the log's key, from a source that you trust.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Verify all of the log, or an export; ends with 1 where anything is wrong, and says where."""
    if offline is not None:
        _verify_offline(offline, key, from_checkpoint)
        return
    try:
        kept = "" if from_checkpoint is None else from_checkpoint.read_text("utf-8")
    except ValueError:
        raise CommandError(f"{from_checkpoint} is no checkpoint", 2) from None
    with connect() as client, client.audit.verify_audit_log(checkpoint=kept) as answers:
        report = _last(answers)
    if output is not Format.TABLE:
        show(report, [], output)
    elif report.intact:
        typer.echo(
            f"intact: {report.verified_records} records verified, {report.dropped_records} dropped by retention"
        )
        if report.former_heads:
            typer.echo(
                f"the {report.former_heads} oldest heads are signed by keys that the server does not know any more: "
                "they were compared with the tree alone"
            )
        typer.echo(report.head.checkpoint, nl=False)
    else:
        show_all(report.findings, _FINDING, output)
    if not report.intact:
        raise typer.Exit(1)


def _last(answers: Iterator[pb.VerifyAuditLogResponse]) -> pb.VerifyAuditLogResponse:
    for answer in answers:
        if sys.stderr.isatty():
            shown = f"{answer.verified_records} of {answer.total_records} records"
            sys.stderr.write("\r\033[K" if answer.done else f"\r{shown}")
        if answer.done:
            return answer
    raise CommandError("the server did not say what it found")


def _verify_offline(export_file: Path, key: str, from_checkpoint: Path | None) -> None:
    if not key:
        raise CommandError(
            "--offline needs --key: the log's key, as `pilothouse audit head` or the log's owner says", 2
        )
    read, kept = export_file, None
    try:
        if from_checkpoint is not None:
            read = from_checkpoint
            kept = audit_verifier.head(from_checkpoint.read_text("utf-8"), key)
        read = export_file
        with export_file.open(encoding="utf-8") as file:
            found = audit_verifier.verify(iter(file), key, kept)
    except audit_verifier.WRONG as error:
        raise CommandError(f"{read}: {error!s}" if str(error) else f"{read} is empty") from None
    typer.echo(json.dumps(found, indent=2))


def export(
    file: Annotated[Path, typer.Argument(help="File to write to.", dir_okay=False)],
    namespace: Namespace = "",
    filter_: Filter = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a file that is not complete; give the same options.")
    ] = False,
) -> None:
    """Export records with their proofs, as lines of JSON that `audit verify --offline` and others verify."""
    if file.exists() and not resume:
        raise CommandError(f"{file} is there already: name another one, or go on with it by --resume", 2)
    fresh = not file.exists()
    begun = _Export(namespace, filter_) if fresh else _Export.read(file, namespace, filter_)
    try:
        with file.open("x" if fresh else "a", encoding="utf-8", newline="\n") as written, connect() as client:
            _export(client, begun, written)
            os.fsync(written.fileno())
    except BaseException:
        if fresh and begun.place == 0:
            # There is nothing in it to go on with.
            file.unlink(missing_ok=True)
        raise
    typer.echo(f"{begun.count} records up to {begun.place}")


def _export(client: Client, begun: _Export, written: IO[str]) -> None:
    """Writes all that is still to come; a cut is gone on after."""
    attempts = _ATTEMPTS
    while not begun.done:
        at = begun.place
        answers = client.audit.export_audit_log(
            namespace=begun.asked["namespace"],
            filter=begun.asked["filter"],
            after_sequence=at,
            tree_size=begun.tree_size,
        )
        try:
            with answers:
                begun.write(answers, written)
        except UnavailableError:
            attempts = _ATTEMPTS if begun.place > at else attempts - 1
            if attempts == 0:
                raise
            time.sleep(0.5)


class _Export:
    """How far an export is, and how it is written."""

    def __init__(self, namespace: str = "", filter_text: str = "") -> None:
        self.asked = {"namespace": namespace, "filter": filter_text}
        self.place = 0
        self.tree_size = 0
        self.count = 0
        self.done = False

    @classmethod
    def read(cls, file: Path, namespace: str, filter_text: str) -> _Export:
        """What a file holds already; a line that was not finished is taken off.

        Raises CommandError: it is no export, which is left as it is, or one of something else.
        """
        found, good = cls(namespace, filter_text), 0
        with file.open("rb+") as lines:
            for line in lines:
                # A file that was cut in its first line has to be one of ours, too.
                if not good and line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
                    raise CommandError(f"{file} is no export of an audit log", 2)
                if not line.endswith(b"\n"):
                    break
                try:
                    found.take(json.loads(line), file)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise CommandError(f"{file} is no whole export up to its byte {good}", 2) from None
                good += len(line)
            lines.truncate(good)
        return found

    def take(self, entry: dict[str, Any], file: Path) -> None:
        """Takes a line that was written before. Raises CommandError."""
        if self.tree_size == 0:
            for name, wanted in self.asked.items():
                if entry.get(name, "") != wanted:
                    raise CommandError(
                        f"{file} is an export with the {name} {entry.get(name, '')!r}, not {wanted!r}", 2
                    )
            self.tree_size = entry["size"]
        elif "end" in entry:
            self.done, self.count = True, entry["records"]
        else:
            self.place, self.count = entry["sequence"], self.count + 1

    def write(self, answers: Iterator[pb.ExportAuditLogResponse], written: Any) -> None:
        """Writes what comes, as far as it comes."""
        whole = not any(self.asked.values())
        for answer in answers:
            if answer.HasField("head") and self.tree_size == 0:
                self.tree_size = answer.head.size
                _write_line(written, _first_line(answer) | self.asked)
            for record in answer.records:
                entry: dict[str, Any] = {"sequence": record.sequence, "record": record.record}
                if record.chain_hash:
                    entry["chain_hash"] = record.chain_hash
                else:
                    entry["proof"] = base64.b64encode(record.proof).decode()
                _write_line(written, entry)
                self.place, self.count = record.sequence, self.count + 1
            written.flush()
            if answer.done:
                # After a cut the server was asked for the rest alone.
                end = {"end": True, "records": self.count, "complete": whole and answer.sees_all}
                _write_line(written, end | (json.loads(answer.dropped) if answer.dropped else {}))
                written.flush()
                self.done = True


def _first_line(answer: pb.ExportAuditLogResponse) -> dict[str, Any]:
    found = answer.head
    return {
        "format": _FORMAT,
        "origin": found.origin,
        "size": found.size,
        "checkpoint": found.checkpoint,
        "keys": list(found.verifier_keys),
        "chain_length": found.chain_length,
        "chain_hash": found.chain_hash,
        "chain_proof": base64.b64encode(answer.chain_proof).decode(),
    }


def _write_line(written: Any, entry: dict[str, Any]) -> None:
    written.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")


def publish(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write to; what is there already is kept.", file_okay=False)
    ],
) -> None:
    """Write the newest head and the tiles of its tree to a folder, as C2SP tlog-tiles, for a web server."""
    with connect() as client:
        found = client.audit.get_audit_head(witnessed=True)
        count = 0
        for path in _tile_paths(found.size):
            target = folder / path
            if not target.exists():
                _put(target, client.audit.get_audit_tile(path=path))
                count += 1
        # Last, so that nobody finds a head whose tiles are not there yet.
        _put(folder / "checkpoint", found.checkpoint.encode())
    typer.echo(f"{count} tiles, and the head of {found.size} leaves")


def _tile_paths(size: int) -> Iterator[str]:
    """The tiles of a tree: full ones, and of each level the one that is not full."""
    for level, hashes in ((level, size >> (8 * level)) for level in range(8)):
        for index in range(hashes // _WIDTH):
            yield from (_path(kind, index, "") for kind in _kinds(level))
        if hashes % _WIDTH:
            yield from (_path(kind, hashes // _WIDTH, f".p/{hashes % _WIDTH}") for kind in _kinds(level))


def _kinds(level: int) -> tuple[str, ...]:
    return ("0", "entries") if level == 0 else (str(level),)


def _path(kind: str, index: int, width: str) -> str:
    digits = str(index).zfill(-(-len(str(index)) // 3) * 3)
    *above, last = (digits[at : at + 3] for at in range(0, len(digits), 3))
    return f"tile/{kind}/{''.join(f'x{group}/' for group in above)}{last}{width}"


def _put(target: Path, content: bytes) -> None:
    """Writes a file in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.rename(target)
