"""The Merkle tree of RFC 6962, stored as tiles of 256 hashes (C2SP tlog-tiles).

    leaf = SHA-256(00 ‖ data)         node = SHA-256(01 ‖ left ‖ right)

A tile of level 0 has hashes of leaves; a tile of a higher level has the roots of full tiles of the level below.
Every hash that a proof or a root needs covers a run of consecutive leaves, a *span*; a span splits into full
subtrees, each of which lies in one tile.

For level 0 the data of the leaves is stored, since their hashes follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_BYTES = 32
WIDTH = 256
TILE_BYTES = HASH_BYTES * WIDTH
_TILE_HEIGHT = 8

# Leaves from the first one to before the second.
Span = tuple[int, int]
# Level and position of a tile.
Place = tuple[int, int]


class NotInTreeError(ValueError):
    """A leaf or a size that the tree does not have."""


def leaf_hash(data: bytes) -> bytes:
    """Returns the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of a node over two others."""
    return sha256(b"\x01" + left + right).digest()


def leaf_hashes(data: bytes) -> bytes:
    """Returns the level-0 tile of leaves whose data, 32 bytes each, is concatenated."""
    return b"".join(
        sha256(b"\x00" + data[at : at + HASH_BYTES]).digest() for at in range(0, len(data), HASH_BYTES)
    )


def full_root(hashes: bytes) -> bytes:
    """Returns the root over 2^n concatenated hashes."""
    level = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
    while len(level) > 1:
        level = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def subtrees(span: Span) -> list[tuple[int, int]]:
    """Returns the full subtrees of a span, from the left: the height of each, and its index at that height."""
    low, high = span
    found = []
    while low < high:
        height = (high - low).bit_length() - 1
        found.append((height, low >> height))
        low += 1 << height
    return found


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Returns the spans that prove that a leaf is in the tree of a size, from the leaf's sibling up.

    Raises NotInTreeError.
    """
    if not 0 <= index < size:
        raise NotInTreeError(f"no leaf {index} among {size}")
    spans: list[Span] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _half(high - low)
        if index < middle:
            spans.append((middle, high))
            high = middle
        else:
            spans.append((low, middle))
            low = middle
    return spans[::-1]


def consistency_spans(first: int, size: int) -> list[Span]:
    """Returns the spans that prove that the tree of a size begins with a smaller tree. Raises NotInTreeError."""
    if not 0 < first <= size:
        raise NotInTreeError(f"a tree of {size} leaves does not contain one of {first}")
    spans: list[Span] = []
    low, high = 0, size
    # Whether the remaining part is still the whole old tree, whose root the verifier already has.
    whole = True
    while first < high:
        middle = low + _half(high - low)
        if first <= middle:
            spans.append((middle, high))
            high = middle
        else:
            spans.append((low, middle))
            low, whole = middle, False
    if not whole:
        spans.append((low, high))
    return spans[::-1]


def is_consistent(first: tuple[int, bytes], second: tuple[int, bytes], proof: Sequence[bytes]) -> bool:
    """Returns whether hashes prove that the second tree begins with the first one (RFC 9162, 2.1.4.2)."""
    (size, root), (later_size, later_root) = first, second
    if not 0 < size <= later_size:
        return False
    if size == later_size:
        return not proof and root == later_root
    # A full tree is a node of the later one, so the proof does not repeat its root.
    hashes = [root, *proof] if size & (size - 1) == 0 else list(proof)
    node, last = size - 1, later_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0] if hashes else b""
    for each in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(each, old), node_hash(each, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, each)
        node, last = node >> 1, last >> 1
    return last == 0 and (old, new) == (root, later_root)


def _half(length: int) -> int:
    """Returns the greatest power of two below a length of two or more."""
    return 1 << ((length - 1).bit_length() - 1)


def places(spans: Iterable[Span]) -> set[Place]:
    """Returns the tiles that the hashes of spans are computed from."""
    return {_place(height, index)[0] for span in spans for height, index in subtrees(span)}


