"""The rules for browsers: which pages may call, by which credential, and the cookie of a console session.

A browser sends a cookie with each call to this port, whichever page makes the call. So a call with the cookie is served
only for a page of this very origin: `Origin` must name it, and the call must have a header and a content type that no
form can send. A call with a bearer token has no such rule, because a foreign page does not have the token; pages of
other origins may make such a call if the settings list them. A call with both is refused, because it would not be clear
who makes it.

The name of the cookie contains an id of this installation, because a browser has one store of cookies for all ports of
a host. `__Host-` binds a cookie to the host and to TLS. Over plain HTTP a browser stores no such cookie, except from
its own machine, and not every browser makes that exception. So on loopback without TLS the name has no prefix.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from pilothouse_server.errors import FailedPrecondition, InvalidArgument, PermissionDenied, PilothouseError
from pilothouse_server.gateway.context import Metadata
from pilothouse_server.rpc import headers

# The request's headers that become metadata, as calls by gRPC send it. Other headers do not reach the pipeline.
_TAKEN: Final = ("authorization", "traceparent", "user-agent", "x-forwarded-for")
# gRPC-Web and Connect clients send one of these headers; a page of another origin cannot, unless it is allowed to.
_PROOFS: Final = ("x-grpc-web", "connect-protocol-version")
_ASKED: Final = (
    "authorization, content-type, connect-protocol-version, connect-timeout-ms, grpc-timeout, traceparent, "
    "x-grpc-web, x-user-agent"
)


class Browsers:
    """The rules of one server.

    Args:
        name: the id of the installation, which all its servers share.
        allowed: origins whose pages may call by a bearer token.
        kept: further headers that records keep, in lower case.
        max_age: seconds after which a browser forgets the cookie.
    """

    def __init__(self, name: str, allowed: Collection[str], kept: Collection[str], max_age: int) -> None:
        self._name = f"pilothouse-{name}"
        self._allowed = frozenset(allowed)
        self._taken = frozenset((*_TAKEN, *kept))
        self._max_age = max_age

    def check_origin(self, request: web.BaseRequest) -> None:
        """Raises PermissionDenied if a page of another origin calls, unless the settings list the origin."""
        origin = request.headers.get("origin", "")
        if origin and not self.is_own(request) and origin not in self._allowed:
            raise PermissionDenied(
                "pages of this origin may not call: open the server's own address, or list the origin in"
                " PILOTHOUSE_HTTP_ALLOWED_ORIGINS",
                reason="FOREIGN_ORIGIN",
            )

    def is_own(self, request: web.BaseRequest) -> bool:
        """Returns whether the call comes from a page of the server's own origin."""
        parts = urlsplit(request.headers.get("origin", ""))
        site = request.headers.get("sec-fetch-site", "same-origin")
        return bool(parts.netloc) and parts.netloc.lower() == _host(request) and site == "same-origin"

    def sender(self, request: web.BaseRequest) -> str | None:
        """Returns the session of a browser that sent the request itself, '' if it has none.

        Returns None for other clients.
        """
        if "sec-fetch-site" not in request.headers or "x-forwarded-for" in request.headers:
            return None
        return request.cookies.get(self._cookie(request), "")

    def metadata(self, request: web.BaseRequest, *, upgrade: bool = False) -> Metadata:
        """Returns the metadata of a call, with the credential of the cookie if there is one.

        `upgrade`: the call opens a WebSocket, for which a page cannot set headers.

        Raises:
            InvalidArgument: TWO_CREDENTIALS.
            PermissionDenied: FOREIGN_ORIGIN, HEADER_MISSING.
        """
        found = self._of(request)
        cookie = request.cookies.get(self._cookie(request))
        if not cookie:
            return found
        if "authorization" in request.headers:
            raise two_credentials()
        if not self.is_own(request):
            raise PermissionDenied(
                "a call by cookie must come from a page of this server: the header origin must name it",
                reason="FOREIGN_ORIGIN",
            )
        if not upgrade and not any(name in request.headers for name in _PROOFS):
            raise PermissionDenied(
                "a call by cookie needs the header x-grpc-web or connect-protocol-version",
                reason="HEADER_MISSING",
            )
        return (*found, ("authorization", f"Bearer {cookie}"))

    def described(self, request: web.BaseRequest) -> Metadata:
        """Returns the metadata of a refused call, without its credential, which has not been checked."""
        return tuple(pair for pair in self._of(request) if pair[0] != "authorization")

    def taken(self, metadata: Metadata) -> Metadata:
        """Returns the headers that become a call's metadata."""
        return tuple(
            (name, value) for name, value in metadata if name in self._taken and name != "x-forwarded-for"
        )

    def begins_console(self, request: web.BaseRequest) -> bool:
        """Returns whether a log-in of this request begins a console session: a page of this origin makes it.

        Raises FailedPrecondition, PLAIN_HTTP, if the browser would not store the cookie.
        """
        if not self.is_own(request):
            return False
        if request.headers["origin"].startswith("http:") and not _is_loopback(_host(request)):
            raise FailedPrecondition(
                "a browser stores no credential over plain http: open the server by https",
                reason="PLAIN_HTTP",
            )
        return True

    def set_cookie(self, request: web.BaseRequest, response: web.StreamResponse, credential: str) -> None:
        """Makes the browser store a credential, or delete it ('')."""
        response.set_cookie(
            self._cookie(request),
            credential,
            max_age=self._max_age if credential else 0,
            secure=not _is_plain_loopback(request),
            httponly=True,
            samesite="Strict",
        )

    def cors(self, request: web.BaseRequest) -> dict[str, str]:
        """Returns the headers that let a page of a listed origin read the response; never with cookies."""
        origin = request.headers.get("origin", "")
        if origin not in self._allowed or self.is_own(request):
            return {}
        return {"access-control-allow-origin": origin, "vary": "origin"}

    def preflight(self, request: web.BaseRequest) -> dict[str, str]:
        """Returns the headers that allow a page of a listed origin to call."""
        allowed = self.cors(request)
        if allowed:
            allowed |= {
                "access-control-allow-methods": "POST",
                "access-control-allow-headers": _ASKED,
                "access-control-max-age": "7200",
            }
        return allowed

    def _of(self, request: web.BaseRequest) -> Metadata:
        return tuple(
            (name.lower(), value) for name, value in request.headers.items() if name.lower() in self._taken
        )

    def _cookie(self, request: web.BaseRequest) -> str:
        return self._name if _is_plain_loopback(request) else f"__Host-{self._name}"


def two_credentials() -> PilothouseError:
    """Returns the error for a call with a cookie and a token."""
    return InvalidArgument(
        "the call has a cookie and the header authorization: send one of them", reason="TWO_CREDENTIALS"
    )


def console_metadata() -> Metadata:
    """Returns the metadata of a log-in that begins a console session."""
    return ((headers.CONSOLE, "1"),)


def _is_plain_loopback(request: web.BaseRequest) -> bool:
    return not request.secure and _is_loopback(_host(request))


def _host(request: web.BaseRequest) -> str:
    # aiohttp would look up the machine's own name for a request without the header.
    return request.headers.get("host", "").lower()


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
