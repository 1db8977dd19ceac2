"""Settings: every one is an environment variable `PILOTHOUSE_<NAME>`, read and checked once at start.

A value that cannot be read is an error that names the variable, its value and the permitted values; an
unknown `PILOTHOUSE_` variable is refused, because a misspelt setting that is ignored is worse than no start.
An empty variable counts as not set, because Helm and compose set variables without a value to the empty string.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import FieldInfo

from pilothouse_server.values import (
    InvalidValueError,
    database_address,
    hosts,
    key_patterns,
    listening,
    permitted_additions,
)
from pilothouse_server.values.guarded_keys import NAMESPACE_KEYS, OBJECT_KEYS, POD_KEYS

PREFIX = "PILOTHOUSE_"
MOST_PROCESSES, _MOST_SEAL_SECONDS = 64, 60.0
# The protos' minimum of a password's length, and the highest minimum that a setting may require.
_SHORTEST_PASSWORD, _MOST_SHORTEST_PASSWORD = 12, 128
_KEY_LISTS = ("guarded_namespace_keys", "guarded_object_keys", "guarded_pod_keys", "service_annotations")
# Settings with a non-empty default: they accept the word none.
_MAY_BE_NONE = (*_KEY_LISTS, "namespace_pod_security")
_KEY = "a key of a label or annotation, or a pattern such as istio-injection, *.k8s.io/* or !app.k8s.io/*"
_ADDITION = (
    "FIELD-MANAGER:PATH, and the path must begin with .spec. or *, such as .spec.template.spec.containers*"
)
_ORIGIN_FAULT = "an origin such as https://tools.example.com, in lower case and without a path"
_NETWORK = "an IP address, or a network without host bits such as 10.0.0.0/8"
T = TypeVar("T")
# Variables with the prefix that are not settings: the client command and `migrate init` read them, and a server that
# is started from the same shell must not refuse them.
CLIENT_VARIABLES = {
    "SERVER", "TOKEN", "CONFIG", "CONTEXT", "NAMESPACE", "USER", "PASSWORD", "OUTPUT", "CA_FILE",
    "CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE", "APP_PASSWORD", "SYSTEM_PASSWORD", "MAINTENANCE_PASSWORD",
}  # fmt: skip
DATABASES = (
    "database_url", "system_database_url", "maintenance_database_url", "direct_database_url", "replica_database_url",
)  # fmt: skip
EVENT_LOOPS = ("uvloop", "asyncio")
# The bounds of calls: each must be greater than 0.
ADMISSION = ("max_concurrent_calls", "max_calls_per_user", "max_streams", "max_streams_per_user")
_CHOICES = {
    "event_loop": EVENT_LOOPS,
    "log_format": ("text", "json"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
    "namespace_pod_security": ("privileged", "baseline", "restricted", ""),
}


class SettingsError(ValueError):
    """A setting is missing, misspelt or cannot be read; the text names the variable and the rule."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, with their defaults.

    A field `name` is the variable `PILOTHOUSE_NAME`. Its type has the description that `pilothouse serve --help` shows.
    """

    listen: Annotated[str, "HOST:PORT to serve gRPC on; port 0 means a free one."] = "127.0.0.1:50051"
    processes: Annotated[
        int,
        f"Server processes on that address, at most {MOST_PROCESSES}; one that ends is restarted. More processes"
        " than cores have no effect.",
    ] = 1
    event_loop: Annotated[
        str,
        "Event loop: asyncio, which is Python's own, or uvloop, which uses less CPU.",
    ] = "asyncio"
    data_dir: Annotated[
        Path, "Folder of the master key and, with --dev, of the database and the simulated cluster."
    ] = Path(".pilothouse")
    simulated_definitions_file: Annotated[
        Path | None,
        "With --dev: file of CustomResourceDefinitions (YAML) that the simulated cluster has, next to the Gateway API.",
    ] = None
    database_template_dir: Annotated[
        Path | None,
        "With --dev: folder of a migrated, empty database, which is copied into a new data folder and created if it is"
        " missing. For tests.",
    ] = None
    bootstrap_password: Annotated[
        str, "Password of the first administrator; empty: the server generates one and shows it once."
    ] = ""
    reflection: Annotated[
        bool, "Whether to serve gRPC server reflection, which grpcurl and buf curl use."
    ] = True
    tls_certificate_file: Annotated[
        Path | None, "PEM file of the certificate chain to serve TLS with; also needs the key."
    ] = None
    tls_key_file: Annotated[Path | None, "PEM file of the key of that certificate."] = None
    tls_client_ca_file: Annotated[
        Path | None,
        "PEM file of the authorities of client certificates; each client of LISTEN must present one of theirs.",
    ] = None
    tls_client_listen: Annotated[
        str,
        "HOST:PORT that requires client certificates, so that LISTEN does not; empty: LISTEN requires them.",
    ] = ""
    tls_client_users_file: Annotated[
        Path | None,
        "File of rules that map client certificates to users; empty: none, every call needs a token.",
    ] = None
    tls_client_crl_file: Annotated[
        Path | None,
        "File of the revocation lists (CRLs) of those authorities, PEM or DER; empty: none.",
    ] = None
    insecure: Annotated[
        bool,
        "True also serves plain text to other machines, for a server behind a proxy that terminates TLS; then passwords"
        " and tokens are sent as plain text.",
    ] = False
    http_listen: Annotated[
        str,
        "HOST:PORT to serve browsers and HTTP/JSON on; empty: nowhere, but 127.0.0.1:50080 with --dev and the default"
        " LISTEN.",
    ] = ""
    http_allowed_origins: Annotated[
        str,
        "Origins, separated by commas, whose pages may call that port with tokens, such as"
        " https://tools.example.com.",
    ] = ""
    metrics_listen: Annotated[str, "HOST:PORT to serve Prometheus metrics on; empty: nowhere."] = ""
    log_level: Annotated[str, "DEBUG, INFO, WARNING or ERROR."] = "INFO"
    log_format: Annotated[str, "text for people, json for programs."] = "text"
    trusted_proxies: Annotated[
        str,
        "Addresses and networks of proxies, separated by commas, that may name the client's address; unix: callers over"
        " a Unix socket.",
    ] = ""

    database_url: Annotated[
        str, "postgresql:// URL of the database, for pilothouse_app or a login that may set all three roles."
    ] = ""
    system_database_url: Annotated[str, "The same for pilothouse_system; empty: DATABASE_URL."] = ""
    maintenance_database_url: Annotated[
        str, "The same for pilothouse_maintenance (migrations and partitions); empty: DATABASE_URL."
    ] = ""
    direct_database_url: Annotated[
        str,
        "SYSTEM_DATABASE_URL without the transaction pooler, for LISTEN; empty: there is no pooler.",
    ] = ""
    replica_database_url: Annotated[
        str, "URL of a read replica, for ListOperations and QueryUsage; empty: none."
    ] = ""
    database_ca_file: Annotated[
        Path | None,
        "PEM file of the authorities of PostgreSQL's certificate, if the URL names none; empty: the system's.",
    ] = None
    # The pool of the seed's § 6.2.
    pool_idle_connections: Annotated[
        int, "Idle database connections that stay open, in all processes together."
    ] = 10
    pool_open_connections: Annotated[
        int, "Maximum number of database connections of each pool, in all processes together."
    ] = 100
    pool_working_connections: Annotated[
        int, "Maximum connections in use concurrently, not counting long work; in all processes together."
    ] = 8
    pool_prepared_statements: Annotated[
        bool, "False behind a transaction pooler that does not support prepared statements."
    ] = True
    pool_max_lifetime_seconds: Annotated[float, "Age at which a database connection is replaced."] = 3600.0
    pool_max_idle_seconds: Annotated[float, "Idle time after which a database connection is closed."] = 1800.0

    session_access_seconds: Annotated[int, "Lifetime of an access token."] = 900
    session_refresh_seconds: Annotated[int, "Lifetime of an unused refresh token."] = 7 * 86400
    session_max_age_seconds: Annotated[int, "Age at which a session ends, however often it is refreshed."] = (
        30 * 86400
    )
    console_idle_seconds: Annotated[int, "Idle time after which a browser's console session ends."] = (
        12 * 3600
    )
    console_max_age_seconds: Annotated[
        int, "Age at which a console session ends, however often it is used."
    ] = 7 * 86400
    api_key_days: Annotated[int, "Lifetime of an API key that is created without expire_time."] = 90
    api_key_max_days: Annotated[int, "Longest lifetime of an API key."] = 366
    principal_cache_seconds: Annotated[
        float, "Time for which a token and its grants are cached; at most 1."
    ] = 1.0

    login_failures_per_address: Annotated[
        int,
        "Failed log-ins from one address (IPv6: one /64 network) that each process accepts before it refuses more; one"
        " is permitted again each half second.",
    ] = 100

    password_min_length: Annotated[int, "Minimum length of a new password, in characters; at least 12."] = 12
    password_breached_file: Annotated[
        Path | None,
        "File of forbidden passwords, one per line, sorted by bytes: SHA-1 in upper-case hexadecimal, as in Have I Been"
        " Pwned, or the passwords themselves; empty: none.",
    ] = None
    second_factor_roles: Annotated[
        str,
        "Roles, separated by commas, whose users need a second factor to log in by password; * means all users.",
    ] = ""

    grace_seconds: Annotated[float, "Time that calls in flight have to finish when the server ends."] = 10.0
    max_concurrent_calls: Annotated[
        int, "Maximum concurrent calls of each process, without streams; further calls wait."
    ] = 256
    max_calls_per_user: Annotated[int, "The same, for one user."] = 32
    max_streams: Annotated[int, "Maximum open streams of each process; further streams are refused."] = 2000
    max_streams_per_user: Annotated[int, "The same, for one user."] = 200
    watch_max_lag_events: Annotated[
        int, "Number of events by which a watcher may lag before its watch ends."
    ] = 10_000
    event_ring_size: Annotated[
        int, "Number of newest events that each process keeps in memory for watchers."
    ] = 4096

    outbound_networks: Annotated[
        str,
        "Networks, separated by commas, that the server otherwise denies to addresses from callers (of clusters,"
        " sinks), such as 127.0.0.0/8; --dev permits loopback.",
    ] = ""
    kubeconfig: Annotated[Path | None, 'Kubeconfig of the cluster "local".'] = None
    cluster_timeout_seconds: Annotated[float, "Maximum time for one response of a cluster."] = 10.0
    cluster_requests_per_second: Annotated[
        float,
        "Maximum requests per second of each process to one cluster, on average; twice as many in a burst.",
    ] = 1000.0

    namespace_pod_security: Annotated[
        str,
        "Pod Security Standards level of new namespaces whose labels name none: privileged, baseline or restricted;"
        " none: no level, so that the cluster's own default applies.",
    ] = "baseline"
    namespace_allowed_hosts: Annotated[
        str,
        "Hosts, separated by commas, that a new namespace may use if its request names none and no other namespace of"
        " the cluster has them; --dev permits *.localhost and *.example.com.",
    ] = ""
    guarded_namespace_keys: Annotated[
        str,
        "Keys of namespace labels and annotations, separated by commas, that need the permission namespace.security;"
        " * stands for any text, and ! before a pattern excludes its keys; none: no keys.",
    ] = ",".join(NAMESPACE_KEYS)
    guarded_object_keys: Annotated[str, "The same for volumes, config maps and secrets."] = ",".join(
        OBJECT_KEYS
    )
    guarded_pod_keys: Annotated[
        str,
        "Keys of annotations and labels of pods and Deployments, and of labels of Services, that need the permission"
        " container.privileged; in the form of GUARDED_NAMESPACE_KEYS.",
    ] = ",".join(POD_KEYS)
    service_annotations: Annotated[
        str,
        "Keys of Service annotations, separated by commas, that every caller may set; PREFIX/* stands for all keys of a"
        " prefix. Other keys need the permission container.privileged.",
    ] = "prometheus.io/*"

    drift_additions: Annotated[
        str,
        "Additions by others to pod templates and Services that do not count as drift: FIELD-MANAGER:PATH, separated by"
        " commas; * stands for any text in either.",
    ] = ""

    audit_retention_months: Annotated[int, "Time for which audit records are kept."] = 24
    audit_origin: Annotated[
        str,
        "Name of the audit log in its sealed heads, such as example.com/pilothouse; set it once. Empty: generated.",
    ] = ""
    audit_key_file: Annotated[
        Path | None,
        "File of the keys that sign the log's heads, one per line: PRIVATE+KEY+NAME+ID+BASE64, or NAME+ID+BASE64 for a"
        " former key, which only verifies. Without a signing key, keys derive from the master keys.",
    ] = None
    audit_key: Annotated[str, "Those keys themselves, instead of a file."] = ""
    audit_seal_seconds: Annotated[
        float, "Time between two seals of the audit log while there are new records; at most 60."
    ] = 30.0
    audit_witnesses: Annotated[
        str,
        "Witnesses that sign the heads of the audit log, and the required number K: K of KEY@URL, KEY@URL; empty:"
        " none.",
    ] = ""
    audit_tiles_listen: Annotated[
        str,
        "HOST:PORT to serve the heads and tiles of the audit log on, over HTTP to everybody; empty: nowhere.",
    ] = ""
    audit_headers: Annotated[
        str,
        "Request headers, separated by commas, that audit records contain in addition to user-agent, content-type,"
        " traceparent and grpc-*; PREFIX* stands for all headers with a prefix.",
    ] = ""
    audit_sink_dir: Annotated[Path | None, "Folder of file sinks of the audit log; empty: no file sinks."] = (
        None
    )
    usage_retention_days: Annotated[int, "Time for which samples of usage are kept."] = 14
    event_retention_hours: Annotated[
        int, "Time for which events are kept, and after which an interrupted watch cannot resume."
    ] = 24

    backup_dir: Annotated[Path | None, "Folder of scheduled backups; empty: no scheduled backups."] = None
    backup_period_hours: Annotated[float, "Time between two scheduled backups."] = 24.0
    backup_retention_days: Annotated[
        float, "Time for which backups are kept; the newest backup always stays."
    ] = 7.0
    backup_key_file: Annotated[
        Path | None, "File of the key that encrypts backups; empty: they are not encrypted."
    ] = None
    care_period_hours: Annotated[
        float,
        "Time after which tables get ANALYZE and VACUUM again, and bloated indexes a rebuild; 0: never.",
    ] = 24.0

    oidc_issuers_file: Annotated[
        Path | None,
        "File (YAML or JSON) of the OpenID Connect issuers whose users may log in, and of the grants of their groups;"
        " see docs/identity.md. Empty: no issuers.",
    ] = None

    key_providers: Annotated[
        str,
        "Key providers, separated by commas: file, environment, pkcs11. The newest key of the first provider encrypts,"
        " all keys decrypt, and the last key of file or environment signs page and resume tokens.",
    ] = "file"
    secret_key_file: Annotated[Path | None, "File of the master keys; empty: master.key in DATA_DIR."] = None
    secret_keys: Annotated[
        str, "For the provider environment: the master keys themselves, newest first, in hexadecimal."
    ] = ""
    pkcs11_module: Annotated[Path | None, "For the provider pkcs11: the library of the token (HSM)."] = None
    pkcs11_token: Annotated[str, "Label of the token."] = ""
    pkcs11_pin_file: Annotated[Path | None, "File of the PIN of the token's user."] = None
    pkcs11_key_label: Annotated[str, "Label of the keys; the newest is the one with the greatest CKA_ID."] = (
        "pilothouse"
    )

    @property
    def key_file(self) -> Path:
        """The path of the master keys: the file that is named, else one in the data folder."""
        return self.secret_key_file or self.data_dir / "master.key"


def address_refused(address: str, name: str = "LISTEN") -> SettingsError:
    """Returns the error for an address of the setting `name` that this server cannot listen on."""
    why = listening.why_refused(address)
    return SettingsError(f"{PREFIX}{name}: {address} cannot be listened on: {why}")


TrustedPeer = ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]


def trusted_peers(text: str) -> tuple[TrustedPeer, ...]:
    """Returns the peers that `trusted_proxies` names. Raises SettingsError."""
    return _listed(
        text, "TRUSTED_PROXIES", _NETWORK, lambda one: "unix" if one == "unix" else ipaddress.ip_network(one)
    )


def outbound_networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Returns the networks that `outbound_networks` names. Raises SettingsError."""
    return _listed(text, "OUTBOUND_NETWORKS", _NETWORK, ipaddress.ip_network)


