"""A server accepts the examples of docs/identity.md.

The page's table lists every key.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilothouse_server.identity.federation.oidc.issuers import load_issuers
from pilothouse_server.identity.federation.oidc.rules import Gives, given_by
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.settings.model import SettingsError

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()
EXAMPLES = [each for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if each.startswith("issuers:")]


def _load(folder: Path, text: str) -> dict[str, object]:
    for name in re.findall(r"client_secret_file: (\S+)", text):
        (folder / name).write_text("a secret\n")
    # The page contains only the name of an authority's file.
    text = re.sub(r" *certificate_authority_file: .*\n", "", text)
    (folder / "issuers.yaml").write_text(text)
    return {issuer.name: issuer for issuer in load_issuers(folder / "issuers.yaml", Reach())}


def test_every_example_is_accepted(tmp_path: Path) -> None:
    names = {name for example in EXAMPLES for name in _load(tmp_path, example)}
    assert names >= {"company", "keycloak", "entra", "google", "dex"}


@pytest.mark.parametrize(
    ("name", "claims", "given"),
    [
        ("company", {"groups": ["platform-admins"]}, {("admin", "")}),
        (
            "company",
            {"groups": ["team-a"], "email_verified": True},
            {("developer", "shop"), ("developer", "billing")},
        ),
        ("company", {"groups": ["team-a"], "email_verified": False}, set()),
        ("keycloak", {"groups": ["shop-developers"]}, {("developer", "shop")}),
        ("keycloak", {"groups": ["/shop-developers"]}, set()),
        ("entra", {"roles": ["Shop.Developer"]}, {("developer", "shop")}),
        # The token of a user in too many groups, in Entra's form.
        (
            "entra",
            {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}},
            set(),
        ),
        ("google", {"hd": "example.com", "email_verified": True}, {("viewer", "shop")}),
        ("google", {"email": "eve@gmail.com", "email_verified": True}, set()),
        ("dex", {"groups": ["example:platform"]}, {("operator", "")}),
    ],
)
def test_the_examples_grant_the_documented_roles(
    tmp_path: Path, name: str, claims: dict[str, object], given: set[tuple[str, str]]
) -> None:
    (example,) = (each for each in EXAMPLES if f"name: {name}\n" in each)
    (tmp_path / "a").mkdir()
    entry = _load(tmp_path / "a", example)[name]
    assert given_by(entry.rules, claims) == {Gives(*each) for each in given}  # type: ignore[attr-defined]


def test_the_table_lists_every_key(tmp_path: Path) -> None:
    text = "issuers: [{name: x, issuer: 'https://x.example.com', nothing_of_this_name: 1}]"
    with pytest.raises(SettingsError) as refused:
        _load(tmp_path, text)
    known = set(str(refused.value).partition("the known keys are ")[2].split(", "))
    table = PAGE.partition("| key | meaning | default |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == known
