"""Refusals that a caller can cause by the thousand: a few are recorded, the others summed.

A refused call costs its caller nothing, so its record must not cost the log without a bound. In each minute, the first
refusals of each kind (address, method, reason, and namespace) have records of their own, until `Bounds` are reached;
later ones are counted. After the minute, the kinds with the most refusals have one record each, with their count and
the times of the first and the last; the largest kind of each address comes first. All other kinds share one more
record, which counts them by method and reason. A sum names the first requested resources; for failed log-ins, it names
the accounts that were tried.

All anonymous callers share such bounds (`Refusals`); each known user has bounds of its own
(`RefusalsOfCallers`), so that nobody's refusals cause those of another user to be summed.

The counts stay in memory for a minute: a server that is killed loses at most that, and one that is stopped
writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import uuid4

from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.status import HTTP_STATUS
from pilothouse_server.store.audit_records import AuditRecord

MINUTE: Final = 60.0
_NAMES: Final = 10
# Kinds that are distinguished in one minute; further kinds are counted in the record of the others.
_MOST_KINDS: Final = 1000
# The number of pairs of method and reason that the record of the others counts individually.
_MOST_IN_OTHERS: Final = 50


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most records of one minute, single ones and those of sums.

    `of_a_kind`: single records of one kind. `singly`: single records in all. `sums`: records of sums. `request_bytes`:
    the most bytes of requests in the records of single calls together.
    """

    of_a_kind: int = 5
    singly: int = 90
    sums: int = 10
    request_bytes: int = 1 << 20


Caller: TypeAlias = tuple[int | None, str]
_NOBODY: Final[Caller] = (None, "")


class Kind(NamedTuple):
    """The facts that refusals must share to be counted together."""

    address: str
    method: str
    code: str
    reason: str
    namespace_id: int | None = None
    namespace: str = ""


@dataclass(slots=True)
class _Sum:
    rule: Rule
    first: datetime
    last: datetime
    count: int = 0
    # How many of them had no record of their own.
    summed: int = 0
    names: dict[str, None] = field(default_factory=dict)


class Refusals:
    """Decides which refusals have a record of their own, and counts the others.

    `submit` accepts the record of a sum.

    `caller` is the id and the name of the user who makes the calls, if the user is known.
    """

    def __init__(
        self, submit: Callable[[AuditRecord], None], bounds: Bounds | None = None, caller: Caller = _NOBODY
    ) -> None:
        self._submit = submit
        self.bounds = bounds or Bounds()
        self._caller = caller
        self._kinds: dict[Kind, _Sum] = {}
        self._others: Counter[tuple[str, str, str]] = Counter()
        self._others_since: datetime | None = None
        self._others_of: set[str] = set()
        self._singly = self._request_bytes = 0

    def singly(
        self, kind: Kind, rule: Rule, moment: datetime, name: str | None = None, request_bytes: int = 0
    ) -> bool:
        """Returns whether this refusal has a record of its own; otherwise it is counted.

        `name` is the account that was tried, or the requested resource; the record shows `request_bytes` of
        the request.
        """
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._count_among_others(kind, 1, moment)
                return False
            found = self._kinds[kind] = _Sum(rule, moment, moment)
        found.count += 1
        found.last = max(found.last, moment)
        if name and len(found.names) < _NAMES:
            found.names[name] = None
        if (
            found.count <= self.bounds.of_a_kind
            and self._singly < self.bounds.singly
            and self._request_bytes + request_bytes <= self.bounds.request_bytes
        ):
            self._singly += 1
            self._request_bytes += request_bytes
            return True
        found.summed += 1
        return False

    def flush(self) -> None:
        """Writes the counts, and begins a new minute."""
        kinds, self._kinds = self._kinds, {}
        self._singly = self._request_bytes = 0
        counted = [(kind, found) for kind, found in kinds.items() if found.summed]
        shown, rest = _chosen(counted, self.bounds.sums - 1)
        for kind, found in shown:
            self._submit(_record_of(self._caller, kind, found))
        for kind, found in rest:
            self._count_among_others(kind, found.summed, found.first)
        if self._others and self._others_since is not None:
            addresses = len(self._others_of)
            self._submit(_record_of_others(self._caller, self._others, self._others_since, addresses))
        self._others, self._others_since, self._others_of = Counter(), None, set()

    def _count_among_others(self, kind: Kind, count: int, moment: datetime) -> None:
        self._others[kind.method, kind.code, kind.reason] += count
        self._others_since = min(self._others_since or moment, moment)
        if len(self._others_of) < _MOST_KINDS:
            self._others_of.add(kind.address)


