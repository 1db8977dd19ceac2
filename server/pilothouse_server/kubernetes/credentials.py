"""What a caller gives to reach a cluster, brought into one small form that can be stored.

Of a kubeconfig only the cluster and the user of one context are kept, and of these only the keys that are used: what is
stored is what was checked. Whatever would run a program or read a file of this machine is refused, as in
`connection`; so is what has expired.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pilothouse_server.kubernetes import connection, expiry
from pilothouse_server.kubernetes.errors import CredentialsRefused

_CLUSTER_KEYS = (
    "server",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "proxy-url",
)
_USER_KEYS = ("token", "client-certificate-data", "client-key-data")
# They change who we are to the cluster, so to leave them out silently would be wrong.
_UNSUPPORTED_USER_KEYS = ("username", "password", "as", "as-uid", "as-groups", "as-user-extra")
_PROXY_SCHEMES = ("http://", "https://")
_NAME = "cluster"


class Credentials(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kubeconfig's entries for one cluster and one user, or the pod's own service account (`in_cluster`)."""

    cluster: dict[str, str | bool] = {}
    user: dict[str, str] = {}
    in_cluster: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.cluster.get('server', 'in cluster')})"

    @property
    def server(self) -> str:
        """The API server's address; empty in the cluster, where the pod's environment says it."""
        return str(self.cluster.get("server", "")).rstrip("/")

    @property
    def expires_at(self) -> datetime | None:
        """When they expire; None where nothing says so."""
        return expiry.expires_at(self.user)

    def kubeconfig(self) -> dict[str, Any]:
        """Returns the same as a kubeconfig of one context."""
        return {
            "current-context": _NAME,
            "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
            "clusters": [{"name": _NAME, "cluster": self.cluster}],
            # The library wants a user's entry not to be empty.
            "users": [{"name": _NAME, "user": self.user or {"impersonate": ""}}],
        }


IN_CLUSTER = Credentials(in_cluster=True)


def encode(credentials: Credentials) -> bytes:
    """As they are stored, before encryption."""
    return msgspec.json.encode(credentials)


def decode(document: bytes) -> Credentials:
    """Returns what `encode` wrote."""
    return msgspec.json.decode(document, type=Credentials)


def from_kubeconfig(text: str, context: str = "") -> Credentials:
    """Returns the entries of one context of a kubeconfig, the current one by default.

    Raises CredentialsRefused, naming the entry that is missing, malformed, refused or expired.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The library's words quote the text, which holds secrets: only the place is given.
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark is not None else ""
        raise CredentialsRefused(f"the kubeconfig is not YAML{where}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise CredentialsRefused("the kubeconfig is not YAML") from None
    cluster, user = connection.select(document, context or None)
    connection.check(cluster, user, allow_files=False)
    for key in _UNSUPPORTED_USER_KEYS:
        if user.get(key):
            raise CredentialsRefused(
                f"the kubeconfig's user has {key!r}, which is not supported; use a token or a certificate"
            )
    return _checked(
        Credentials(
            {key: _scalar("cluster", key, cluster[key]) for key in _CLUSTER_KEYS if key in cluster},
            {key: str(_scalar("user", key, user[key])) for key in _USER_KEYS if user.get(key)},
        )
    )


def from_address(server: str, token: str, *, authority: str = "", proxy_url: str = "") -> Credentials:
    """An address and a token; `authority` is PEM, empty for those that this machine trusts.

    Raises CredentialsRefused.
    """
    cluster: dict[str, str | bool] = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    if proxy_url:
        cluster["proxy-url"] = proxy_url
    user = {"token": token}
    connection.check(cluster, user, allow_files=False)
    return _checked(Credentials(cluster, user))


def _checked(credentials: Credentials) -> Credentials:
    proxy = str(credentials.cluster.get("proxy-url", ""))
    if proxy and not proxy.startswith(_PROXY_SCHEMES):
        raise CredentialsRefused("the 'proxy-url' must begin with http:// or https://")
    token = credentials.user.get("token", "")
    if token != token.strip() or not token.isascii() or any(ord(character) < 33 for character in token):
        raise CredentialsRefused("the token holds a space, a line break or characters outside ASCII")
    expiry.check(credentials.cluster, credentials.user, datetime.now(UTC))
    return credentials


def _scalar(section: str, key: str, value: object) -> str | bool:
    if isinstance(value, str | bool):
        return value
    kind = "a mapping" if isinstance(value, Mapping) else type(value).__name__
    raise CredentialsRefused(f"the kubeconfig's {section} holds a {key!r} that is {kind}, not text")
