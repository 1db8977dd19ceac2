"""A pod counts against the quota as the scheduler counts it: compared with a model that starts it step by step."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.containers import rules
from pilothouse_server.containers.model import ContainerSpec, InitContainer, Program, Resources
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.values.quantity import Quantity
from tests.conftest import Database
from tests.harness import running_server
from tests.kubernetes.containers import container

# Millicores of a program's request and limit; None if not given.
Amounts = tuple[int | None, int | None]
amounts = st.tuples(st.none() | st.integers(0, 900), st.none() | st.integers(900, 2000))


def requested(pair: Amounts) -> int:
    request, limit = pair
    return request if request is not None else limit or 0


def by_steps(running: list[Amounts], starting: list[tuple[Amounts, bool]]) -> int:
    """Returns the largest sum of the programs that run at the same time, from the first init container on."""
    sums, staying = [0], list[int]()
    for amounts_of, stays in starting:
        sums.append(sum(staying) + requested(amounts_of))
        if stays:
            staying.append(requested(amounts_of))
    sums.append(sum(staying) + sum(map(requested, running)))
    return max(sums)


def text(amount: int | None) -> str:
    return "" if amount is None else f"{amount}m"


@settings(deadline=None)
@given(
    st.lists(amounts, min_size=1, max_size=4),
    st.lists(st.tuples(amounts, st.booleans()), max_size=5),
    st.integers(0, 3),
)
def test_the_quota_share_is_what_the_scheduler_reserves(
    running: list[Amounts], starting: list[tuple[Amounts, bool]], replicas: int
) -> None:
    def resources(pair: Amounts) -> Resources:
        memory = {"memory": str(requested(pair))}
        return Resources(cpu_request=text(pair[0]), cpu_limit=text(pair[1]), limits=memory)

    main, *others = (resources(each) for each in running)
    spec = ContainerSpec(
        sidecars=tuple(Program(f"s{n}", "a:1", resources=each) for n, each in enumerate(others)),
        init_containers=tuple(
            InitContainer(f"i{n}", "a:1", resources=resources(each), restart_policy="Always" if stays else "")
            for n, (each, stays) in enumerate(starting)
        ),
    )
    share = by_steps(running, starting) * replicas
    subject = container(resources=main, spec=spec, replicas=replicas)
    # The memory has the same numbers, in bytes.
    assert rules.quota_share(subject) == (share, share)


@pytest.mark.parametrize(
    ("whole", "millicores"),
    [
        (Resources(), 300),
        (Resources(cpu_request="1"), 1000),
        (Resources(requests={"cpu": "2"}, cpu_limit="3"), 2000),
        # The pod's limit is no request while a program has a request.
        (Resources(cpu_limit="3"), 300),
    ],
)
def test_the_request_of_the_whole_pod_takes_precedence(whole: Resources, millicores: int) -> None:
    program = Program("side", "a:1", resources=Resources(cpu_request="200m"))
    spec = ContainerSpec(sidecars=(program,), pod_resources=whole)
    subject = container(resources=Resources(cpu_request="100m"), spec=spec, replicas=2)
    assert rules.quota_share(rules.checked(subject)) == (2 * millicores, 0)


def test_a_limit_of_the_whole_pod_counts_if_no_program_has_a_request() -> None:
    subject = container(spec=ContainerSpec(pod_resources=Resources(cpu_limit="3", memory_limit="1Ki")))
    assert rules.quota_share(rules.checked(subject)) == (3000, 1024)


@pytest.mark.parametrize(
    ("whole", "field"),
    [
        (Resources(cpu_request="99m"), "container.pod_resources.cpu_request"),
        (Resources(limits={"nvidia.com/gpu": "1"}), "container.pod_resources.limits"),
        (Resources(memory_request="2", memory_limit="1"), "container.pod_resources.memory_request"),
    ],
)
def test_a_broken_rule_of_pod_resources_names_its_field(whole: Resources, field: str) -> None:
    subject = container(resources=Resources(cpu_request="100m"), spec=ContainerSpec(pod_resources=whole))
    with pytest.raises(InvalidArgument) as told:
        rules.checked(subject)
    assert told.value.metadata["field"] == field


async def test_the_database_counts_what_the_model_counts(database: Database, tmp_path: Path) -> None:
    random = Random(7)

    def one() -> Amounts:
        return random.choice([None, random.randrange(900)]), random.choice(
            [None, random.randrange(900, 2000)]
        )

    def resources(pair: Amounts) -> pb.Resources:
        return pb.Resources(cpu_request=text(pair[0]), cpu_limit=text(pair[1]))

    def asked(name: str) -> tuple[pb.Container, int]:
        running = [one() for _ in range(random.randrange(1, 4))]
        starting = [(one(), random.random() < 0.5) for _ in range(random.randrange(4))]
        made = pb.Container(
            name=name,
            image="nginx:1.27",
            replicas=random.randrange(4),
            resources=resources(running[0]),
            sidecars=[
                pb.Program(name=f"s{n}", image="a:1", resources=resources(each))
                for n, each in enumerate(running[1:])
            ],
            init_containers=[
                pb.InitContainer(
                    name=f"i{n}",
                    image="a:1",
                    resources=resources(each),
                    restart_policy="Always" if stays else "",
                )
                for n, (each, stays) in enumerate(starting)
            ],
        )
        return made, by_steps(running, starting) * made.replicas

    async with running_server(database, tmp_path, with_cluster=False) as server:
        wide = namespace_pb2.ResourceQuota(containers=1000, cpu="1000", memory="1000Gi")
        await server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name="demo", resource_quota=wide)
        )
        containers: Any = server.admin.containers
        shares: dict[str, int] = {}

        async def used() -> str:
            found = await server.admin.namespaces.get_quota_usage(name="demo")
            return str(found.used.cpu)

        for number in range(12):
            made, shares[f"web-{number}"] = asked(f"web-{number}")
            await containers.create(namespace="demo", container=made)
        assert Quantity.parse(await used()).millicores == sum(shares.values())
        mask = FieldMask(paths=["resources", "sidecars", "init_containers", "replicas"])
        for name in ("web-1", "web-4", "web-7"):
            changed, shares[name] = asked(name)
            await containers.update(namespace="demo", name=name, container=changed, update_mask=mask)
        await containers.delete(namespace="demo", name="web-9")
        shares.pop("web-9")
        assert Quantity.parse(await used()).millicores == sum(shares.values())
