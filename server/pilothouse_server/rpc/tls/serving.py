"""The certificate that the server presents, and how gRPC gets the next one.

For every new connection gRPC asks whether there is another certificate: a thread of gRPC calls a function, under
the interpreter's lock, before the handshake. That function must not wait and must not fail, so it
only compares: `run`, which watches the files, has read and checked its result before. Open connections keep
the keys that they have agreed on, and continue.

A whole port either requires client certificates or not: gRPC for Python requests none, or requires one of each client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc
import structlog

from pilothouse_server.rpc.tls.expiry import Expiry
from pilothouse_server.rpc.tls.files import Reloaded
from pilothouse_server.settings.model import Settings

if TYPE_CHECKING:
    from pilothouse_server.rpc.tls.clients import ClientTrust

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.5


class Serving:
    """The TLS of a server.

    `clients`, if given, requires client certificates and decides which are accepted.

    Raises:
        SettingsError: the files cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, clients: ClientTrust | None = None) -> None:
        # Imported here, because the parser of certificates takes megabytes, which a plain-text server saves.
        from pilothouse_server.rpc.tls import pair

        self.clients = clients
        self._pair = Reloaded("certificate", (certificate, key), partial(pair.load, certificate, key))
        self._expiry = Expiry("certificate")
        self._ports: list[_Port] = []
        self._files = (certificate, key)
        self._contexts: list[ssl.SSLContext] = []

    @classmethod
    def of(cls, settings: Settings) -> Serving | None:
        """Returns the TLS of the settings; None if they configure plain text.

        Raises SettingsError.
        """
        if settings.tls_certificate_file is None or settings.tls_key_file is None:
            return None
        from pilothouse_server.rpc.tls.clients import ClientTrust

        clients = ClientTrust(settings) if settings.tls_client_ca_file is not None else None
        return cls(settings.tls_certificate_file, settings.tls_key_file, clients)

    def credentials(self, *, asking: bool = False) -> grpc.ServerCredentials:
        """Returns the credentials of one port.

        With `asking`, each client must have a certificate of one of the authorities.
        """
        port = _Port(self._configuration())
        self._ports.append(port)
        # The stub does not declare that None means "no new configuration".
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", port.fetch)
        return grpc.dynamic_ssl_server_credentials(port.newest, fetch, asking)

    def http_context(self) -> ssl.SSLContext:
        """Returns the context of a port that serves HTTP/1.1, and requests no client certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files)
        self._contexts.append(context)
        return context

    async def run(self) -> None:
        """Checks whether the files have changed, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Reads changed files.

        It blocks while it reads, so it must not run on the event loop.
        """
        renewed = self._pair.look()
        if renewed:
            log.info("the certificate was renewed", fingerprint=self._pair.value.fingerprint)
            for context in self._contexts:
                context.load_cert_chain(*self._files)
        others = self.clients is not None and self.clients.look()
        if renewed or others:
            newest = self._configuration()
            for port in self._ports:
                port.newest = newest
        self._expiry.look(self._pair.value)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        served = self._pair.value
        roots = None if self.clients is None else self.clients.pem
        return grpc.ssl_server_certificate_configuration([(served.key, served.chain)], roots)


class _Port:
    """The certificate that a port presents from now on, and the one that gRPC has."""

    def __init__(self, first: grpc.ServerCertificateConfiguration) -> None:
        self.newest = first
        self._given = first

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the configuration that gRPC does not have yet; None if it has the newest.

        One thread calls it.
        """
        newest = self.newest
        if newest is self._given:
            return None
        self._given = newest
        return newest
