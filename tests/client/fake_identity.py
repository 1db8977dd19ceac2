"""The identity service of the fake server: sessions behave as in the product, and a refresh token works once."""

from __future__ import annotations

import time
import uuid
from typing import Any

import grpc

from pilothouse.identity.v1 import api_keys_pb2 as keys
from pilothouse.identity.v1 import identity_pb2 as identity
from pilothouse.identity.v1 import permissions_pb2 as permissions
from pilothouse.identity.v1 import reauthentication_pb2 as reauthentication
from tests.client.fake_services import Service, timestamp

_KEY = keys.ApiKey(api_key_id=str(uuid.UUID(int=7)), name="ci", prefix="phk_abcdef", username="ann")


class Identity(Service):
    tables = frozenset({"user", "role"})

    async def Login(self, request: Any, context: Any) -> Any:
        if self.fake.passwords.get(request.username) != request.password:
            await self.fake.abort(
                context, grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS", "wrong user name or password"
            )
        device_token = f"phd_{request.username}_{uuid.uuid4().hex}"
        answer = identity.LoginResponse(
            user=identity.User(username=request.username), device_token=device_token
        )
        return self._tokens(answer, request.username)

    async def RefreshSession(self, request: Any, context: Any) -> Any:
        token = request.refresh_token
        user = self.fake.refresh_tokens.pop(token, None)
        if user is None:
            if token in self.fake.used_refresh_tokens:
                self.fake.access_tokens.clear()
                self.fake.refresh_tokens.clear()
            await self.fake.abort(
                context, grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_REPLAYED", "the session has ended"
            )
        assert user is not None
        self.fake.used_refresh_tokens.add(token)
        self.fake.access_tokens = {
            access: value for access, value in self.fake.access_tokens.items() if value[0] != user
        }
        return self._tokens(identity.RefreshSessionResponse(), user)

    def _tokens(self, answer: Any, user: str) -> Any:
        answer.access_token, answer.refresh_token = (
            self.fake.new_token("access"),
            self.fake.new_token("refresh"),
        )
        expire = time.time() + self.fake.access_seconds
        answer.access_expire_time.CopyFrom(timestamp(expire))
        answer.refresh_expire_time.CopyFrom(timestamp(expire + 86400))
        self.fake.access_tokens[answer.access_token] = (user, expire)
        self.fake.refresh_tokens[answer.refresh_token] = user
        return answer

    async def Logout(self, request: Any, context: Any) -> Any:
        self.fake.access_tokens.pop(self.fake.token_of(context), None)
        return identity.LogoutResponse()

    async def WhoAmI(self, request: Any, context: Any) -> Any:
        user = identity.User(username=self.fake.caller(context), email="admin@example.com")
        grant = identity.RoleGrant(username=user.username, role="admin")
        return identity.WhoAmIResponse(user=user, grants=[grant], permissions=["*"])

    async def Reauthenticate(self, request: Any, context: Any) -> Any:
        if request.password != self.fake.passwords[self.fake.caller(context)]:
            await self.fake.abort(
                context, grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD", "the current password is wrong"
            )
        return reauthentication.ReauthenticateResponse()

    async def ChangePassword(self, request: Any, context: Any) -> Any:
        user = self.fake.caller(context)
        if self.fake.passwords[user] != request.current_password:
            await self.fake.abort(
                context, grpc.StatusCode.PERMISSION_DENIED, "WRONG_PASSWORD", "the current password is wrong"
            )
        self.fake.passwords[user] = request.new_password
        return identity.ChangePasswordResponse()

    async def CreateUser(self, request: Any, context: Any) -> Any:
        self.fake.passwords[request.user.username] = request.password
        await self.fake.commit("user", request.user.username, request.user)
        return identity.CreateUserResponse(user=request.user)

    async def ResetPassword(self, request: Any, context: Any) -> Any:
        self.fake.passwords[request.username] = request.new_password
        return identity.ResetPasswordResponse()

    async def GrantRole(self, request: Any, context: Any) -> Any:
        grant = identity.RoleGrant(username=request.username, role=request.role, namespace=request.namespace)
        if request.HasField("expire_time"):
            grant.expire_time.CopyFrom(request.expire_time)
        await self.fake.commit("grant", (request.username, request.role, request.namespace), grant)
        return identity.GrantRoleResponse(grant=grant)

    async def RevokeRole(self, request: Any, context: Any) -> Any:
        key = (request.username, request.role, request.namespace)
        await self.row(context, "grant", key)
        await self.fake.commit("grant", key, None)
        return identity.RevokeRoleResponse()

    async def ListRoleGrants(self, request: Any, context: Any) -> Any:
        grants = self.fake.tables["grant"].values()
        return self.page(request, grants, identity.ListRoleGrantsResponse(), "role_grants")

    async def ListSessions(self, request: Any, context: Any) -> Any:
        session = identity.Session(session_id=str(uuid.UUID(int=1)), client_ip="127.0.0.1", current=True)
        return self.page(request, [session], identity.ListSessionsResponse(), "sessions")

    async def CheckPermission(self, request: Any, context: Any) -> Any:
        return identity.CheckPermissionResponse(allowed=not request.permission.endswith(".delete"))

    async def CreateApiKey(self, request: Any, context: Any) -> Any:
        return keys.CreateApiKeyResponse(api_key=_KEY, key=f"phk_{request.name}")

    async def ListApiKeys(self, request: Any, context: Any) -> Any:
        return self.page(request, [_KEY], keys.ListApiKeysResponse(), "api_keys")

    async def RotateApiKey(self, request: Any, context: Any) -> Any:
        return keys.RotateApiKeyResponse(api_key=_KEY, key="phk_new")

    async def CreateServiceAccount(self, request: Any, context: Any) -> Any:
        return keys.CreateServiceAccountResponse(service_account=request.service_account)

    async def ListServiceAccounts(self, request: Any, context: Any) -> Any:
        accounts = [keys.ServiceAccount(name="ci", namespace="shop", username="sa:shop:ci")]
        return self.page(request, accounts, keys.ListServiceAccountsResponse(), "service_accounts")

    async def ExplainPermission(self, request: Any, context: Any) -> Any:
        asked = request.permission or request.method.rpartition(".")[2]
        if asked.startswith(("Delete", "container.delete")):
            return permissions.ExplainPermissionResponse(
                permission=asked,
                denial=permissions.DENIAL_ELSEWHERE,
                summary=f"{asked} is not allowed in {request.namespace or 'all'}",
                grants=[
                    permissions.ConsideredGrant(
                        role="developer", namespace=name, denial=permissions.DENIAL_ELSEWHERE
                    )
                    for name in ("one", "two")
                ],
                givers=[permissions.Giver(username="chief", roles=["developer", "admin"])],
            )
        summary = f"{asked} is allowed in {request.namespace or 'all'}"
        return permissions.ExplainPermissionResponse(allowed=True, permission=asked, summary=summary)

    async def ListPrincipals(self, request: Any, context: Any) -> Any:
        holders = [
            permissions.HoldingPrincipal(
                username=f"user{number}", role="developer", namespace=request.namespace
            )
            for number in range(60)
        ]
        answer = permissions.ListPrincipalsResponse(partial=bool(request.namespace))
        return self.page(request, holders, answer, "principals")

    async def SimulateGrant(self, request: Any, context: Any) -> Any:
        change = permissions.GrantChange(
            namespace=request.namespace, gained=["container.stop"], shortened=["container.get"]
        )
        return permissions.SimulateGrantResponse(
            changes=[change], partial=True, summary=f"granting {request.username} gives 1 permission"
        )
