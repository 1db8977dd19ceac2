"""The way to a cluster: a kubeconfig or the pod's own service account, turned into a configured HTTP client.

The Kubernetes client library is used for exactly this: TLS, proxies and authentication headers.
It is imported on first use and in a thread, because the import takes most of a second, which would delay the server's
start and block the event loop.

A kubeconfig that an API caller sends must not give the caller power over this machine: exec plugins and auth providers
run programs, file references read files of the server, and addresses may point to this machine. Programs are always
refused. Files and such addresses are permitted only for a kubeconfig that the operator configured locally
(`allow_files`, `reach`).

Environment variables name proxies (HTTPS_PROXY, NO_PROXY …), and `.netrc` contains passwords. aiohttp would read both
again for each request: one file and two threads each time. Here they are read once for each client, in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pilothouse_server.kubernetes import expiry
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_server.outbound import destinations
from pilothouse_server.outbound.destinations import ANYWHERE, AddressRefused, Origin, Reach, without_user_info

FILE_KEYS = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}
DATA_KEYS = {
    "cluster": ("certificate-authority-data",),
    "user": ("client-certificate-data", "client-key-data"),
}
PROGRAM_KEYS = ("exec", "auth-provider")
# Field paths of credentials that are an address and a token.
SERVER, PROXY = "address.api_server", "address.proxy_url"
PROXY_AUTHORIZATION = "Proxy-Authorization"
# Where Kubernetes puts the service account of a pod.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_FILE_PERIOD_SECONDS = 60.0
LONGEST_NAME = 253


async def from_kubeconfig(
    kubeconfig: Mapping[str, Any], *, context: str | None, allow_files: bool, pool_size: int, reach: Reach
) -> Any:
    """Returns an ApiClient for `context` of a parsed kubeconfig (default: the current one); connects within `reach`.

    Raises CredentialsRefused, naming the entry that is wrong.
    """
    cluster, user = select(kubeconfig, context)
    check(cluster, user, allow_files=allow_files)
    check_reach(cluster, reach)
    expiry.check(cluster, user, datetime.now(UTC))
    return await asyncio.to_thread(_kubeconfig_client, cluster, user, pool_size, reach)


async def in_cluster(*, pool_size: int) -> Any:
    """Returns an ApiClient with the service account of the server's own pod; its token is read again every minute.

    Raises CredentialsRefused outside of a pod.
    """
    return await asyncio.to_thread(_in_cluster_client, pool_size)


def select(kubeconfig: Mapping[str, Any], context: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the cluster and the user that a context names. Raises CredentialsRefused."""
    if not isinstance(kubeconfig, Mapping):
        raise CredentialsRefused("the kubeconfig is not a mapping")
    name = context or kubeconfig.get("current-context") or ""
    if not name:
        raise CredentialsRefused("the kubeconfig names no current-context")
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise CredentialsRefused(
            f"the name of the kubeconfig's context must be text of at most {LONGEST_NAME} characters"
        )
    chosen = _entry(kubeconfig, "contexts", "context", name)
    named = f", which its context {name!r} names"
    cluster_name, user_name = chosen.get("cluster"), chosen.get("user") or ""
    if not isinstance(cluster_name, str) or not cluster_name:
        raise CredentialsRefused(f"the kubeconfig's context {name!r} names no cluster")
    if not isinstance(user_name, str) or max(len(cluster_name), len(user_name)) > LONGEST_NAME:
        raise CredentialsRefused(
            f"the kubeconfig's context {name!r} must name a cluster and a user by at most {LONGEST_NAME} characters"
        )
    cluster = _entry(kubeconfig, "clusters", "cluster", cluster_name, named)
    return cluster, _entry(kubeconfig, "users", "user", user_name, named) if user_name else {}


def unprotected(cluster: Mapping[str, Any]) -> str:
    """Returns the reason why traffic to this cluster can be read or altered on the way; '' if it cannot.

    Such a cluster is not refused: a tunnel or a test may be in front of it, which the server cannot detect.
    """
    address = urlsplit(str(cluster.get("server", "")))
    if address.hostname in ("localhost", "127.0.0.1", "::1"):
        return ""
    if address.scheme == "http":
        return "its address begins with http://: credentials and secrets are sent as plain text"
    if cluster.get("insecure-skip-tls-verify"):
        return (
            "insecure-skip-tls-verify: somebody who intercepts the connection can pose as the cluster "
            "and read the credentials"
        )
    return ""


def check(cluster: Mapping[str, Any], user: Mapping[str, Any], *, allow_files: bool) -> None:
    """Checks for entries that cannot be used or are not permitted. Raises CredentialsRefused."""
    server_of(cluster, path=allow_files)
    proxy_of(cluster, path=allow_files)
    _check_tls(cluster)
    for key in PROGRAM_KEYS:
        if user.get(key):
            raise CredentialsRefused(
                f"the kubeconfig's user authenticates by {key!r}, which runs programs; use a token or a certificate"
            )
    for section, entry in (("cluster", cluster), ("user", user)):
        for key in FILE_KEYS[section]:
            if key in entry and not allow_files:
                raise CredentialsRefused(
                    f"the kubeconfig's {section} refers to a file by {key!r}; embed its content"
                )
        for key in DATA_KEYS[section]:
            if key in entry:
                _check_base64(section, key, entry[key])
    if bool(user.get("client-certificate-data") or user.get("client-certificate")) != bool(
        user.get("client-key-data") or user.get("client-key")
    ):
        raise CredentialsRefused(
            "the kubeconfig's user has a client certificate without its key, or the reverse"
        )


