"""The parts of the noun config for `app.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.config import messages
from pilothouse_server.config.operations import configs
from pilothouse_server.config.readers import ReaderLookup
from pilothouse_server.config.service import WATCH, ConfigService
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store.backfill import Watched
from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.values.key_patterns import KeyPatterns


def config_noun(
    watches: WatchServer,
    page_key: bytes,
    connect: Connect,
    envelopes: Envelopes,
    sealed: Sequence[EnvelopeTable],
    readers: ReaderLookup,
    guarded: KeyPatterns,
) -> Noun:
    """Returns the noun config.

    `sealed`: all tables with encrypted values. `readers`: finds the containers that read config maps and secrets.
    `guarded`: the keys that need a permission of their own.
    """
    return Noun(
        service=ConfigService(watches, page_key, connect, envelopes, sealed, readers, guarded),
        watches={"config": WATCH},
        watched={
            "config_map": Watched(
                partial(configs.get_many, kind="config_map"),
                messages.CONFIG_MAP_CACHE.render,
                messages.CONFIG_MAP_CACHE.format,
            ),
            "secret": Watched(
                partial(configs.get_many, kind="secret"),
                messages.SECRET_CACHE.render,
                messages.SECRET_CACHE.format,
            ),
        },
        in_namespaces=InNamespaces(cascade=configs.delete_all, forget=configs.forget_all, held=configs.held),
    )
