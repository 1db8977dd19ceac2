"""The page at `/` and its files, which `make console` builds from client/console.

They are read once at start, and sent compressed to clients that accept gzip. A browser checks the page itself at each
visit, by its ETag. The name of a file in `assets` contains a digest of its contents, so a browser caches it for good.

`/callback` also serves the page: an issuer sends the browser back to it. `/issuers.json` lists the issuers where people
log in, because the page shows them before anybody is logged in.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}
# Allows nothing from other hosts, no inline code, and no frame around the page. 'self' includes a WebSocket to here.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_USUAL: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "server": "pilothouse",
}
_LONG_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    `packed` is None if the file is so short that compression gains nothing.
    """

    plain: bytes
    packed: bytes | None
    headers: Mapping[str, str]
    etag: str


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """A response to a request for a file."""

    body: bytes
    status: int
    headers: Mapping[str, str]


class ConsoleFiles:
    """All files, by path.

    `log_ins` maps the names of the issuers where people log in to the names that people see.
    """

    def __init__(self, log_ins: Mapping[str, str] = MappingProxyType({})) -> None:
        self._files: dict[str, PageFile] = {}
        root = files(__package__).joinpath("static")
        for found in root.iterdir():
            if found.is_file() and found.name.rpartition(".")[2] in _TYPES:
                path = "/" if found.name == "index.html" else f"/{found.name}"
                self._add(path, found.name, found.read_bytes(), is_named_by_contents=False)
        for found in root.joinpath("assets").iterdir():
            self._add(f"/assets/{found.name}", found.name, found.read_bytes(), is_named_by_contents=True)
        self._files["/callback"] = self._files["/"]
        issuers = [{"name": name, "displayName": shown} for name, shown in log_ins.items()]
        self._add("/issuers.json", "issuers.json", json.dumps(issuers).encode(), is_named_by_contents=False)

    def find(self, path: str, headers: Mapping[str, str]) -> PageAnswer | None:
        """Returns the response for a path; None if there is no such file."""
        found = self._files.get(path)
        if found is None:
            return None
        if found.etag in headers.get("if-none-match", ""):
            return PageAnswer(b"", 304, found.headers)
        if found.packed is not None and "gzip" in headers.get("accept-encoding", ""):
            return PageAnswer(found.packed, 200, {**found.headers, "content-encoding": "gzip"})
        return PageAnswer(found.plain, 200, found.headers)

    def _add(self, path: str, name: str, plain: bytes, *, is_named_by_contents: bool) -> None:
        etag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
        headers = {
            **_USUAL,
            "content-type": _TYPES[name.rpartition(".")[2]],
            "cache-control": "public, max-age=31536000, immutable" if is_named_by_contents else "no-cache",
            "etag": etag,
            "vary": "accept-encoding",
        }
        packed = gzip.compress(plain, 9, mtime=0) if len(plain) > _LONG_BYTES else None
        self._files[path] = PageFile(plain, packed, headers, etag)
