"""Variables with the prefix of the settings that are none: other programs of ours read them."""

from __future__ import annotations

# Read by the client command from the same prefix; a server started from the same shell must not refuse
# them.
CLIENT_VARIABLES = frozenset(
    {
        "SERVER",
        # Read by `migrate init`.
        "APP_PASSWORD",
        "SYSTEM_PASSWORD",
        "MAINTENANCE_PASSWORD",
        "TOKEN",
        "CONFIG",
        "CONTEXT",
        "NAMESPACE",
        "USER",
        "PASSWORD",
        "OUTPUT",
        "CA_FILE",
        "CLIENT_CERTIFICATE_FILE",
        "CLIENT_KEY_FILE",
    }
)
