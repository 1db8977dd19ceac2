"""Users, roles, grants, sessions; `pilothouse.identity.v1.IdentityService` documents each call and its errors.

`Client.login`, `Client.complete_login` and `Client.logout` also keep and drop the client's own tokens; the RPCs here
do not.
"""

from __future__ import annotations

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import (
    device_login_pb2,
    federation_pb2,
    permissions_pb2,
    reauthentication_pb2,
    token_exchange_pb2,
)
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse_client.rpc import NounClient, Pages, Unary, nothing, whole
from pilothouse_client.transport import TransportT


class Identity(NounClient[TransportT]):
    """`client.identity`."""

    login = Unary(pb.LoginRequest, pb.LoginResponse, whole)
    complete_login = Unary(factor_pb.CompleteLoginRequest, pb.CompleteLoginResponse, whole)
    refresh_session = Unary(pb.RefreshSessionRequest, pb.RefreshSessionResponse, whole)
    exchange_token = Unary(token_exchange_pb2.ExchangeTokenRequest, pb.ExchangeTokenResponse, whole)
    begin_oidc_login = Unary(
        federation_pb2.BeginOidcLoginRequest, federation_pb2.BeginOidcLoginResponse, whole
    )
    begin_device_login = Unary(
        device_login_pb2.BeginDeviceLoginRequest, device_login_pb2.BeginDeviceLoginResponse, whole
    )
    complete_device_login = Unary(
        device_login_pb2.CompleteDeviceLoginRequest, pb.CompleteDeviceLoginResponse, whole
    )
    complete_oidc_login = Unary(federation_pb2.CompleteOidcLoginRequest, pb.CompleteOidcLoginResponse, whole)
    logout = Unary(pb.LogoutRequest, pb.LogoutResponse, nothing)
    who_am_i = Unary(pb.WhoAmIRequest, pb.WhoAmIResponse, whole)
    reauthenticate = Unary(
        reauthentication_pb2.ReauthenticateRequest, reauthentication_pb2.ReauthenticateResponse, whole
    )
    change_password = Unary(pb.ChangePasswordRequest, pb.ChangePasswordResponse, whole)
    enrol_totp = Unary(factor_pb.EnrolTotpRequest, factor_pb.EnrolTotpResponse, whole)
    confirm_totp = Unary(
        factor_pb.ConfirmTotpRequest, factor_pb.ConfirmTotpResponse, lambda answer: answer.recovery_codes
    )
    disable_totp = Unary(factor_pb.DisableTotpRequest, factor_pb.DisableTotpResponse, nothing)
    reset_second_factor = Unary(
        factor_pb.ResetSecondFactorRequest, factor_pb.ResetSecondFactorResponse, nothing
    )
    create_user = Unary(pb.CreateUserRequest, pb.CreateUserResponse, lambda answer: answer.user)
    get_user = Unary(pb.GetUserRequest, pb.GetUserResponse, lambda answer: answer.user)
    list_users = Pages(pb.ListUsersRequest, pb.ListUsersResponse, lambda answer: answer.users)
    update_user = Unary(pb.UpdateUserRequest, pb.UpdateUserResponse, lambda answer: answer.user)
    delete_user = Unary(pb.DeleteUserRequest, pb.DeleteUserResponse, nothing)
    reset_password = Unary(pb.ResetPasswordRequest, pb.ResetPasswordResponse, whole)
    create_role = Unary(pb.CreateRoleRequest, pb.CreateRoleResponse, lambda answer: answer.role)
    get_role = Unary(pb.GetRoleRequest, pb.GetRoleResponse, lambda answer: answer.role)
    list_roles = Pages(pb.ListRolesRequest, pb.ListRolesResponse, lambda answer: answer.roles)
    update_role = Unary(pb.UpdateRoleRequest, pb.UpdateRoleResponse, lambda answer: answer.role)
    delete_role = Unary(pb.DeleteRoleRequest, pb.DeleteRoleResponse, nothing)
    grant_role = Unary(pb.GrantRoleRequest, pb.GrantRoleResponse, lambda answer: answer.grant)
    revoke_role = Unary(pb.RevokeRoleRequest, pb.RevokeRoleResponse, nothing)
    list_role_grants = Pages(
        pb.ListRoleGrantsRequest, pb.ListRoleGrantsResponse, lambda answer: answer.role_grants
    )
    list_sessions = Pages(pb.ListSessionsRequest, pb.ListSessionsResponse, lambda answer: answer.sessions)
    revoke_session = Unary(pb.RevokeSessionRequest, pb.RevokeSessionResponse, nothing)
    check_permission = Unary(
        pb.CheckPermissionRequest, pb.CheckPermissionResponse, lambda answer: answer.allowed
    )
    create_api_key = Unary(keys_pb.CreateApiKeyRequest, keys_pb.CreateApiKeyResponse, whole)
    list_api_keys = Pages(
        keys_pb.ListApiKeysRequest, keys_pb.ListApiKeysResponse, lambda answer: answer.api_keys
    )
    rotate_api_key = Unary(keys_pb.RotateApiKeyRequest, keys_pb.RotateApiKeyResponse, whole)
    revoke_api_key = Unary(keys_pb.RevokeApiKeyRequest, keys_pb.RevokeApiKeyResponse, nothing)
    create_service_account = Unary(
        keys_pb.CreateServiceAccountRequest,
        keys_pb.CreateServiceAccountResponse,
        lambda answer: answer.service_account,
    )
    list_service_accounts = Pages(
        keys_pb.ListServiceAccountsRequest,
        keys_pb.ListServiceAccountsResponse,
        lambda answer: answer.service_accounts,
    )
    delete_service_account = Unary(
        keys_pb.DeleteServiceAccountRequest, keys_pb.DeleteServiceAccountResponse, nothing
    )
    explain_permission = Unary(
        permissions_pb2.ExplainPermissionRequest, permissions_pb2.ExplainPermissionResponse, whole
    )
    explain_permissions = Unary(
        permissions_pb2.ExplainPermissionsRequest,
        permissions_pb2.ExplainPermissionsResponse,
        lambda answer: answer.explanations,
    )
    list_principals = Pages(
        permissions_pb2.ListPrincipalsRequest,
        permissions_pb2.ListPrincipalsResponse,
        lambda answer: answer.principals,
    )
    simulate_grant = Unary(permissions_pb2.SimulateGrantRequest, permissions_pb2.SimulateGrantResponse, whole)
