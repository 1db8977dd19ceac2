"""The stored parts of a kubeconfig, and the parts that are refused by name.

The server refuses before it connects to anything.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from pilothouse_server.kubernetes import credentials
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_simulator.api.server_certificate import Authority
from tests.clusters.given import encoded, jwt

SECRET = "a-token-that-nobody-may-see"
YEAR = timedelta(days=365)
NOW = datetime.now(UTC)
AUTHORITY = Authority("127.0.0.1")
KUBECONFIG: dict[str, Any] = {
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example:6443/"}}],
    "users": [{"name": "u", "user": {"token": SECRET}}],
}


def user(config: dict[str, Any]) -> dict[str, Any]:
    return config["users"][0]["user"]  # type: ignore[no-any-return]


def cluster(config: dict[str, Any]) -> dict[str, Any]:
    return config["clusters"][0]["cluster"]  # type: ignore[no-any-return]


def with_certificate(config: dict[str, Any], begins: datetime, ends: datetime) -> None:
    certificate, key = AUTHORITY.client_certificate("someone", begins=begins, ends=ends)
    user(config).clear()
    user(config).update({"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)})


CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "exec plugin": (lambda c: user(c).update(exec={"command": "/bin/sh"}), "'exec'"),
    "auth provider": (lambda c: user(c).update({"auth-provider": {"name": "gcp"}}), "'auth-provider'"),
    "key file": (lambda c: user(c).update({"client-key": "/etc/shadow"}), "'client-key'"),
    "password": (lambda c: user(c).update(username="a", password="b"), "'username'"),
    "impersonation": (lambda c: user(c).update({"as": "system:admin"}), "'as'"),
    "unknown user": (lambda c: c.update(users=[]), "no user named 'u'"),
    "unknown context": (lambda c: c.update({"current-context": "there"}), "no context named 'there'"),
    "context of another type": (lambda c: c.update({"current-context": ["here"]}), "must be text"),
    "token of another type": (lambda c: user(c).update(token={"a": SECRET}), "'token' that is a mapping"),
    "token that YAML reads as true": (lambda c: user(c).update(token=True), "'token' that is a truth value"),
    "token with a line break": (lambda c: user(c).update(token=SECRET + "\n"), "line break"),
    "strange proxy": (lambda c: cluster(c).update({"proxy-url": "file:///etc"}), "'proxy-url'"),
    "name of no host": (lambda c: cluster(c).update({"tls-server-name": SECRET * 10}), "'tls-server-name'"),
    "name that is a number": (lambda c: cluster(c).update({"tls-server-name": "127.1"}), "'tls-server-name'"),
    "name of another type": (lambda c: cluster(c).update({"tls-server-name": True}), "'tls-server-name'"),
    "truth as text": (
        lambda c: cluster(c).update({"insecure-skip-tls-verify": "false"}),
        "'insecure-skip-tls-verify'",
    ),
    "expired certificate": (
        lambda c: with_certificate(c, NOW - 5 * YEAR, datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),
        "the client certificate expired on 2025-03-04T05:06:07Z",
    ),
    "certificate of the future": (
        lambda c: with_certificate(c, NOW + YEAR, NOW + 2 * YEAR),
        "the client certificate is not valid before",
    ),
    "expired token": (
        lambda c: user(c).update(token=jwt(datetime(2026, 1, 2, tzinfo=UTC))),
        "the token expired on 2026-01-02T00:00:00Z",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_names_the_field_and_not_the_secret(case: str) -> None:
    change, words = CASES[case]
    config = copy.deepcopy(KUBECONFIG)
    change(config)
    with pytest.raises(CredentialsRefused) as refused:
        credentials.from_kubeconfig(yaml.safe_dump(config))
    assert words in refused.value.message
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    "text",
    [f"users: [{SECRET}", f"a: {SECRET}\n b: [", "", "just text", "- a\n- b", "!!python/object:os.x {}"],
)
def test_text_that_is_not_a_kubeconfig_is_refused(text: str) -> None:
    with pytest.raises(CredentialsRefused) as refused:
        credentials.from_kubeconfig(text)
    assert SECRET not in refused.value.message


@pytest.mark.parametrize("payload", [b"[" * 12_000, b'{"x": ' + b"[" * 11_000, b'{"exp": 1e300}', b"\xff"])
@pytest.mark.usefixtures("no_finalizers")
def test_a_token_with_an_invalid_payload_has_no_expiry(payload: bytes) -> None:
    config = copy.deepcopy(KUBECONFIG)
    token = f"a.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c"
    user(config).update(token=token)
    kept = credentials.from_kubeconfig(yaml.safe_dump(config))
    assert (kept.user, kept.expires_at) == ({"token": token}, None)


def test_only_the_parts_that_the_context_names_are_stored() -> None:
    config = copy.deepcopy(KUBECONFIG)
    config["users"].append({"name": "other", "user": {"token": "anothers-token"}})
    cluster(config).update(
        {"tls-server-name": "inner", "extensions": [{"name": "x"}], "proxy-url": "http://p:1"}
    )
    kept = credentials.from_kubeconfig(yaml.safe_dump(config))
    assert kept.cluster == {
        "server": "https://cluster.example:6443",
        "tls-server-name": "inner",
        "proxy-url": "http://p:1",
    }
    assert kept.user == {"token": SECRET}
    assert SECRET not in repr(kept)
    stored = credentials.encode(kept)
    assert b"anothers-token" not in stored
    assert credentials.decode(stored) == kept


def test_another_context_is_chosen_by_name() -> None:
    config = copy.deepcopy(KUBECONFIG)
    config["contexts"].append({"name": "there", "context": {"cluster": "d", "user": "u"}})
    config["clusters"].append({"name": "d", "cluster": {"server": "https://there.example"}})
    assert credentials.from_kubeconfig(yaml.safe_dump(config), "there").server == "https://there.example"


def test_the_earliest_expiry_is_stored() -> None:
    soon, later = NOW + timedelta(days=3), NOW + YEAR
    config = copy.deepcopy(KUBECONFIG)
    with_certificate(config, NOW - YEAR, later)
    user(config)["token"] = jwt(soon)
    kept = credentials.from_kubeconfig(yaml.safe_dump(config))
    assert kept.expires_at == soon.replace(microsecond=0)


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "..", "e30.e30.e30", "e30.bm90anNvbg.e30"])
def test_a_token_without_an_expiry_is_accepted(token: str) -> None:
    kept = credentials.from_address("https://cluster.example", token)
    assert kept.expires_at is None


def test_an_authority_that_is_not_a_certificate_is_refused() -> None:
    with pytest.raises(CredentialsRefused, match="certificate authority"):
        credentials.from_address("https://cluster.example", "token", authority="not PEM")


def _laughs(levels: int) -> str:
    """Returns a kilobyte of YAML that would expand to more than a machine's memory."""
    lines = [f"a0: &a0 [{SECRET}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\ncurrent-context: *a{levels - 1}\n"


TEXTS = {
    "too large": (yaml.safe_dump(KUBECONFIG) + "# " + "x" * credentials.MOST_BYTES, "more than 64 KB"),
    "aliases": (_laughs(9), "an anchor or an alias"),
    "an alias of nothing": (f"a: *{SECRET}", "an anchor or an alias"),
    "merged": (f"a: &a {{token: {SECRET}}}\nb:\n  <<: *a", "an anchor or an alias"),
    "a tag": (f"a: !!binary {SECRET}", "a tag"),
    "a tag of Python": (f"a: !!python/object/apply:os.system [{SECRET}]", "a tag"),
    "too much": ("a: [" + "a, " * credentials.MOST_PARTS + f"{SECRET}]", "more than 5000"),
    "too deep": ("[" * 1000 + SECRET, "nested more than"),
    "no mapping": (SECRET, "not a mapping"),
    "a number of a mapping": (
        yaml.safe_dump({**KUBECONFIG, "current-context": {"a": SECRET}}),
        "must be text",
    ),
    "clusters of another type": (
        yaml.safe_dump({**KUBECONFIG, "clusters": {"c": SECRET}}),
        "no cluster named",
    ),
    "a long name": (yaml.safe_dump({**KUBECONFIG, "current-context": SECRET * 100}), "at most 253"),
    "a number without end": (f"current-context: {'1:' * 20_000}1", "at most 253"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.usefixtures("no_finalizers")
def test_text_beyond_the_limits_of_a_kubeconfig_is_refused(case: str) -> None:
    text, words = TEXTS[case]
    with pytest.raises(CredentialsRefused) as refused:
        credentials.from_kubeconfig(text)
    assert words in refused.value.message
    assert SECRET not in refused.value.message
    assert len(refused.value.message) < 500


def test_values_that_look_like_numbers_stay_text() -> None:
    config = copy.deepcopy(KUBECONFIG)
    text = (
        yaml.safe_dump(config).replace("name: c\n", "name: 1e3\n").replace("cluster: c\n", "cluster: 1e3\n")
    )
    text = text.replace(SECRET, "0123")
    assert credentials.from_kubeconfig(text).user == {"token": "0123"}


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (f"https://user:{SECRET}@host", "no user or password"),
        (f"https://host/{SECRET}", "no path"),
        (f"https://host?{SECRET}", "no query"),
        (f"https://host:{SECRET}", "port"),
    ],
)
def test_an_address_contains_only_scheme_host_and_port(server: str, words: str) -> None:
    with pytest.raises(CredentialsRefused) as refused:
        credentials.from_address(server, "token")
    assert words in refused.value.message
    assert refused.value.field == "address.api_server"
    assert SECRET not in refused.value.message
