"""Keys in a PKCS#11 token (an HSM): the client of the program that loads the token's library, and that program."""

from __future__ import annotations

from pilothouse_server.encryption.keys import PKCS11, providers
from pilothouse_server.encryption.token_keys import TokenKeys
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError


def token_keys(settings: Settings) -> TokenKeys | None:
    """Returns the keys of the token that the settings name; None if they name none.

    Raises:
        SettingsError: a setting is missing, or one is set that nothing uses.
    """
    if PKCS11 not in providers(settings):
        if settings.pkcs11_module is not None:
            raise SettingsError(
                f"{PREFIX}PKCS11_MODULE is set, but {PREFIX}KEY_PROVIDERS does not name {PKCS11}: add it,"
                " or unset the module"
            )
        return None
    from pilothouse_server.encryption.hsm.token import PkcsToken, TokenLocation

    return TokenKeys(PkcsToken(TokenLocation.of(settings)))
