"""The file of issuers: its permitted content, and the errors at start."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_server.identity.federation.oidc.issuers import load_issuers
from pilothouse_server.identity.federation.oidc.rules import Gives, given_by
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.settings.model import SettingsError
from pilothouse_server.values.names import username_problem

ENTRY = """
issuers:
  - name: company
    issuer: https://sso.example.com/realms/company
    client_id: pilothouse
"""
RULE = """
    rules:
      - when: [{claim: groups, contains: ops}]
        role: operator
        namespaces: ["*"]
"""


def _load(folder: Path, text: str) -> object:
    path = folder / "issuers.yaml"
    path.write_text(text)
    return load_issuers(path, Reach())


def test_a_complete_entry_is_read(tmp_path: Path) -> None:
    (tmp_path / "company.secret").write_text("s3cret\n")
    (tmp_path / "issuers.yaml").write_text(
        ENTRY
        + """
    display_name: The Company
    client_secret_file: company.secret
    client_authentication: post
    scopes: [openid, groups]
    algorithms: [ES256]
    clock_skew_seconds: 30
    redirect_uris: ["https://console.example.com/callback"]
    authorization_parameters: {prompt: consent}
    username_claim: email
    email_claim: [contact, mail]
    username_prefix: company.
    provision: nobody
    away_seconds: 0
    grants_days: 30
    rules:
      - when:
          - {claim: [realm_access, roles], contains: deployer}
          - {claim: email_verified, equals: true}
        role: developer
        namespaces: [shop, billing]
