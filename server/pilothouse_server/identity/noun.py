"""What serves the identity API, put together: one object for each subject, which share nothing but what they need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.identity.api_keys_service import ApiKeysService
from pilothouse_server.identity.device_login_service import DeviceLoginService
from pilothouse_server.identity.factor_service import FactorService
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.federation_service import FederationService
from pilothouse_server.identity.login_turns import LoginTurns
from pilothouse_server.identity.oidc.trusted import TrustedIssuers
from pilothouse_server.identity.operations.api_keys import ApiKeys
from pilothouse_server.identity.operations.challenges import Challenges
from pilothouse_server.identity.operations.device_login import DeviceLogins
from pilothouse_server.identity.operations.factor_changes import FactorChanges
from pilothouse_server.identity.operations.federation import Federation
from pilothouse_server.identity.operations.guesses import Guesses
from pilothouse_server.identity.operations.login import Logins
from pilothouse_server.identity.operations.login_steps import LoginSteps
from pilothouse_server.identity.operations.oidc_logins import OidcLogins
from pilothouse_server.identity.operations.reauthentication import Reauthentication
from pilothouse_server.identity.operations.renewals import Renewals
from pilothouse_server.identity.operations.second_factors import SecondFactors
from pilothouse_server.identity.operations.session_tokens import SessionTokens
from pilothouse_server.identity.operations.token_exchange import TokenExchange
from pilothouse_server.identity.operations.user_secrets import UserSecrets
from pilothouse_server.identity.password_policy import NewPasswords
from pilothouse_server.identity.passwords import Passwords
from pilothouse_server.identity.permission_service import PermissionService
from pilothouse_server.identity.permission_words import PermissionWords
from pilothouse_server.identity.service import IdentityService
from pilothouse_server.identity.token_exchange_service import TokenExchangeService
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import Store


@dataclass(frozen=True, slots=True)
class Needs:
    """What identity needs of the server. `known_permissions` are all that any method asks for, `rules` those of all
    methods.
    """

    store: Store
    settings: Settings
    passwords: Passwords
    keys: KeyRing
    envelopes: Envelopes
    known_permissions: Collection[str]
    rules: Collection[Rule]
    issuers: TrustedIssuers = field(default_factory=TrustedIssuers)


def identity_services(needs: Needs) -> Sequence[object]:
    """Returns what serves the methods of `pilothouse.identity.v1.IdentityService`, each those of one subject."""
    page_key = needs.keys.derive("page-token")
    session_tokens = SessionTokens(needs.settings)
    new_passwords = NewPasswords(needs.passwords, needs.settings)
    guesses = Guesses(needs.settings, needs.keys.derive("log-in"))
    factors = SecondFactors(UserSecrets(needs.envelopes), needs.settings)
    words = PermissionWords(needs.known_permissions, needs.rules)
    federated = Federation(session_tokens, UserSecrets(needs.envelopes))
    renewals = Renewals(needs.store, needs.issuers, federated)
    logins = Logins(
        needs.store,
        needs.passwords,
        session_tokens,
        guesses,
        factors,
        Challenges(factors),
        renewals,
        LoginTurns(needs.passwords, guesses.budgets, needs.settings.admission_wait_seconds),
    )
    changes = FactorChanges(needs.store, factors, guesses)
    steps = LoginSteps(needs.store, new_passwords, session_tokens, guesses, factors)
    budgets = FailureBudgets(needs.settings.login_failures_per_address)
    oidc_logins = OidcLogins(needs.store, needs.issuers, federated, budgets, needs.keys.derive("oidc-log-in"))
    device_logins = DeviceLogins(
        needs.store, needs.issuers, federated, budgets, needs.settings, needs.keys.derive("device-log-in")
    )
    return [
        IdentityService(logins, new_passwords, page_key, words, needs.issuers.ruled_roles),
        FederationService(oidc_logins),
        FactorService(logins, steps, changes, Reauthentication(needs.store, logins, changes, guesses)),
        DeviceLoginService(device_logins),
        ApiKeysService(ApiKeys(needs.settings, words), page_key),
        TokenExchangeService(TokenExchange(needs.store, needs.issuers, session_tokens, needs.settings)),
        PermissionService(words, page_key),
    ]
