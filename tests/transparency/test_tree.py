"""The tree against the definitions of RFC 6962, and the notes against examples of other projects."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from pilothouse_client import audit_verifier
from pilothouse_server.audit import merkle, notes
from pilothouse_server.audit.merkle import Edge, Frontier, Nodes, NotInTreeError, Prover
from pilothouse_server.audit.notes import Checkpoint, NoteError, Signer, Verifier
from pilothouse_server.audit.tiles import TilePath
from pilothouse_server.errors import InvalidArgument

# Sizes around those at which a tile is full.
SIZES = (1, 2, 3, 5, 8, 255, 256, 257, 511, 512, 700, pytest.param(66_000, marks=pytest.mark.full))


def data_of(size: int) -> list[bytes]:
    return [sha256(str(index).encode()).digest() for index in range(size)]


def split(data: list[bytes]) -> int:
    half = 1
    while half * 2 < len(data):
        half *= 2
    return half


def root_of(data: list[bytes]) -> bytes:
    """Computes MTH of RFC 6962, 2.1."""
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    at = split(data)
    return sha256(b"\x01" + root_of(data[:at]) + root_of(data[at:])).digest()


def path_of(index: int, data: list[bytes]) -> list[bytes]:
    """Computes PATH of RFC 6962, 2.1.1."""
    if len(data) == 1:
        return []
    at = split(data)
    if index < at:
        return [*path_of(index, data[:at]), root_of(data[at:])]
    return [*path_of(index - at, data[at:]), root_of(data[:at])]


def proof_of(first: int, data: list[bytes], *, whole: bool) -> list[bytes]:
    """Computes SUBPROOF of RFC 6962, 2.1.2."""
    if first == len(data):
        return [] if whole else [root_of(data)]
    at = split(data)
    if first <= at:
        return [*proof_of(first, data[:at], whole=whole), root_of(data[at:])]
    return [*proof_of(first - at, data[at:], whole=False), root_of(data[:at])]


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_are_those_of_the_standard(size: int) -> None:
    data = data_of(size)
    edge = Edge()
    tiles = {(tile.level, tile.position): tile.hashes for tile in edge.grow(data)}
    nodes = Nodes({**tiles, **edge.tiles()})
    prover = Prover(nodes, size)
    frontier = Frontier()
    for each in data:
        frontier.add(merkle.leaf_hash(each))
    root = root_of(data)
    assert edge.root() == frontier.root() == root
    chosen = random.Random(size)
    for index in sorted({0, size - 1, *(chosen.randrange(size) for _ in range(3 if size > 1000 else 20))}):
        spans = merkle.inclusion_spans(index, size)
        path = path_of(index, data)
        needed = {place: nodes._tiles[place] for place in merkle.places(spans)}
        assert Nodes(needed).spans(spans) == path
        assert prover.proof(index) == b"".join(path)
        assert audit_verifier.root_of(merkle.leaf_hash(data[index]), index, size, path) == root
        if index:
            assert nodes.spans(merkle.consistency_spans(index, size)) == proof_of(index, data, whole=True)


def test_a_tree_grows_the_same_in_any_steps() -> None:
    data = data_of(1000)
    at_once, in_steps = Edge(), Edge()
    full = at_once.grow(data)
    steps = []
    for first in range(0, 1000, 7):
        in_steps = Edge(in_steps.size, in_steps.levels)
        steps += in_steps.grow(data[first : first + 7])
    assert steps == full
    assert in_steps.levels == at_once.levels


def test_a_place_outside_the_tree_has_no_proof() -> None:
    for index, size in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(NotInTreeError):
            merkle.inclusion_spans(index, size)
    with pytest.raises(NotInTreeError):
        merkle.consistency_spans(6, 5)
    with pytest.raises(NotInTreeError):
        Nodes({}).span((0, 5))


SEED = bytes(range(32))
SIGNER = Signer("example.com/log", SEED)
HEAD = Checkpoint("example.com/log", 7, sha256(b"root").digest())


def test_a_signed_head_is_read_by_the_verifier_and_by_the_server() -> None:
    note = notes.signed(HEAD, [SIGNER])
    assert notes.opened(note, [SIGNER.verifier]) == (HEAD, [SIGNER.verifier])
    assert audit_verifier.head(note, str(SIGNER.verifier)) == (HEAD.origin, HEAD.size, HEAD.root)
    assert Verifier.parse(str(SIGNER.verifier)) == SIGNER.verifier


def test_the_example_head_of_the_specification_is_read() -> None:
    """The example is from C2SP tlog-checkpoint and tlog-cosignature."""
    note = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa "
        "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    checkpoint, signatures = notes.parse(note)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert [(name, len(value)) for name, value in signatures] == [("example.com/behind-the-sofa", 68)]
    with pytest.raises(NoteError, match="no key of this log has signed"):
        notes.opened(note, [SIGNER.verifier])


@pytest.mark.parametrize(
    "change",
    [
        ("example.com/log", "example.com/other"),
        ("\n7\n", "\n8\n"),
        ("\n7\n", "\n07\n"),
        ("\n\n", "\n"),
        ("\u2014 ", "- "),
        ("\n7\n", "\n7\nmore\n"),
    ],
)
def test_a_changed_note_is_refused(change: tuple[str, str]) -> None:
    note = notes.signed(HEAD, [SIGNER])
    changed = note.replace(*change, 1)
    assert changed != note
    with pytest.raises(NoteError):
        notes.opened(changed, [SIGNER.verifier])


def test_a_secret_key_is_read_and_another_name_refused() -> None:
    secret = (
        f"PRIVATE+KEY+{SIGNER.name}+{SIGNER.verifier.key_id.hex()}+{notes.base64_text(bytes([1]) + SEED)}"
    )
    assert Signer.parse(secret) == SIGNER
    for wrong in (
        secret.replace("example.com/log", "example.com/b"),
        secret.removeprefix("PRIVATE+KEY+"),
        "x",
    ):
        with pytest.raises(NoteError) as caught:
            Signer.parse(wrong)
        assert notes.base64_text(bytes([1]) + SEED)[:20] not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", TilePath(0, 0, 256)),
        ("tile/0/x001/x234/067", TilePath(0, 1_234_067, 256)),
        ("tile/3/005.p/1", TilePath(3, 5, 1)),
        ("tile/entries/x001/000.p/255", TilePath(0, 1000, 255, entries=True)),
    ],
)
def test_valid_paths_of_tiles_are_parsed(path: str, tile: TilePath) -> None:
    assert TilePath.parse(path) == tile
    assert str(tile) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/64/000",
        "tile/00/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/001",
        "tile/../0",
    ],
)
def test_invalid_paths_of_tiles_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        TilePath.parse(path)
