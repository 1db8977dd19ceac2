"""The variables by which a program is told its server, as the command reads them: a job needs no other settings."""

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


@dataclass(frozen=True, slots=True)
class Environment:
    """What the variables say; '' where one is not set. `token` is an API key or an access token."""

    server: str = ""
    token: str = field(default="", repr=False)
    namespace: str = ""
    ca_file: str = ""

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Returns what `variables` say. Raises ValueError where no server is named."""
        found = cls(*(variables.get(name, "").strip() for name in (SERVER, TOKEN, NAMESPACE, CA_FILE)))
        if not found.server:
            raise ValueError(f"{SERVER} names no server: set it to HOST:PORT")
        return found

    @property
    def tls(self) -> Tls | None:
        """Certificates to trust. Raises ValueError where the file cannot be read."""
        if not self.ca_file:
            return None
        try:
            return Tls(root_certificates=Path(self.ca_file).read_bytes())
        except OSError as error:
            raise ValueError(f"{CA_FILE}: {self.ca_file} cannot be read: {error.strerror}") from error
