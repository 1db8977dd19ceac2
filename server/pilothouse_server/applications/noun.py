"""The parts of the noun application for `app.py`."""

from __future__ import annotations

from pilothouse_server.applications import messages, operations
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.applications.service import WATCH, ApplicationService
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer


def applications_noun(
    watches: WatchServer, page_key: bytes, connect: Connect, rights: NounRights, digest_key: bytes
) -> Noun:
    """Returns the noun application. `digest_key` is the key for the digests of its documents that are Secrets."""
    return Noun(
        service=ApplicationService(watches, page_key, connect, rights, digest_key),
        rendered={"application": messages.rendered},
        watches={"application": WATCH},
        in_namespaces=InNamespaces(
            cascade=operations.delete_all, forget=operations.delete_all, held=operations.held
        ),
    )
