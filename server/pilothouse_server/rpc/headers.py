"""The bound of a call's headers, for every call.

gRPC tells a client its bound by the settings of the connection, and applies it once the client has acknowledged them.
One that never does, or that sends its calls before, has no bound there: a call with 10 MB of headers reached its
handler, and held them for as long as it waited for its request. So they are counted here, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pilothouse_server.errors import ResourceExhausted

# Beyond the first gRPC refuses some calls, and beyond the second all. What it lets through is not refused here.
SOFT_BYTES: Final = 16 * 1024
MOST_BYTES: Final = SOFT_BYTES * 5 // 4
# What HTTP/2 counts for each header beside its name and value.
_OF_EACH: Final = 32


def fit(pairs: Iterable[tuple[str, Any]]) -> bool:
    """Whether headers are within the bound: pairs of a name and its text or bytes."""
    return sum([len(name) + len(value) + _OF_EACH for name, value in pairs]) <= MOST_BYTES


def too_large() -> ResourceExhausted:
    """Returns the error for a call whose headers are beyond the bound."""
    return ResourceExhausted(
        f"the headers of the call are larger than {SOFT_BYTES // 1024} KiB", reason="HEADERS_TOO_LARGE"
    )
