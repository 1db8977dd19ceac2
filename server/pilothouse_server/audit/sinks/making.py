"""Chooses the sender of a sink, and the function that encodes its records."""

from __future__ import annotations

from pathlib import Path

from pilothouse_server.audit.sinks.formats import JSON_FORMATS, Encode, otlp_record, syslog_line
from pilothouse_server.audit.sinks.model import AuditSink, SinkSecrets
from pilothouse_server.audit.sinks.operations import address_of, signing_bytes
from pilothouse_server.audit.sinks.senders import Sender, tls
from pilothouse_server.audit.sinks.senders.file import FileSender, FileWrites
from pilothouse_server.audit.sinks.senders.http import CLOUD_EVENTS, LINES, OTLP, HttpSender
from pilothouse_server.audit.sinks.senders.syslog import SyslogSender
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.outbound.destinations import Reach

_OTLP_PATH = "/v1/logs"


class SenderMaker:
    """Creates senders according to this server's settings."""

    def __init__(self, folder: Path | None, reach: Reach) -> None:
        self._folder = folder
        self._writes = FileWrites()
        self._reach = reach

    def __call__(self, sink: AuditSink, secrets: SinkSecrets) -> tuple[Sender, Encode]:
        """Returns the sender of a sink, and the function that encodes a record for it.

        Raises:
            FailedPrecondition: it is a file, and this server writes none.
            InvalidArgument: the settings no longer permit its address, or its signing key cannot be decoded.
        """
        if sink.kind == "file":
            if self._folder is None:
                raise FailedPrecondition("this server writes no files", reason="NO_SINK_FOLDER")
            path = self._folder / sink.address
            file = FileSender(path, self._writes, sink.rotate_bytes, sink.keep_files)
            return file, JSON_FORMATS[sink.format]
        address = address_of(sink, self._reach)
        context = tls.context(sink.certificate_authority, sink.client_certificate, secrets.client_key)
        if sink.kind == "syslog":
            if address.scheme == "tls" and context is None:
                context = tls.system_context()
            return SyslogSender(address.host, address.port, self._reach, context), syslog_line(sink.format)
        url, body, encode = str(address), LINES, JSON_FORMATS[sink.format]
        if sink.kind == "otlp":
            url, body, encode = f"{url.rstrip('/')}{_OTLP_PATH}", OTLP, otlp_record
        elif sink.format == "cloudevents":
            body = CLOUD_EVENTS
        signing_key = signing_bytes(secrets.signing_key)
        sender = HttpSender(
            url, body, self._reach, headers=secrets.headers, signing_key=signing_key, tls=context
        )
        return sender, encode
