"""What a create will find in its namespace, as the last one of its caller found it: no message is sent to read it.

`write_container` compares all that decides with what there is once it has its locks, under the caller's row-level
security, and refuses what is outdated. So a create may go by what was read seconds ago. Nobody is refused by what is
kept here: where it would refuse a create, and where the database finds it outdated (a name or a service that is taken,
a request that was served, another quota, a namespace that ends), the create begins again and reads. Only creates that
need no sources of their namespace go by it: whether a source will do is not for the database to say.

Ids of new rows come from the database's sequence, some at once; what a server has left of them at its end stays unused.
The time is the database's, counted on from what it said last.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pilothouse_server.containers.surroundings import Admission, Needs, Surroundings
from pilothouse_server.values.resources import ContainerId

KEPT_SECONDS: Final = 5.0
MOST_KEPT: Final = 1_000
# After so long the database's time is taken anew, since no two clocks run alike.
_CLOCK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Kept:
    admission: Admission
    until: float


class Expectations:
    """What the creates of one server found last, by caller and namespace."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        # For rows that are not drafted yet; nobody else gets them.
        self.ids: deque[ContainerId] = deque()
        # When the loop's clock was zero, by the database's: of what it said the latest, which was under way for the
        # shortest time; and until when that counts.
        self._zero: datetime | None = None
        self._zero_until = 0.0

    def learn(self, user_id: int, admission: Admission) -> None:
        """Keeps what a create of this caller was admitted by, as soon as it is read."""
        now = asyncio.get_running_loop().time()
        zero = admission.moment - timedelta(seconds=now)
        if self._zero is None or zero > self._zero or now > self._zero_until:
            self._zero, self._zero_until = zero, now + _CLOCK_SECONDS
        key = (user_id, admission.namespace.name)
        known = msgspec.structs.replace(admission, name_taken=False, surroundings=Surroundings())
        self._kept[key] = _Kept(known, now + KEPT_SECONDS)
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def forget(self, user_id: int, namespace: str) -> None:
        """Drops what is kept, because it was outdated."""
        self._kept.pop((user_id, namespace), None)

    def find(self, user_id: int, namespace: str, needs: Needs) -> Admission | None:
        """What a create with these needs will find; None where that must be read. Its id and its time are another's."""
        if needs.config_maps or needs.secrets or needs.volumes:
            return None
        kept = self._kept.get((user_id, namespace))
        if kept is None or asyncio.get_running_loop().time() > kept.until:
            return None
        return kept.admission

    def taken_up(self, admission: Admission) -> Admission:
        """The same for one create: with the next of `ids`, of which there is one, and the present time."""
        assert self._zero is not None
        moment = self._zero + timedelta(seconds=asyncio.get_running_loop().time())
        return msgspec.structs.replace(admission, container_id=self.ids.popleft(), moment=moment)
