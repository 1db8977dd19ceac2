"""The verifier for auditors takes no export that was put together by somebody else, whatever it claims of itself."""

from __future__ import annotations

import base64
import copy
import functools
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pilothouse_client import audit_verifier
from pilothouse_client.audit_verifier import WrongError
from pilothouse_server.audit import drops, merkle, notes
from pilothouse_server.audit.merkle import Edge, Nodes
from pilothouse_server.audit.notes import Checkpoint, Signer

SIGNER = Signer("a/log", bytes(range(32)))
KEY = str(SIGNER.verifier)
CHAINED, RECORDS = 4, 9
Lines = list[dict[str, Any]]


def chained(first: int, last: int, link: bytes) -> tuple[Lines, bytes]:
    """Records of the hash chain, and its value after them."""
    lines: Lines = []
    for sequence in range(first, last + 1):
        record = json.dumps({"action": "get", "number": sequence})
        link = sha256(link + sequence.to_bytes(8, "big") + sha256(record.encode()).digest()).digest()
        lines.append({"sequence": sequence, "record": record, "chain_hash": link.hex()})
    return lines, link


def exported(base: int = CHAINED, dropped: int = 0, *, signer: Signer = SIGNER) -> Lines:
    """A whole export of a log that began with a chain; a record tells of what was dropped of that."""
    chain, end = chained(1, base, bytes(32))
    fields: list[dict[str, Any]] = [{"action": "get", "number": base + each} for each in range(1, RECORDS)]
    if dropped:
        stretches = [(1, dropped, chain[dropped - 1]["chain_hash"])]
        told = {"dropped": stretches, "signatures": signer.line(drops.text("a/log", stretches))}
        fields.append({"action": "delete", "metadata": told, "resource_type": "audit_log", "user_id": None})
    records = [json.dumps(each, separators=(",", ":")) for each in fields]
    edge = Edge()
    edge.grow([end, *(sha256(each.encode()).digest() for each in records)])
    nodes, size = Nodes(edge.tiles()), edge.size

    def proof(index: int) -> str:
        return base64.b64encode(b"".join(nodes.spans(merkle.inclusion_spans(index, size)))).decode()

    head = {
        "format": "pilothouse-audit-export/1",
        "origin": "a/log",
        "size": size,
        "checkpoint": notes.signed(Checkpoint("a/log", size, edge.root()), [SIGNER]),
        "keys": [KEY],
        "chain_length": base,
        "chain_hash": end.hex(),
        "chain_proof": proof(0),
    }
    leaves = [
        {"sequence": base + index, "record": record, "proof": proof(index)}
        for index, record in enumerate(records, start=1)
    ]
    return ended([head, *chain[dropped:], *leaves], complete=True)


def ended(lines: Lines, *, complete: bool = False) -> Lines:
    return [*lines, {"end": True, "records": len(lines) - 1, "complete": complete}]


def verify(lines: Sequence[Any]) -> dict[str, Any]:
    return audit_verifier.verify(iter([json.dumps(line) + "\n" for line in lines]), KEY)


def test_it_is_as_short_as_is_said() -> None:
    source = Path(audit_verifier.__file__).read_text()
    assert len(source.splitlines()) <= 200
    assert "import pilothouse" not in source
    assert "from pilothouse" not in source


@pytest.mark.parametrize("base", [0, CHAINED])
def test_a_whole_export_is_proven(base: int) -> None:
    found = verify(exported(base))
    assert (found["records"], found["unproven"], found["complete"]) == (base + RECORDS - 1, 0, True)


def test_a_record_does_not_stand_a_second_time_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of hashes is walked by the bits of a place: those of a place beyond the tree may be those of one in it."""
    # It is one head that is looked at five hundred times, at 20 ms each by Python alone.
    monkeypatch.setattr(audit_verifier, "ed25519", functools.cache(audit_verifier.ed25519))
    lines = exported(0)
    size = lines[0]["size"]
    refused = 0
    for record in lines[1:-1]:
        for place in range(size, 8 * size):
            with pytest.raises(WrongError, match="there is no leaf"):
                verify(ended([*lines[:-1], {**record, "sequence": place}]))
            refused += 1
    assert refused == 7 * size * (size - 1)


def test_a_chain_that_leads_nowhere_proves_nothing() -> None:
    """Nobody has signed how long the chain is, so who makes up records may say that they are of it."""
    head = exported()[0] | {"chain_length": 10**9}
    made_up, _ = chained(1, 3, bytes(32))
    found = verify(ended([head, *made_up]))
    assert (found["records"], found["unproven"]) == (0, 3)
    # Nor do those that end in the first leaf, as they say, without being led to it.
    made_up[-1]["chain_hash"] = head["chain_hash"]
    with pytest.raises(WrongError, match="chain is broken"):
        verify(ended([head, *made_up]))
    found = verify(ended([head, made_up[0], made_up[2]]))
    assert (found["records"], found["unproven"]) == (0, 2)


def test_a_part_of_the_chain_is_not_proven_and_its_end_is() -> None:
    head, *chain = exported()[: CHAINED + 1]
    for part, proven in ((chain[:2], 0), (chain[1:3], 0), ([chain[0], *chain[2:]], 1), (chain, CHAINED)):
        found = verify(ended([head, *part]))
        assert (found["records"], found["unproven"]) == (proven, len(part) - proven)


def test_what_is_left_of_the_chain_is_proven_by_what_tells_of_the_rest() -> None:
    lines = exported(dropped=2)
    found = verify(lines)
    assert (found["records"], found["unproven"], found["dropped"]) == (len(lines) - 2, 0, 2)
    altered = copy.deepcopy(lines)
    altered[1]["record"] = altered[1]["record"].replace("get", "put")
    with pytest.raises(WrongError, match="chain is broken at record 3"):
        verify(altered)
    with pytest.raises(WrongError, match="records 1 to 2 are missing"):
        verify(exported(dropped=2, signer=Signer("a/log", bytes(32))))


@pytest.mark.parametrize(
    "entry",
    [None, [], 1, "x", {"sequence": "1", "record": "x", "proof": ""}, {"sequence": 1, "record": None},
     {"sequence": 1, "record": "x"}, {"sequence": 1.5, "record": "x", "proof": ""}, {"end": True}],
)  # fmt: skip
def test_what_is_no_entry_is_refused_in_words(entry: Any) -> None:
    lines = exported(0)
    with pytest.raises(audit_verifier.WRONG):
        verify([lines[0], entry, lines[-1]])


def test_nothing_stands_behind_the_end() -> None:
    lines = exported()
    with pytest.raises(WrongError, match="behind the end"):
        verify([*lines, lines[1]])
