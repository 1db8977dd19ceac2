"""Verifies an export of Pilothouse's audit log. It needs Python alone, and nothing of Pilothouse: read it, then run it.

    python audit_verifier.py EXPORT NAME+ID+BASE64 [CHECKPOINT]

An export is lines of JSON: the signed head of the log, records, an end. Shown is that
  - the key that you name has signed the head (Ed25519, C2SP signed-note and tlog-checkpoint);
  - each record, as text, is a leaf of the head's tree (RFC 6962); the leaf's data is SHA-256(text);
  - records of the first releases lead to the first leaf by their hash chain; those that do not are `unproven`;
  - where the export says that it is complete, nothing is missing but what the log has signed that it dropped;
  - the tree begins with that of a checkpoint that you kept.
"""

import base64
import contextlib
import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

_P, _ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
WRONG = (ValueError, LookupError, TypeError, AttributeError, StopIteration)
_D = -121665 * pow(121666, _P - 2, _P) % _P


class WrongError(ValueError):
    """What is wrong with the export, and where. WRONG is what else is raised by what is no export at all."""


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
    check(y < _P and x * x % _P == square and (x or not sign), "a key or signature is no point of Ed25519")
    return (_P - x if x & 1 != sign else x), y


def ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 key has signed a message (RFC 8032)."""
    s = int.from_bytes(signature[32:], "little")
    if len(public) != 32 or len(signature) != 64 or s >= _ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _ORDER
    base = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    return _times(s, base) == _add(_point(signature[:32]), _times(k, _point(public)))


def opened(note: str, key: str) -> list[str]:
    """The lines of a note that a key has signed."""
    name, identifier, value = [*key.split("+", 2), "", ""][:3]
    typed = base64.b64decode(value)
    of_log = sha256(name.encode() + b"\n" + typed)[:4].hex() == identifier and typed[0] == 1
    check(of_log, f"{key} is no Ed25519 key of a log")
    text, _, signatures = (note.replace("\n\n", "\n\0", 1)).partition("\0")
    for dash, signer, signature in (line.split(" ") for line in signatures.splitlines()):
        signed = base64.b64decode(signature)
        if dash == "\u2014" and signer == name and signed[:4].hex() == identifier:
            check(ed25519(typed[1:], signed[4:], text.encode()), "its signature is not of this head")
            return text.splitlines()
    raise WrongError(f"the head is not signed by {key}, but: {signatures.strip()}")


def head(note: str, key: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that a key has signed."""
    origin, size, root = opened(note, key)[:3]
    return origin, int(size), base64.b64decode(root)


