"""IdentityService, logging in where there is no browser: request → operation → response."""

from __future__ import annotations

from datetime import timedelta

from pilothouse.identity.v1 import device_login_pb2 as device_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity import messages
from pilothouse_server.identity.operations.device_login import DeviceLogins
from pilothouse_server.identity.origins import origin_of
from pilothouse_server.identity.token_exchange_service import note
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import Actor


class DeviceLoginService:
    """Serves BeginDeviceLogin and CompleteDeviceLogin."""

    def __init__(self, logins: DeviceLogins) -> None:
        self._logins = logins

    async def BeginDeviceLogin(
        self, request: device_pb.BeginDeviceLoginRequest, call: Call
    ) -> device_pb.BeginDeviceLoginResponse:
        """Asks an issuer for a code that a person types elsewhere."""
        begun = await self._logins.begin(request.issuer, origin_of(call))
        call.describe(issuer=begun.issuer)
        answer = device_pb.BeginDeviceLoginResponse(
            login_token=begun.login_token,
            user_code=begun.offer.user_code,
            verification_uri=begun.offer.verification_uri,
            verification_uri_complete=begun.offer.verification_uri_complete,
        )
        answer.expire_time.FromDatetime(begun.expires_at)
        answer.interval.FromTimedelta(timedelta(seconds=begun.offer.interval_seconds))
        return answer

    async def CompleteDeviceLogin(
        self, request: device_pb.CompleteDeviceLoginRequest, call: Call
    ) -> pb.CompleteDeviceLoginResponse:
        """Begins a session once the person has agreed."""
        entered = await self._logins.complete(
            request.login_token, origin_of(call), lambda token: note(call, token)
        )
        call.act_as(Actor(entered.user.id, entered.user.username))
        call.describe(resource_name=entered.user.username)
        return messages.device_login(entered.user, entered.issued)
