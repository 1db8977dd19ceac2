"""Credentials of a caller for a cluster, reduced to one small form that can be stored.

Only the cluster and the user of one context of a kubeconfig are stored, and only their keys that are used. So exactly
the checked values are stored. Entries that would run a program or read a file of this machine are refused, as
in `connection`, and so are expired ones.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import cache
from time import sleep
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
# They change our identity on the cluster, so it would be wrong to ignore them silently.
_UNSUPPORTED_USER_KEYS = ("username", "password", "as", "as-uid", "as-groups", "as-user-extra")
_NAME = "cluster"
# A kubeconfig of one context has 2 to 10 KB.
MOST_BYTES = 64 * 1024
_DEEPEST = 32
# A kubeconfig of thirty contexts has a thousand YAML events.
MOST_PARTS = 5_000
# The number of YAML events that are parsed before other threads may run.
_TURN = 100


class ClusterCredentials(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kubeconfig's entries for one cluster and one user, or the pod's own service account (`in_cluster`)."""

    cluster: dict[str, str | bool] = {}
    user: dict[str, str] = {}
    in_cluster: bool = False

    def __repr__(self) -> str:
        return f"ClusterCredentials({self.cluster.get('server', 'in cluster')})"

    @property
    def server(self) -> str:
        """The API server's address; empty inside the cluster, where the pod's environment contains it."""
        return str(self.cluster.get("server", "")).rstrip("/")

    @property
    def expires_at(self) -> datetime | None:
        """The time when the first of them expires; None if none has a date."""
        return expiry.expires_at(self.user)

    def kubeconfig(self) -> dict[str, Any]:
        """Returns these credentials as a kubeconfig of one context."""
        return {
            "current-context": _NAME,
            "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
            "clusters": [{"name": _NAME, "cluster": self.cluster}],
            # The library requires a non-empty user's entry.
            "users": [{"name": _NAME, "user": self.user or {"impersonate": ""}}],
        }


IN_CLUSTER = ClusterCredentials(in_cluster=True)


def encode(credentials: ClusterCredentials) -> bytes:
    """Returns the credentials as they are stored, before encryption."""
    return msgspec.json.encode(credentials)


def decode(document: bytes) -> ClusterCredentials:
    """Returns the value that `encode` wrote."""
    return msgspec.json.decode(document, type=ClusterCredentials)


def from_kubeconfig(text: str, context: str = "") -> ClusterCredentials:
    """Returns the entries of one context of a kubeconfig, the current one by default.

    A large kubeconfig takes tens of milliseconds: do not call this in the event loop's thread.

    Raises CredentialsRefused, naming the entry that is missing, malformed, refused or expired.
    """
    cluster, user = connection.select(parse(text), context or None)
    connection.check(cluster, user, allow_files=False)
    for key in _UNSUPPORTED_USER_KEYS:
        if user.get(key):
            raise CredentialsRefused(
                f"the kubeconfig's user has {key!r}, which is not supported; use a token or a certificate"
            )
    return _checked(
        ClusterCredentials(
            {key: _scalar("cluster", key, cluster[key]) for key in _CLUSTER_KEYS if key in cluster},
            {key: _text("user", key, user[key]) for key in _USER_KEYS if user.get(key)},
        )
    )


def parse(text: str) -> Any:
    """Returns the content of a kubeconfig: mappings, lists, text, truth values and None.

    Aliases, which make a document larger than its text, and tags, which change its types, are refused. A number or a
    date is returned as its text.

    Raises CredentialsRefused if it is too large, has too many values, is not YAML, or has a refused element.
    """
    import yaml

    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise CredentialsRefused(f"the kubeconfig has more than {MOST_BYTES // 1024} KB")
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=_loader())):
            if number > MOST_PARTS:
                raise CredentialsRefused(f"the kubeconfig has more than {MOST_PARTS} keys, values and lists")
            if number % _TURN == 0:
                # Lets the event loop's thread go first.
                sleep(0)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise CredentialsRefused(f"the kubeconfig is nested more than {_DEEPEST} levels deep")
            if getattr(event, "anchor", None) is not None:
                raise CredentialsRefused("the kubeconfig has an anchor or an alias, which is not supported")
            if getattr(event, "tag", None) is not None:
                raise CredentialsRefused("the kubeconfig has a tag, which is not supported")
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        # The library's message quotes the text, which contains secrets, so only the line is named.
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark is not None else ""
        raise CredentialsRefused(f"the kubeconfig is not YAML{where}") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        raise CredentialsRefused("the kubeconfig is not YAML") from None


@cache
def _loader() -> Any:
    """Returns a safe loader that reads only truth values and null as such, and all other scalars as text."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    kept = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"}
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in kept]
        for first, known in base.yaml_implicit_resolvers.items()
    }
    return type("KubeconfigLoader", (base,), {"yaml_implicit_resolvers": resolvers})


def from_address(server: str, token: str, *, authority: str = "", proxy_url: str = "") -> ClusterCredentials:
    """Returns credentials from an address and a token; `authority` is PEM, empty to trust this machine's authorities.

    Raises CredentialsRefused.
    """
    cluster: dict[str, str | bool] = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    if proxy_url:
        cluster["proxy-url"] = proxy_url
    user = {"token": token}
    connection.check(cluster, user, allow_files=False)
    return _checked(ClusterCredentials(cluster, user))


def _checked(credentials: ClusterCredentials) -> ClusterCredentials:
    # The address is stored as it was parsed here, so that no other parser reads it differently.
    credentials.cluster["server"] = str(connection.server_of(credentials.cluster))
    token = credentials.user.get("token", "")
    if token != token.strip() or not token.isascii() or any(ord(character) < 33 for character in token):
        raise CredentialsRefused(
            "the token has a space, a line break or characters outside ASCII", field="address.token"
        )
    expiry.check(credentials.cluster, credentials.user, datetime.now(UTC))
    return credentials


def _text(section: str, key: str, value: object) -> str:
    if isinstance(value, bool):
        # YAML reads `yes` and `on` as truth values; the text that was meant is lost.
        raise CredentialsRefused(
            f"the kubeconfig's {section} has a {key!r} that is a truth value, not text: put it in quotes"
        )
    return str(_scalar(section, key, value))


def _scalar(section: str, key: str, value: object) -> str | bool:
    if isinstance(value, str | bool):
        return value
    kind = {dict: "a mapping", list: "a list", type(None): "empty"}.get(type(value), "a number")
    raise CredentialsRefused(f"the kubeconfig's {section} has a {key!r} that is {kind}, not text")
