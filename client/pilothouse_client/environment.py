"""The variables that name a program's server, as the command reads them: a job needs no other settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pilothouse_client.target import Tls

SERVER = "PILOTHOUSE_SERVER"
TOKEN = "PILOTHOUSE_TOKEN"
NAMESPACE = "PILOTHOUSE_NAMESPACE"
CA_FILE = "PILOTHOUSE_CA_FILE"
CLIENT_CERTIFICATE_FILE = "PILOTHOUSE_CLIENT_CERTIFICATE_FILE"
CLIENT_KEY_FILE = "PILOTHOUSE_CLIENT_KEY_FILE"
_ALL = (SERVER, TOKEN, NAMESPACE, CA_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE)


@dataclass(frozen=True, slots=True)
class Environment:
    """The values of the variables; '' for one that is not set.

    `token` is an API key or an access token."""

    server: str = ""
    token: str = field(default="", repr=False)
    namespace: str = ""
    ca_file: str = ""
    client_certificate_file: str = ""
    client_key_file: str = ""

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Returns the values of `variables`. Raises ValueError if no server is named."""
        found = cls(*(variables.get(name, "").strip() for name in _ALL))
        if not found.server:
            raise ValueError(f"{SERVER} names no server: set it to HOST:PORT")
        return found

    @property
    def tls(self) -> Tls | None:
        """The certificates to trust and to present.

        Raises ValueError if a file is missing or cannot be read."""
        if not (self.ca_file or self.client_certificate_file or self.client_key_file):
            return None
        return Tls(
            root_certificates=_read(CA_FILE, self.ca_file),
            client_certificate=_read(CLIENT_CERTIFICATE_FILE, self.client_certificate_file),
            client_key=_read(CLIENT_KEY_FILE, self.client_key_file),
        )


def _read(variable: str, path: str) -> bytes | None:
    """Returns the content of the file that a variable names; None if it names none."""
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{variable}: {path} cannot be read: {error.strerror}") from error
