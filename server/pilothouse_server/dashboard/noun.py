"""The parts of the calls about several nouns for `app.py`."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.dashboard.service import WatchService
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.rpc.watched import NounWatch, WatchServer


def dashboard_noun(
    watches: WatchServer, page_key: bytes, connect: Connect, parts: Mapping[str, NounWatch]
) -> Noun:
    """Returns the calls about several nouns, each with its part of a watch."""
    return Noun(service=WatchService(watches, parts, page_key, connect))
