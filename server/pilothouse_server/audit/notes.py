"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature): created, read and verified.

    <origin>                        the name of the log
    <size>                          leaves of the tree
    <root>                          its root, base64
    follows <origin> <size> <root>  in the first head of a history: the last head of the one before

    — <key name> <base64(key id ‖ signature)>

A key is written `<name>+<key id>+<base64(type ‖ public key)>`, a secret one with `PRIVATE+KEY+` before it; the key id
is the first four bytes of SHA-256(name ‖ newline ‖ type ‖ public key). Type 1 is Ed25519 over the text; type 4 is the
key of a witness, which also signs the time.

The signature library is imported only when a signature is created or verified.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

_DASH = "\u2014 "
_SECRET = "PRIVATE+KEY+"
_FOLLOWS = "follows "
_LOG_KEY, _WITNESS_KEY = 1, 4
_KEY_BYTES = 32
ID_BYTES = 4
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8
MOST_NOTE_CHARACTERS = 16_384
MOST_ORIGIN_CHARACTERS = 200


class NoteError(ValueError):
    """The text is not a signed note, checkpoint or key, or its signature is not valid; the message names the fault."""


class UnknownKeysError(NoteError):
    """A signed note without a signature by a known key."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head of a tree: the value that a log signs. `follows`: origin, size and root of the head before, or ''."""

    origin: str
    size: int
    root: bytes
    follows: str = ""

    @property
    def text(self) -> str:
        """The text that is signed."""
        extension = self.follows and f"{_FOLLOWS}{self.follows}\n"
        return f"{self.origin}\n{self.size}\n{base64_text(self.root)}\n{extension}"

    @property
    def reference(self) -> str:
        """The text by which the first head of the next history names this one."""
        return f"{self.origin} {self.size} {base64_text(self.root)}"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name; that of a log, or of a witness."""

    name: str
    public: bytes
    witness: bool = False

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Reads a key in its written form. Raises NoteError."""
        name, kind, public, key_id = _key_parts(text)
        verifier = cls(name, public, kind == _WITNESS_KEY)
        if verifier.key_id.hex() != key_id:
            raise NoteError(f"the key of {name} does not belong to its identifier {key_id}")
        return verifier

    @property
    def _kind(self) -> bytes:
        return bytes([_WITNESS_KEY if self.witness else _LOG_KEY])

    @property
    def key_id(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + self._kind + self.public).digest()[:ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(self._kind + self.public).decode()}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Returns whether this key has signed a text."""
        signed = text.encode()
        if self.witness:
            if len(signature) != _TIME_BYTES + _SIGNATURE_BYTES:
                return False
            moment = int.from_bytes(signature[:_TIME_BYTES], "big")
            signed = f"cosignature/v1\ntime {moment}\n".encode() + signed
            signature = signature[_TIME_BYTES:]
        return _verifies(self.public, signature, signed)


@dataclass(frozen=True, slots=True)
class Signer:
    """A secret key of a log with its name."""

    name: str
    seed: bytes

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Reads a secret key in its written form. Raises NoteError; its text contains no part of the key."""
        if not text.startswith(_SECRET):
            raise NoteError(f"a secret key begins with {_SECRET}")
        name, kind, seed, key_id = _key_parts(text.removeprefix(_SECRET))
        signer = cls(name, seed)
        if kind != _LOG_KEY or signer.verifier.key_id.hex() != key_id:
            raise NoteError(
                f"the key of {name} is not an Ed25519 key of a log, or does not match its identifier"
            )
        return signer

    @property
    def verifier(self) -> Verifier:
        """Its public key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Verifier(
            self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        )

    def line(self, text: str) -> str:
        """Returns the line of the key's signature under a text."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return f"{_DASH}{self.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


def is_secret(text: str) -> bool:
    """Returns whether a key in its written form is a secret one."""
    return text.startswith(_SECRET)


def signed(checkpoint: Checkpoint, signers: Sequence[Signer]) -> str:
    """Returns the note of a head, with a signature of each key."""
    return checkpoint.text + "\n" + "".join(signer.line(checkpoint.text) for signer in signers)


