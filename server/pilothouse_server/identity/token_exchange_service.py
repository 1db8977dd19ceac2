"""IdentityService, a program that shows a token of its platform: request → operation → response."""

from __future__ import annotations

from typing import Final

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import token_exchange_pb2 as exchange_pb
from pilothouse_server.identity import messages
from pilothouse_server.identity.oidc.verify import VerifiedToken
from pilothouse_server.identity.operations.token_exchange import Subject, TokenExchange
from pilothouse_server.identity.origins import origin_of
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import Actor

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"


class TokenExchangeService:
    """Serves ExchangeToken."""

    def __init__(self, exchange: TokenExchange) -> None:
        self._exchange = exchange

    async def ExchangeToken(
        self, request: exchange_pb.ExchangeTokenRequest, call: Call
    ) -> pb.ExchangeTokenResponse:
        """Exchanges a token of a trusted issuer for a short session."""
        lifetime = request.lifetime.ToNanoseconds() / 1e9 if request.HasField("lifetime") else None
        subject = Subject(request.subject_token, request.subject_token_type, request.username, lifetime)
        exchanged = await self._exchange.exchange(subject, origin_of(call), lambda token: note(call, token))
        user = exchanged.user
        call.act_as(Actor(user.id, user.username))
        answer = pb.ExchangeTokenResponse(
            access_token=exchanged.issued.access_token, issued_token_type=ACCESS_TOKEN, token_type="Bearer"
        )
        answer.access_expire_time.FromDatetime(exchanged.issued.expires_at)
        messages.USER.fill(user, answer.user)
        return answer


def note(call: Call, token: VerifiedToken) -> None:
    """Has the record say of whom an issuer's token is, whatever comes of the call."""
    call.describe(resource_name=token.subject, issuer=token.issuer, subject=token.subject)
