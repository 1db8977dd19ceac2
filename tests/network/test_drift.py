"""Changes by others to standalone Services: reverted, reported, adopted."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import SERVICES
from tests.network.conftest import Place, condition_of

TRUE = resource_pb2.CONDITION_STATUS_TRUE


def by_hand(place: Place, name: str = "web", **spec: object) -> None:
    """Changes fields of the spec on the cluster, as kubectl does."""
    changed = copy_json(place.on_cluster(name))
    changed["spec"].update(spec)
    place.store.update(SERVICES, changed, manager="kubectl-edit")


def drifted(service: pb.Service) -> resource_pb2.Condition:
    found = condition_of(service, "Drifted")
    return found or resource_pb2.Condition()


async def test_repair_reverts_changes_and_additions(place: Place) -> None:
    await place.make()
    await place.settled()
    by_hand(place, selector={"app": "theirs"}, sessionAffinity="ClientIP")
    found = await place.seen(
        lambda each: each["spec"]["selector"] == {"app": "web"} and each["spec"]["sessionAffinity"] == "None"
    )
    assert found["spec"]["type"] == "ClusterIP"
    service = await place.service(lambda each: drifted(each).reason == "Repaired")
    assert "kubectl-edit" in drifted(service).message


async def test_report_names_the_field_and_leaves_it(place: Place) -> None:
    await place.make(drift_policy=resource_pb2.DRIFT_POLICY_REPORT)
    await place.settled()
    by_hand(place, selector={"app": "theirs"})
    service = await place.service(lambda each: drifted(each).status == TRUE)
    assert ".spec.selector" in drifted(service).message
    assert place.on_cluster()["spec"]["selector"] == {"app": "theirs"}


async def test_adopt_takes_over_only_fields_that_need_no_permission(place: Place) -> None:
    await place.make(drift_policy=resource_pb2.DRIFT_POLICY_ADOPT)
    await place.settled()
    by_hand(place, selector={"app": "theirs"}, externalIPs=["203.0.113.8"])
    service = await place.service(lambda each: dict(each.selector) == {"app": "theirs"})
    assert list(service.external_ips) == []
    service = await place.service(lambda each: drifted(each).status == TRUE and not each.reconciling)
    assert "externalIPs" in drifted(service).message


@pytest.mark.parametrize("named", [False, True])
async def test_a_service_deleted_by_others_is_made_again(place: Place, named: bool) -> None:
    selector: dict[str, Any] = {"selector": {}, "containers": ["api"]} if named else {}
    await place.make(**selector)
    first = await place.settled()
    uid = place.on_cluster()["metadata"]["uid"]
    place.store.delete(SERVICES, place.name, "web")
    await place.seen(lambda each: each["metadata"]["uid"] != uid)
    assert (await place.get()).uid == first.uid
