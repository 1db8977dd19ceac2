"""The headers of a call, parsed and bounded in one way for every call.

A client sends the same headers with call after call. So the parsed headers are cached for a second.

gRPC sends a client its limit in the settings of the connection, and enforces it once the client has acknowledged them.
A client that never acknowledges them, or that sends its calls before, is not limited. A call with 10 MB of headers
reached its handler, and kept them in memory for as long as it waited for its request. So headers are counted here, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse_server.errors import ResourceExhausted

# gRPC refuses some calls beyond the first limit, and all calls beyond the second. Headers that gRPC accepts are not
# refused here.
SOFT_BYTES: Final = 16 * 1024
MOST_BYTES: Final = SOFT_BYTES * 5 // 4
# The bytes that HTTP/2 counts for each header in addition to its name and value.
_OF_EACH: Final = 32


# Cached headers contain a token, so they are cached no longer than a caller is (see `identity.authenticator`). The
# other numbers limit how many are cached, and how large each may be.
REMEMBERED_SECONDS: Final = 1.0
_MOST_REMEMBERED: Final = 1000
_MOST_REMEMBERED_BYTES: Final = 2048
# This header differs in each call.
_OF_ONE_CALL: Final = "traceparent"
# Set by the gateway for a log-in from its own pages, which begins a console session. No client can send it, because
# the name of a header cannot begin with a colon.
CONSOLE: Final = ":console"
# A trace id of zeros is invalid.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Pairs = tuple[tuple[str, Any], ...]


class Headers:
    """The parsed headers of a call, or of several with the same headers. Immutable.

    `texts` has the last value of a repeated name, and no binary values. Headers that do not `fit` are not parsed.
    `trace_id` is that of W3C Trace Context, None if there is none. `recorded` is the part for audit records, set when
    the first record is made.
    """

    __slots__ = ("fit", "recorded", "texts", "token", "trace_id", "user_agent")

    def __init__(self, texts: Mapping[str, str], *, fit: bool = True) -> None:
        self.fit = fit
        self.texts = texts
        self.token = _bearer(texts.get("authorization", ""))
        self.user_agent = texts.get("user-agent", "")[:500]
        trace = texts.get(_OF_ONE_CALL)
        found = trace and _TRACEPARENT.fullmatch(trace)
        self.trace_id = found[1] if found else None
        self.recorded: Mapping[str, str] | None = None


class HeaderReader:
    """Reads the headers of calls. `read` takes pairs of a name and its text or bytes."""

    def __init__(self) -> None:
        self._remembered: dict[Pairs, Headers] = {}

    def read(self, pairs: Pairs) -> Headers:
        """Returns the parsed headers."""
        return self._remembered.get(pairs) or self._read(pairs)

    def _read(self, pairs: Pairs) -> Headers:
        size = _size(pairs)
        if size > MOST_BYTES:
            return Headers({}, fit=False)
        found = Headers({name: value for name, value in pairs if isinstance(value, str)})
        remembered = self._remembered
        if size <= _MOST_REMEMBERED_BYTES and _OF_ONE_CALL not in found.texts:
            if not remembered:
                asyncio.get_running_loop().call_later(REMEMBERED_SECONDS, remembered.clear)
            if len(remembered) < _MOST_REMEMBERED:
                remembered[pairs] = found
        return found


def fit(pairs: Iterable[tuple[str, Any]]) -> bool:
    """Returns whether headers are within the limit: pairs of a name and its text or bytes."""
    return _size(pairs) <= MOST_BYTES


def _size(pairs: Iterable[tuple[str, Any]]) -> int:
    return sum([len(name) + len(value) + _OF_EACH for name, value in pairs])


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def too_large() -> ResourceExhausted:
    """Returns the error for a call whose headers exceed the limit."""
    return ResourceExhausted(
        f"the headers of the call are larger than {SOFT_BYTES // 1024} KiB", reason="HEADERS_TOO_LARGE"
    )
