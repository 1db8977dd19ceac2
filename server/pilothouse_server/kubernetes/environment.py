"""What the environment says of the way to a cluster: proxies (HTTPS_PROXY, NO_PROXY …) and `.netrc`.

aiohttp reads both anew for each request, a file and two threads each time. Here they are read once for each client,
in a thread.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pilothouse_server.outbound.destinations import without_user_info


def proxy_of(server: str) -> tuple[str, str]:
    """Returns the proxy before `server`, and the header for it; '' where there is none. Reads files."""
    parts = urlsplit(server)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return "", ""
    url, authorization = without_user_info(getproxies().get(parts.scheme, ""))
    if not url.startswith("http://"):
        return "", ""
    return url, authorization or _from_netrc(urlsplit(url).hostname)


def session_options(server: str, *, netrc: bool) -> dict[str, Any]:
    """Returns arguments of an `aiohttp.ClientSession` that is to talk to `server` only, for what `trust_env` would do.

    `netrc`: whether the password in `.netrc` is for it. Reads files.
    """
    authorization = _from_netrc(urlsplit(server).hostname) if netrc else ""
    options: dict[str, Any] = {"trust_env": False}
    return {**options, "headers": {"Authorization": authorization}} if authorization else options


def _from_netrc(host: str | None) -> str:
    import aiohttp
    from aiohttp.helpers import netrc_from_env

    known = netrc_from_env() if host is not None else None
    entry = known.authenticators(host) if known is not None and host is not None else None
    if entry is None:
        return ""
    login, account, password = entry
    return aiohttp.encode_basic_auth(login or account, password or "")