def parse(note: str) -> tuple[Checkpoint, list[tuple[str, bytes]]]:
    """Reads a note of a head: the head, and for each signature the key's name and key id with signature.

    The signatures are not verified. Raises NoteError.
    """
    if len(note) > MOST_NOTE_CHARACTERS or any(ord(each) < 32 and each != "\n" for each in note):
        raise NoteError(
            f"a checkpoint is text of at most {MOST_NOTE_CHARACTERS} characters, without control characters"
        )
    text, separator, lines = note.rpartition("\n\n")
    head = text.split("\n")
    if not separator or len(head) < 3 or not lines.endswith("\n"):
        raise NoteError(
            "a checkpoint must be three lines (origin, size and root), an empty line, and signatures"
        )
    origin, size, root = head[:3]
    if not origin or not size.isascii() or not size.isdecimal() or str(int(size)) != size:
        raise NoteError(
            "the first line of a checkpoint must name its log, and the second must be the size of its tree"
        )
    follows = head[3].removeprefix(_FOLLOWS) if len(head) > 3 else ""
    checkpoint = Checkpoint(origin, int(size), _decoded(root, "the root of a checkpoint"), follows)
    if len(checkpoint.root) != _KEY_BYTES:
        raise NoteError("the root of a checkpoint is 32 bytes in base64")
    if checkpoint.text != text + "\n":
        raise NoteError(
            "a checkpoint of this log has three lines, or a fourth that names the head it follows"
        )
    return checkpoint, [signature_line(line) for line in lines.removesuffix("\n").split("\n")]


def signature_line(line: str) -> tuple[str, bytes]:
    """Reads a line of a signature: the key's name, and key id with signature. Raises NoteError."""
    name, _, value = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not name or not value:
        raise NoteError("a signature is a line of its own: a dash, the key's name, the signature in base64")
    return name, _decoded(value, "a signature")


def opened(note: str, verifiers: Iterable[Verifier]) -> tuple[Checkpoint, list[Verifier]]:
    """Returns a head with the keys among `verifiers` that have signed it.

    Raises:
        UnknownKeysError: no known key has signed it.
        NoteError: it is not a checkpoint, or a signature of a known key is wrong.
    """
    checkpoint, signatures = parse(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    by: list[Verifier] = []
    for name, value in signatures:
        verifier = known.get((name, value[:ID_BYTES]))
        if verifier is None:
            continue
        if not verifier.verifies(checkpoint.text, value[ID_BYTES:]):
            raise NoteError(f"the signature of {name} does not match the checkpoint")
        by.append(verifier)
    if not by:
        names = ", ".join(f"{name}+{value[:ID_BYTES].hex()}" for name, value in signatures)
        raise UnknownKeysError(f"no key of this log has signed the checkpoint; it has signatures of {names}")
    return checkpoint, by


def checked_name(name: str) -> str:
    """Returns the name of a log or key if it may appear in a note. Raises NoteError."""
    if (
        not 0 < len(name) <= MOST_ORIGIN_CHARACTERS
        or "+" in name
        or any(each.isspace() or ord(each) < 32 for each in name)
    ):
        raise NoteError(f"a name has 1 to {MOST_ORIGIN_CHARACTERS} characters, none of them a space or +")
    return name


def _key_parts(text: str) -> tuple[str, int, bytes, str]:
    name, _, rest = text.partition("+")
    key_id, _, value = rest.partition("+")
    decoded = _decoded(value, "a key")
    if len(decoded) != 1 + _KEY_BYTES or decoded[0] not in (_LOG_KEY, _WITNESS_KEY):
        raise NoteError("a key is NAME+IDENTIFIER+BASE64, of an Ed25519 key of a log or a witness")
    return checked_name(name), decoded[0], decoded[1:], key_id


def base64_text(value: bytes) -> str:
    """Returns a hash or key in the form of notes and proofs."""
    return base64.b64encode(value).decode()


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{what} is not base64") from None


def _verifies(public: bytes, signature: bytes, signed_bytes: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes)
    except InvalidSignature:
        return False
    return True
