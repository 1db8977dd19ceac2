"""What the resources of every noun have in common: ids that cannot be swapped, and conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NewType

import msgspec

ContainerId = NewType("ContainerId", int)
NamespaceId = NewType("NamespaceId", int)

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`made_from`: uid/generation of the cluster's object that it tells of, where that matters; not shown."""

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    made_from: str = ""
