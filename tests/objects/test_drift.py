"""Changes by others to carried objects: reverted, contested, reported, adopted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.objects import contests
from pilothouse_server.objects.model import Contest
from pilothouse_simulator.values.resources import POD_DISRUPTION_BUDGETS
from tests.objects.conftest import BUDGET, Place, budget, condition_of

TRUE = resource_pb2.CONDITION_STATUS_TRUE
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def drifted(carried: pb.Object) -> resource_pb2.Condition:
    return condition_of(carried, "Drifted") or resource_pb2.Condition()


async def test_a_change_is_reverted_until_the_field_is_contested(place: Place) -> None:
    await place.make(BUDGET, budget())
    await place.settled(BUDGET)
    for attempt in range(3):
        place.by_hand(POD_DISRUPTION_BUDGETS, spec={"minAvailable": 7 + attempt})
        await place.seen(POD_DISRUPTION_BUDGETS, lambda each: each["spec"]["minAvailable"] == 1)
    carried = await place.until(lambda each: condition_of(each, "Contested") is not None, BUDGET)
    assert drifted(carried).reason == "Repaired"
    contested = condition_of(carried, "Contested")
    assert contested is not None
    assert (contested.status, contested.reason) == (TRUE, "TakenBackRepeatedly")
    assert ".spec.minAvailable by 'kubectl-edit'" in contested.message
    place.by_hand(POD_DISRUPTION_BUDGETS, spec={"minAvailable": 2})
    # The field is left alone, and other fields are still applied.
    await place.seen(POD_DISRUPTION_BUDGETS, lambda each: each["spec"]["minAvailable"] == 2)
    # A caller changes the object.
    await place.change(BUDGET, labels={"a": "b"})
    await place.seen(POD_DISRUPTION_BUDGETS, lambda each: each["spec"]["minAvailable"] == 1)
    await place.until(
        lambda each: (found := condition_of(each, "Contested")) is not None and found.reason == "Settled",
        BUDGET,
    )


async def test_report_names_the_field_and_leaves_it(place: Place) -> None:
    await place.make(BUDGET, budget(), drift_policy=resource_pb2.DRIFT_POLICY_REPORT)
    await place.settled(BUDGET)
    place.by_hand(POD_DISRUPTION_BUDGETS, spec={"minAvailable": 5})
    carried = await place.until(lambda each: drifted(each).status == TRUE, BUDGET)
    assert ".spec.minAvailable by 'kubectl-edit'" in drifted(carried).message
    assert place.on_cluster(POD_DISRUPTION_BUDGETS)["spec"]["minAvailable"] == 5


async def test_adopt_takes_over_the_value(place: Place) -> None:
    tenant = await place.server.user("adopter", {place.name: "developer"})
    carried = pb.Object(
        name="web", document=json.dumps(budget()), drift_policy=resource_pb2.DRIFT_POLICY_ADOPT, **BUDGET
    )
    await tenant.objects.create(namespace=place.name, object=carried)
    await place.settled(BUDGET)
    place.by_hand(POD_DISRUPTION_BUDGETS, spec={"minAvailable": 5})
    await place.until(lambda each: json.loads(each.document)["spec"]["minAvailable"] == 5, BUDGET)
    settled = await place.settled(BUDGET)
    assert settled.generation == 2


def test_a_contest_counts_recent_changes_and_ends_when_it_is_settled() -> None:
    found: tuple[Contest, ...] = ()
    for minutes in (0, 6, 12, 18):
        found = contests.after(found, [(".spec.a", "one")], (), NOW + timedelta(minutes=minutes))
        assert contests.contested(found) == [], minutes
    found = contests.after(found, [(".spec.a", "one")], (), NOW + timedelta(minutes=19))
    assert [each.field for each in contests.contested(found)] == [".spec.a"]
    # Once contested, a field stays contested however long nothing happens.
    found = contests.after(found, [(".spec.b", "")], (), NOW + timedelta(hours=9))
    assert [each.field for each in contests.contested(found)] == [".spec.a"]
    found = contests.after(found, (), (".spec.a",), NOW + timedelta(hours=10))
    assert found == ()
