"""The tree over the audit log as C2SP tlog-tiles: its paths and their content. All of it is public.

    checkpoint                      the newest sealed head
    tile/<level>/<index>[.p/<width>]     hashes, 256 of them if no width is given
    tile/entries/<index>[.p/<width>]     the leaves' data, each with its length before it

An index is written in groups of three digits, all but the last with `x` before: 1234067 is `x001/x234/067`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pilothouse_server.audit import merkle
from pilothouse_server.audit.merkle import Edge
from pilothouse_server.errors import invalid, not_found
from pilothouse_server.store import audit_tree
from pilothouse_server.store.unit_of_work import ReadTransaction

CHECKPOINT = "checkpoint"
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)
_LENGTH = merkle.HASH_BYTES.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class TilePath:
    """The address of a tile: `level` 0 and `entries` are about the same leaves."""

    level: int
    index: int
    width: int
    entries: bool = False

    @classmethod
    def parse(cls, path: str) -> TilePath:
        """Reads a path. Raises InvalidArgument."""
        found = _PATH.fullmatch(path)
        groups = found["index"].split("/") if found else []
        # An index has no leading group of zeros.
        if found is None or (len(groups) > 1 and groups[0] == "x000"):
            raise invalid("path", "must be that of a tile, such as tile/0/x001/067 or tile/entries/000.p/5")
        entries = found["level"] == "entries"
        index = int("".join(group.removeprefix("x") for group in groups))
        return cls(0 if entries else int(found["level"]), index, int(found["width"] or merkle.WIDTH), entries)

    def __str__(self) -> str:
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        *above, last = (digits[at : at + 3] for at in range(0, len(digits), 3))
        index = "".join(f"x{group}/" for group in above) + last
        width = "" if self.width == merkle.WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.entries else self.level}/{index}{width}"


async def read(transaction: ReadTransaction, path: TilePath) -> bytes:
    """Returns a tile, or the part of it that the path names. Raises NotFound if the tree is too small."""
    place = (path.level, path.index)
    state = await audit_tree.read(transaction)
    hashes = Edge(state.size, state.edge).tiles().get(place, b"")
    if len(hashes) < path.width * merkle.HASH_BYTES:
        hashes = (await audit_tree.tiles(transaction, {place})).get(place, b"")
    wanted = hashes[: path.width * merkle.HASH_BYTES]
    if len(wanted) < path.width * merkle.HASH_BYTES:
        raise not_found("tile", str(path))
    if path.entries:
        return b"".join(
            _LENGTH + wanted[at : at + merkle.HASH_BYTES] for at in range(0, len(wanted), merkle.HASH_BYTES)
        )
    return merkle.leaf_hashes(wanted) if path.level == 0 else wanted
