"""Caches namespaces, so that a create needs no query for the deciding facts.

`write_container` compares the namespace's `row_version` and all other deciding facts with the present ones once it
has its locks, under the caller's row-level security, and refuses outdated facts. So a create may use a namespace that
was read seconds ago. No create is refused because of a cached value: if the rules would refuse it by cached facts, the
operation reads the present ones. If the database finds the facts of a create outdated (the name or a service is taken,
the request was already served, the namespace changed), the namespace stays out of the cache for `KEPT_SECONDS`, so that
the next attempts read the facts. Creates that need config maps, secrets or volumes always read the facts.

Each create that commits also returns an id and the time for a later create (`create_container`). Ids that are left when
the server ends stay unused.
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
    """A cached namespace, valid until `until`.

    `namespace`: None if its facts were found outdated, so that creates read the facts. `service_types`: None if they
    are unknown.
    """

    namespace: Namespace | None
    service_types: Sequence[str] | None
    until: float


class FactsCache:
    """Namespaces by caller and name, and ids for new containers; both are valid for `KEPT_SECONDS`."""

    def __init__(self) -> None:
        self._namespaces: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        self._ids: deque[tuple[NewContainer, float]] = deque(maxlen=_MOST_IDS)

    def find(self, user_id: int, namespace: str, needs: Needs) -> CreationFacts | None:
        """Returns the facts for one create, with an id that no other create gets; None if they must be read."""
        if needs.config_maps or needs.secrets or needs.volumes:
            return None
        now = asyncio.get_running_loop().time()
        kept = self._namespaces.get((user_id, namespace))
        if kept is None or kept.namespace is None or now > kept.until:
            return None
        while self._ids:
            # The newest id: the shorter its age, the more exact is the moment computed from it.
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
        """Stores the namespace of a create by this caller.

        A namespace that was found outdated within `KEPT_SECONDS` is not stored. Storing an unchanged namespace again
        does not extend its time.
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
        """Makes the next creates of this caller in the namespace read the facts, because cached ones were outdated."""
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
