"""The programs of a pod have the same fields under the same names, in every message."""

from __future__ import annotations

from typing import Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_manifests.table import INIT_CONTAINER, MAIN_CONTAINER, SIDECAR, names_of
from pilothouse_server.containers.model import Container, ContainerSpec, InitContainer, Program
from tests.kubernetes.containers import container

# The field of the main program in `Container`, which uses `name` for another purpose.
NAME_OF_MAIN = "pod_container_name"
# The entries of `Container.ports` also describe Services.
OTHER_TYPE = {"ports"}


def fields(message: Any) -> dict[str, Any]:
    return dict(message.DESCRIPTOR.fields_by_name)


def shape(field: Any) -> tuple[Any, ...]:
    """Returns the properties that two fields of one meaning share: type and repetition."""
    kind = field.message_type.full_name if field.message_type is not None else field.type
    return kind, field.is_repeated


def test_sidecars_and_init_containers_differ_only_in_restart_policy() -> None:
    sidecar, init = fields(pb.Program), fields(pb.InitContainer)
    assert set(init) - set(sidecar) == {"restart_policy"}
    assert set(sidecar) <= set(init)
    for name, field in sidecar.items():
        assert shape(field) == shape(init[name]), name
        assert field.number == init[name].number, name
        assert field.GetOptions() == init[name].GetOptions(), name


def test_the_main_program_has_each_field_under_the_same_name() -> None:
    sidecar, main = fields(pb.Program), fields(pb.Container)
    del sidecar["name"]
    assert set(sidecar) <= set(main)
    for name, field in sidecar.items():
        if name not in OTHER_TYPE:
            assert shape(field) == shape(main[name]), name


def test_model_and_table_have_the_fields_of_the_messages() -> None:
    sidecar, init = set(fields(pb.Program)), set(fields(pb.InitContainer))
    assert set(Program.__struct_fields__) == sidecar
    assert set(InitContainer.__struct_fields__) == init
    assert sidecar - {"name"} <= {*Container.__struct_fields__, *ContainerSpec.__struct_fields__}
    assert set(names_of(SIDECAR)) == sidecar
    assert set(names_of(INIT_CONTAINER)) == init
    assert set(names_of(MAIN_CONTAINER)) == sidecar - {"name"} | {NAME_OF_MAIN}


def test_the_main_program_contains_every_field_of_its_container() -> None:
    # The values have wrong types: each only has to be found again.
    said: dict[str, Any] = {name: object() for name in Program.__struct_fields__} | {"ports": ()}
    of_container = {name for name in said if name in Container.__struct_fields__} - {"name"}
    spec = ContainerSpec(
        **{name: value for name, value in said.items() if name in ContainerSpec.__struct_fields__},
        pod_container_name=said["name"],
    )
    subject = container(**{name: said[name] for name in of_container}, spec=spec)
    assert subject.main == Program(**said)