def server_of(cluster: Mapping[str, Any], *, path: bool = False) -> Origin:
    """Returns the API server's origin. `path`: whether the address may have a path. Raises CredentialsRefused."""
    server = cluster.get("server")
    if not isinstance(server, str) or not server:
        raise CredentialsRefused("the address of the API server must be a non-empty string", field=SERVER)
    try:
        return destinations.origin(server, path=path)
    except AddressRefused as refused:
        raise CredentialsRefused(f"the address of the API server {refused}", field=SERVER) from None


def shown_address(cluster: Mapping[str, Any]) -> str:
    """Returns the address of the API server as it may be shown; '' if it cannot be used."""
    try:
        return str(server_of(cluster, path=True))
    except CredentialsRefused:
        return ""


def proxy_of(cluster: Mapping[str, Any], *, path: bool = False) -> Origin | None:
    """Returns the proxy's origin without user and password; None if there is no proxy. Raises CredentialsRefused."""
    proxy = cluster.get("proxy-url")
    if not proxy:
        return None
    if not isinstance(proxy, str):
        raise CredentialsRefused("the 'proxy-url' must be text", field=PROXY)
    try:
        return destinations.origin(destinations.without_user_info(proxy)[0], path=path)
    except AddressRefused as refused:
        raise CredentialsRefused(f"the 'proxy-url' {refused}", field=PROXY) from None
    except ValueError:
        raise CredentialsRefused("the 'proxy-url' cannot be read", field=PROXY) from None


def check_reach(cluster: Mapping[str, Any], reach: Reach) -> None:
    """Checks addresses by their host name or number alone, without DNS. Raises CredentialsRefused."""
    proxy = proxy_of(cluster, path=True)
    named = [("the address of the API server", SERVER, server_of(cluster, path=True))]
    named += [("the 'proxy-url'", PROXY, proxy)] if proxy is not None else []
    for what, field, address in named:
        try:
            reach.check(address.host)
        except AddressRefused as refused:
            raise CredentialsRefused(f"{what} {refused}", field=field) from None


def _check_tls(cluster: Mapping[str, Any]) -> None:
    name, unverified = cluster.get("tls-server-name"), cluster.get("insecure-skip-tls-verify")
    if name not in (None, "") and not (isinstance(name, str) and destinations.is_host(name)):
        raise CredentialsRefused("the kubeconfig's cluster has a 'tls-server-name' that is not a host name")
    if not isinstance(unverified, bool | None):
        # As text, "false" would be true.
        raise CredentialsRefused(
            "the kubeconfig's cluster has an 'insecure-skip-tls-verify' that is neither true nor false"
        )


def _check_base64(section: str, key: str, value: object) -> None:
    try:
        base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raise CredentialsRefused(f"the kubeconfig's {section} has a {key!r} that is not base64") from None


def _entry(
    kubeconfig: Mapping[str, Any], section: str, kind: str, name: str, named: str = ""
) -> dict[str, Any]:
    entries = kubeconfig.get(section) or []
    if isinstance(entries, list):
        for entry in entries:
            if (
                isinstance(entry, Mapping)
                and entry.get("name") == name
                and isinstance(entry.get(kind), Mapping)
            ):
                return dict(entry[kind])
    raise CredentialsRefused(f"the kubeconfig has no {kind} named {name!r}{named}")


def _kubeconfig_client(
    cluster: Mapping[str, Any], user: Mapping[str, Any], pool_size: int, reach: Reach
) -> Any:
    """Returns the client for one cluster and one user.

    The library's own loader would write certificates and keys to files in the temporary folder. They stay there until
    the server ends, and permanently if it is killed.
    """
    from kubernetes.aio.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.connection_pool_maxsize = pool_size
    configuration.host = str(cluster["server"]).rstrip("/")
    configuration.verify_ssl = not cluster.get("insecure-skip-tls-verify")
    for key, name in (("tls-server-name", "tls_server_name"), ("proxy-url", "proxy")):
        if cluster.get(key):
            setattr(configuration, name, cluster[key])
    try:
        _authenticate(configuration, user)
        if not configuration.host.lower().startswith("https"):
            return _client(ApiClient, configuration, reach)
        _trust(configuration, cluster)
        with _shown(user) as configuration.cert_file:
            made = _client(ApiClient, configuration, reach)
        configuration.cert_file = None
        return made
    except ssl.SSLError:
        raise CredentialsRefused(
            "the kubeconfig cannot be used: a certificate or key in it cannot be read or needs a password, or they do "
            "not belong together"
        ) from None
    except OSError:
        raise CredentialsRefused(
            "the kubeconfig cannot be used: a file that it names cannot be read"
        ) from None
    except ValueError:
        raise CredentialsRefused("the kubeconfig cannot be used: an entry of it is malformed") from None


