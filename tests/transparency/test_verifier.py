"""The verifier for auditors accepts no forged export, regardless of the export's claims."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilothouse_client import audit_verifier
from pilothouse_client.audit_verifier import WrongError
from pilothouse_server.audit import drops, merkle, notes
from pilothouse_server.audit.merkle import Edge, Nodes
from pilothouse_server.audit.notes import Checkpoint, Signer

SIGNER = Signer("a/log", bytes(range(32)))
KEY = str(SIGNER.verifier)
RECORDS = 9
Lines = list[dict[str, Any]]


def exported(dropped: int = 0, *, signer: Signer = SIGNER) -> Lines:
    """Returns a complete export; its last record says that the first `dropped` records were dropped."""
    fields: list[dict[str, Any]] = [{"action": "get", "number": each} for each in range(1, RECORDS + 1)]
    if dropped:
        told = {"dropped": [(1, dropped)], "signatures": signer.line(drops.text("a/log", [(1, dropped)]))}
        fields.append({"action": "delete", "metadata": told, "resource_type": "audit_log", "user_id": None})
    records = [json.dumps(each, separators=(",", ":")) for each in fields]
    edge = tree_of(records)
    nodes, size = Nodes(edge.tiles()), edge.size

    def proof(index: int) -> str:
        return base64.b64encode(b"".join(nodes.spans(merkle.inclusion_spans(index, size)))).decode()

    head = {
        "format": "pilothouse-audit-export/2",
        "origin": "a/log",
        "size": size,
        "checkpoint": notes.signed(Checkpoint("a/log", size, edge.root()), [SIGNER]),
        "keys": [KEY],
    }
    leaves = [
        {"sequence": index + 1, "record": record, "proof": proof(index)}
        for index, record in enumerate(records)
    ]
    return ended([head, *leaves[dropped:]], complete=True)


def tree_of(records: Sequence[str]) -> Edge:
    """Returns the tree over records."""
    edge = Edge()
    edge.grow(sha256(each.encode()).digest() for each in records)
    return edge


def ended(lines: Lines, *, complete: bool = False) -> Lines:
    return [*lines, {"end": True, "records": len(lines) - 1, "complete": complete}]


def verify(lines: Sequence[Any]) -> dict[str, Any]:
    return audit_verifier.verify(iter([json.dumps(line) + "\n" for line in lines]), KEY)


def test_the_verifier_is_as_short_as_documented() -> None:
    source = Path(audit_verifier.__file__).read_text()
    assert len(source.splitlines()) <= 290
    assert "import pilothouse" not in source
    assert "from pilothouse" not in source


def test_a_whole_export_is_proven() -> None:
    found = verify(exported())
    assert (found["records"], found["size"], found["complete"]) == (RECORDS, RECORDS, True)


def test_a_record_is_proven_only_at_its_own_place() -> None:
    lines = exported()
    for place in range(1, RECORDS + 1):
        if place != 3:
            with pytest.raises(WrongError, match=r"is not in the log|a proof is too"):
                verify(ended([lines[0], lines[3] | {"sequence": place}]))
    assert verify(ended([lines[0], lines[3]]))["records"] == 1


def test_another_format_is_refused_by_its_name() -> None:
    lines = exported()
    with pytest.raises(WrongError, match="its format is pilothouse-audit-export/1, and this verifier reads"):
        verify([lines[0] | {"format": "pilothouse-audit-export/1"}, *lines[1:]])


def test_a_record_is_not_accepted_again_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of hashes follows the bits of a place, and a place beyond the tree may share them with one in the tree."""
    # The same head is verified five hundred times, and pure Python needs 20 ms for each.
    monkeypatch.setattr(audit_verifier, "ed25519", functools.cache(audit_verifier.ed25519))
    lines = exported()
    size = lines[0]["size"]
    refused = 0
    for record in lines[1:-1]:
        for place in range(size + 1, 8 * size + 1):
            with pytest.raises(WrongError, match="there is no leaf"):
                verify(ended([*lines[:-1], {**record, "sequence": place}]))
            refused += 1
    assert refused == 7 * size * size


def test_missing_records_need_a_signed_list_of_dropped_ones() -> None:
    lines = exported(dropped=2)
    found = verify(lines)
    assert (found["records"], found["dropped"]) == (len(lines) - 2, 2)
    with pytest.raises(WrongError, match="records 1 to 2 are missing"):
        verify(exported(dropped=2, signer=Signer("a/log", bytes(32))))
    with pytest.raises(WrongError, match="records 1 to 3 are missing"):
        verify(ended([lines[0], *lines[2:-1]], complete=True))


@pytest.mark.parametrize(
    "entry",
    [None, [], 1, "x", {"sequence": "1", "record": "x", "proof": ""}, {"sequence": 1, "record": None},
     {"sequence": 1, "record": "x"}, {"sequence": 1.5, "record": "x", "proof": ""}, {"end": True}],
)  # fmt: skip
def test_a_malformed_entry_is_refused_with_an_error_message(entry: Any) -> None:
    lines = exported()
    with pytest.raises(audit_verifier.WRONG):
        verify([lines[0], entry, lines[-1]])


def test_entries_behind_the_end_are_refused() -> None:
    lines = exported()
    with pytest.raises(WrongError, match="after its end line"):
        verify([*lines, lines[1]])


