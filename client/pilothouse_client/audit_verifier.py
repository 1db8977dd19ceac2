"""Verifies an export of Pilothouse's audit log. It needs Python alone, and nothing of Pilothouse: read it, then run it.

    python audit_verifier.py EXPORT NAME+ID+BASE64 [CHECKPOINT]

An export is lines of JSON: the signed head of the log, records, an end. Shown is that
  - the key that you name has signed the head (Ed25519, C2SP signed-note and tlog-checkpoint);
  - each record, as text, is a leaf of the head's tree (RFC 6962); the leaf's data is SHA-256(text);
  - records of the first releases, which stand in a hash chain, lead to the first leaf by it;
  - where the export says that it is complete, nothing is missing but what a record says that retention dropped;
  - the tree begins with that of a checkpoint that you kept.
"""

import base64
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_P, _ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_Point = tuple[int, int, int, int]


class WrongError(Exception):
    """What is wrong with the export, and where."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(number: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = _add(result, point)
        point, number = _add(point, point), number >> 1
    return result


def _point(encoded: bytes) -> _Point:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if y >= _P or x * x % _P != square or (x == 0 and sign):
        raise WrongError("a key or signature is no point of Ed25519")
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


_BASE = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 key has signed a message (RFC 8032)."""
    s = int.from_bytes(signature[32:], "little")
    if len(public) != 32 or len(signature) != 64 or s >= _ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _ORDER
    left, right = _times(s, _BASE), _add(_point(signature[:32]), _times(k, _point(public)))
    return all(left[axis] * right[2] % _P == right[axis] * left[2] % _P for axis in (0, 1))


def head(note: str, key: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that a key has signed."""
    name, identifier, value = key.split("+", 2)
    typed = base64.b64decode(value)
    if sha256(name.encode() + b"\n" + typed)[:4].hex() != identifier or typed[0] != 1:
        raise WrongError(f"{key} is no Ed25519 key of a log")
    text, _, signatures = (note.replace("\n\n", "\n\0", 1)).partition("\0")
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signed = base64.b64decode(signature)
        if dash == "\u2014" and signer == name and signed[:4].hex() == identifier:
            if not ed25519(typed[1:], signed[4:], text.encode()):
                raise WrongError("the signature of the head is not of this head")
            origin, size, root = text.splitlines()[:3]
            return origin, int(size), base64.b64decode(root)
    raise WrongError(f"the head is not signed by {key}, but: {signatures.strip()}")


def root_of(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that a leaf's proof leads to (RFC 9162, 2.1.3.2)."""
    node, last = index, size - 1
    for other in proof:
        if last == 0:
            raise WrongError("a proof is too long")
        if node & 1 or node == last:
            leaf = sha256(b"\x01" + other + leaf)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            leaf = sha256(b"\x01" + leaf + other)
        node, last = node >> 1, last >> 1
    if last:
        raise WrongError("a proof is too short")
    return leaf


class Export:
    """An export while it is read; `kept` is the head of a checkpoint. Raises WrongError."""

    def __init__(self, first: dict[str, Any], key: str, kept: tuple[str, int, bytes] | None) -> None:
        self.origin, self.size, self.root = head(first["checkpoint"], key)
        if kept and (kept[0] != self.origin or kept[1] > self.size):
            raise WrongError(f"the checkpoint is of {kept[:2]}, the export of {(self.origin, self.size)}")
        self.base, self.chain_end = first["chain_length"], bytes.fromhex(first["chain_hash"])
        self.kept, self.matches, self.stack, self.chain = kept, False, list[bytes](), bytes(32)
        self.place, self.count, self.leaves = 0, 0, 0
        self.missing, self.drops = list[tuple[int, int]](), list[tuple[int, int]]()
        self._prove(sha256(b"\x00" + self.chain_end), 0, first["chain_proof"], "the end of the hash chain")

    def record(self, sequence: int, text: str, entry: dict[str, Any]) -> None:
        digest, follows = sha256(text.encode()), sequence == self.place + 1
        if sequence <= self.place:
            raise WrongError(f"record {sequence} stands behind record {self.place}")
        self.missing += [] if follows else [(self.place + 1, sequence - 1)]
        self.place, self.count = sequence, self.count + 1
        if sequence <= self.base:
            expected = sha256(self.chain + sequence.to_bytes(8, "big") + digest)
            self.chain = bytes.fromhex(entry["chain_hash"])
            ends = self.base if self.chain != self.chain_end else 0
            if (follows and expected != self.chain) or sequence == ends:
                raise WrongError(f"the hash chain is broken at record {sequence}: {text[:200]}")
            return
        what = f"record {sequence}, which is shown as {text[:200]},"
        self._prove(sha256(b"\x00" + digest), sequence - self.base, entry["proof"], what)
        if '"resource_type":"audit_log"' in text:
            fields = json.loads(text)
            if (fields["action"], fields["user_id"]) == ("delete", None):
                self.drops = [(low, high) for low, high, _ in fields["metadata"]["dropped"]]

    def _prove(self, leaf: bytes, index: int, encoded: str, what: str) -> None:
        """A leaf of the tree; of those that follow on one another the full subtrees are kept."""
        proof = base64.b64decode(encoded)
        hashes = [proof[at : at + 32] for at in range(0, len(proof), 32)]
        if root_of(leaf, index, self.size, hashes) != self.root:
            raise WrongError(f"{what} does not stand in the log at its place")
        if self.leaves != index:
            return
        self.leaves = rest = index + 1
        while rest % 2 == 0:
            leaf, rest = sha256(b"\x01" + self.stack.pop() + leaf), rest // 2
        self.stack.append(leaf)
        if self.kept and self.leaves == self.kept[1]:
            self.matches = True
            root = functools.reduce(lambda right, left: sha256(b"\x01" + left + right), self.stack[::-1])
            if root != self.kept[2]:
                raise WrongError(f"the first {self.leaves} leaves are not those of the checkpoint")

    def end(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["records"] != self.count:
            raise WrongError(f"the export holds {self.count} records, its end says {entry['records']}")
        last, dropped = self.base + self.size - 1, 0
        self.missing += [(self.place + 1, last)] if self.place < last else []
        for low, high in self.missing if entry["complete"] else []:
            dropped += high - low + 1
            if not any(first <= low and high <= end for first, end in self.drops):
                raise WrongError(f"records {low} to {high} are missing; none tells that they were dropped")
        found = {"origin": self.origin, "size": self.size, "root": self.root.hex(), "records": self.count}
        compared = "matches" if self.matches else "not compared: records are missing before its end"
        found |= {"checkpoint": compared} if self.kept else {}
        return found | {"complete": entry["complete"], "dropped": dropped}


def verify(lines: Iterator[str], key: str, kept: tuple[str, int, bytes] | None = None) -> dict[str, Any]:
    """What an export shows. Raises WrongError."""
    export = Export(json.loads(next(lines)), key, kept)
    for line in lines:
        entry = json.loads(line)
        if "end" in entry:
            return export.end(entry)
        export.record(entry["sequence"], entry["record"], entry)
    raise WrongError(f"the export is cut off after record {export.place}: its end is missing")


def main(export: str, key: str, checkpoint: str = "") -> None:
    kept = head(Path(checkpoint).read_text(), key) if checkpoint else None
    with Path(export).open() as file:
        print(json.dumps(verify(file, key, kept), indent=2))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (WrongError, ValueError, KeyError, StopIteration) as error:
        sys.exit(f"WRONG: {error}")
