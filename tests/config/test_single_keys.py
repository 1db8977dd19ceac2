"""Single keys of config maps and secrets: set and removed without knowledge of the others.

The response names the containers that miss a removed key.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse_client import PilothouseError
from tests.config.conftest import Place


async def secret(place: Place) -> pb.Secret:
    made = pb.Secret(name="app", data={"cert": b"\x00\xff", "user": b"me"})
    return await place.client.config.create_secret(namespace=place.name, secret=made)


async def config_map(place: Place) -> pb.ConfigMap:
    made = pb.ConfigMap(name="app", data={"a": "1", "b": "2"}, binary_data={"raw": b"\0"})
    return await place.client.config.create_config_map(namespace=place.name, config_map=made)


async def change_secret(place: Place, **fields: Any) -> pb.UpdateSecretResponse:
    return await place.client.config.update_secret(namespace=place.name, name="app", **fields)


async def change_map(place: Place, **fields: Any) -> pb.UpdateConfigMapResponse:
    return await place.client.config.update_config_map(namespace=place.name, name="app", **fields)


async def refusal(call: Any) -> PilothouseError:
    with pytest.raises(PilothouseError) as refused:
        await call
    return refused.value


async def test_one_value_of_a_secret_changes_without_revealing_the_others(place: Place) -> None:
    made = await secret(place)
    changed = await change_secret(place, set_data={"cert": b"\x01\xfe", "new": b"n"}, remove_keys=["user"])
    assert dict(changed.secret.key_sizes) == {"cert": 2, "new": 1}
    assert not changed.secret.data
    answer = await place.client.config.reveal_secret(namespace=place.name, name="app")
    assert dict(answer.data) == {"cert": b"\x01\xfe", "new": b"n"}
    assert changed.secret.generation == made.generation + 1
    same = await change_secret(place, set_data={"new": b"n"})
    assert same.secret.etag == changed.secret.etag
    # Other fields may change in the same call.
    both = await change_secret(
        place,
        set_data={"new": b"m"},
        secret=pb.Secret(labels={"a": "b"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    assert dict(both.secret.labels) == {"a": "b"}


async def test_single_keys_of_a_config_map_change_between_text_and_bytes(place: Place) -> None:
    await config_map(place)
    changed = await change_map(place, set_data={"a": "3", "raw": "text"}, set_binary_data={"b": b"\1"})
    assert dict(changed.config_map.data) == {"a": "3", "raw": "text"}
    assert dict(changed.config_map.binary_data) == {"b": b"\1"}
    changed = await change_map(place, remove_keys=["a", "b"])
    assert (dict(changed.config_map.data), dict(changed.config_map.binary_data)) == ({"raw": "text"}, {})


async def test_contradictory_changes_are_refused_by_field(place: Place) -> None:
    await config_map(place)
    await secret(place)
    data, text = FieldMask(paths=["data"]), FieldMask(paths=["string_data"])
    for call, field, reason in (
        (change_map(place), "update_mask", "REQUIRED"),
        (change_secret(place), "update_mask", "REQUIRED"),
        (change_map(place, remove_keys=["absent"]), "remove_keys", "KEY_NOT_FOUND"),
        (change_secret(place, remove_keys=["absent"]), "remove_keys", "KEY_NOT_FOUND"),
        (change_map(place, set_data={"a": "1"}, remove_keys=["a"]), "remove_keys", "DUPLICATE_KEY"),
        (change_secret(place, set_data={"user": b"1"}, remove_keys=["user"]), "remove_keys", "DUPLICATE_KEY"),
        (
            change_map(place, set_data={"x": "1"}, set_binary_data={"x": b"1"}),
            "set_binary_data",
            "DUPLICATE_KEY",
        ),
        (change_map(place, set_data={"a": "1"}, update_mask=data), "update_mask", "INVALID_UPDATE_MASK"),
        (change_secret(place, set_data={"a": b"1"}, update_mask=text), "update_mask", "INVALID_UPDATE_MASK"),
        (change_map(place, set_data={"a/b": "1"}), "set_data", "INVALID_FIELD"),
        (change_secret(place, remove_keys=["a/b"]), "remove_keys[0]", "INVALID_FIELD"),
    ):
        error = await refusal(call)
        assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", reason)
        assert error.metadata["field"].startswith(field)
    too_large = await refusal(change_map(place, set_data={"c": "x" * (1 << 20)}))
    assert too_large.reason == "TOO_LARGE"


async def test_keys_that_a_type_requires_cannot_be_removed(place: Place) -> None:
    made = pb.Secret(name="app", type="kubernetes.io/tls", data={"tls.crt": b"c", "tls.key": b"k"})
    await place.client.config.create_secret(namespace=place.name, secret=made)
    renewed = await change_secret(place, set_data={"tls.crt": b"new"})
    assert renewed.secret.key_sizes["tls.crt"] == 3
    assert (await refusal(change_secret(place, remove_keys=["tls.key"]))).reason == "MISSING_KEY"


def reading(name: str, key: str, *, optional: bool = False, init: bool = False) -> container_pb2.Container:
    env = container_pb2.EnvVar(
        name="VALUE",
        value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
        source_name="app",
        source_key=key,
        optional=optional,
    )
    first = container_pb2.InitContainer(name="first", image="busybox:1", env=[env])
    return container_pb2.Container(
        name=name,
        image="nginx:1.27",
        env=[] if init else [env],
        init_containers=[first] if init else [],
    )


async def test_containers_that_read_a_removed_key_are_reported(place: Place) -> None:
    await config_map(place)
    for container in (
        reading("reads-a", "a"),
        reading("begins-with-a", "a", init=True),
        reading("may-do-without-a", "a", optional=True),
        reading("reads-b", "b"),
    ):
        await place.client.containers.create(namespace=place.name, container=container)
    tried = await change_map(place, remove_keys=["a"], validate_only=True)
    assert list(tried.missing_keys) == ["reads-a", "begins-with-a"]
    replaced = await change_map(
        place, config_map=pb.ConfigMap(data={"b": "2"}), update_mask=FieldMask(paths=["data"])
    )
    assert list(replaced.missing_keys) == ["reads-a", "begins-with-a"]
    assert not (await change_map(place, set_data={"b": "3"})).missing_keys
