"""The reconciler writes no privilege that was not granted, even if the row has it."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from pilothouse_server.containers.model import ContainerSpec, SecurityContext
from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes.errors import GUARDED, Refused
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, SERVICES, Resource
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from tests.guard.objects import Guarded, deployment
from tests.reconcile.environment import Environment
from tests.waiting import poll_until

PRIVILEGED = Guarded("spec.containers[0].securityContext.privileged", True, "privileged")


async def test_a_privilege_that_was_not_granted_is_not_written(here: Environment) -> None:
    await here.namespace()
    privileged = ContainerSpec(security_context=SecurityContext(privileged=True))
    await here.create(spec=privileged, may=lambda _: True)
    await here.create("changed", spec=privileged, may=lambda _: True)
    # The state that a write without admission, or a faulty migration, would leave.
    await here.rows(
        "UPDATE containers SET spec = jsonb_set(spec, '{rights}', '[]') WHERE name = 'changed' RETURNING id"
    )
    client = await here.connect("local")
    async with here.reconciling():
        await here.running()
        refused = await here.until(lambda row: row.observed_generation == 1, "changed")
    told = next(each for each in refused.observed.conditions if each.type == "Applied")
    assert (told.status, told.reason) == ("False", GUARDED)
    assert told.message.startswith(
        "spec.template.spec.containers[0].securityContext.privileged gives all rights"
    )
    assert await client.find(DEPLOYMENTS, "shop", "changed") is None


@pytest.mark.parametrize(
    ("resource", "document", "admitted", "path"),
    [
        (
            DEPLOYMENTS,
            deployment(PRIVILEGED),
            Admitted("shop", rights=frozenset()),
            "securityContext.privileged",
        ),
        (DEPLOYMENTS, deployment(), Admitted("other"), "metadata.namespace"),
        (
            SERVICES,
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}},
            Admitted("shop"),
            "apiVersion",
        ),
    ],
)
async def test_the_reconcilers_client_refuses_before_it_writes(
    here: Environment, resource: Resource[Any], document: dict[str, Any], admitted: Admitted, path: str
) -> None:
    async with here.reconciling():
        await here.namespace()
        await poll_until(here.seen_namespace, lambda seen: seen is not None and seen.phase == "Active")
    cluster = await here.connect("local")
    client = LeasedClient(cluster, monotonic() + 60)
    with pytest.raises(Refused) as told:
        await client.apply(resource, document, admitted)
    assert (told.value.reason, path in told.value.message) == (GUARDED, True)
    assert await cluster.find(resource, "shop", "web") is None
    # With the granted right it is written.
    if admitted.rights is not None:
        await client.apply(resource, document, Admitted("shop", rights=frozenset({"privileged true"})))
        assert await cluster.find(resource, "shop", "web") is not None


async def test_a_privilege_added_by_others_is_reported_and_not_adopted(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        made = await here.create(drift_policy="adopt")
        await here.running()
        name = made.spec.pod_container_name
        program = {"name": name, "securityContext": {"privileged": True}}
        await here.meddle({"spec": {"template": {"spec": {"containers": [program]}}}})
        row = await here.until(
            lambda row: any(
                each.type == "Drifted" and each.status == "True" for each in row.observed.conditions
            )
        )
    told = next(each for each in row.observed.conditions if each.type == "Drifted")
    assert "securityContext" in told.message
    assert (row.spec.security_context, row.spec.rights) == (None, ())
    # The field is left as it is.
    live = await client.read(DEPLOYMENTS, "shop", "web")
    assert live["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] is True