def root_of(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that a leaf's proof leads to (RFC 9162, 2.1.3.2)."""
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

    def __init__(self, first: dict[str, Any], key: str, kept: tuple[str, int, bytes] | None) -> None:
        self.key, (self.origin, self.size, self.root) = key, head(first["checkpoint"], key)
        later = kept is None or (kept[0] == self.origin and kept[1] <= self.size)
        check(later, f"the checkpoint is of {kept and kept[:2]}, the export of {(self.origin, self.size)}")
        self.base, self.chain_end = first["chain_length"], bytes.fromhex(first["chain_hash"])
        self.kept, self.matches, self.stack, self.chain = kept, False, list[bytes](), bytes(32)
        self.place, self.count, self.leaves, self.links, self.run = 0, 0, 0, 0, 0
        self.missing, self.drops, self.begun = list[tuple[int, int]](), list[Any](), (0, b"", b"")
        self._prove(sha256(b"\x00" + self.chain_end), 0, first["chain_proof"], "the end of the hash chain")

    def record(self, sequence: int, text: str, entry: dict[str, Any]) -> None:
        digest, joins = sha256(text.encode()), sequence == self.place + 1
        check(sequence > self.place, f"record {sequence} stands behind record {self.place}")
        self.missing += [] if joins else [(self.place + 1, sequence - 1)]
        self.place, self.count, what = sequence, self.count + 1, f"record {sequence}, shown as {text[:200]},"
        if sequence <= self.base:
            link, before, self.links = sequence.to_bytes(8, "big") + digest, self.chain, self.count
            self.chain = bytes.fromhex(entry["chain_hash"])
            leads = not joins or sha256(before + link) == self.chain
            leads = leads and (sequence < self.base or self.chain == self.chain_end)
            check(leads, f"the hash chain is broken at record {sequence}: {text[:200]}")
            self.run, self.begun = (self.run + 1, self.begun) if joins else (1, (sequence, link, self.chain))
            return
        self._prove(sha256(b"\x00" + digest), sequence - self.base, entry["proof"], what)
        self.believe(json.loads(text)["metadata"] if '"dropped":' in text else {})

    def believe(self, told: dict[str, Any]) -> None:
        with contextlib.suppress(*WRONG):  # what nobody with the key has signed was not dropped
            said = "".join(f"{low} {high} {chain}\n" for low, high, chain in told["dropped"])
            opened(f"{self.key.split('+')[0]}\ndropped\n{said}\n{told['signatures']}", self.key)
            self.drops = told["dropped"]

    def _prove(self, leaf: bytes, index: int, encoded: str, what: str) -> None:
        """A leaf of the tree; of those that follow on one another the full subtrees are kept."""
        proof = base64.b64decode(encoded)
        hashes = [proof[at : at + 32] for at in range(0, len(proof), 32)]
        stands = root_of(leaf, index, self.size, hashes) == self.root
        check(stands, f"{what} does not stand in the log at its place")
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

    def end(self, entry: dict[str, Any]) -> dict[str, Any]:
        check(entry["records"] == self.count, f"there are {self.count} records, not {entry['records']}")
        self.believe(entry)
        last, dropped = self.base + self.size - 1, 0
        self.missing += [(self.place + 1, last)] if self.place < last else []
        for low, high in self.missing if entry["complete"] else []:
            dropped += high - low + 1
            told = any(first <= low and high <= end for first, end, _ in self.drops)
            check(told, f"records {low} to {high} are missing; none tells that they were dropped")
        # Of the chain those are proven that lead to its end; the first of them if it is known what stands before it.
        led, (first, link, chain) = self.chain == self.chain_end, self.begun
        unproven = self.links - (self.run if led else 0)
        if led and first:
            before = [bytes.fromhex(value) for _, end, value in self.drops if end == first - 1]
            check(not before or sha256(before[0] + link) == chain, f"the chain is broken at record {first}")
            unproven += not before
        found = {"origin": self.origin, "size": self.size, "root": self.root.hex(), "unproven": unproven}
        found |= {"records": self.count - unproven, "complete": entry["complete"], "dropped": dropped}
        kept = "matches" if self.matches else "not compared: records are missing before its end"
        return found | ({"checkpoint": kept} if self.kept else {})


def verify(lines: Any, key: str, kept: tuple[str, int, bytes] | None = None) -> dict[str, Any]:
    """What an export shows. Raises WrongError."""
    export = Export(json.loads(next(lines)), key, kept)
    for entry in map(json.loads, lines):
        if "end" in entry:
            check(not any(line.strip() for line in lines), "something stands behind the end of the export")
            return export.end(entry)
        export.record(entry["sequence"], entry["record"], entry)
    raise WrongError(f"the export is cut off after record {export.place}: its end is missing")


if __name__ == "__main__":
    name, key, *checkpoint = sys.argv[1:] if len(sys.argv) > 2 else sys.exit(__doc__)
    try:
        kept = head(Path(checkpoint[0]).read_text("utf-8"), key) if checkpoint else None
        with Path(name).open(encoding="utf-8") as file:
            print(json.dumps(verify(file, key, kept), indent=2))
    except WRONG as error:
        sys.exit(f"WRONG: {error}")