def checkpoint_of(lines: Lines, size: int) -> tuple[str, int, bytes]:
    """Returns the head of the first leaves of an export, as a user would have kept it."""
    edge = tree_of([each["record"] for each in lines[1:-1][:size]])
    return "a/log", size, edge.root()


def proof_from(lines: Lines, size: int) -> dict[str, Any]:
    """Returns the proof that the head of an export continues the tree of a size, as its last line contains it."""
    edge = tree_of([each["record"] for each in lines[1:-1]])
    hashes = Nodes(edge.tiles()).spans(merkle.consistency_spans(size, edge.size))
    return {"consistency": {"size": size, "hashes": [notes.base64_text(each) for each in hashes]}}


def shown(lines: Lines, kept: tuple[str, int, bytes], keys: Sequence[str] = (KEY,)) -> dict[str, Any]:
    return audit_verifier.verify(iter([json.dumps(line) for line in lines]), keys, kept)


@pytest.mark.parametrize("size", range(1, RECORDS + 1))
def test_a_checkpoint_is_compared_despite_missing_records_before_its_end(size: int) -> None:
    lines = exported()
    kept, proof = checkpoint_of(lines, size), proof_from(lines, size)
    part = [lines[0], *lines[2:-1]]
    found = shown([*part, lines[-1] | {"records": len(part) - 1, "complete": False} | proof], kept)
    assert (found["checkpoint"], audit_verifier.code(found)) == ("matches", 0)
    other = (kept[0], kept[1], bytes(32))
    with pytest.raises(WrongError, match="not those of the checkpoint"):
        shown([*part, lines[-1] | {"records": len(part) - 1, "complete": False} | proof], other)
    without = shown([*part, lines[-1] | {"records": len(part) - 1, "complete": False}], kept)
    # If the checkpoint has the size of the head, it is compared with the head.
    compared = size == lines[0]["size"]
    assert audit_verifier.code(without) == (0 if compared else 3)
    assert without["checkpoint"].startswith("matches" if compared else "not compared")


def test_a_proof_from_another_size_is_not_used() -> None:
    lines = exported()
    part = [lines[0], *lines[2:-1]]
    end = lines[-1] | {"records": len(part) - 1, "complete": False}
    found = shown([*part, end | proof_from(lines, 4)], checkpoint_of(lines, 5))
    assert audit_verifier.code(found) == 3
    proof = proof_from(lines, 5)
    proof["consistency"]["hashes"].append(notes.base64_text(bytes(32)))
    with pytest.raises(WrongError):
        shown([*part, end | proof], checkpoint_of(lines, 5))


def test_a_checkpoint_of_another_history_needs_its_key() -> None:
    """Its origin and its key differ, although the seed is the same."""
    lines = exported()
    former = Signer("a/log/01234567", bytes(range(32)))
    kept = checkpoint_of(lines, 5)
    note = notes.signed(Checkpoint("a/log/01234567", kept[1], kept[2], "a/log 3 AAAA"), [former])
    keys = [KEY, str(former.verifier)]
    assert shown(lines, audit_verifier.head(note, keys), keys)["checkpoint"] == "matches"
    with pytest.raises(WrongError, match="not signed by"):
        audit_verifier.head(note, [KEY])
    with pytest.raises(WrongError, match="is not an earlier head"):
        shown(lines, audit_verifier.head(note, keys), [KEY])


def cosignature(seed: bytes, text: str) -> tuple[str, str]:
    """Returns the key of a witness, and the line of its signature."""
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    key = notes.Verifier(f"w{seed[0]}.example", secret.public_key().public_bytes_raw(), witness=True)
    moment = (1_700_000_000).to_bytes(8, "big")
    value = key.key_id + moment + secret.sign(f"cosignature/v1\ntime 1700000000\n{text}".encode())
    return str(key), f"\u2014 {key.name} {notes.base64_text(value)}\n"


def test_the_head_must_be_signed_by_the_wanted_number_of_witnesses() -> None:
    lines = exported()
    note = lines[0]["checkpoint"]
    text = note.partition("\n\n")[0] + "\n"
    (one, first), (two, second), (three, _) = (cosignature(bytes([each]) * 32, text) for each in (1, 2, 3))
    lines[0]["checkpoint"] = note + first + second
    texts = [json.dumps(line) for line in lines]
    for witnesses, quorum in (([one], 0), ([one, two], 2), ([one, two, three], 2)):
        found = audit_verifier.verify(iter(texts), [KEY], None, witnesses, quorum)
        assert found["witnesses"] == ["w1.example", "w2.example"][: len(witnesses)]
    for witnesses, quorum in (
        ([one, two, three], 0),
        ([one, two, three], 3),
        ([three], 1),
        ([one, one], 2),
        ([], 1),
    ):
        with pytest.raises(WrongError, match="of the witnesses have signed"):
            audit_verifier.verify(iter(texts), [KEY], None, witnesses, quorum)
    # Neither a signature of another head nor the log's own key counts.
    lines[0]["checkpoint"] = note + cosignature(bytes([1]) * 32, text.replace("a/log", "b/log"))[1]
    for witnesses in ([one], [KEY]):
        with pytest.raises(WrongError):
            audit_verifier.verify(iter([json.dumps(line) for line in lines]), [KEY], None, witnesses)
