"""The certificate that `serve --dev --tls-self-signed` creates."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from pilothouse_client.handshake import fingerprint_of
from pilothouse_server.launch.embedded import certificate
from pilothouse_server.launch.embedded.certificate import fingerprint, self_signed
from pilothouse_server.runtime.child_program import EmbeddedProgramError


def test_the_certificate_is_created_once_and_is_private(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "tls", "pilot.example")
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    made = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "pilot.example"} <= set(names.get_values_for_type(x509.DNSName))
    assert {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")} <= set(
        names.get_values_for_type(x509.IPAddress)
    )
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    # Server and client print the same fingerprint, and another host name does not replace the certificate.
    assert fingerprint(pair.certificate) == fingerprint_of(pair.certificate.read_text())
    before = pair.certificate.read_bytes()
    assert self_signed(tmp_path / "tls", "127.0.0.1").certificate.read_bytes() == before
    assert sorted(each.name for each in (tmp_path / "tls").iterdir()) == ["certificate.pem", "key.pem"]


def test_an_expired_certificate_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_LIFE", timedelta(seconds=-1))
    before = self_signed(tmp_path, "").certificate.read_bytes()
    monkeypatch.undo()
    assert self_signed(tmp_path, "").certificate.read_bytes() != before


@pytest.mark.parametrize("broken", ["certificate.pem", "key.pem"])
def test_an_invalid_pair_is_refused_and_left_unchanged(tmp_path: Path, broken: str) -> None:
    pair = self_signed(tmp_path, "")
    (tmp_path / broken).write_text("another program")
    with pytest.raises(EmbeddedProgramError, match="not a certificate and its private key"):
        self_signed(tmp_path, "")
    assert (tmp_path / broken).read_text() == "another program"
    other = self_signed(tmp_path / "other", "")
    pair.certificate.write_bytes(other.certificate.read_bytes())
    pair.key.write_bytes(other.key.read_bytes())
    assert self_signed(tmp_path, "") == pair
