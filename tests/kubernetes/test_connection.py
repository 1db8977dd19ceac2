"""Credentials: what is refused, by name, before anything is run, read or connected to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.connection import unprotected
from pilothouse_server.kubernetes.errors import CredentialsRefused

KUBECONFIG: dict[str, Any] = {
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example:6443/"}}],
    "users": [{"name": "u", "user": {"token": "secret-token"}}],
}


def user(config: dict[str, Any]) -> dict[str, Any]:
    return config["users"][0]["user"]  # type: ignore[no-any-return]


def cluster(config: dict[str, Any]) -> dict[str, Any]:
    return config["clusters"][0]["cluster"]  # type: ignore[no-any-return]


CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "exec plugin": (lambda c: user(c).update(exec={"command": "/bin/sh"}), "'exec'"),
    "auth provider": (lambda c: user(c).update({"auth-provider": {"name": "gcp"}}), "'auth-provider'"),
    "token file": (lambda c: user(c).update(tokenFile="/etc/shadow"), "'tokenFile'"),
    "certificate file": (
        lambda c: cluster(c).update({"certificate-authority": "/etc/ca"}),
        "'certificate-authority'",
    ),
    "not base64": (lambda c: cluster(c).update({"certificate-authority-data": "%%"}), "base64"),
    "not a certificate": (
        lambda c: cluster(c).update({"certificate-authority-data": "bm90IGEgY2VydA=="}),
        "cannot be used",
    ),
    "half a key pair": (lambda c: user(c).update({"client-certificate-data": "AAAA"}), "without its key"),
    "no context": (lambda c: c.pop("current-context"), "no current-context"),
    "unknown context": (lambda c: c.update({"current-context": "there"}), "no context named 'there'"),
    "unknown cluster": (
        lambda c: c.update(clusters=[]),
        "no cluster named 'c', which its context 'here' names",
    ),
    "context without a cluster": (
        lambda c: c["contexts"][0]["context"].pop("cluster"),
        "context 'here' names no cluster",
    ),
    "unknown user": (lambda c: c.update(users=None), "no user named 'u'"),
    "no server": (lambda c: cluster(c).clear(), "address of the API server"),
    "strange server": (lambda c: cluster(c).update(server="file:///etc"), "address of the API server"),
}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"server": "https://a.example"}, ""),
        ({"server": "http://127.0.0.1:8001"}, ""),
        ({"server": "http://[::1]:8001"}, ""),
        ({"server": "http://a.example"}, "in the clear"),
        ({"server": "https://a.example", "insecure-skip-tls-verify": True}, "pass for the cluster"),
    ],
)
def test_a_way_that_others_can_read_is_told(entry: dict[str, Any], words: str) -> None:
    why = unprotected(entry)
    assert words in why
    assert bool(why) == bool(words)


@pytest.mark.parametrize("case", CASES)
async def test_refused_by_name_without_telling_the_secret(case: str) -> None:
    change, words = CASES[case]
    config = copy.deepcopy(KUBECONFIG)
    change(config)
    with pytest.raises(CredentialsRefused) as refused:
        await ClusterClient.from_kubeconfig(config, name="x")
    assert words in refused.value.message
    assert "secret-token" not in refused.value.message


async def test_a_token_makes_a_client() -> None:
    client = await ClusterClient.from_kubeconfig(KUBECONFIG, name="x")
    try:
        assert client.server == "https://cluster.example:6443"
    finally:
        await client.close()


async def test_another_context_is_chosen_by_name() -> None:
    config = copy.deepcopy(KUBECONFIG)
    config["contexts"].append({"name": "there", "context": {"cluster": "d"}})
    config["clusters"].append({"name": "d", "cluster": {"server": "https://there.example"}})
    client = await ClusterClient.from_kubeconfig(config, name="x", context="there")
    try:
        assert client.server == "https://there.example"
    finally:
        await client.close()


async def test_files_are_read_for_the_operators_own_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    config = copy.deepcopy(KUBECONFIG)
    config["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
    client = await ClusterClient.from_kubeconfig(config, name="x", allow_files=True)
    assert client.server == "https://cluster.example:6443"
    await client.close()


async def test_outside_a_pod_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CredentialsRefused):
        await ClusterClient.in_cluster(name="x")
