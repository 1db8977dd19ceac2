"""Refusals are recorded singly while they are few.

Further refusals are counted in sums, and none is lost.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.refusals import Bounds, Kind, Refusals, RefusalsOfCallers
from pilothouse_server.store.audit_records import AuditRecord

MOMENT = datetime(2026, 11, 27, tzinfo=UTC)
GET, LOGIN = (
    "/pilothouse.container.v1.ContainerService/GetContainer",
    "/pilothouse.identity.v1.IdentityService/Login",
)


class Log:
    """The written records: the number of single refusals, and the sums."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.singly = 0
        self.sums: list[AuditRecord] = []
        self.refusals = Refusals(self.sums.append, bounds)

    def refuse(
        self, count: int, address: str = "192.0.2.1", method: str = GET, name: str | None = None
    ) -> None:
        rule = cast(
            Rule, SimpleNamespace(action="get", resource_type="container", streams=False, method=method)
        )
        kind = Kind(address, method, "UNAUTHENTICATED", "NO_TOKEN")
        for _ in range(count):
            self.singly += self.refusals.singly(kind, rule, MOMENT, name)

    @property
    def counted(self) -> int:
        """Returns how many refusals the records account for."""
        return self.singly + sum(_summed(record) for record in self.sums)


def _summed(record: AuditRecord) -> int:
    return cast(int, record.metadata["summed"])


def test_the_first_refusals_are_recorded_singly_and_the_rest_in_one_sum() -> None:
    log = Log(Bounds(of_a_kind=5, singly=90, sums=10))
    log.refuse(1000)
    log.refuse(2, "192.0.2.2")
    assert (log.singly, log.sums) == (7, [])
    log.refusals.flush()
    (record,) = log.sums
    assert (record.request_path, record.client_ip, record.error_code) == (GET, "192.0.2.1", "UNAUTHENTICATED")
    assert record.metadata == {"summed": 995, "reason": "NO_TOKEN"}
    assert record.request_headers is None
    log.refuse(3)
    log.refusals.flush()
    # A new minute begins with single records.
    assert (log.singly, len(log.sums)) == (10, 1)


def test_the_records_of_a_minute_are_bounded_for_any_callers() -> None:
    log = Log()
    for number in range(3000):
        log.refuse(7, f"10.0.{number // 250}.{number % 250}")
    log.refuse(50, method=LOGIN)
    log.refusals.flush()
    assert log.singly + len(log.sums) == 100
    assert log.counted == 3000 * 7 + 50
    others = log.sums[-1]
    assert others.metadata["by_method"][f"{GET} NO_TOKEN"] > 20_000
    assert others.metadata["addresses"] >= 900


def test_one_address_does_not_use_up_the_sums_of_others() -> None:
    log = Log(Bounds(of_a_kind=1, singly=0, sums=4))
    for number in range(20):
        log.refuse(100, method=f"/a.B/Method{number}")
    log.refuse(2, "192.0.2.2")
    log.refusals.flush()
    assert {record.client_ip for record in log.sums} >= {"192.0.2.1", "192.0.2.2"}
    assert log.counted == 2002


def test_a_sum_names_the_first_accounts() -> None:
    log = Log(Bounds(of_a_kind=1, singly=90, sums=10))
    for number in range(30):
        log.refuse(2, method=LOGIN, name=f"user{number}")
    log.refusals.flush()
    assert log.sums[0].metadata["names"] == [f"user{number}" for number in range(10)]


def test_no_sum_is_written_if_nothing_was_counted() -> None:
    log = Log()
    log.refuse(5)
    log.refusals.flush()
    log.refusals.flush()
    assert log.sums == []


def test_a_record_of_a_sum_can_be_hashed() -> None:
    log = Log()
    log.refuse(20, name="admin")
    log.refusals.flush()
    row: dict[str, Any] = log.sums[0].as_row()
    assert row["metadata"]["names"] == ["admin"]
    assert row["status_code"] == 401


def test_each_user_has_bounds_of_their_own() -> None:
    sums: list[AuditRecord] = []
    users = RefusalsOfCallers(sums.append, Bounds(of_a_kind=5, singly=20, sums=3))
    rule = cast(Rule, SimpleNamespace(action="get", resource_type="container", streams=False, method=GET))

    def refuse(user_id: int, count: int, method: str = GET) -> int:
        kind = Kind("192.0.2.1", method, "PERMISSION_DENIED", "PERMISSION_DENIED", 7)
        of_user = users.of(user_id, f"user{user_id}")
        return sum(of_user.singly(kind, rule, MOMENT, f"web-{number}", 100) for number in range(count))

    assert sum(refuse(1, 1000, f"/a.B/Method{number}") for number in range(50)) == 20
    # One user's refusals do not cause those of another to be summed.
    assert refuse(2, 5) == 5
    assert refuse(2, 2) == 0
    users.flush()
    assert sum(_summed(record) for record in sums if record.user_id == 1) == 50_000 - 20
    (of_other,) = (record for record in sums if record.user_id == 2)
    assert (of_other.username, of_other.namespace_id, _summed(of_other)) == ("user2", 7, 2)
    assert of_other.metadata["names"] == [f"web-{number}" for number in range(5)]
    assert len(sums) == 4
    assert refuse(1, 1) == 1


def test_long_requests_have_fewer_records_of_their_own() -> None:
    log = Log(Bounds(of_a_kind=100, singly=100, sums=3, request_bytes=100_000))
    kind = Kind("192.0.2.1", GET, "INVALID_ARGUMENT", "INVALID_FIELD")
    rule = cast(Rule, SimpleNamespace(action="get", resource_type="container", streams=False, method=GET))
    singly = [log.refusals.singly(kind, rule, MOMENT, None, 16_000) for _ in range(50)]
    assert sum(singly) == 6
    # A short request still has its own record.
    assert log.refusals.singly(kind, rule, MOMENT, None, 100)
    log.refusals.flush()
    assert _summed(log.sums[0]) == 44
