"""A PKCS#11 token for tests: SoftHSM, with its own keys in a directory of the test."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import finished

_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)
LIBRARY = next((Path(path) for path in _LIBRARIES if Path(path).exists()), None)
TOOL = shutil.which("softhsm2-util")
needs_softhsm = pytest.mark.skipif(LIBRARY is None or TOOL is None, reason="softhsm2 is not installed")
PIN = "pin-Zq7CanaryW4x"


@dataclass(frozen=True)
class Token:
    """A token, and the settings by which servers and commands find it."""

    folder: Path
    label: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that SoftHSM reads."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def settings(self, providers: str) -> dict[str, Any]:
        """Returns the settings of a server with these providers; with the token if pkcs11 is one of them."""
        if "pkcs11" not in providers:
            return {"key_providers": providers}
        return {
            "key_providers": providers,
            "pkcs11_module": LIBRARY,
            "pkcs11_token": self.label,
            "pkcs11_pin_file": self.folder / "pin",
        }

    def variables(self, providers: str) -> dict[str, str]:
        """Returns the same settings as environment variables, with those of SoftHSM."""
        settings = {
            f"PILOTHOUSE_{name.upper()}": str(value) for name, value in self.settings(providers).items()
        }
        return settings | self.environment


async def make_token(folder: Path, label: str = "vault", library_label: str = "") -> Token:
    """Makes an initialized token without a key."""
    folder.mkdir()
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    pin = folder / "pin"
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o600)
    token = Token(folder, label)
    assert TOOL is not None
    words = (
        "--init-token",
        "--free",
        "--label",
        library_label or label,
        "--pin",
        PIN,
        "--so-pin",
        "12345678",
    )
    code, _, errors = await finished(TOOL, *words, env=token.environment)
    assert code == 0, errors
    return token
