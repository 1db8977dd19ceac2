"""Verifies an export of Pilothouse's audit log. It needs Python alone, and nothing of Pilothouse: read it, then run it.

    python audit_verifier.py EXPORT KEY ... [--from-checkpoint FILE] [--witness KEY ... [--quorum K]]

It ends with 0 if all holds, 1 if something is WRONG, 2 if it was called wrongly, and 3 if all holds, but the checkpoint
could not be compared. A key is NAME+ID+BASE64; give one for each history of the log that you verify.
An export is lines of JSON: the signed head of the log, records, an end. Shown is that
  - a key that you name has signed the head (Ed25519, C2SP signed-note and tlog-checkpoint);
  - record n, as text, is leaf n - 1 of the head's tree (RFC 6962); the leaf's data is SHA-256(text);
  - if the export says that it is complete, only records are missing that the log has signed as dropped;
  - the tree begins with that of a checkpoint that you kept: by the records until its end, or, if some are missing, by
    the consistency proof that an export from that checkpoint holds;
  - enough of the witnesses that you name have signed the head, too: as many as the quorum (C2SP tlog-cosignature).
"""

import argparse
import base64
import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_P, _ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
FORMAT = "pilothouse-audit-export/2"
WRONG = (ValueError, LookupError, TypeError, AttributeError, StopIteration)
_D = -121665 * pow(121666, _P - 2, _P) % _P


class WrongError(ValueError):
    """The export is wrong, at the place that the message names. Other malformed text raises the errors in WRONG."""


def check(holds: object, wrong: str) -> None:
    if not holds:
        raise WrongError(wrong)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
    product = _D * p[0] * q[0] * p[1] * q[1]
    x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + product, -1, _P)
    return x % _P, (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, _P) % _P


def _times(number: int, point: tuple[int, int]) -> tuple[int, int]:
    rest = _times(number >> 1, _add(point, point)) if number else (0, 1)
    return _add(rest, point) if number & 1 else rest