def _place(height: int, index: int) -> tuple[Place, int, int]:
    """Returns the position of a full subtree: its tile, its first hash in that tile, and its number of hashes."""
    level, rest = divmod(height, _TILE_HEIGHT)
    first = index << rest
    return (level, first // WIDTH), first % WIDTH, 1 << rest


class Nodes:
    """Hashes over spans, computed from tiles and cached. Tiles of level 0 have the leaves' data."""

    def __init__(self, tiles: Mapping[Place, bytes]) -> None:
        self._tiles = tiles
        self._leaves: dict[Place, bytes] = {}
        self._known: dict[tuple[int, int], bytes] = {}

    def span(self, span: Span) -> bytes:
        """Returns the hash over a span. Raises NotInTreeError if a tile lacks some of it."""
        *rest, found = [self._subtree(height, index) for height, index in subtrees(span)]
        for left in reversed(rest):
            found = node_hash(left, found)
        return found

    def spans(self, spans: Iterable[Span]) -> list[bytes]:
        """Returns the hash over each of the spans. Raises NotInTreeError."""
        return [self.span(span) for span in spans]

    def leaves(self, position: int) -> bytes:
        """Returns the hashes of the 256 leaves of a full tile. Raises NotInTreeError."""
        found = self._tile((0, position))
        if len(found) != TILE_BYTES:
            raise NotInTreeError(f"the tile {position} of leaves is missing")
        return found

    def _subtree(self, height: int, index: int) -> bytes:
        found = self._known.get((height, index))
        if found is None:
            place, first, count = _place(height, index)
            hashes = self._tile(place)[first * HASH_BYTES : (first + count) * HASH_BYTES]
            if len(hashes) != count * HASH_BYTES:
                raise NotInTreeError(f"the tile {place} is too short")
            found = self._known[height, index] = full_root(hashes)
        return found

    def _tile(self, place: Place) -> bytes:
        if place[0] > 0:
            return self._tiles.get(place, b"")
        if place not in self._leaves:
            self._leaves[place] = leaf_hashes(self._tiles.get(place, b""))
        return self._leaves[place]


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile with its position."""

    level: int
    position: int
    hashes: bytes


class Edge:
    """The right edge of a tree: its size, and its tiles that are not full."""

    def __init__(self, size: int = 0, levels: Sequence[bytes] = ()) -> None:
        self.size = size
        self._levels = [bytearray(level) for level in levels]

    @property
    def levels(self) -> list[bytes]:
        """The tiles that are not full, by level; empty if the last one is full."""
        return [bytes(level) for level in self._levels]

    def grow(self, data: Iterable[bytes]) -> list[Tile]:
        """Adds leaves; returns the tiles that became full."""
        full: list[Tile] = []
        for each in data:
            self.size += 1
            self._add(0, each, full)
        return full

    def root(self) -> bytes:
        """Returns the root of the tree; that of an empty tree is the hash of an empty text. Raises NotInTreeError."""
        if self.size == 0:
            return sha256().digest()
        return Nodes(self.tiles()).span((0, self.size))

    def tiles(self) -> dict[Place, bytes]:
        """Returns the tiles that are not full, by position."""
        return {
            (level, self.size >> (_TILE_HEIGHT * (level + 1))): bytes(hashes)
            for level, hashes in enumerate(self._levels)
        }

    def _add(self, level: int, value: bytes, full: list[Tile]) -> None:
        if level == len(self._levels):
            self._levels.append(bytearray())
        tile = self._levels[level]
        tile += value
        if len(tile) == TILE_BYTES:
            hashes = bytes(tile)
            tile.clear()
            full.append(Tile(level, (self.size >> (_TILE_HEIGHT * (level + 1))) - 1, hashes))
            self._add(level + 1, full_root(leaf_hashes(hashes) if level == 0 else hashes), full)


class Frontier:
    """A tree that only grows. It stores only the hashes that its next root needs."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Adds the hash of the next leaf."""
        self.size += 1
        rest = self.size
        while rest % 2 == 0:
            leaf = sha256(b"\x01" + self._stack.pop() + leaf).digest()
            rest //= 2
        self._stack.append(leaf)

    def root(self) -> bytes:
        """Returns the present root of the tree."""
        if not self._stack:
            return sha256().digest()
        *rest, found = self._stack
        for left in reversed(rest):
            found = node_hash(left, found)
        return found


class Prover:
    """Inclusion proofs of many leaves of one tree; hashes that the leaves of a tile share are computed once."""

    def __init__(self, nodes: Nodes, size: int) -> None:
        self._nodes = nodes
        self._size = size
        self._tile = -1
        self._levels: list[bytes] = []
        self._above = b""

    def proof(self, index: int) -> bytes:
        """Returns the hashes from a leaf's sibling up, concatenated. Raises NotInTreeError."""
        tile = index // WIDTH
        if (tile + 1) * WIDTH > self._size:
            return b"".join(self._nodes.spans(inclusion_spans(index, self._size)))
        if tile != self._tile:
            self._begin(tile)
        parts = []
        for height, level in enumerate(self._levels):
            at = (((index % WIDTH) >> height) ^ 1) * HASH_BYTES
            parts.append(level[at : at + HASH_BYTES])
        parts.append(self._above)
        return b"".join(parts)

    def _begin(self, tile: int) -> None:
        level = self._nodes.leaves(tile)
        levels = []
        for _ in range(_TILE_HEIGHT):
            levels.append(level)
            level = b"".join(
                node_hash(level[at : at + HASH_BYTES], level[at + HASH_BYTES : at + 2 * HASH_BYTES])
                for at in range(0, len(level), 2 * HASH_BYTES)
            )
        above = inclusion_spans(tile * WIDTH, self._size)[_TILE_HEIGHT:]
        self._above = b"".join(self._nodes.spans(above))
        self._tile, self._levels = tile, levels
