"""Credentials: refused by name, before the server uses any of them.

The server has not run, read or connected to anything by then.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import pty
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.connection import unprotected
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_simulator.api.server_certificate import Authority
from tests.waiting import within

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
        ({"server": "http://a.example"}, "as plain text"),
        ({"server": "https://a.example", "insecure-skip-tls-verify": True}, "pose as the cluster"),
    ],
)
def test_an_unprotected_connection_is_reported(entry: dict[str, Any], words: str) -> None:
    why = unprotected(entry)
    assert words in why
    assert bool(why) == bool(words)


@pytest.mark.parametrize("case", CASES)
async def test_a_refusal_names_the_field_and_not_the_secret(case: str) -> None:
    change, words = CASES[case]
    config = copy.deepcopy(KUBECONFIG)
    change(config)
    with pytest.raises(CredentialsRefused) as refused:
        await ClusterClient.from_kubeconfig(config, name="x")
    assert words in refused.value.message
    assert "secret-token" not in refused.value.message


async def test_a_client_is_created_with_a_token() -> None:
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


def with_certificate(password: bytes = b"") -> dict[str, Any]:
    """Returns a kubeconfig with a client certificate, its key and an authority.

    `password` encrypts the key.
    """
    authority = Authority("127.0.0.1")
    certificate, key = authority.client_certificate("someone")
    if password:
        key = serialization.load_pem_private_key(key, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
    config = copy.deepcopy(KUBECONFIG)
    told = b"# H\xc3\xb6he\n" + authority.certificate
    cluster(config)["certificate-authority-data"] = base64.b64encode(told).decode()
    config["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    return config


async def test_a_key_is_never_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = await ClusterClient.from_kubeconfig(with_certificate(), name="x")
    try:
        assert list(tmp_path.iterdir()) == []
    finally:
        await client.close()


async def test_the_operators_kubeconfig_may_name_files(tmp_path: Path) -> None:
    config = with_certificate()
    for entry, names in (
        (cluster(config), ["certificate-authority"]),
        (user(config), ["client-certificate", "client-key"]),
    ):
        for name in names:
            (tmp_path / name).write_bytes(base64.b64decode(entry.pop(f"{name}-data")))
            entry[name] = str(tmp_path / name)
    client = await ClusterClient.from_kubeconfig(config, name="x", allow_files=True)
    await client.close()
    (tmp_path / "client-key").unlink()
    with pytest.raises(CredentialsRefused, match="a file that it names cannot be read"):
        await ClusterClient.from_kubeconfig(config, name="x", allow_files=True)


AT_A_TERMINAL = """
import asyncio, json, os, sys
os.open(sys.argv[1], os.O_RDWR)
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import CredentialsRefused
try:
    asyncio.run(ClusterClient.from_kubeconfig(json.loads(sys.stdin.read()), name="x"))
except CredentialsRefused as refused:
    print(refused.message)
"""


async def test_the_password_of_a_key_is_never_requested_at_a_terminal() -> None:
    """A server that was started at a terminal would wait there for a password.

    A thread would wait for a password that no person types.
    """
    terminal, other_end = pty.openpty()
    try:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            AT_A_TERMINAL,
            os.ttyname(other_end),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with within(30.0):
                out, err = await program.communicate(json.dumps(with_certificate(b"a password")).encode())
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
        assert b"needs a password" in out, err
        os.set_blocking(terminal, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal, 100)
    finally:
        os.close(terminal)
        os.close(other_end)


async def test_outside_a_pod_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CredentialsRefused):
        await ClusterClient.in_cluster(name="x")
