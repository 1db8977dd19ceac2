"""The checksum of each migration, oldest first, as `runner.checksum` makes it; a test holds the two equal.

A server reads them at its start, where rendering the migrations would take Alembic. A new migration adds a line.
"""

from __future__ import annotations

from typing import Final

CHECKSUMS: Final = {
    "0101": "e46282f85c36ec1c269ccccb2f7eca6c094ec81306690256b9a545aaf12091fe",
}
