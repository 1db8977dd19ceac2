"""The rules for sinks: permitted addresses, the fields of each kind, and encrypted secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pilothouse_server.audit.sinks import repository
from pilothouse_server.audit.sinks.model import AuditSink, SinkSecrets
from pilothouse_server.audit.sinks.senders import tls
from pilothouse_server.audit.sinks.tables import SEALED_SINKS
from pilothouse_server.encryption.envelopes import Envelopes, Sealed
from pilothouse_server.errors import FailedPrecondition, already_exists, invalid, not_found
from pilothouse_server.outbound.destinations import AddressRefused, Origin, Reach, origin
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.feed import stream_head
from pilothouse_server.store.unit_of_work import Transaction

list_page = repository.list_sinks

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# The name that a full file is renamed to. Another sink must not write such a file.
_ROTATED = re.compile(r".*\.\d{8}T[0-9.]*Z?")
_USER_INFO = re.compile(r"//[^/]*@")
_QUERY = re.compile(r"([?#]).*", re.DOTALL)
_PORT = re.compile(r".*:\d{1,5}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]{0,4096}")
# Headers that the sender sets itself.
_RESERVED = re.compile(
    r"(host|content-.*|transfer-encoding|connection|webhook-.*|user-agent|expect|te|trailer|upgrade)",
    re.IGNORECASE,
)
_MOST_HEADERS = 20
_SCHEMES: Mapping[str, Sequence[str]] = {
    "http": ("https", "http"),
    "otlp": ("https", "http"),
    "syslog": ("tls", "tcp"),
}
_KEY_PREFIX = "whsec_"
_SAFE = frozenset({"https", "tls"})


def check(wanted: AuditSink, secrets: SinkSecrets, folder: Path | None, reach: Reach) -> None:
    """Checks that a sink can be used; does not use the network.

    Raises:
        InvalidArgument: a field is wrong; named by its path in the request.
        FailedPrecondition: the server's settings name no folder for files.
    """
    if wanted.kind == "file":
        _check_file(wanted, secrets, folder)
        return
    for name in ("rotate_bytes", "keep_files"):
        if getattr(wanted, name):
            raise invalid(f"audit_sink.{name}", "is for file sinks only")
    if wanted.kind == "otlp" and wanted.format != "ocsf":
        raise invalid("audit_sink.format", "must not be given: OTLP has its own record format")
    address = address_of(wanted, reach)
    if wanted.kind == "syslog":
        if secrets.headers or secrets.signing_key:
            raise invalid("credentials", "must contain no headers and no signing key: syslog has neither")
    else:
        _check_headers(secrets.headers)
        signing_bytes(secrets.signing_key)
    trusted = wanted.certificate_authority or wanted.client_certificate or secrets.client_key
    if trusted and address.scheme not in _SAFE:
        raise invalid(
            "audit_sink.certificate_authority",
            f"must be empty, like the client certificate and key: {address.scheme}:// has no TLS",
        )
    tls.context(wanted.certificate_authority, wanted.client_certificate, secrets.client_key)


def signing_bytes(key: str) -> bytes:
    """Returns the bytes that sign: base64 after `whsec_` (Standard Webhooks), else the bytes of the key itself.

    Raises InvalidArgument if the text after `whsec_` is not base64.
    """
    if not key.startswith(_KEY_PREFIX):
        return key.encode()
    try:
        found = base64.b64decode(key.removeprefix(_KEY_PREFIX), validate=True)
    except ValueError:
        found = b""
    if not found:
        raise invalid(
            "credentials.signing_key", "must be base64 after whsec_, as Standard Webhooks write a signing key"
        )
    return found


def without_credentials(address: str) -> str:
    """Returns an address in the form that a record may show: without user info, query and fragment."""
    return _QUERY.sub(r"\1[redacted]", _USER_INFO.sub("//[redacted]@", address))


def address_of(sink: AuditSink, reach: Reach) -> Origin:
    """Returns the parts of the address of a sink that is not a file. Raises InvalidArgument if it is not permitted."""
    if sink.kind == "syslog" and not _PORT.fullmatch(sink.address):
        raise invalid("audit_sink.address", "must have a port, such as tls://siem.example.com:6514")
    try:
        found = origin(sink.address, schemes=_SCHEMES[sink.kind], path=sink.kind != "syslog")
        reach.check(found.host)
    except AddressRefused as error:
        raise invalid("audit_sink.address", str(error)) from None
    return found


async def create(
    transaction: Transaction,
    wanted: AuditSink,
    secrets: SinkSecrets,
    envelopes: Envelopes,
    start_after: int | None,
) -> AuditSink:
    """Adds a sink that `check` has accepted. `start_after` None begins with the oldest stored record.

    Raises:
        InvalidArgument: it would begin beyond the end of the log.
        AlreadyExists: the name is taken, or another sink writes a file of this name.
        Unavailable: no key provider of this server has the active key.
    """
    if await repository.find(transaction, wanted.name) is not None:
        raise already_exists("audit sink", wanted.name)
    newest = (await stream_head(transaction)).audit_sequence
    if start_after is not None and start_after > newest:
        # Records up to there would be skipped silently.
        raise invalid("start_after_sequence", f"must be at most {newest}, where the log ends")
    added = await repository.add(transaction, wanted, start_after or 0)
    if secrets != SinkSecrets():
        key_id = await encryption_keys.active_key_id(transaction)
        binding = SEALED_SINKS.binding(added.uid, "")
        await repository.seal(
            transaction, added, envelopes.seal(msgspec.json.encode(secrets), binding, key_id)
        )
    return added


async def delete(transaction: Transaction, name: str) -> AuditSink:
    """Removes a sink; records that it has not received are no longer sent. Raises NotFound."""
    found = await repository.find(transaction, name)
    if found is None:
        raise not_found("audit sink", name)
    await repository.remove(transaction, found)
    return found


def opened(sink: AuditSink, sealed: Sealed | None, envelopes: Envelopes) -> SinkSecrets:
    """Returns the secrets of a sink.

    Raises:
        Unavailable: no key provider of this server has the key.
        FailedPrecondition: the ciphertext does not belong to this sink.
    """
    if sealed is None:
        return SinkSecrets()
    binding = SEALED_SINKS.binding(sink.uid, "")
    return msgspec.json.decode(envelopes.open(sealed, binding), type=SinkSecrets)


def _check_file(wanted: AuditSink, secrets: SinkSecrets, folder: Path | None) -> None:
    if folder is None:
        raise FailedPrecondition(
            "this server writes no files: its setting PILOTHOUSE_AUDIT_SINK_DIR names no folder",
            reason="NO_SINK_FOLDER",
        )
    if not _FILE_NAME.fullmatch(wanted.address) or _ROTATED.fullmatch(wanted.address):
        raise invalid(
            "audit_sink.address",
            "must be the plain name of a file: letters, digits, `.`, `_` and `-`, without a time at its end",
        )
    if secrets != SinkSecrets() or wanted.certificate_authority or wanted.client_certificate:
        raise invalid(
            "credentials", "must be empty, and the certificates of the sink too: a file has no connection"
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    if len(headers) > _MOST_HEADERS:
        raise invalid("credentials.headers", f"must have at most {_MOST_HEADERS} entries")
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or _RESERVED.fullmatch(name):
            raise invalid(
                "credentials.headers", "must have valid header names that the sender does not set itself"
            )
        if not _HEADER_VALUE.fullmatch(value):
            raise invalid(
                "credentials.headers", "must have values without control characters, at most 4,096 long"
            )
