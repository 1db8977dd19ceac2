"""The part of IdentityService that is about issuers: log-in by a browser."""

from __future__ import annotations

from pilothouse.identity.v1 import federation_pb2, identity_pb2
from pilothouse_server.identity import messages
from pilothouse_server.identity.model import LoginOrigin
from pilothouse_server.identity.operations.oidc_logins import Answered, OidcLogins
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import Actor


class FederationService:
    """Serves BeginOidcLogin and CompleteOidcLogin."""

    def __init__(self, logins: OidcLogins) -> None:
        self._logins = logins

    async def BeginOidcLogin(
        self, request: federation_pb2.BeginOidcLoginRequest, call: Call
    ) -> federation_pb2.BeginOidcLoginResponse:
        """Answers where a log-in goes on."""
        begun = await self._logins.begin(
            request.issuer, request.redirect_uri, _origin(call), request.max_age_seconds
        )
        call.describe(issuer=begun.issuer)
        return messages.BEGUN_LOGIN.to_proto(begun)

    async def CompleteOidcLogin(
        self, request: federation_pb2.CompleteOidcLoginRequest, call: Call
    ) -> identity_pb2.CompleteOidcLoginResponse:
        """Exchanges what the browser came back with for tokens."""

        def named(name: str) -> None:
            call.describe(resource_name=name)

        answered = Answered(request.login_token, request.state, request.code, request.iss)
        entered = await self._logins.complete(answered, _origin(call), named)
        call.act_as(Actor(entered.user.id, entered.user.username))
        call.describe(given_by_rules=list(entered.given))
        return messages.entered(entered.user, entered.issued)


def _origin(call: Call) -> LoginOrigin:
    return LoginOrigin(call.client_ip, address_group(call.client_ip), call.headers.user_agent)
