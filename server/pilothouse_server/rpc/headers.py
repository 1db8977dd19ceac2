"""The headers of a call, parsed and bounded in one way for every call.

A client sends the same ones with call after call. So the parsed headers are remembered for a second, and parsed once.

gRPC sends a client its bound in the settings of the connection, and applies it once the client has acknowledged them.
One that never does, or that sends its calls before, has no bound there: a call with 10 MB of headers reached its
handler, and held them for as long as it waited for its request. So they are counted here, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse_server.errors import ResourceExhausted

# Beyond the first gRPC refuses some calls, and beyond the second all. Headers that gRPC accepts are not
# refused here.
SOFT_BYTES: Final = 16 * 1024
MOST_BYTES: Final = SOFT_BYTES * 5 // 4
# The bytes that HTTP/2 counts for each header in addition to its name and value.
_OF_EACH: Final = 32


# They hold a token: it is forgotten as soon as the caller is (see `identity.authenticator`). And so many, of so much.
REMEMBERED_SECONDS: Final = 1.0
_MOST_REMEMBERED: Final = 1000
_MOST_REMEMBERED_BYTES: Final = 2048
# Of each call another one.
_OF_ONE_CALL: Final = "traceparent"
# Set by the gateway for a log-in of its own pages, which begins a console session. No client can send it: a name that
# begins with a colon is none of a header's.
CONSOLE: Final = ":console"
# A trace id of zeros is none.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Pairs = tuple[tuple[str, Any], ...]


class Headers:
    """The parsed headers of a call, or of several with the same headers. Immutable.

    `texts` has the last of a repeated name, and no binary values. Headers that do not `fit` are not parsed.
    `trace_id` is that of W3C Trace Context, None if there is none. `recorded` is the part for audit records, once the
    first record was made.
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
    """Whether headers are within the bound: pairs of a name and its text or bytes."""
    return _size(pairs) <= MOST_BYTES


def _size(pairs: Iterable[tuple[str, Any]]) -> int:
    return sum([len(name) + len(value) + _OF_EACH for name, value in pairs])


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def too_large() -> ResourceExhausted:
    """Returns the error for a call whose headers are beyond the bound."""
    return ResourceExhausted(
        f"the headers of the call are larger than {SOFT_BYTES // 1024} KiB", reason="HEADERS_TOO_LARGE"
    )
