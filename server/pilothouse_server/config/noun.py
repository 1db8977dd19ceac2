"""What the noun config hands `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.config import messages
from pilothouse_server.config.operations import configs
from pilothouse_server.config.readers import Readers
from pilothouse_server.config.service import ConfigService
from pilothouse_server.encryption import Envelopes
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watch import WatchServer


def config_noun(
    watches: WatchServer, page_key: bytes, connect: Connect, envelopes: Envelopes, readers: Readers
) -> Noun:
    """Returns the noun config; `readers` knows who reads config maps and secrets."""
    return Noun(
        service=ConfigService(watches, page_key, connect, envelopes, readers),
        renderers={"config_map": messages.render_config_map, "secret": messages.render_secret},
        in_namespaces=InNamespaces(cascade=configs.delete_all, forget=configs.forget_all, held=configs.held),
    )
