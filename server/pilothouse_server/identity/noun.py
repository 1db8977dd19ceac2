"""Assembles the identity service: one object for each subject. The objects share only their dependencies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.accounts.operations.user_secrets import UserSecrets
from pilothouse_server.identity.credentials.login_turns import LoginTurns
from pilothouse_server.identity.credentials.operations.api_keys import ApiKeys
from pilothouse_server.identity.credentials.operations.challenges import Challenges
from pilothouse_server.identity.credentials.operations.device_login import DeviceLogins
from pilothouse_server.identity.credentials.operations.factor_changes import FactorChanges
from pilothouse_server.identity.credentials.operations.login import Logins
from pilothouse_server.identity.credentials.operations.login_steps import LoginSteps
from pilothouse_server.identity.credentials.operations.login_throttle import LoginThrottle
from pilothouse_server.identity.credentials.operations.reauthentication import Reauthentication
from pilothouse_server.identity.credentials.operations.second_factors import SecondFactors
from pilothouse_server.identity.credentials.operations.session_tokens import SessionTokens
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuers
from pilothouse_server.identity.federation.operations.federated_users import Federation
from pilothouse_server.identity.federation.operations.oidc_logins import OidcLogins
from pilothouse_server.identity.federation.operations.renewals import Renewals
from pilothouse_server.identity.federation.operations.token_exchange import TokenExchange
from pilothouse_server.identity.service import roles, users
from pilothouse_server.identity.service.api_keys import ApiKeysService
from pilothouse_server.identity.service.federation import (
    DeviceLoginService,
    FederationService,
    TokenExchangeService,
)
from pilothouse_server.identity.service.permissions import PermissionService
from pilothouse_server.identity.service.roles import RoleService
from pilothouse_server.identity.service.second_factors import FactorService
from pilothouse_server.identity.service.sessions import SessionService
from pilothouse_server.identity.service.users import UserService
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import Store

# The sources of identity for watches that cover several nouns.
WATCHES = {"user": users.WATCH, "grant": roles.WATCH}


@dataclass(frozen=True, slots=True)
class IdentityDependencies:
    """The dependencies of identity.

    `known_permissions`: every permission that some method requires. `rules`: the access rules of all methods.
    """

    store: Store
    settings: Settings
    passwords: Passwords
    keys: KeyRing
    envelopes: Envelopes
    known_permissions: Collection[str]
    rules: Collection[Rule]
    watches: WatchServer
    issuers: TrustedIssuers = field(default_factory=TrustedIssuers)
    # The longest time that a log-in waits for its turn.
    wait_seconds: float = 5.0


def identity_services(needs: IdentityDependencies) -> Sequence[object]:
    """Returns the objects that serve the methods of `pilothouse.identity.v1.IdentityService`, one for each subject."""
    page_key = needs.keys.derive("page-token")
    session_tokens = SessionTokens(needs.settings)
    new_passwords = NewPasswords(needs.passwords, needs.settings)
    throttle = LoginThrottle(needs.settings, needs.keys.derive("log-in"))
    factors = SecondFactors(UserSecrets(needs.envelopes), needs.settings)
    words = PermissionWords(needs.known_permissions, needs.rules)
    federated = Federation(session_tokens, UserSecrets(needs.envelopes))
    renewals = Renewals(needs.store, needs.issuers, federated)
    logins = Logins(
        needs.store,
        needs.passwords,
        session_tokens,
        throttle,
        factors,
        Challenges(factors),
        renewals,
        LoginTurns(needs.passwords, throttle.budgets, wait_seconds=needs.wait_seconds),
    )
    changes = FactorChanges(needs.store, factors, throttle)
    steps = LoginSteps(needs.store, new_passwords, session_tokens, throttle, factors)
    budgets = FailureBudgets(needs.settings.login_failures_per_address)
    oidc_logins = OidcLogins(needs.store, needs.issuers, federated, budgets, needs.keys.derive("oidc-log-in"))
    device_logins = DeviceLogins(
        needs.store, needs.issuers, federated, budgets, needs.settings, needs.keys.derive("device-log-in")
    )
    return [
        SessionService(logins, new_passwords, page_key, words),
        UserService(new_passwords, page_key, needs.watches),
        RoleService(page_key, words, needs.issuers.ruled_roles, needs.watches),
        FederationService(oidc_logins),
        FactorService(logins, steps, changes, Reauthentication(needs.store, logins, changes, throttle)),
        DeviceLoginService(device_logins),
        ApiKeysService(ApiKeys(needs.settings, words), page_key),
        TokenExchangeService(TokenExchange(needs.store, needs.issuers, session_tokens, needs.settings)),
        PermissionService(words, page_key),
    ]