def allowed_hosts(text: str) -> tuple[str, ...]:
    """Returns the patterns that `namespace_allowed_hosts` lists, in normal form. Raises SettingsError."""
    return _listed(text, "NAMESPACE_ALLOWED_HOSTS", "a host or *.HOST, as a DNS name", hosts.normalised)


def origins(text: str) -> tuple[str, ...]:
    """Returns the origins that `http_allowed_origins` lists. Raises SettingsError."""
    return _listed(text, "HTTP_ALLOWED_ORIGINS", _ORIGIN_FAULT, _origin)


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or text != f"{parts.scheme}://{parts.netloc}"
        or text != text.lower()
    ):
        raise ValueError
    return text


def header_names(text: str) -> tuple[str, ...]:
    """Returns the header names and prefixes that `audit_headers` lists, in lower case. Raises SettingsError."""
    return _listed(
        text.lower(), "AUDIT_HEADERS", "the name of a header, or PREFIX*", key_patterns.checked_header
    )


def _listed(text: str, name: str, fault: str, read: Callable[[str], T]) -> tuple[T, ...]:
    """Returns the results of `read` for each part; `fault` describes a part for which `read` raises ValueError.

    Raises SettingsError.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(read(part))
        except ValueError:
            raise SettingsError(f"{PREFIX}{name}: {part!r} must be {fault}") from None
    return tuple(found)


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
            given = _read(text, field, may_be_none=name in _MAY_BE_NONE)
        except InvalidValueError as error:
            problems.append(f"{variable}={text!r}: {error}")
        else:
            values |= {} if given is None else {name: given}
    if problems:
        raise SettingsError("; ".join(sorted(problems)))
    settings = Settings(**values)  # type: ignore[arg-type]
    return with_secured_databases(_checked(settings), environment)


def _read(text: str, field: FieldInfo, *, may_be_none: bool) -> object:
    """Returns the value, None if the setting keeps its default. Raises InvalidValueError; its text states the rule."""
    if not text.strip():
        return None
    if may_be_none and text.strip().lower() == "none":
        return ""
    if "Path" in str(field.type.__origin__):
        return Path(text)
    try:
        return msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError:
        raise InvalidValueError(f"must be {_kind(field.default)}") from None


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return "a whole number" if isinstance(default, int) else "a number"


def with_secured_databases(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Returns the settings, with the degree of TLS in the URLs of databases.

    Raises:
        SettingsError: there is no authority with which to verify a database's certificate.
    """
    changed = {
        name: database_secured(
            f"{PREFIX}{name.upper()}", getattr(settings, name), settings.database_ca_file, environment
        )
        for name in DATABASES
    }
    return msgspec.structs.replace(settings, **changed)


