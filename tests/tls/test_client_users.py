"""The rules that map certificates to users; authorities and revocation lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pilothouse_server.rpc.tls import authorities, users
from pilothouse_server.settings.model import Settings, SettingsError, load
from tests.client.certificates import Made, made, revoked_list


def _user(path: Path, text: str, *names: str) -> str:
    path.write_text(text)
    found = users.load(path).match(users.names_of(made(*names).certificate))
    return "" if found is None else found[0]


@pytest.mark.parametrize(
    ("rule", "taken", "not_taken"),
    [
        (
            "uri spiffe://a.example/ci",
            ["spiffe://a.example/ci"],
            ["spiffe://a.example/ci/x", "spiffe://A.example/ci"],
        ),
        (
            "uri spiffe://a.example/ns/shop/*",
            ["spiffe://a.example/ns/shop/x", "spiffe://a.example/ns/shop/x/y"],
            [
                "spiffe://a.example/ns/shop",
                "spiffe://a.example/ns/shop-of-others/x",
                "https://a.example/ns/shop/x",
                "spiffe://a.example/ns/shop/../admin",
                "spiffe://a.example/ns/shop/./x",
                "spiffe://a.example/ns/shop/..",
                "spiffe://a.example/ns/shop/%2e%2E/admin",
                "spiffe://a.example/ns/shop/..%2fadmin",
                "spiffe://a.example/ns/shop/..\\admin",
                "spiffe://a.example/ns/shop/x?y",
                "spiffe://a.example/ns/shop/x#y",
            ],
        ),
        (
            "dns CI.example.com",
            ["ci.example.com", "cI.EXAMPLE.com"],
            ["x.ci.example.com", "ci.example.com.evil.example"],
        ),
        (
            "dns *.example.com",
            ["a.example.com", "A.EXAMPLE.com"],
            ["example.com", ".example.com", "aexample.com", "*.example.com", "a.b.example.com"],
        ),
        (
            "dns runner-*",
            ["runner-1"],
            ["a-runner-1", "runner-", "runner-1.example.com", "runner-1.evil.example"],
        ),
        (
            "dns runner-*.example.com",
            ["runner-1.example.com"],
            ["runner-1.b.example.com", "runner-.example.com", "runner-1.example.com.evil.example"],
        ),
        (
            "email anna@Example.org",
            ["anna@example.org"],
            ["Anna@example.org", "anna@example.org.evil.example"],
        ),
        (
            "email *@example.org",
            ["anna@EXAMPLE.org", "anna.b@example.org"],
            ["@example.org", "anna@x.example.org"],
        ),
    ],
)
def test_a_rule_matches_only_the_names_of_its_pattern(
    tmp_path: Path, rule: str, taken: list[str], not_taken: list[str]
) -> None:
    for name in taken:
        assert _user(tmp_path / "users", f"{rule} anna", name) == "anna", name
    for name in not_taken:
        assert _user(tmp_path / "users", f"{rule} anna", name) == "", name


def test_the_first_matching_rule_applies_and_the_subject_is_ignored(tmp_path: Path) -> None:
    text = "dns a.example  first # a comment\n\n#dns b.example none\ndns b.example second\nuri urn:x:y third"
    assert _user(tmp_path / "users", text, "b.example", "a.example") == "first"
    assert _user(tmp_path / "users", text, "b.example") == "second"
    assert _user(tmp_path / "users", text) == ""
    # The test certificate also contains its names in the subject.
    named = made("192.0.2.1")
    assert not users.names_of(named.certificate)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dns a.example", "line 1: must have three words: KIND PATTERN USER"),
        ("\nip 10.0.0.1 anna", "line 2: 'ip' must be dns, uri or email"),
        ("dns a.*.example anna", "a * must be the first label or its end, as in *.example.com"),
        ("dns *a.example anna", "a * must be the first label or its end"),
        ("dns ci.* anna", "a * must be the first label or its end"),
        ("email anna@* anna", "a * must be all before the @, as in *@example.com"),
        ("email anna* anna", "a * must be all before the @"),
        ("uri urn:x#y anna", "a URI must have no query, no fragment"),
        ("uri spiffe://a.example/x/../* anna", "neither . nor .. as a segment"),
        ("dns * anna", "a pattern must be more than a *"),
        ("dns *.*.example anna", "may have at most one *"),
        ("email anna anna", "a mailbox must have the form name@example.com"),
        ("uri spiffe://a.example/ci* anna", "must be the last segment, after a slash"),
        ("uri spiffe://* anna", "must name its host or trust domain"),
        ("uri spiffe:/* anna", "must name its host or trust domain"),
        ("uri a/b anna", "must begin with a scheme"),
        ("dns a.example anna\ndns A.example bert", "line 2: matches the same names as line 1"),
        ("# nothing", "has no rule"),
        ("dns a.example sa:shop:x:y", "the user's name must be a user name, or that of a service account"),
        (f"dns a.example {'a' * 201}", "the user's name must begin with a letter or digit"),
    ],
)
def test_an_invalid_rule_is_refused_with_its_line_number(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(SettingsError) as error:
        users.load(tmp_path / "users")
    assert words in str(error.value)
    assert str(error.value).startswith("PILOTHOUSE_TLS_CLIENT_USERS_FILE: ")


def test_files_without_usable_certificates_or_lists_are_refused(tmp_path: Path) -> None:
    one, two = made("one", authority=True), made("two", authority=True)
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_bytes(one.key_pem + one.pem + one.pem + two.pem)
    found = authorities.load_authorities(ca)
    assert found.certificates == (one.certificate, two.certificate)
    # gRPC receives no private key that an operator left in the file.
    assert b"PRIVATE KEY" not in found.pem

    def written(*lists: x509.CertificateRevocationList) -> None:
        crl.write_bytes(b"a line before\n" + b"".join(each.public_bytes(Encoding.PEM) for each in lists))

    gone = made("gone", by=one)
    written(revoked_list(two), revoked_list(one, gone), revoked_list(one, days=(-2, 3)))
    lists = authorities.load_revocations(crl, found)
    # Of two CRLs of one authority, the newer one applies.
    assert lists.lists[one.certificate].serials == {gone.certificate.serial_number}
    assert not lists.lists[two.certificate].serials
    assert lists.not_after < datetime.now(UTC) + timedelta(days=2)
    for content, words in (
        ([revoked_list(one)], "has no list of CN=pilothouse test two"),
        ([revoked_list(one), revoked_list(made("two", authority=True))], "is not signed by an authority"),
        ([revoked_list(two), _extended(one, x509.DeltaCRLIndicator(1))], "has only changes"),
        (
            [revoked_list(two), _extended(one, _UNKNOWN)],
            "has the critical extension 1.2.3.4, which this server does not support",
        ),
    ):
        written(*content)
        with pytest.raises(SettingsError, match=words):
            authorities.load_revocations(crl, found)
    for text in (b"", b"something else", b"-----BEGIN X509 CRL-----\nx\n-----END X509 CRL-----\n"):
        crl.write_bytes(text)
        with pytest.raises(SettingsError, match="must contain revocation lists"):
            authorities.load_revocations(crl, found)
        ca.write_bytes(text)
        with pytest.raises(
            SettingsError, match=r"TLS_CLIENT_CA_FILE: .* must contain certificates in PEM form"
        ):
            authorities.load_authorities(ca)


_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def _extended(authority: Made, extension: x509.ExtensionType) -> x509.CertificateRevocationList:
    now = datetime.now(UTC)
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(days=1))
        .add_extension(extension, critical=True)
        .sign(authority.key, hashes.SHA256())
    )


def test_client_certificate_settings_require_each_other(tmp_path: Path) -> None:
    given = {
        "PILOTHOUSE_TLS_CLIENT_LISTEN": "127.0.0.1:1",
        "PILOTHOUSE_TLS_CLIENT_USERS_FILE": "users",
        "PILOTHOUSE_TLS_CLIENT_CRL_FILE": "crl",
    }
    for name, value in given.items():
        with pytest.raises(SettingsError, match=f"{name} needs PILOTHOUSE_TLS_CLIENT_CA_FILE"):
            load({name: value})
    with pytest.raises(SettingsError, match="PILOTHOUSE_TLS_CLIENT_CA_FILE needs TLS"):
        load({"PILOTHOUSE_TLS_CLIENT_CA_FILE": "ca"})
    every = {
        **given,
        "PILOTHOUSE_TLS_CLIENT_CA_FILE": "ca",
        "PILOTHOUSE_TLS_CERTIFICATE_FILE": "c",
        "PILOTHOUSE_TLS_KEY_FILE": "k",
    }
    assert isinstance(load(every), Settings)
    with pytest.raises(SettingsError, match="PILOTHOUSE_TLS_CLIENT_LISTEN: 'x' is not HOST:PORT"):
        load({**every, "PILOTHOUSE_TLS_CLIENT_LISTEN": "x"})
