"""The namespaces in which one server creates containers, so that a create needs no message to read the facts.

`write_container` compares the namespace's `row_version` and all other deciding facts with the present ones once it
has its locks, under the caller's row-level security, and refuses outdated facts. So a create may use a namespace that
was read seconds ago. No create is refused because of a cached value: where the rules would refuse it by one, the
operation reads the facts. Where the database finds the create outdated (a name or a service that is taken, a request
that was served, a namespace that changed), the namespace stays out of the cache for a while, so that the next
attempts read. Creates that need config maps, secrets or volumes always read.

Each create that commits brings an id and the time for a later one (`create_container`). The ids that a server has left
when it ends stay unused.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from pilothouse_server.containers.namespace_facts import CreationFacts, NamespaceFacts, Needs, NewContainer
from pilothouse_server.namespaces.model import Namespace

KEPT_SECONDS: Final = 5.0
MOST_KEPT: Final = 1_000
_MOST_IDS = 100


class _Kept(NamedTuple):
    """A namespace, None if it is outdated: until then, creates read. `service_types`: None if they are not known."""

    namespace: Namespace | None
    service_types: Sequence[str] | None
    until: float


class FactsCache:
    """Namespaces by caller and name, and ids for new containers; both count for `KEPT_SECONDS`."""

    def __init__(self) -> None:
        self._namespaces: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        self._ids: deque[tuple[NewContainer, float]] = deque(maxlen=_MOST_IDS)

    def find(self, user_id: int, namespace: str, needs: Needs) -> CreationFacts | None:
        """Returns the facts for one create, with an id that no other gets; None where they must be read."""
        if needs.config_maps or needs.secrets or needs.volumes:
            return None
        now = asyncio.get_running_loop().time()
        kept = self._namespaces.get((user_id, namespace))
        if kept is None or kept.namespace is None or now > kept.until:
            return None
        while self._ids:
            # The latest: how long ago the database gave it is known best.
            new, since = self._ids.pop()
            if now - since <= KEPT_SECONDS:
                return CreationFacts(
                    namespace=kept.namespace,
                    service_types=kept.service_types,
                    used=(0, 0, 0),
                    name_taken=None,
                    found=NamespaceFacts(),
                    volume_definitions=None,
                    container_id=new.container_id,
                    moment=new.moment + timedelta(seconds=now - since),
                )
        return None

    def learn(self, user_id: int, facts: CreationFacts) -> None:
        """Stores a namespace that a create of this caller goes by, unless it was outdated just now.

        One that is stored already does not stay for longer.
        """
        namespace, now = facts.namespace, asyncio.get_running_loop().time()
        key = user_id, namespace.name
        kept, until = self._namespaces.get(key), now + KEPT_SECONDS
        if kept is not None and now <= kept.until:
            if kept.namespace is None:
                return
            if kept.namespace.row_version == namespace.row_version:
                until = kept.until
        self._store(key, _Kept(namespace, facts.service_types, until))

    def forget(self, user_id: int, namespace: str) -> None:
        """Makes the next creates of this caller in the namespace read the facts again, because some were outdated."""
        until = asyncio.get_running_loop().time() + KEPT_SECONDS
        self._store((user_id, namespace), _Kept(None, None, until))

    def add_id(self, new: NewContainer) -> None:
        """Stores an id for a later create."""
        self._ids.append((new, asyncio.get_running_loop().time()))

    def _store(self, key: tuple[int, str], kept: _Kept) -> None:
        self._namespaces[key] = kept
        self._namespaces.move_to_end(key)
        if len(self._namespaces) > MOST_KEPT:
            self._namespaces.popitem(last=False)
