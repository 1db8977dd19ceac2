"""Errors in TLS files are reported at start, before the server creates anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.client.certificates import made, revoked_list
from tests.readme.test_safe_by_default import refused


@pytest.mark.full
async def test_a_start_names_the_file_and_the_line(tmp_path: Path) -> None:
    files = tmp_path / "files"
    directory = tmp_path / "where it runs"
    for folder in (files, directory):
        folder.mkdir()
    own, authority = made("127.0.0.1"), made("clients", authority=True)
    for name, content in (
        ("c.pem", own.pem),
        ("k.pem", own.key_pem),
        ("ca.pem", authority.pem),
        ("users", b"dns a.example anna\nhost b.example bert\n"),
        ("good", b"dns a.example anna\n"),
        ("crl", revoked_list(made("strange", authority=True)).public_bytes(Encoding.PEM)),
    ):
        (files / name).write_bytes(content)
    settings = {
        "LISTEN": "127.0.0.1:0",
        "TLS_CERTIFICATE_FILE": str(files / "c.pem"),
        "TLS_KEY_FILE": str(files / "k.pem"),
        "TLS_CLIENT_CA_FILE": str(files / "ca.pem"),
    }
    for changes, words in (
        ({"TLS_CLIENT_USERS_FILE": "users"}, "users, line 2: 'host' must be dns, uri or email"),
        ({"TLS_CLIENT_CRL_FILE": "crl"}, "is not signed by an authority of PILOTHOUSE_TLS_CLIENT_CA_FILE"),
        ({"TLS_CLIENT_CA_FILE": "good"}, "good must contain certificates in PEM form"),
        ({"TLS_CLIENT_USERS_FILE": "none"}, "cannot be read (FileNotFoundError)"),
    ):
        given = {name: str(files / value) for name, value in changes.items()}
        code, errors = await refused(directory, "serve --dev", **{**settings, **given})
        assert (code, words in errors) == (2, True), errors
    assert list(directory.iterdir()) == []