"""
    )
    (company,) = load_issuers(tmp_path / "issuers.yaml", Reach())
    assert company.client_secret == "s3cret"
    assert "s3cret" not in repr(company)
    assert company.username_claim == ("email",)
    assert company.email_claim == ("contact", "mail")
    assert company.rules[0].place == "PILOTHOUSE_OIDC_ISSUERS_FILE.issuers[0].rules[0]"
    claims = {"realm_access": {"roles": ["deployer"]}, "email_verified": True}
    assert given_by(company.rules, claims) == {Gives("developer", "shop"), Gives("developer", "billing")}
    assert not given_by(company.rules, claims | {"email_verified": 1})


def test_json_is_read_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "issuers.json").write_text(
        '{"issuers": [{"name": "company", "issuer": "https://sso.example.com", "client_id": "pilothouse"}]}'
    )
    (company,) = load_issuers(tmp_path / "issuers.json", Reach())
    assert company.name == "company"
    assert username_problem(company.name) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("issuers: []", "issuers: must be a list of 1 to"),
        ("- a", "must be a mapping"),
        ("issuers: [7]", "issuers[0]: must be a mapping"),
        ("issuers: &a [*a]", "anchors, aliases and tags"),
        ("issuers: !!python/object {}", "anchors, aliases and tags"),
        ("a: [[[[[[[[[[[[]]]]]]]]]]]]", "nested more than"),
        ("issuers: [", "is not valid YAML"),
        ("issuers: 1\nissuers: 2", "contains a key twice"),
        ("x" * 300_000, "more than 256 KB"),
        (ENTRY + "    audience: x", "issuers[0].audience: is not a known key"),
        (ENTRY.replace("company\n", "Company!\n"), "issuers[0].name: must be lower-case"),
        (ENTRY.replace("https://", "ftp://"), "issuers[0].issuer: must begin with https:// or http://"),
        (
            ENTRY.replace("https://", "http://"),
            "issuers[0].issuer: must begin with https://, unless insecure_http",
        ),
        (
            ENTRY.replace("sso.example.com", "169.254.169.254"),
            "issuers[0].issuer: is a local or reserved address",
        ),
        (ENTRY.replace("sso.", "user:secret@sso."), "issuers[0].issuer: must have no user or password"),
        (ENTRY + "    scopes: [profile]", "issuers[0].scopes: must contain openid"),
        (ENTRY + "    scopes: openid", "issuers[0].scopes: must be a list"),
        (ENTRY + "    algorithms: [none]", "issuers[0].algorithms: none is not a public-key algorithm"),
        (
            ENTRY + "    algorithms: [HS256]",
            "issuers[0].algorithms: HS256 is not a public-key algorithm",
        ),
        (
            ENTRY + "    clock_skew_seconds: 301",
            "issuers[0].clock_skew_seconds: must be a whole number from 0 to 300",
        ),
        (ENTRY + "    clock_skew_seconds: true", "issuers[0].clock_skew_seconds: must be a whole number"),
        (ENTRY + "    provision: yes", "issuers[0].provision: must be everybody, by-rule or nobody"),
        (
            ENTRY + "    redirect_uris: ['http://a.example']",
            "issuers[0].redirect_uris: http://a.example must begin",
        ),
        (
            ENTRY + "    authorization_parameters: {state: x}",
            "issuers[0].authorization_parameters: state is set",
        ),
        (ENTRY + "    client_secret_file: absent", "issuers[0].client_secret_file: "),
        (ENTRY + "    certificate_authority_file: issuers.yaml", "must contain certificates in PEM form"),
        (ENTRY + "    username_prefix: /", "issuers[0].username_prefix: must begin with a letter"),
        (ENTRY + ENTRY.split("\n", 2)[2], "issuers[1].name: company is already used by another entry"),
        (ENTRY + RULE.replace("role: operator", ""), "issuers[0].rules[0].role: must be a text"),
        (ENTRY + RULE.replace('namespaces: ["*"]', ""), "issuers[0].rules[0].namespaces: must be a list"),
        (ENTRY + RULE.replace('["*"]', '["*", shop]'), 'issuers[0].rules[0].namespaces: must be "*" alone'),
        (
            ENTRY + RULE.replace("[{claim: groups, contains: ops}]", "[]"),
            "rules[0].when: must be a list of 1",
        ),
        (
            ENTRY + RULE.replace("contains: ops", "matches: ops"),
            "rules[0].when[0].equals: exactly one of this key, prefix and contains",
        ),
        (
            ENTRY + RULE.replace("contains: ops", "contains: ops, equals: ops"),
            "when[0].equals: exactly one of",
        ),
        (ENTRY + RULE.replace("contains: ops", "prefix: ''"), "rules[0].when[0].prefix: must be a text of 1"),
        (ENTRY + RULE.replace("claim: groups, ", ""), "rules[0].when[0].claim: must be a list"),
    ],
)
def test_an_error_names_the_setting_entry_and_rule(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _load(tmp_path, text)
    assert str(refused.value).startswith("PILOTHOUSE_OIDC_ISSUERS_FILE")
    assert words in str(refused.value)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize(
    ("condition", "fitting", "unfit"),
    [
        ("claim: sub, equals: ada", ["ada"], ["Ada", "ada ", ["ada"], None, {}]),
        ("claim: sub, equals: 7", [7], ["7", 7.0, True]),
        ("claim: sub, equals: true", [True], ["true", 1]),
        ("claim: sub, prefix: 'team-'", ["team-a", ["x", "team-b"]], ["a-team-", ["x"], 7, {"team-": 1}]),
        ("claim: sub, contains: ops", [["dev", "ops"]], ["ops", ["opsx"], [["ops"]], {"ops": 1}]),
    ],
)
def test_a_condition_matches_only_the_values_it_describes(
    tmp_path: Path, condition: str, fitting: list[object], unfit: list[object]
) -> None:
    (tmp_path / "issuers.yaml").write_text(ENTRY + RULE.replace("claim: groups, contains: ops", condition))
    (company,) = load_issuers(tmp_path / "issuers.yaml", Reach())
    for value in fitting:
        assert given_by(company.rules, {"sub": value}) == {Gives("operator", "")}, value
    for value in [*unfit, *([] if None in unfit else [None])]:
        assert not given_by(company.rules, {"sub": value}), value
    assert not given_by(company.rules, {})