def _point(encoded: bytes) -> tuple[int, int]:
    sign, y = divmod(int.from_bytes(encoded, "little"), 2**255)
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    x = x if x * x % _P == square else x * pow(2, (_P - 1) // 4, _P) % _P
    check(y < _P and x * x % _P == square and (x or not sign), "a key or signature is not a point of Ed25519")
    return (_P - x if x & 1 != sign else x), y


def ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Returns whether an Ed25519 key has signed a message (RFC 8032)."""
    s = int.from_bytes(signature[32:], "little")
    if len(public) != 32 or len(signature) != 64 or s >= _ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _ORDER
    base = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    return _times(s, base) == _add(_point(signature[:32]), _times(k, _point(public)))


def _keyed(key: str, kind: int) -> tuple[str, str, bytes]:
    """Returns name, identifier and public key of a key in text form: of a log (kind 1) or a witness (kind 4)."""
    name, identifier, value = [*key.split("+", 2), "", ""][:3]
    typed = base64.b64decode(value)
    right = sha256(name.encode() + b"\n" + typed)[:4].hex() == identifier and typed[0] == kind
    check(right, f"{key} is not an Ed25519 key of a {'log' if kind == 1 else 'witness'}")
    return name, identifier, typed[1:]


def _signatures(note: str, name: str, identifier: str) -> tuple[str, list[bytes]]:
    """Returns the text of a note, and the signatures under it that have a key's name and identifier."""
    text, _, lines = (note.replace("\n\n", "\n\0", 1)).partition("\0")
    found = [
        (dash, signer, base64.b64decode(value)) for dash, signer, value in map(str.split, lines.splitlines())
    ]
    named = [value for dash, signer, value in found if dash == "\u2014" and signer == name]
    return text, [value[4:] for value in named if value[:4].hex() == identifier]


def opened(note: str, keys: Sequence[str]) -> list[str]:
    """Returns the lines of a note that one of the keys has signed."""
    keys = [keys] if isinstance(keys, str) else keys
    for key in keys:
        name, identifier, public = _keyed(key, 1)
        text, signatures = _signatures(note, name, identifier)
        for signature in signatures:
            check(ed25519(public, signature, text.encode()), "its signature does not match the head")
            return text.splitlines()
    raise WrongError(
        f"the head is not signed by {', '.join(keys)}; its signatures: {note.partition(chr(10) * 2)[2].strip()}"
    )


def head(note: str, keys: Sequence[str]) -> tuple[str, int, bytes]:
    """Returns origin, size and root of a checkpoint that one of the keys has signed."""
    origin, size, root = opened(note, keys)[:3]
    return origin, int(size), base64.b64decode(root)


def cosigners(note: str, witnesses: Sequence[str], quorum: int = 0) -> list[str]:
    """Returns the names of the witnesses that have signed a head. Raises WrongError below the quorum (0: all)."""
    found, wanted = list[str](), quorum or len(witnesses)
    for name, identifier, public in {_keyed(key, 4) for key in witnesses}:
        text, signatures = _signatures(note, name, identifier)
        signed = [f"cosignature/v1\ntime {int.from_bytes(each[:8], 'big')}\n{text}" for each in signatures]
        good = [
            ed25519(public, each[8:], said.encode()) for each, said in zip(signatures, signed, strict=True)
        ]
        found += [name] if any(good) else []
    check(len(found) >= wanted, f"{len(found)} of the witnesses have signed the head, but {wanted} must")
    return sorted(found)


def consistent(first: tuple[int, bytes], second: tuple[int, bytes], proof: list[bytes]) -> bool:
    """Returns whether a proof shows that the second tree (size, root) begins with the first (RFC 9162, 2.1.4.2)."""
    (size, root), (later, later_root) = first, second
    if size == later or not 0 < size < later:
        return first == second and not proof
    hashes = [root, *proof] if size & (size - 1) == 0 else proof
    node, last = size - 1, later - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0] if hashes else b""
    for other in hashes[1:]:
        check(last, "a proof is too long")
        if node & 1 or node == last:
            old, new = sha256(b"\x01" + other + old), sha256(b"\x01" + other + new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = sha256(b"\x01" + new + other)
        node, last = node >> 1, last >> 1
    return not last and (old, new) == (root, later_root)


def root_of(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """Returns the root that a leaf's proof leads to (RFC 9162, 2.1.3.2)."""
    node, last = index, size - 1
    check(0 <= node <= last, f"there is no leaf {index} among {size}")
    for other in proof:
        check(last, "a proof is too long")
        if node & 1 or node == last:
            leaf = sha256(b"\x01" + other + leaf)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            leaf = sha256(b"\x01" + leaf + other)
        node, last = node >> 1, last >> 1
    check(not last, "a proof is too short")
    return leaf


class Export:
    """An export while it is read; `kept` is the head of a checkpoint. Raises WrongError."""

    def __init__(
        self, first: dict[str, Any], keys: Sequence[str], kept: tuple[str, int, bytes] | None
    ) -> None:
        self.keys, form = [keys] if isinstance(keys, str) else keys, first["format"]
        check(
            form == FORMAT, f"its format is {form}, and this verifier reads {FORMAT}: use that of its release"
        )
        self.origin, self.size, self.root = head(first["checkpoint"], self.keys)
        # A checkpoint of another history of the log is signed by a key of its own, which has to be named.
        later = kept is None or ((kept[0] == self.origin or len(self.keys) > 1) and kept[1] <= self.size)
        check(later, f"checkpoint {kept and kept[:2]} is not an earlier head of {(self.origin, self.size)}")
        self.kept, self.matches, self.stack = kept, False, list[bytes]()
        self.place, self.count, self.leaves = 0, 0, 0
        self.missing, self.drops = list[tuple[int, int]](), list[Any]()

    def record(self, sequence: int, text: str, proof: str) -> None:
        check(sequence > self.place, f"record {sequence} comes after record {self.place}")
        self.missing += [] if sequence == self.place + 1 else [(self.place + 1, sequence - 1)]
        self.place, self.count, what = sequence, self.count + 1, f"record {sequence}, shown as {text[:200]},"
        self._prove(sha256(b"\x00" + sha256(text.encode())), sequence - 1, proof, what)
        self.believe(json.loads(text)["metadata"] if '"dropped":' in text else {})

    def believe(self, told: dict[str, Any]) -> None:
        for key in self.keys:
            with contextlib.suppress(*WRONG):  # a list that this key has not signed proves no drops
                said = "".join(f"{low} {high}\n" for low, high in told["dropped"])
                opened(f"{key.split('+')[0]}\ndropped\n{said}\n{told['signatures']}", [key])
                self.drops = told["dropped"]

    def _prove(self, leaf: bytes, index: int, encoded: str, what: str) -> None:
        """Checks that a leaf is in the tree, and stores the full subtrees of consecutive leaves."""
        proof = base64.b64decode(encoded)
        hashes = [proof[at : at + 32] for at in range(0, len(proof), 32)]
        stands = root_of(leaf, index, self.size, hashes) == self.root
        check(stands, f"{what} is not in the log at its place")
        if self.leaves != index:
            return
        self.leaves = rest = index + 1
        while rest % 2 == 0:
            leaf, rest = sha256(b"\x01" + self.stack.pop() + leaf), rest // 2
        self.stack.append(leaf)
        if self.kept and self.leaves == self.kept[1]:
            self.matches = True
            root = functools.reduce(lambda right, left: sha256(b"\x01" + left + right), self.stack[::-1])
            check(root == self.kept[2], f"the first {self.leaves} leaves are not those of the checkpoint")

    def compare(self, entry: dict[str, Any]) -> None:
        """Checks that the consistency proof of an export, if it has one, leads from the checkpoint to the head."""
        same = {"size": self.size, "hashes": []}  # the checkpoint of the head itself needs no proof
        proof: Any = same if self.kept and self.kept[1] == self.size else entry.get("consistency")
        if self.kept and proof and proof["size"] == self.kept[1]:
            hashes = [base64.b64decode(each) for each in proof["hashes"]]
            self.matches = consistent(self.kept[1:], (self.size, self.root), hashes)
            check(self.matches, f"the first {self.kept[1]} leaves are not those of the checkpoint")

    def end(self, entry: dict[str, Any]) -> dict[str, Any]:
        check(entry["records"] == self.count, f"there are {self.count} records, not {entry['records']}")
        self.believe(entry)
        self.compare(entry)
        dropped = 0
        self.missing += [(self.place + 1, self.size)] if self.place < self.size else []
        for low, high in self.missing if entry["complete"] else []:
            dropped += high - low + 1
            told = any(first <= low and high <= end for first, end in self.drops)
            check(told, f"records {low} to {high} are missing; no signed list names them as dropped")
        found = {"origin": self.origin, "size": self.size, "root": self.root.hex(), "records": self.count}
        found |= {"complete": entry["complete"], "dropped": dropped}
        kept = (
            "matches"
            if self.matches
            else "not compared: records before its end are missing, and the export has no proof for it"
        )
        return found | ({"checkpoint": kept} if self.kept else {})


def verify(
    lines: Any,
    keys: Sequence[str],
    kept: tuple[str, int, bytes] | None = None,
    witnesses: Sequence[str] = (),
    quorum: int = 0,
) -> dict[str, Any]:
    """Verifies an export; returns the findings. Raises WrongError."""
    first = json.loads(next(lines))
    export = Export(first, keys, kept)
    signed = {"witnesses": cosigners(first["checkpoint"], witnesses, quorum)} if witnesses or quorum else {}
    for entry in map(json.loads, lines):
        if "end" in entry:
            check(not any(line.strip() for line in lines), "the export continues after its end line")
            return export.end(entry) | signed
        export.record(entry["sequence"], entry["record"], entry["proof"])
    raise WrongError(f"the export is cut off after record {export.place}: its end is missing")


def code(found: dict[str, Any]) -> int:
    """Returns the exit code for these findings: 3 if a checkpoint was given and not compared."""
    return 0 if found.get("checkpoint", "matches") == "matches" else 3


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--from-checkpoint", type=Path)
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int, default=0)
    given = parser.parse_args()
    try:
        kept = head(given.from_checkpoint.read_text("utf-8"), given.keys) if given.from_checkpoint else None
        with given.export.open(encoding="utf-8") as file:
            found = verify(file, given.keys, kept, given.witness, given.quorum)
    except WRONG as error:
        sys.exit(f"WRONG: {error}")
    print(json.dumps(found, indent=2))
    return code(found)


if __name__ == "__main__":
    sys.exit(main())
