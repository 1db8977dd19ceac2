"""Settings: every one is an environment variable `PILOTHOUSE_<NAME>`, read and checked once at start.

A value that cannot be read is an error that names the variable, what it holds and what it may hold; an
unknown `PILOTHOUSE_` variable is refused, because a misspelt setting that is ignored is worse than no
start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

PREFIX = "PILOTHOUSE_"
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
        "INSECURE",
        "CA_FILE",
    }
)


class SettingsError(ValueError):
    """A setting is missing, misspelt or cannot be read; the text names the variable and the rule."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, with their defaults.

    Names in lower case here are `PILOTHOUSE_` in upper case outside.
    """

    listen: str = "127.0.0.1:50051"
    data_dir: Path = Path(".pilothouse")
    bootstrap_password: str = ""
    reflection: bool = True
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    metrics_listen: str = ""
    log_level: str = "INFO"
    log_format: str = "text"
    trusted_proxies: str = ""

    database_url: str = ""
    system_database_url: str = ""
    maintenance_database_url: str = ""
    direct_database_url: str = ""
    replica_database_url: str = ""
    # The pool of the seed's § 6.2.
    pool_idle_connections: int = 10
    pool_open_connections: int = 100
    pool_max_lifetime_seconds: float = 3600.0
    pool_max_idle_seconds: float = 1800.0
    statement_timeout_seconds: float = 30.0

    session_access_seconds: int = 900
    session_refresh_seconds: int = 7 * 86400
    session_max_age_seconds: int = 30 * 86400
    principal_cache_seconds: float = 1.0

    grace_seconds: float = 10.0
    max_message_bytes: int = 4 * 1024 * 1024
    max_concurrent_streams: int = 100
    max_concurrent_calls: int = 2000
    max_connection_age_seconds: int = 3600
    watch_max_lag_events: int = 10_000
    event_ring_size: int = 4096

    kubeconfig: Path | None = None
    kubeconfig_context: str = ""
    cluster_timeout_seconds: float = 10.0
    usage_period_seconds: float = 10.0
    reconcile_workers: int = 8

    audit_retention_months: int = 24
    usage_retention_days: int = 14
    event_retention_hours: int = 24
    idempotency_retention_hours: int = 24

    secret_key_file: Path | None = None

    @property
    def key_file(self) -> Path:
        """Where the master keys are: the file that is named, else one in the data folder."""
        return self.secret_key_file or self.data_dir / "master.key"


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings.

    Raises:
        SettingsError: names each variable that is unknown or cannot be read.
    """
    environment = os.environ if environment is None else environment
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    values: dict[str, object] = {}
    problems: list[str] = []
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name.upper() in CLIENT_VARIABLES:
            continue
        field = fields.get(name)
        if field is None:
            problems.append(f"{variable} is not a setting")
            continue
        try:
            values[name] = (
                Path(text) if "Path" in str(field.type) else msgspec.convert(text, field.type, strict=False)
            )
        except msgspec.ValidationError as error:
            problems.append(f"{variable}={text!r}: {str(error).lower()}")
    if problems:
        raise SettingsError("; ".join(sorted(problems)))
    settings = Settings(**values)  # type: ignore[arg-type]
    return _checked(settings)


def _checked(settings: Settings) -> Settings:
    problems = [
        f"{PREFIX}{name.upper()} must be greater than 0"
        for name in (
            "pool_open_connections",
            "session_access_seconds",
            "session_refresh_seconds",
            "max_message_bytes",
            "cluster_timeout_seconds",
            "event_ring_size",
            "watch_max_lag_events",
        )
        if getattr(settings, name) <= 0
    ]
    if settings.principal_cache_seconds > 1.0:
        problems.append(
            f"{PREFIX}PRINCIPAL_CACHE_SECONDS must be at most 1: a revoked grant must stop working within 1 s"
        )
    if bool(settings.tls_certificate_file) != bool(settings.tls_key_file):
        problems.append(f"{PREFIX}TLS_CERTIFICATE_FILE and {PREFIX}TLS_KEY_FILE belong together")
    if settings.log_format not in ("text", "json"):
        problems.append(f"{PREFIX}LOG_FORMAT must be text or json")
    if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        problems.append(f"{PREFIX}LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR")
    if problems:
        raise SettingsError("; ".join(problems))
    return settings
