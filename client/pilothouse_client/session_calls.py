"""The calls that begin, renew and end a session.

A client imports this module when it makes the first of these calls. Most processes start with a token that lasts, and
the messages of `identity` take as long to load as those of the noun that the process uses.
"""

from __future__ import annotations

from pilothouse.identity.v1 import (
    device_login_pb2,
    federation_pb2,
    identity_pb2,
    second_factor_pb2,
    token_exchange_pb2,
)
from pilothouse_client.methods import method_of

LOGIN = method_of(identity_pb2.LoginRequest, identity_pb2.LoginResponse)
COMPLETE = method_of(second_factor_pb2.CompleteLoginRequest, identity_pb2.CompleteLoginResponse)
COMPLETE_CODE = method_of(federation_pb2.CompleteOidcLoginRequest, identity_pb2.CompleteOidcLoginResponse)
BEGIN_DEVICE = method_of(device_login_pb2.BeginDeviceLoginRequest, device_login_pb2.BeginDeviceLoginResponse)
COMPLETE_DEVICE = method_of(
    device_login_pb2.CompleteDeviceLoginRequest, identity_pb2.CompleteDeviceLoginResponse
)
EXCHANGE = method_of(token_exchange_pb2.ExchangeTokenRequest, identity_pb2.ExchangeTokenResponse)
REFRESH = method_of(identity_pb2.RefreshSessionRequest, identity_pb2.RefreshSessionResponse)
LOGOUT = method_of(identity_pb2.LogoutRequest, identity_pb2.LogoutResponse)
