"""The responses and refusals of ConfigService, without the cluster."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_client.streams import ChangeKind
from tests.config.conftest import Place
from tests.harness import request_id
from tests.waiting import patient, poll_until

MEBIBYTE = 1 << 20


async def refused(call: object) -> PilothouseError:
    with pytest.raises(PilothouseError) as error:
        await call  # type: ignore[misc]
    return error.value


async def make_map(place: Place, name: str = "app", **fields: object) -> pb.ConfigMap:
    wanted = pb.ConfigMap(name=name, **{"data": {"mode": "fast"}, **fields})  # type: ignore[arg-type]
    return await place.client.config.create_config_map(namespace=place.name, config_map=wanted)


async def make_secret(place: Place, name: str = "app", **fields: object) -> pb.Secret:
    wanted = pb.Secret(name=name, **{"data": {"password": b"one"}, **fields})  # type: ignore[arg-type]
    return await place.client.config.create_secret(namespace=place.name, secret=wanted)


async def values(place: Place, name: str = "app", *keys: str) -> dict[str, bytes]:
    answer = await place.client.config.reveal_secret(namespace=place.name, name=name, keys=keys)
    return dict(answer.data)


async def test_a_config_map_is_returned_as_given(place: Place) -> None:
    made = await make_map(
        place, data={"a": "text\n", "empty": ""}, binary_data={"b": b"\x00\xff"}, labels={"tier": "web"}
    )
    assert dict(made.data) == {"a": "text\n", "empty": ""}
    assert dict(made.binary_data) == {"b": b"\x00\xff"}
    assert (made.generation, made.created_by, made.namespace) == (1, "admin", place.name)
    found = await place.client.config.get_config_map(namespace=place.name, name="app")
    assert (found.uid, dict(found.labels)) == (made.uid, {"tier": "web"})
    assert found.data == made.data
    assert (await refused(make_map(place))).reason == "CONFIG_MAP_ALREADY_EXISTS"


async def test_only_reveal_returns_the_values_of_a_secret(place: Place) -> None:
    made = await make_secret(place, data={"key": b"\x00\xff"}, string_data={"password": "pässword"})
    listed = [item async for item in place.client.config.list_secrets(namespace=place.name)]
    for shown in (made, listed[0], await place.client.config.get_secret(namespace=place.name, name="app")):
        assert not shown.data
        assert not shown.string_data
        assert shown.key_sizes == {"key": 2, "password": 9}
        assert (shown.type, shown.key_id) == ("Opaque", made.key_id)
    assert await values(place) == {"key": b"\x00\xff", "password": "pässword".encode()}
    assert await values(place, "app", "key") == {"key": b"\x00\xff"}
    assert (await refused(values(place, "app", "other"))).reason == "SECRET_KEY_NOT_FOUND"
    assert (await refused(values(place, "other"))).reason == "SECRET_NOT_FOUND"


@pytest.mark.parametrize(
    ("type_", "data", "reason"),
    [
        ("kubernetes.io/tls", {"tls.crt": b"x"}, "MISSING_KEY"),
        ("kubernetes.io/tls", {"tls.crt": b"x", "tls.key": b"y"}, ""),
        ("kubernetes.io/dockerconfigjson", {}, "MISSING_KEY"),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": b"not json"}, "MALFORMED_VALUE"),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": b'{"auths": {}}'}, ""),
        ("kubernetes.io/basic-auth", {"other": b"x"}, "MISSING_KEY"),
        ("kubernetes.io/basic-auth", {"username": b"x"}, ""),
        ("kubernetes.io/ssh-auth", {"ssh-privatekey": b""}, "MISSING_KEY"),
        ("kubernetes.io/ssh-auth", {"ssh-privatekey": b"x"}, ""),
        ("kubernetes.io/service-account-token", {}, "UNSUPPORTED_TYPE"),
        ("example.com/own", {}, ""),
        ("no type", {}, "INVALID_FIELD"),
    ],
)
async def test_types_require_their_keys(
    place: Place, type_: str, data: dict[str, bytes], reason: str
) -> None:
    if not reason:
        assert (await make_secret(place, type=type_, data=data)).type == type_
        return
    error = await refused(make_secret(place, type=type_, data=data))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", reason)
    assert "not json" not in str(error)


async def test_values_have_at_most_one_mebibyte_together(place: Place) -> None:
    await make_secret(place, "largest", data={"a": b"x" * (MEBIBYTE - 1), "b": b"y"})
    await make_map(place, "largest", data={"a": "x" * (MEBIBYTE - 1)}, binary_data={"b": b"y"})
    too_large = {"a": b"x" * MEBIBYTE, "b": b"y"}
    assert (await refused(make_secret(place, "larger", data=too_large))).reason == "TOO_LARGE"
    over = make_map(place, "larger", data={"a": "x" * MEBIBYTE}, binary_data={"b": b"y"})
    assert (await refused(over)).reason == "TOO_LARGE"
    await place.applied("largest")


@pytest.mark.parametrize("key", ["", "a/b", "..", "..a", "k" * 254, "ключ"])
async def test_keys_have_the_format_of_kubernetes(place: Place, key: str) -> None:
    for made in (make_map(place, data={key: "x"}), make_secret(place, data={key: b"x"})):
        assert (await refused(made)).code.name == "INVALID_ARGUMENT"


async def test_a_key_is_in_only_one_of_the_two_maps(place: Place) -> None:
    for made in (
        make_map(place, data={"a": "x"}, binary_data={"a": b"x"}),
        make_secret(place, data={"a": b"x"}, string_data={"a": "x"}),
    ):
        assert (await refused(made)).reason == "DUPLICATE_KEY"


async def test_only_a_real_change_increases_the_generation(place: Place) -> None:
    made = await make_map(place)
    config = place.client.config

    async def change(etag: str = "", **fields: object) -> pb.ConfigMap:
        answer = await config.update_config_map(
            namespace=place.name,
            name="app",
            config_map=pb.ConfigMap(**fields),  # type: ignore[arg-type]
            update_mask=FieldMask(paths=list(fields)),
            etag=etag,
        )
        return answer.config_map

    same = await change(data={"mode": "fast"})
    assert (same.etag, same.generation) == (made.etag, 1)
    changed = await change(etag=made.etag, data={"other": "1"}, labels={"a": "b"})
    assert (dict(changed.data), dict(changed.labels)) == ({"other": "1"}, {"a": "b"})
    assert changed.generation == 2
    assert (await refused(change(etag=made.etag, data={}))).reason == "ETAG_MISMATCH"
    assert (await refused(change(name="x"))).reason == "INVALID_UPDATE_MASK"


async def test_data_replaces_all_values_and_string_data_only_its_keys(place: Place) -> None:
    made = await make_secret(place, data={"a": b"1", "b": b"2"})

    async def change(*paths: str, **fields: object) -> pb.Secret:
        answer = await place.client.config.update_secret(
            namespace=place.name,
            name="app",
            secret=pb.Secret(**fields),  # type: ignore[arg-type]
            update_mask=FieldMask(paths=paths or list(fields)),
        )
        return answer.secret

    assert (await change(string_data={"b": "2"})).etag == made.etag
    await change(string_data={"b": "3", "c": "4"})
    assert await values(place) == {"a": b"1", "b": b"3", "c": b"4"}
    await change(data={"a": b"9"}, string_data={"d": "5"})
    assert await values(place) == {"a": b"9", "d": b"5"}
    labelled = await change(labels={"x": "y"})
    assert (labelled.generation, dict(labelled.key_sizes)) == (4, {"a": 1, "d": 1})
    assert await values(place) == {"a": b"9", "d": b"5"}
    await change("data", "string_data")
    assert await values(place) == {}


@pytest.mark.parametrize("kind", ["config_map", "secret"])
async def test_immutable_objects_keep_their_data(place: Place, kind: str) -> None:
    config = place.client.config

    async def change(**fields: object) -> object:
        mask = FieldMask(paths=list(fields))
        where = {"namespace": place.name, "name": "app", "update_mask": mask}
        if kind == "config_map":
            return await config.update_config_map(config_map=pb.ConfigMap(**fields), **where)  # type: ignore[arg-type]
        return await config.update_secret(secret=pb.Secret(**fields), **where)  # type: ignore[arg-type]

    value: object = "1" if kind == "config_map" else b"1"
    other: object = "2" if kind == "config_map" else b"2"
    await (make_map if kind == "config_map" else make_secret)(place, data={"a": value})
    await change(data={"a": other}, immutable=True)
    await change(data={"a": other})
    await change(labels={"may": "change"})
    refusals: tuple[dict[str, object], ...] = ({"data": {"a": value}}, {"immutable": False}, {"data": {}})
    for fields in refusals:
        assert (await refused(change(**fields))).reason == "IMMUTABLE"


async def test_config_in_use_is_not_deleted(place: Place) -> None:
    config, containers = place.client.config, place.client.containers
    for name in ("by-env", "by-init", "by-nobody"):
        await make_secret(place, name)
        await make_map(place, name)
    env = [
        container_pb2.EnvVar(
            name=f"V{index}", value_from=source, source_name="by-env", source_key="password", optional=True
        )
        for index, source in enumerate(
            (container_pb2.ENV_VALUE_FROM_SECRET, container_pb2.ENV_VALUE_FROM_CONFIG_MAP)
        )
    ]
    init_env = [
        container_pb2.EnvVar(
            name=each.name, value_from=each.value_from, source_name="by-init", source_key="password"
        )
        for each in env
    ]
    init = container_pb2.InitContainer(name="first", image="busybox:1", env=init_env)
    web = container_pb2.Container(name="web", image="nginx:1.27", env=env, init_containers=[init])
    await containers.create(namespace=place.name, container=web)
    for name in ("by-env", "by-init"):
        for delete in (config.delete_secret, config.delete_config_map):
            error = await refused(delete(namespace=place.name, name=name))
            assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "CONFIG_IN_USE")
            assert error.metadata["containers"] == "web"
    await containers.delete(namespace=place.name, name="web")
    for name in ("by-env", "by-init", "by-nobody"):
        await config.delete_secret(namespace=place.name, name=name)
        await config.delete_config_map(namespace=place.name, name=name)

    async def gone() -> bool:
        left = [item async for item in config.list_secrets(namespace=place.name)]
        return not left and not [item async for item in config.list_config_maps(namespace=place.name)]

    await poll_until(gone, what="all of them gone")


async def test_config_being_deleted_is_neither_used_nor_changed(place: Place) -> None:
    # No cluster is involved: the row is marked in one transaction and read in the next.
    config = place.client.config
    await make_secret(place)
    # No work is due after this, so the mark stays.
    await place.applied("app")
    async with place.server.application.store.system_write("test") as transaction:
        await transaction.connection.command(
            "UPDATE secrets SET deletion_requested_at = now() WHERE name = 'app' AND namespace_id = "
            f"(SELECT id FROM namespaces WHERE name = '{place.name}')"
        )
    change = config.update_secret(
        namespace=place.name, name="app", secret=pb.Secret(), update_mask=FieldMask(paths=["data"])
    )
    assert (await refused(change)).reason == "SECRET_TERMINATING"
    env = container_pb2.EnvVar(
        name="V", value_from=container_pb2.ENV_VALUE_FROM_SECRET, source_name="app", source_key="password"
    )
    web = container_pb2.Container(name="web", image="nginx:1.27", env=[env])
    error = await refused(place.client.containers.create(namespace=place.name, container=web))
    assert error.code.name == "INVALID_ARGUMENT"
    assert error.violations[0].field == "container.env[0].source_name"


async def test_lists_are_filtered_and_paged(place: Place) -> None:
    for index in range(5):
        await make_secret(place, f"s{index}", labels={"odd": str(index % 2)}, immutable=index == 4)
    config = place.client.config

    async def names(**narrowing: object) -> list[str]:
        found = config.list_secrets(namespace=place.name, page_size=2, **narrowing)  # type: ignore[arg-type]
        return [item.name async for item in found]

    assert await names() == [f"s{index}" for index in range(5)]
    assert await names(order_by="name desc", label_selector="odd=1") == ["s3", "s1"]
    assert await names(filter="immutable = true") == ["s4"]
    assert await names(filter='type = "Opaque" AND labels.odd = "0"') == ["s0", "s2", "s4"]


async def test_one_stream_reports_both_kinds_without_values(place: Place) -> None:
    config = place.client.config
    await make_map(place, "first")
    await place.applied("first")
    seen: list[tuple[ChangeKind, str, str]] = []
    synced, ended = asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        async for change in config.watch_configs(namespace=place.name):
            if change.kind is ChangeKind.SYNCED:
                synced.set()
                continue
            if change.kind is ChangeKind.BOOKMARK:
                continue
            kind = change.resource.WhichOneof("kind") or ""
            inner = getattr(change.resource, kind)
            assert not (kind == "secret" and inner.data)
            seen.append((change.kind, kind, inner.name))
            if change.kind is ChangeKind.DELETED:
                ended.set()
                return

    watcher = asyncio.create_task(follow())
    try:
        await asyncio.wait_for(synced.wait(), patient(10))
        assert seen == [(ChangeKind.ADDED, "config_map", "first")]
        await make_secret(place, "second")
        await config.delete_secret(namespace=place.name, name="second")
        await asyncio.wait_for(ended.wait(), patient(10))
    finally:
        watcher.cancel()
    assert seen[1] == (ChangeKind.ADDED, "secret", "second")
    assert seen[-1] == (ChangeKind.DELETED, "secret", "second")
    assert {kind for _, kind, _ in seen[1:]} == {"secret"}


@pytest.mark.parametrize("role", ["operator", "developer", "viewer"])
async def test_only_administrators_reveal_and_rotate(place: Place, role: str) -> None:
    await make_secret(place)
    username = f"{role}-{place.name}"
    other: AsyncClient = await place.server.user(username, {place.name: role})
    found = await other.config.get_secret(namespace=place.name, name="app")
    assert found.key_sizes == {"password": 3}
    for call in (
        other.config.reveal_secret(namespace=place.name, name="app"),
        other.config.rotate_keys(),
    ):
        assert (await refused(call)).code.name == "PERMISSION_DENIED"
    if role == "viewer":
        secret = pb.Secret(name="mine")
        made = other.config.create_secret(namespace=place.name, secret=secret)
        assert (await refused(made)).code.name == "PERMISSION_DENIED"


async def test_a_reveal_is_recorded_before_the_response_without_the_values(place: Place) -> None:
    await make_secret(place, data={"password": b"xk7-canary"})
    await values(place)
    records = [
        item
        async for item in place.client.audit.list_operations(filter='action = "reveal"')
        if item.resource_name == "app"
    ]
    record = await place.client.audit.get_operation(operation_id=records[0].operation_id)
    assert (record.username, record.resource_type, record.error_code) == ("admin", "secret", "")
    assert "canary" not in str(record)


async def test_a_replay_returns_the_first_response_and_another_body_is_refused(place: Place) -> None:
    identifier = request_id()
    config = place.client.config

    async def create(value: bytes) -> pb.Secret:
        secret = pb.Secret(name="app", data={"a": value})
        return await config.create_secret(namespace=place.name, secret=secret, request_id=identifier)

    made = await create(b"1")
    assert (await create(b"1")).uid == made.uid
    assert (await refused(create(b"2"))).reason == "REQUEST_ID_REUSED"


async def test_validate_only_writes_nothing(place: Place) -> None:
    config = place.client.config
    secret = pb.Secret(name="app", data={"a": b"1"})
    checked = await config.create_secret(namespace=place.name, secret=secret, validate_only=True)
    assert checked.key_sizes == {"a": 1}
    found = config.get_secret(namespace=place.name, name="app")
    assert (await refused(found)).reason == "SECRET_NOT_FOUND"


async def test_a_namespace_is_deleted_with_its_config(place: Place) -> None:
    namespaces = place.client.namespaces
    await make_map(place)
    await make_secret(place)
    await place.applied("app")
    error = await refused(namespaces.delete(name=place.name))
    assert (error.metadata["config_maps"], error.metadata["secrets"]) == ("1", "1")
    await namespaces.delete(name=place.name, cascade=True)

    async def gone() -> bool:
        return place.name not in [item.name async for item in namespaces.list()]

    await poll_until(gone, what="the namespace gone")
    async with place.server.database.system() as connection:
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM secrets AS s JOIN namespaces AS n ON n.id = s.namespace_id WHERE n.name = $1",
                place.name,
            )
            == 0
        )
    # A namespace of the same name is a new one, and empty.
    await namespaces.create(namespace=namespace_pb2.Namespace(name=place.name))
    assert [item async for item in place.client.config.list_secrets(namespace=place.name)] == []
