"""Checks the transport: TLS by a certificate with its key, or plain text if no other machine reaches it.

It imports little, so that a command can check the transport before it makes anything for a server that must not start.
"""

from __future__ import annotations

from pilothouse_server.settings.model import PREFIX, Settings, SettingsError
from pilothouse_server.values import listening


def check_transport(settings: Settings) -> None:
    """Refuses unsafe transport.

    That is plain text to other machines, unless the settings permit it; files that are not a certificate with its key;
    and unusable files for client certificates.

    Raises:
        SettingsError: the text names the setting and the remedy.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is not None and key is not None:
        from pilothouse_server.rpc.tls import pair

        pair.load(certificate, key)
        if settings.tls_client_ca_file is not None:
            from pilothouse_server.rpc.tls.clients import ClientTrust

            ClientTrust(settings)
    elif not settings.insecure:
        _check_local("LISTEN", settings.listen)
        if settings.http_listen:
            _check_local("HTTP_LISTEN", settings.http_listen)


def _check_local(name: str, address: str) -> None:
    if listening.is_reached_by_others(address):
        raise SettingsError(
            f"{PREFIX}{name}: other machines reach {address}, and without TLS passwords and "
            f"tokens would be sent as plain text: set {PREFIX}TLS_CERTIFICATE_FILE and "
            f"{PREFIX}TLS_KEY_FILE (serve --dev --tls-self-signed makes a certificate), or "
            f"{PREFIX}INSECURE=true if a proxy in front of the server terminates TLS"
        )