def _authenticate(configuration: Any, user: Mapping[str, Any]) -> None:
    if user.get("token"):
        configuration.api_key["BearerToken"] = f"Bearer {user['token']}"
    elif user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}"
        configuration.api_key["BearerToken"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    if token_file := user.get("tokenFile"):
        _renew_from(configuration, Path(token_file))


def _trust(configuration: Any, cluster: Mapping[str, Any]) -> None:
    if authority := cluster.get("certificate-authority-data"):
        # Next to certificates there may be text in any encoding.
        configuration.ca_cert_data = base64.b64decode(str(authority)).decode("ascii", "ignore")
    elif file := cluster.get("certificate-authority"):
        configuration.ssl_ca_cert = str(file)


@contextlib.contextmanager
def _shown(user: Mapping[str, Any]) -> Iterator[str | None]:
    """Yields a file with the client certificate and its key; None if there is none."""
    certificate, key = (_content(user, name) for name in ("client-certificate", "client-key"))
    if not certificate:
        yield None
        return
    with destinations.key_pair_file(certificate, key) as path:
        yield path


def _content(user: Mapping[str, Any], name: str) -> bytes:
    if data := user.get(f"{name}-data"):
        return base64.b64decode(str(data))
    return Path(user[name]).read_bytes() if user.get(name) else b""


def _in_cluster_client(pool_size: int) -> Any:
    from kubernetes.aio.client import ApiClient, Configuration
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader

    configuration = Configuration()
    configuration.connection_pool_maxsize = pool_size
    token_file, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    try:
        # The library's own renewal would fail calls while the file cannot be read.
        loader: Any = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(token_file), cert_filename=str(authority), try_refresh_token=False
        )
        loader.load_and_set(configuration)
        _renew_from(configuration, token_file)
        return _client(ApiClient, configuration, ANYWHERE)
    except (ConfigException, OSError):
        # An unreadable authority is an OSError, too.
        raise CredentialsRefused(
            "the pod's service account cannot be used: this server does not run in a pod, or cannot read its files"
        ) from None


def _client(api_client: Any, configuration: Any, reach: Reach) -> Any:
    """Returns an ApiClient. Its `configuration` has the session's arguments (`session_options`) and permitted `reach`.

    A proxy of the kubeconfig overrides that of the environment, which is the operator's choice. A proxy's user and
    password are sent as a header: as part of the address, they would appear in the library's messages. `.netrc` belongs
    to the operator: its passwords are never sent to an address that a caller names, and a token overrides them.
    """
    server = str(configuration.host)
    own = reach is ANYWHERE
    options = session_options(server, netrc=own and "BearerToken" not in configuration.api_key)
    proxy, authorization = destinations.without_user_info(str(configuration.proxy or ""))
    if not proxy:
        proxy, authorization = _environment_proxy(server)
        reach = ANYWHERE if proxy else reach
    configuration.proxy, configuration.proxy_headers = proxy or None, None
    if authorization:
        configuration.proxy_headers = {PROXY_AUTHORIZATION: authorization}
        if server.startswith("http://"):
            # Plain HTTP uses no tunnel, so the request itself carries the proxy's header.
            options["headers"] = {**options.get("headers", {}), PROXY_AUTHORIZATION: authorization}
    configuration.session_options, configuration.reach = options, reach
    return api_client(configuration)


def _renew_from(configuration: Any, token_file: Path) -> None:
    """Reads a token again every minute, because bound service account tokens are replaced on disk.

    If the file cannot be read, the former token stays in use. Raises OSError if the first read fails.
    """
    configuration.api_key["BearerToken"] = _token_in(token_file)
    next_read = monotonic() + TOKEN_FILE_PERIOD_SECONDS

    def refresh(current: Any) -> None:
        nonlocal next_read
        if monotonic() >= next_read:
            next_read = monotonic() + TOKEN_FILE_PERIOD_SECONDS
            with contextlib.suppress(OSError):
                current.api_key["BearerToken"] = _token_in(token_file)

    configuration.refresh_api_key_hook = refresh


def _token_in(file: Path) -> str:
    return "Bearer " + file.read_text().strip()


def _environment_proxy(server: str) -> tuple[str, str]:
    """Returns the proxy for `server`, and the header for the proxy; '' if there is none. Reads files."""
    parts = urlsplit(server)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return "", ""
    url, authorization = without_user_info(getproxies().get(parts.scheme, ""))
    if not url.startswith("http://"):
        return "", ""
    return url, authorization or _from_netrc(urlsplit(url).hostname)


def session_options(server: str, *, netrc: bool) -> dict[str, Any]:
    """Returns arguments of an `aiohttp.ClientSession` that talks to `server` only, in place of `trust_env`.

    `netrc`: whether the password in `.netrc` may be sent to the server. Reads files.
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
