"""The calls of IdentityService with a log-in or token of an issuer: request → operation → response."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pilothouse.identity.v1 import device_login_pb2, federation_pb2, token_exchange_pb2
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.credentials.operations.device_login import DeviceLogins
from pilothouse_server.identity.federation.oidc.verify import VerifiedToken
from pilothouse_server.identity.federation.operations.oidc_logins import Answered, OidcLogins
from pilothouse_server.identity.federation.operations.token_exchange import ExchangeSubject, TokenExchange
from pilothouse_server.identity.service import messages
from pilothouse_server.identity.service.messages import origin_of
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import Actor

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"


class FederationService:
    """Serves BeginOidcLogin and CompleteOidcLogin."""

    def __init__(self, logins: OidcLogins) -> None:
        self._logins = logins

    async def BeginOidcLogin(
        self, request: federation_pb2.BeginOidcLoginRequest, call: Call
    ) -> federation_pb2.BeginOidcLoginResponse:
        """Begins a log-in; returns the URL where the browser continues it."""
        begun = await self._logins.begin(
            request.issuer, request.redirect_uri, origin_of(call), request.max_age_seconds
        )
        call.describe(issuer=begun.issuer)
        return messages.BEGUN_LOGIN.to_proto(begun)

    async def CompleteOidcLogin(
        self, request: federation_pb2.CompleteOidcLoginRequest, call: Call
    ) -> pb.CompleteOidcLoginResponse:
        """Exchanges the issuer's response through the browser for tokens."""

        def named(name: str) -> None:
            call.describe(resource_name=name)

        answered = Answered(request.login_token, request.state, request.code, request.iss)
        entered = await self._logins.complete(answered, origin_of(call), named)
        call.act_as(Actor(entered.user.id, entered.user.username))
        call.describe(given_by_rules=list(entered.given))
        return messages.entered(entered.user, entered.issued)


class DeviceLoginService:
    """Serves BeginDeviceLogin and CompleteDeviceLogin."""

    def __init__(self, logins: DeviceLogins) -> None:
        self._logins = logins

    async def BeginDeviceLogin(
        self, request: device_login_pb2.BeginDeviceLoginRequest, call: Call
    ) -> device_login_pb2.BeginDeviceLoginResponse:
        """Requests a code from an issuer, which a person types elsewhere."""
        begun = await self._logins.begin(request.issuer, origin_of(call))
        call.describe(issuer=begun.issuer)
        answer = device_login_pb2.BeginDeviceLoginResponse(
            login_token=begun.login_token,
            user_code=begun.offer.user_code,
            verification_uri=begun.offer.verification_uri,
            verification_uri_complete=begun.offer.verification_uri_complete,
        )
        answer.expire_time.FromDatetime(begun.expires_at)
        answer.interval.FromTimedelta(timedelta(seconds=begun.offer.interval_seconds))
        return answer

    async def CompleteDeviceLogin(
        self, request: device_login_pb2.CompleteDeviceLoginRequest, call: Call
    ) -> pb.CompleteDeviceLoginResponse:
        """Begins a session once the person has agreed."""
        entered = await self._logins.complete(
            request.login_token, origin_of(call), lambda token: _note(call, token)
        )
        call.act_as(Actor(entered.user.id, entered.user.username))
        call.describe(resource_name=entered.user.username)
        return messages.device_login(entered.user, entered.issued)


class TokenExchangeService:
    """Serves ExchangeToken."""

    def __init__(self, exchange: TokenExchange) -> None:
        self._exchange = exchange

    async def ExchangeToken(
        self, request: token_exchange_pb2.ExchangeTokenRequest, call: Call
    ) -> pb.ExchangeTokenResponse:
        """Exchanges a token of a trusted issuer for a short session."""
        lifetime = request.lifetime.ToNanoseconds() / 1e9 if request.HasField("lifetime") else None
        subject = ExchangeSubject(
            request.subject_token, request.subject_token_type, request.username, lifetime
        )
        exchanged = await self._exchange.exchange(subject, origin_of(call), lambda token: _note(call, token))
        user = exchanged.user
        call.act_as(Actor(user.id, user.username))
        answer = pb.ExchangeTokenResponse(
            access_token=exchanged.issued.access_token, issued_token_type=ACCESS_TOKEN, token_type="Bearer"
        )
        answer.access_expire_time.FromDatetime(exchanged.issued.expires_at)
        messages.USER.fill(user, answer.user)
        return answer


def _note(call: Call, token: VerifiedToken) -> None:
    """Names the subject of an issuer's token in the audit record, also if the call then fails."""
    call.describe(resource_name=token.subject, issuer=token.issuer, subject=token.subject)
