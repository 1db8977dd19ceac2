"""Opens links for a user, as a browser does, and follows no redirects."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from tests.waiting import patient


@dataclass(frozen=True)
class Landing:
    """The result of a link: the response's status, and its target split into parts."""

    status: int
    location: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return self.parameters.get("code", "")

    @property
    def state(self) -> str:
        return self.parameters.get("state", "")

    @property
    def issuer(self) -> str:
        """Returns the parameter that RFC 9207 calls `iss`."""
        return self.parameters.get("iss", "")

    @property
    def error(self) -> str:
        return self.parameters.get("error", "")


async def browse(url: str) -> Landing:
    """Opens an issuer's link, where the user logs in; returns the redirect."""
    timeout = aiohttp.ClientTimeout(total=patient(10.0))
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        location = answer.headers.get("location", "")
        return Landing(answer.status, location, dict(parse_qsl(urlsplit(location).query)))
