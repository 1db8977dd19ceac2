"""The parts of the calls about several nouns for `app.py`."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.dashboard.service import WatchService
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.rpc.watched import WatchServer


def dashboard_noun(watches: WatchServer, page_key: bytes, connect: Connect, nouns: Sequence[Noun]) -> Noun:
    """Returns the calls about several of `nouns`."""
    parts = {name: part for noun in nouns for name, part in noun.watches.items()}
    return Noun(service=WatchService(watches, parts, page_key, connect))
