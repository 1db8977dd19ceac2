"""What the environment says of the way to a cluster: proxies (HTTPS_PROXY, NO_PROXY …) and `.netrc`.

aiohttp reads both anew for each request, a file and two threads each time. Here they are read once for each client.
"""

from __future__ import annotations

import contextlib
from typing import Any


def session_options(server: str, *, has_proxy: bool, has_token: bool) -> dict[str, Any]:
    """Returns arguments of an `aiohttp.ClientSession` that is to talk to `server` only, for what `trust_env` would do.

    A proxy of the kubeconfig's own goes before that of the environment, and a token before the password in `.netrc`.
    Reads files: not for the event loop's thread.
    """
    import aiohttp
    from aiohttp.helpers import get_env_proxy_for_url, netrc_from_env
    from yarl import URL

    url = URL(server)
    options: dict[str, Any] = {"trust_env": False}
    if not has_proxy:
        with contextlib.suppress(LookupError):
            options["proxy"], options["proxy_auth"] = get_env_proxy_for_url(url)
    known = netrc_from_env() if not has_token and url.host is not None else None
    entry = known.authenticators(url.host) if known is not None and url.host is not None else None
    if entry is not None:
        login, account, password = entry
        # Where an answer redirects to another host, aiohttp leaves this header out.
        options["headers"] = {"Authorization": aiohttp.encode_basic_auth(login or account, password or "")}
    return options
