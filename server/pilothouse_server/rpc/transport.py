"""What may be served: TLS by a certificate with its key, or plain text where no other machine reaches it.

It loads little, so that a command can ask before anything is made for a server that must not start.
"""

from __future__ import annotations

import ssl

from pilothouse_server.settings import PREFIX, Settings, SettingsError
from pilothouse_server.values import listening


def check_transport(settings: Settings) -> None:
    """Refuses what cannot be served safely: plain text to other machines, unless the settings say so, and files that
    are no certificate with its key.

    Raises:
        SettingsError: the text says which, and what to do.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is not None and key is not None:
        names = f"{PREFIX}TLS_CERTIFICATE_FILE, {PREFIX}TLS_KEY_FILE"
        try:
            # gRPC takes anything here, and fails when the address is taken, with words about that.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except ssl.SSLError:
            raise SettingsError(
                f"{names}: {certificate} and {key} are no certificate with its key, both as PEM"
            ) from None
        except OSError as error:
            kind = type(error).__name__
            raise SettingsError(f"{names}: {certificate} or {key} cannot be read ({kind})") from None
    elif not settings.insecure and listening.is_reached_by_others(settings.listen):
        raise SettingsError(
            f"{PREFIX}LISTEN: {settings.listen} is reached by other machines, and without TLS passwords and tokens"
            f" would pass as they are: set {PREFIX}TLS_CERTIFICATE_FILE and {PREFIX}TLS_KEY_FILE (serve --dev"
            f" --tls-self-signed makes a certificate), or {PREFIX}INSECURE=true where something before the server ends"
            " TLS"
        )
