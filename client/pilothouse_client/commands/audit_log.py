"""`pilothouse audit head, prove, verify, export, publish`: the audit log in forms that others can verify."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client import audit_verifier
from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError, reading_answers
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import AllNamespaces, Filter, Format, Namespace, Output, given_or_all
from pilothouse_client.commands.output import OutputColumn, show, show_all
from pilothouse_client.commands.terminal import progress, say, say_prose, write_exactly
from pilothouse_client.commands.values import moment
from pilothouse_client.errors import UnavailableError

if TYPE_CHECKING:
    from pilothouse_client import Client

_BEGINNING = f'{{"format":"{audit_verifier.FORMAT}"'.encode()
_WIDTH = 256
# The number of times in a row that a cut export is resumed without receiving a record.
_ATTEMPTS = 5
_HEAD: list[OutputColumn[Any]] = [
    OutputColumn("LOG", lambda head: head.origin),
    OutputColumn("SIZE", lambda head: head.size),
    OutputColumn("ROOT", lambda head: head.root_hash),
    OutputColumn("SEALED", lambda head: moment(head.seal_time), whole=True),
    OutputColumn("WITNESSES", lambda head: " ".join(head.witnesses) or "-"),
]
_FINDING: list[OutputColumn[Any]] = [
    OutputColumn("FAULT", lambda each: pb.AuditFault.Name(each.fault).removeprefix("AUDIT_FAULT_")),
    OutputColumn("FIRST", lambda each: each.first_sequence),
    OutputColumn("LAST", lambda each: each.last_sequence),
    OutputColumn("DESCRIPTION", lambda each: each.description),
]

FromCheckpoint = Annotated[
    Path | None,
    verbs.Option(
        "--from-checkpoint", help="A checkpoint of this log that you kept.", exists=True, dir_okay=False
    ),
]


def register(app: verbs.VerbGroup) -> None:
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
    size: Annotated[int, verbs.Option("--size", min=0, help="The head of this size; 0: the newest.")] = 0,
    checkpoint: Annotated[
        bool, verbs.Option("--checkpoint", help="Print only the signed checkpoint, to store it.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show the newest sealed head of the log, its witnesses, and the keys of each history of the log."""
    with connect() as client:
        found = client.audit.get_audit_head(size=size)
    if checkpoint:
        write_exactly(found.checkpoint)
        return
    show(found, _HEAD, output)
    if output.is_table:
        # A checkpoint of a former history is verified with that history's key.
        say("\nverifier keys:")
        for history in found.histories or [found]:
            for key in history.verifier_keys:
                say(f"  {key}")


