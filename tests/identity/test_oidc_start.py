"""A complete server with a file of issuers.

It starts while the issuers are away, and refuses a faulty file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_client import AsyncClient
from pilothouse_server.settings.model import SettingsError
from tests.conftest import Database
from tests.harness import running_server
from tests.identity.browser import browse
from tests.identity.issuer import Issuer, issuer
from tests.identity.trusting import CLIENT


def _file(folder: Path, company: Issuer, role: str) -> Path:
    path = folder / "issuers.yaml"
    path.write_text(
        f"issuers: [{{name: company, issuer: '{company.url}', insecure_http: true, client_id: {CLIENT}, rules: ["
        f"{{when: [{{claim: groups, contains: devs}}], role: {role}, namespaces: ['*']}}]}}]"
    )
    return path


async def test_users_log_in_at_a_server_that_started_without_their_issuer(
    database: Database, tmp_path: Path
) -> None:
    async with issuer() as company:
        company.register(CLIENT)
        company.arrive("ada", preferred_username="ada", groups=["devs"])
        path = _file(tmp_path, company, "developer")
        await company.go_away()
        networks = "127.0.0.0/8"
        async with running_server(
            database, tmp_path, with_cluster=False, oidc_issuers_file=path, outbound_networks=networks
        ) as server:
            await company.come_back()
            async with AsyncClient(server.address) as stranger:
                begun = await stranger.identity.begin_oidc_login(redirect_uri="http://127.0.0.1:1/callback")
                landing = await browse(begun.authorization_url)
                answer = await stranger.identity.complete_oidc_login(
                    login_token=begun.login_token, state=landing.state, code=landing.code, iss=landing.issuer
                )
            async with AsyncClient(server.address, token=answer.access_token) as ada:
                seen = await ada.identity.who_am_i()
                assert (seen.user.username, [grant.role for grant in seen.grants]) == ("ada", ["developer"])


async def test_a_server_does_not_start_with_a_rule_for_a_missing_role(
    database: Database, tmp_path: Path
) -> None:
    async with issuer() as company:
        path = _file(tmp_path, company, "developper")
        with pytest.raises(SettingsError) as refused:
            async with running_server(
                database,
                tmp_path,
                with_cluster=False,
                oidc_issuers_file=path,
                outbound_networks="127.0.0.0/8",
            ):
                pass
    assert str(refused.value).startswith("PILOTHOUSE_OIDC_ISSUERS_FILE.issuers[0].rules[0].role: ")
    assert "developper" in str(refused.value)
