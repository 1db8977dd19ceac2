"""The checksum of each migration, oldest first, as `runner.checksum` makes it; a test holds the two equal.

A server reads them at its start, where rendering the migrations would take Alembic. A new migration adds a line.
"""

from __future__ import annotations

from typing import Final

CHECKSUMS: Final = {
    "0101": "9ea925dad7e8d129a612bea79a566c12300d31c6c5401f18876525bdab0bad84",
}