def prove(
    operation_id: Annotated[str, verbs.Argument(help="As `list -o wide` shows it.")],
    sequence: Annotated[
        int,
        verbs.Option("--sequence", min=0, help="Place of the record, of the two of a stream; 0: the later."),
    ] = 0,
    record: Annotated[
        Path | None, verbs.Option("--record", help="Write the record, exactly as it is hashed, to this file.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the proof that the log contains a record (C2SP tlog-proof); the leaf's data is the record's SHA-256."""
    with connect() as client:
        found = client.audit.prove_operation(operation_id=operation_id, sequence=sequence)
    _check_proof(found)
    if record is not None:
        record.write_bytes(found.record.encode())
    if output.is_table:
        write_exactly(found.proof)
    else:
        show(found, [], output)


def _keys(found: pb.AuditHead) -> list[str]:
    """Returns the keys of the log, for each of its origins."""
    return [key for history in found.histories for key in history.verifier_keys]


def _check_proof(found: pb.ProveOperationResponse) -> None:
    """Raises CommandError if the record is not the one in the log: the database returned a changed record."""
    digest = hashlib.sha256(found.record.encode()).digest()
    try:
        hashes = [base64.b64decode(each) for each in found.hashes]
        size, root = audit_verifier.head(found.head.checkpoint, _keys(found.head))[1:]
        leaf = hashlib.sha256(b"\x00" + digest).digest()
        proven = audit_verifier.root_of(leaf, found.leaf_index, size, hashes) == root
    except audit_verifier.WRONG:
        proven = False
    if not proven:
        raise CommandError(
            f"the proof does not match record {found.sequence} and the head of the log: verify the log"
        )


def verify(
    from_checkpoint: FromCheckpoint = None,
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    offline: Annotated[
        Path | None,
        verbs.Option(
            "--offline", help="An export to verify instead, without a server.", exists=True, dir_okay=False
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        verbs.Option(
            "--key", help="With --offline: a key of the log, from a source that you trust; repeatable."
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        verbs.Option("--witness", help="Key of a witness that must have signed; repeatable."),
    ] = None,
    quorum: Annotated[
        int, verbs.Option("--quorum", min=0, help="How many of these witnesses must have signed; 0: all.")
    ] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Verify the log or an export; exits with 1 if anything is wrong, with 3 if the checkpoint was not compared."""
    witnesses = Witnesses(witness or [], quorum)
    if offline is not None:
        _verify_offline(offline, key or [], from_checkpoint, witnesses)
        return
    try:
        kept = "" if from_checkpoint is None else from_checkpoint.read_text("utf-8")
    except ValueError:
        raise CommandError(f"{from_checkpoint} is not a checkpoint", 2) from None
    with connect() as client:
        cosigned = _cosigned(client, witnesses, kept) if witnesses.keys else None
        where = given_or_all(namespace, everywhere)
        report = _verified(client, cosigned.newest if cosigned else kept, where)
    if not output.is_table:
        show(report, [], output)
    else:
        _show_verified(report, where, output)
        if cosigned is not None:
            say(f"cosigned up to {cosigned.size} leaves by {', '.join(cosigned.names)}")
    if not report.intact:
        raise verbs.Exit(1)


def _verified(client: Client, kept: str, namespace: str) -> pb.VerifyAuditLogResponse:
    with client.audit.verify_audit_log(checkpoint=kept, namespace=namespace) as answers:
        return _last(answers)


def _show_verified(report: pb.VerifyAuditLogResponse, namespace: str, output: Format) -> None:
    if report.intact:
        say(
            f"intact: {report.verified_records} records verified, {report.dropped_records} dropped by retention"
        )
        if not report.complete:
            whose = f"of namespace {namespace}" if namespace else "that you may see"
            say_prose(
                f"these are the records {whose}: missing records of the log are not detected", err=False
            )
        if report.former_heads:
            say_prose(
                f"the server no longer has the keys that signed the {report.former_heads} oldest "
                "heads: they were compared with the tree only",
                err=False,
            )
        say(report.head.checkpoint, nl=False)
    else:
        show_all(report.findings, _FINDING, output)


@dataclass(frozen=True)
class Witnesses:
    """The keys of trusted witnesses, and how many of them must have signed; 0: all."""

    keys: Sequence[str]
    quorum: int

    def __post_init__(self) -> None:
        if self.quorum > len(self.keys):
            raise CommandError(f"--quorum {self.quorum} needs at least as many keys by --witness", 2)


@dataclass(frozen=True)
class Cosigned:
    """The newest head that enough witnesses have signed; `newest` is the later of that head and the kept checkpoint."""

    size: int
    names: Sequence[str]
    newest: str


def _cosigned(client: Client, witnesses: Witnesses, kept: str) -> Cosigned:
    """Returns the newest head that enough witnesses have signed, and that continues the kept one.

    Raises CommandError if too few witnesses have signed, or if the head does not continue the kept one.
    """
    found = client.audit.get_audit_head(witnessed=True)
    try:
        names = audit_verifier.cosigners(found.checkpoint, witnesses.keys, witnesses.quorum)
        heads = [_size_and_root(each) for each in (found.checkpoint, kept) if each]
        (first, note), (second, later) = min(heads), max(heads)
        if first[0] < second[0]:
            proof = client.audit.prove_consistency(checkpoint=note, second_size=second[0])
            hashes = [base64.b64decode(each) for each in proof.hashes]
            consistent = audit_verifier.consistent(first, second, hashes)
        else:
            consistent = first == second
    except audit_verifier.WRONG as error:
        raise CommandError(str(error)) from None
    if not consistent:
        raise CommandError("the head that witnesses have signed does not continue the checkpoint")
    return Cosigned(found.size, names, later)


def _size_and_root(note: str) -> tuple[tuple[int, bytes], str]:
    """Returns size and root of a head, and its text, without checking signatures: the server checks the log's own."""
    with reading_answers():
        _, size, root = note.splitlines()[:3]
        return (int(size), base64.b64decode(root)), note


def _last(answers: Iterator[pb.VerifyAuditLogResponse]) -> pb.VerifyAuditLogResponse:
    for answer in answers:
        progress("" if answer.done else f"{answer.verified_records} of {answer.total_records} records")
        if answer.done:
            return answer
    raise CommandError("the server's response has no result")


def _verify_offline(
    export_file: Path, keys: Sequence[str], from_checkpoint: Path | None, witnesses: Witnesses
) -> None:
    if not keys:
        raise CommandError(
            ("--offline needs --key: the log's key, from `pilothouse audit head` or from the log's owner"), 2
        )
    read, kept = export_file, None
    try:
        if from_checkpoint is not None:
            read = from_checkpoint
            kept = audit_verifier.head(from_checkpoint.read_text("utf-8"), keys)
        read = export_file
        with export_file.open(encoding="utf-8") as file:
            found = audit_verifier.verify(iter(file), keys, kept, witnesses.keys, witnesses.quorum)
    except audit_verifier.WRONG as error:
        raise CommandError(f"{read}: {error!s}" if str(error) else f"{read} is empty") from None
    say(json.dumps(found, indent=2))
    if audit_verifier.code(found):
        raise verbs.Exit(audit_verifier.code(found))


def export(
    file: Annotated[Path, verbs.Argument(help="File to write to.", dir_okay=False)],
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    filter_: Filter = "",
    resume: Annotated[
        bool, verbs.Option("--resume", help="Continue an incomplete file; give the same options.")
    ] = False,
    from_checkpoint: FromCheckpoint = None,
    witnessed: Annotated[
        bool,
        verbs.Option("--witnessed", help="Only up to the newest head that enough witnesses have signed."),
    ] = False,
) -> None:
    """Export records with their proofs, as JSON lines that `audit verify --offline` and other programs verify."""
    if file.exists() and not resume:
        raise CommandError(f"{file} exists: name another file, or continue it with --resume", 2)
    fresh, where = not file.exists(), given_or_all(namespace, everywhere)
    begun = _Export(where, filter_) if fresh else _Export.read(file, where, filter_)
    try:
        with _opened(file, fresh=fresh) as written, connect() as client:
            if from_checkpoint is not None:
                begun.checkpoint = from_checkpoint.read_text("utf-8")
            if witnessed and not begun.tree_size:
                begun.asked_size = client.audit.get_audit_head(witnessed=True).size
            _export(client, begun, written)
            os.fsync(written.fileno())
    except BaseException:
        if fresh and begun.place == 0:
            # The file contains nothing that `--resume` could continue.
            file.unlink(missing_ok=True)
        raise
    say(f"{begun.count} records up to {begun.place}")


def _opened(file: Path, *, fresh: bool) -> IO[str]:
    """Opens the file of an export, which only its owner may read: records contain names and addresses."""
    new = os.O_EXCL if fresh else os.O_APPEND
    return open(os.open(file, os.O_WRONLY | os.O_CREAT | new, 0o600), "w", encoding="utf-8", newline="\n")


def _export(client: Client, begun: _Export, written: IO[str]) -> None:
    """Writes the rest of the export. A stream that is cut is resumed."""
    attempts = _ATTEMPTS
    while not begun.done:
        at = begun.place
        answers = client.audit.export_audit_log(
            namespace=begun.asked["namespace"],
            filter=begun.asked["filter"],
            after_sequence=at,
            tree_size=begun.tree_size or begun.asked_size,
        )
        try:
            with answers:
                begun.write(answers, written, lambda: _consistency(client, begun))
        except UnavailableError:
            attempts = _ATTEMPTS if begun.place > at else attempts - 1
            if attempts == 0:
                raise
            time.sleep(0.5)


def _consistency(client: Client, begun: _Export) -> dict[str, Any]:
    """Returns the proof, for the last line, that the export's head continues the checkpoint, if one was given."""
    if not begun.checkpoint:
        return {}
    found = client.audit.prove_consistency(checkpoint=begun.checkpoint, second_size=begun.tree_size)
    return {"consistency": {"size": found.first_size, "hashes": list(found.hashes)}}


class _Export:
    """The progress of an export, and the writing of its lines."""

    # The checkpoint that the export's head must continue, and the size of the head to export to; 0: the newest.
    checkpoint = ""
    asked_size = 0

    def __init__(self, namespace: str = "", filter_text: str = "") -> None:
        self.asked = {"namespace": namespace, "filter": filter_text}
        self.place = 0
        self.tree_size = 0
        self.count = 0
        self.done = False

    @classmethod
    def read(cls, file: Path, namespace: str, filter_text: str) -> _Export:
        """Returns the export that a file already contains; an unfinished line is cut off.

        Raises CommandError if the file is not an export, or one with another filter; the file then stays unchanged.
        """
        found, good = cls(namespace, filter_text), 0
        with file.open("rb+") as lines:
            for line in lines:
                # A file that was cut in its first line must also begin like an export.
                if not good and line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
                    raise CommandError(f"{file} is not an export of an audit log", 2)
                if not line.endswith(b"\n"):
                    break
                try:
                    found.take(json.loads(line), file)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise CommandError(f"{file} is not a valid export after byte {good}", 2) from None
                good += len(line)
            lines.truncate(good)
        return found

    def take(self, entry: dict[str, Any], file: Path) -> None:
        """Restores the progress from a line that an earlier run has written.

        Raises CommandError."""
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

    def write(
        self,
        answers: Iterator[pb.ExportAuditLogResponse],
        written: Any,
        consistency: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Writes the responses that arrive; `consistency` returns the last line's proof for a checkpoint."""
        whole = not any(self.asked.values())
        for answer in answers:
            if answer.HasField("head") and self.tree_size == 0:
                self.tree_size = answer.head.size
                _write_line(written, _first_line(answer) | self.asked)
            for record in answer.records:
                proof = base64.b64encode(record.proof).decode()
                _write_line(written, {"sequence": record.sequence, "record": record.record, "proof": proof})
                self.place, self.count = record.sequence, self.count + 1
            written.flush()
            if answer.done:
                # After a cut, only the remaining records were requested, so the records are counted here.
                end = {"end": True, "records": self.count, "complete": whole and answer.sees_all}
                end |= json.loads(answer.dropped) if answer.dropped else {}
                _write_line(written, end | consistency())
                written.flush()
                self.done = True


def _first_line(answer: pb.ExportAuditLogResponse) -> dict[str, Any]:
    found = answer.head
    return {
        "format": audit_verifier.FORMAT,
        "origin": found.origin,
        "size": found.size,
        "checkpoint": found.checkpoint,
        "keys": list(found.verifier_keys),
    }


def _write_line(written: Any, entry: dict[str, Any]) -> None:
    written.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")


def publish(
    folder: Annotated[Path, verbs.Argument(help="Folder to write to; existing files stay.", file_okay=False)],
) -> None:
    """Write the newest witnessed head and the tiles of its tree to a folder, as C2SP tlog-tiles, for a web server."""
    with connect() as client:
        found = client.audit.get_audit_head(witnessed=True)
        count = 0
        for path in _tile_paths(found.size):
            target = folder / path
            if not target.exists():
                _put(target, client.audit.get_audit_tile(path=path))
                count += 1
        # The head is written last, so that no reader finds a head whose tiles do not exist yet.
        _put(folder / "checkpoint", found.checkpoint.encode())
    say(f"{count} new tiles, and the head of {found.size} leaves")


def _tile_paths(size: int) -> Iterator[str]:
    """Yields the paths of a tree's tiles: the full tiles, and the partial tile of each level."""
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
    """Writes a file atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.rename(target)
