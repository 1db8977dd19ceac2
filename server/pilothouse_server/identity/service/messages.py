"""Conversions between values and protobuf messages for users, roles, grants, sessions and API keys."""

from __future__ import annotations

from uuid import UUID

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import certificates_pb2, federation_pb2, second_factor_pb2
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.authorization.access import Credential
from pilothouse_server.identity.accounts.operations.users import PasswordReset
from pilothouse_server.identity.credentials.operations.challenges import Challenged
from pilothouse_server.identity.credentials.operations.login import BegunSession
from pilothouse_server.identity.credentials.operations.login_steps import Completed
from pilothouse_server.identity.model import (
    ApiKey,
    BegunLogin,
    Enrolment,
    IssuedTokens,
    LoginOrigin,
    Role,
    RoleGrant,
    ServiceAccount,
    Session,
    User,
)
from pilothouse_server.rpc import headers
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences

SERVICE = pb.DESCRIPTOR.services_by_name["IdentityService"]


def certificate(shown: Credential) -> certificates_pb2.ShownCertificate | None:
    """Returns the certificate that a caller used; None if the caller used another credential."""
    if shown.kind != "certificate":
        return None
    return certificates_pb2.ShownCertificate(name=shown.name, fingerprint=shown.id)


def _session_id(value: Session) -> str:
    return str(value.id)


USER: Converter[User, pb.User] = Converter(User, pb.User, Differences(struct_only=("id",)))
ROLE: Converter[Role, pb.Role] = Converter(Role, pb.Role, Differences(struct_only=("id",)))
ROLE_GRANT = AnswerConverter(
    RoleGrant,
    pb.RoleGrant,
    Differences(names={"create_time": "assigned_at"}, struct_only=("id", "user_id", "namespace_id")),
)
_SESSION = AnswerConverter(
    Session,
    pb.Session,
    Differences(
        names={"expire_time": "refresh_expires_at"},
        computed={"session_id": _session_id},
        struct_only=("id", "user_id"),
        message_only=("current",),
    ),
)
_LOGIN = AnswerConverter(
    IssuedTokens,
    pb.LoginResponse,
    Differences(
        message_only=(
            "user",
            "device_token",
            "challenge",
            "challenge_expire_time",
            "steps",
            "enrolment",
        )
    ),
)
_COMPLETED = AnswerConverter(
    IssuedTokens,
    pb.CompleteLoginResponse,
    Differences(message_only=("user", "device_token", "recovery_codes", "recovery_codes_left")),
)
_ENTERED = AnswerConverter(IssuedTokens, pb.CompleteOidcLoginResponse, Differences(message_only=("user",)))
_OF_A_DEVICE = AnswerConverter(
    IssuedTokens, pb.CompleteDeviceLoginResponse, Differences(message_only=("user",))
)
BEGUN_LOGIN = AnswerConverter(
    BegunLogin, federation_pb2.BeginOidcLoginResponse, Differences(names={"expire_time": "expires_at"})
)
_ENROLMENT = AnswerConverter(Enrolment, second_factor_pb2.TotpEnrolment)
ENROLLED = AnswerConverter(Enrolment, second_factor_pb2.EnrolTotpResponse)
_STEPS = {
    "code": second_factor_pb2.LOGIN_STEP_CODE,
    "enrolment": second_factor_pb2.LOGIN_STEP_ENROLMENT,
    "new_password": second_factor_pb2.LOGIN_STEP_NEW_PASSWORD,
}
REFRESHED = AnswerConverter(IssuedTokens, pb.RefreshSessionResponse)


def login(begun: BegunSession) -> pb.LoginResponse:
    """Returns the response to a complete log-in."""
    message = _LOGIN.to_proto(begun.issued)
    message.device_token = begun.device_token
    USER.fill(begun.user, message.user)
    return message


def challenged(value: Challenged) -> pb.LoginResponse:
    """Returns the response to a log-in that needs further steps."""
    steps = [number for name, number in _STEPS.items() if getattr(value.steps, name)]
    message = pb.LoginResponse(challenge=value.challenge, steps=steps)
    message.challenge_expire_time.FromDatetime(value.expires_at)
    if value.enrolment is not None:
        _ENROLMENT.fill(value.enrolment, message.enrolment)
    return message


def completed_login(value: Completed) -> pb.CompleteLoginResponse:
    """Returns the response to the second half of a log-in."""
    message = _COMPLETED.to_proto(value.issued)
    message.device_token = value.device_token
    message.recovery_codes.extend(value.recovery_codes)
    message.recovery_codes_left = value.recovery_codes_left
    USER.fill(value.user, message.user)
    return message


def reset_password(one_time_code: str, reset: PasswordReset) -> pb.ResetPasswordResponse:
    """Returns the response to a reset, with the one-time code and its expiry if there is one."""
    message = pb.ResetPasswordResponse(one_time_code=one_time_code, valid_api_keys=reset.valid_keys)
    if reset.expires_at is not None:
        message.expire_time.FromDatetime(reset.expires_at)
    return message


def entered(user: User, issued: IssuedTokens) -> pb.CompleteOidcLoginResponse:
    """Returns the response to a log-in at an issuer."""
    message = _ENTERED.to_proto(issued)
    USER.fill(user, message.user)
    return message


def device_login(user: User, issued: IssuedTokens) -> pb.CompleteDeviceLoginResponse:
    """Returns the response to a log-in on a device."""
    message = _OF_A_DEVICE.to_proto(issued)
    USER.fill(user, message.user)
    return message


def session(value: Session, current: UUID | None) -> pb.Session:
    """Returns a session as protobuf; `current` is the id of the session that the call uses."""
    message = _SESSION.to_proto(value)
    message.current = value.id == current
    return message


def _hidden_namespaces(value: ApiKey) -> int:
    return 0 if value.namespace_ids is None else len(value.namespace_ids) - len(value.namespaces)


API_KEY = AnswerConverter(
    ApiKey,
    keys_pb.ApiKey,
    Differences(
        names={
            "api_key_id": "uid",
            "expire_time": "expires_at",
            "last_use_time": "last_used_at",
            "last_use_address": "last_used_ip",
            "rotate_time": "rotated_at",
        },
        computed={"hidden_namespaces": _hidden_namespaces},
        struct_only=(
            "id",
            "user_id",
            "namespace_ids",
            "of_account",
            "account_namespace",
            "account_namespace_id",
            "kept_to",
        ),
    ),
)
SERVICE_ACCOUNT = AnswerConverter(
    ServiceAccount, keys_pb.ServiceAccount, Differences(struct_only=("id", "namespace_id"))
)


def origin_of(call: Call) -> LoginOrigin:
    """Returns the origin of a call: its address with the network, the client program, and whether it is the console."""
    return LoginOrigin(
        call.client_ip,
        address_group(call.client_ip),
        call.headers.user_agent,
        headers.CONSOLE in call.headers.texts,
    )