def database_secured(name: str, url: str, ca_file: Path | None, environment: Mapping[str, str]) -> str:
    """Returns the URL of the database `name` with its degree of TLS. Raises SettingsError."""
    try:
        return database_address.secured(url, "" if ca_file is None else str(ca_file), environment)
    except InvalidValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def _wrong_addresses(settings: Settings) -> list[str]:
    problems = []
    for name in ("listen", "metrics_listen", "tls_client_listen", "audit_tiles_listen", "http_listen"):
        address = getattr(settings, name)
        by_grpc = name in ("listen", "tls_client_listen")
        try:
            if address or name == "listen":
                listening.check(address, may_be_unix=by_grpc, shared=settings.processes > 1)
        except InvalidValueError as error:
            problems.append(f"{PREFIX}{name.upper()}: {error}")
    return problems


def _checked(settings: Settings) -> Settings:
    trusted_peers(settings.trusted_proxies)
    outbound_networks(settings.outbound_networks)
    header_names(settings.audit_headers)
    origins(settings.http_allowed_origins)
    allowed_hosts(settings.namespace_allowed_hosts)
    _listed(settings.drift_additions, "DRIFT_ADDITIONS", _ADDITION, permitted_additions.checked)
    for name in _KEY_LISTS:
        _listed(getattr(settings, name), name.upper(), _KEY, key_patterns.checked)
    problems = _wrong_addresses(settings)
    problems += [
        f"{PREFIX}{name.upper()} must be greater than 0"
        for name in (
            "pool_open_connections",
            "pool_working_connections",
            "session_access_seconds",
            "session_refresh_seconds",
            "console_idle_seconds",
            "console_max_age_seconds",
            "login_failures_per_address",
            "api_key_days",
            *ADMISSION,
            "cluster_timeout_seconds",
            "cluster_requests_per_second",
            "event_ring_size",
            "watch_max_lag_events",
            "backup_period_hours",
            "backup_retention_days",
        )
        if getattr(settings, name) <= 0
    ]
    if not 1 <= settings.processes <= MOST_PROCESSES:
        problems.append(f"{PREFIX}PROCESSES must be from 1 to {MOST_PROCESSES}")
    elif settings.pool_open_connections < settings.processes:
        problems.append(
            f"{PREFIX}POOL_OPEN_CONNECTIONS must be at least {PREFIX}PROCESSES: the processes share them"
        )
    if not _SHORTEST_PASSWORD <= settings.password_min_length <= _MOST_SHORTEST_PASSWORD:
        problems.append(
            f"{PREFIX}PASSWORD_MIN_LENGTH must be from {_SHORTEST_PASSWORD} to {_MOST_SHORTEST_PASSWORD}"
        )
    problems += [
        f"{PREFIX}{name.upper()} must not be less than 0"
        for name in ("care_period_hours",)
        if getattr(settings, name) < 0
    ]
    if settings.api_key_max_days < settings.api_key_days:
        problems.append(f"{PREFIX}API_KEY_MAX_DAYS must be at least {PREFIX}API_KEY_DAYS")
    if settings.principal_cache_seconds > 1.0:
        problems.append(
            f"{PREFIX}PRINCIPAL_CACHE_SECONDS must be at most 1: a revoked grant must stop working within 1 s"
        )
    if settings.direct_database_url and not (
        settings.system_database_url and settings.maintenance_database_url
    ):
        problems.append(
            f"{PREFIX}DIRECT_DATABASE_URL also needs {PREFIX}SYSTEM_DATABASE_URL and {PREFIX}MAINTENANCE_DATABASE_URL:"
            f" behind a transaction pooler, a connection of {PREFIX}DATABASE_URL cannot change its role"
        )
    if bool(settings.tls_certificate_file) != bool(settings.tls_key_file):
        problems.append(f"{PREFIX}TLS_CERTIFICATE_FILE and {PREFIX}TLS_KEY_FILE must be set together")
    problems += _client_certificate_problems(settings)
    problems += _audit_problems(settings)
    problems += [
        f"{PREFIX}{name.upper()} must be {', '.join(choices[:-1])} or {choices[-1] or 'none'}"
        for name, choices in _CHOICES.items()
        if getattr(settings, name) not in choices
    ]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def _client_certificate_problems(settings: Settings) -> list[str]:
    if settings.tls_client_ca_file is not None and settings.tls_certificate_file is None:
        return [
            f"{PREFIX}TLS_CLIENT_CA_FILE needs TLS: {PREFIX}TLS_CERTIFICATE_FILE and {PREFIX}TLS_KEY_FILE"
        ]
    return [
        f"{PREFIX}{name.upper()} needs {PREFIX}TLS_CLIENT_CA_FILE"
        for name in ("tls_client_listen", "tls_client_users_file", "tls_client_crl_file")
        if getattr(settings, name) and settings.tls_client_ca_file is None
    ]


def _audit_problems(settings: Settings) -> list[str]:
    if 0 < settings.audit_seal_seconds <= _MOST_SEAL_SECONDS:
        return []
    return [f"{PREFIX}AUDIT_SEAL_SECONDS must be greater than 0 and at most {_MOST_SEAL_SECONDS:.0f}"]