class RefusalsOfCallers:
    """The refusals of known users, each within `bounds` of their own."""

    def __init__(self, submit: Callable[[AuditRecord], None], bounds: Bounds) -> None:
        self._submit = submit
        self.bounds = bounds
        self._of: dict[int, Refusals] = {}

    def of(self, user_id: int, username: str) -> Refusals:
        """Returns the counts of one user's refused calls in the present minute."""
        found = self._of.get(user_id)
        if found is None:
            found = self._of[user_id] = Refusals(self._submit, self.bounds, (user_id, username))
        return found

    def flush(self) -> None:
        """Writes the counts, and begins a new minute."""
        refusals, self._of = self._of, {}
        for each in refusals.values():
            each.flush()


def _chosen(
    counted: list[tuple[Kind, _Sum]], places: int
) -> tuple[list[tuple[Kind, _Sum]], list[tuple[Kind, _Sum]]]:
    """Returns the kinds with a record of their own, and the others.

    Each address's largest kind comes before any address's second.
    """
    rank: Counter[str] = Counter()
    placed = []
    for kind, found in sorted(counted, key=lambda each: -each[1].summed):
        placed.append((rank[kind.address], kind, found))
        rank[kind.address] += 1
    placed.sort(key=lambda each: (each[0], -each[2].summed))
    pairs = [(kind, found) for _, kind, found in placed]
    return pairs[:places], pairs[places:]


def _record_of(caller: Caller, kind: Kind, found: _Sum) -> AuditRecord:
    metadata: dict[str, Any] = {"summed": found.summed, "reason": kind.reason}
    if kind.namespace:
        metadata["namespace"] = kind.namespace
    if found.names:
        metadata["names"] = list(found.names)
    return _sum(
        caller,
        kind,
        action=found.rule.action,
        resource_type=found.rule.resource_type,
        request_method="STREAM" if found.rule.streams else "UNARY",
        moments=(found.first, found.last),
        message=f"{found.summed} calls within a minute with the same outcome and no records of their own",
        metadata=metadata,
    )


def _record_of_others(
    caller: Caller, others: Counter[tuple[str, str, str]], since: datetime, addresses: int
) -> AuditRecord:
    total = others.total()
    by_method = {
        f"{method} {reason or code}": count
        for (method, code, reason), count in others.most_common(_MOST_IN_OTHERS)
    }
    return _sum(
        caller,
        Kind("", "", others.most_common(1)[0][0][1], ""),
        action="other",
        resource_type="unknown",
        request_method="UNARY",
        moments=(since, since),
        message=f"{total} calls within a minute that were refused and have no records of their own",
        metadata={"summed": total, "addresses": addresses, "by_method": by_method},
    )


def _sum(
    caller: Caller, kind: Kind, *, moments: tuple[datetime, datetime], message: str, **fields: Any
) -> AuditRecord:
    user_id, username = caller
    return AuditRecord(
        operation_id=uuid4(),
        user_id=user_id,
        username=username[:50] or None,
        namespace_id=kind.namespace_id,
        request_path=kind.method,
        client_ip=kind.address[:45] or None,
        status_code=HTTP_STATUS[kind.code],
        error_code=kind.code,
        error_message=message,
        started_at=moments[0],
        completed_at=moments[1],
        **fields,
    )
