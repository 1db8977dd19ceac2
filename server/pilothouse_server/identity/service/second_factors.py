"""The calls of IdentityService about log-ins in two steps, recent proofs of identity, and second factors."""

from __future__ import annotations

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import reauthentication_pb2, second_factor_pb2
from pilothouse_server.identity.credentials.operations.factor_changes import FactorChanges
from pilothouse_server.identity.credentials.operations.login import Logins
from pilothouse_server.identity.credentials.operations.login_steps import Answer, LoginSteps
from pilothouse_server.identity.credentials.operations.reauthentication import (
    Proof,
    Reauthentication,
    check_recent_proof,
)
from pilothouse_server.identity.credentials.operations.second_factors import ShownCode
from pilothouse_server.identity.model import User
from pilothouse_server.identity.service import messages
from pilothouse_server.identity.service.messages import origin_of
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.store.unit_of_work import Actor


class FactorService:
    """Serves CompleteLogin, Reauthenticate, and the calls of users and administrators about second factors."""

    def __init__(
        self, logins: Logins, steps: LoginSteps, changes: FactorChanges, reauthentication: Reauthentication
    ) -> None:
        self._logins = logins
        self._steps = steps
        self._changes = changes
        self._reauthentication = reauthentication

    async def CompleteLogin(
        self, request: second_factor_pb2.CompleteLoginRequest, call: Call
    ) -> pb.CompleteLoginResponse:
        """Exchanges a challenge, with the codes or the new password that it requires, for tokens."""
        shown = ShownCode(request.code, request.recovery_code)
        answer = Answer(request.challenge, shown, request.new_password, request.device_token)

        def named(name: str) -> None:
            call.describe(resource_name=name)

        done = await self._steps.complete(answer, origin_of(call), named)
        call.act_as(Actor(done.user.id, done.user.username))
        call.describe(method=done.method, enrolled=bool(done.recovery_codes))
        return messages.completed_login(done)

    @waits_outside
    async def Reauthenticate(
        self, request: reauthentication_pb2.ReauthenticateRequest, call: Call
    ) -> reauthentication_pb2.ReauthenticateResponse:
        """Gives the caller's session a recent proof.

        No database connection is held while a password is verified.
        """
        call.describe(
            resource_name=str(call.caller.session_id or ""), proof=request.WhichOneof("proof") or ""
        )
        proof = Proof(request.password, ShownCode(request.code, request.recovery_code))
        await self._reauthentication.check(call.caller, proof, origin_of(call))
        expires_at = await self._reauthentication.prove(await call.system_transaction(), call.caller)
        answer = reauthentication_pb2.ReauthenticateResponse()
        answer.expire_time.FromDatetime(expires_at)
        return answer

    @waits_outside
    async def EnrolTotp(
        self, _request: second_factor_pb2.EnrolTotpRequest, call: Call
    ) -> second_factor_pb2.EnrolTotpResponse:
        """Makes a seed for the caller's authenticator."""
        call.describe(resource_id=call.user_id, resource_name=call.caller.username)
        transaction = await call.system_transaction()
        await check_recent_proof(transaction, call.caller)
        user, made = await self._changes.enrol(transaction, call.caller)
        _describe(call, user)
        return messages.ENROLLED.to_proto(made)

    @waits_outside
    async def ConfirmTotp(
        self, request: second_factor_pb2.ConfirmTotpRequest, call: Call
    ) -> second_factor_pb2.ConfirmTotpResponse:
        """Activates the caller's authenticator."""
        call.describe(resource_id=call.user_id, resource_name=call.caller.username)
        transaction = await call.system_transaction()
        await check_recent_proof(transaction, call.caller)
        user, codes = await self._changes.confirm(transaction, call.caller, request.code)
        _describe(call, user)
        return second_factor_pb2.ConfirmTotpResponse(recovery_codes=codes)

    @waits_outside
    async def DisableTotp(
        self, request: second_factor_pb2.DisableTotpRequest, call: Call
    ) -> second_factor_pb2.DisableTotpResponse:
        """Removes the caller's authenticator.

        No database connection is held while a password is verified.
        """
        call.describe(resource_id=call.user_id, resource_name=call.caller.username)
        async with call.store.system_read() as looking:
            await self._changes.check_disable(looking, call.caller)
        if request.password:
            await self._logins.confirm(call.caller.username, request.password, origin_of(call))
        else:
            shown = ShownCode(request.code, request.recovery_code)
            await self._changes.check_code(call.caller, shown, origin_of(call))
        _describe(call, await self._changes.disable(await call.system_transaction(), call.caller))
        return second_factor_pb2.DisableTotpResponse()

    @waits_outside
    async def ResetSecondFactor(
        self, request: second_factor_pb2.ResetSecondFactorRequest, call: Call
    ) -> second_factor_pb2.ResetSecondFactorResponse:
        """Removes another user's authenticator."""
        found = await self._changes.reset(await call.system_transaction(), call.caller, request.username)
        _describe(call, found)
        return second_factor_pb2.ResetSecondFactorResponse()


def _describe(call: Call, user: User) -> None:
    call.describe(resource_id=user.id, resource_uid=user.uid, resource_name=user.username)
