"""The converter: automatic pairs, declared differences, and a fault for every field that is left out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.storage.v1 import storage_pb2 as storage
from pilothouse_server.containers import model
from pilothouse_server.containers.messages import CONTAINER, STATUS_CHANGE
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import (
    AnswerConverter,
    ConversionError,
    Converter,
    Differences,
    EnumWords,
)
from pilothouse_server.values.volumes import AccessMode, VolumeType
from tests.rpc.message_types import BOOL, BYTES, DOUBLE, INT64, STRING, ProtoFile

TIMESTAMP, DURATION = ".google.protobuf.Timestamp", ".google.protobuf.Duration"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Inner(msgspec.Struct, frozen=True):
    name: str = ""
    size: int | None = None


class Document(msgspec.Struct, frozen=True):
    note: str = ""


class Thing(msgspec.Struct, frozen=True):
    id: int
    name: str
    ratio: float = 0.0
    kind: str = "plain"
    count: int = 1
    flag: bool | None = None
    blob: bytes = b""
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    lasts: timedelta | None = None
    started_at: datetime | None = None
    document: Document = Document()

    @property
    def long_name(self) -> str:
        return self.name * 2


DIFFERENCES: Differences[Thing] = Differences(within=("document",), struct_only=("id",))


def thing_type(extend: Callable[[Any], Any] = lambda message: message) -> Any:
    file = ProtoFile()
    file.message("Inner").field("name", STRING).field("size", INT64, optional=True)
    thing = file.message("Thing").field("name", STRING).field("ratio", DOUBLE).field("kind", STRING)
    thing.field("count", INT64, optional=True).field("flag", BOOL, optional=True).field("blob", BYTES)
    thing.field("inner", "Inner").field("maybe", "Inner").field("many", "Inner", repeated=True)
    thing.field("tags", STRING, repeated=True).map("labels", STRING).field("lasts", DURATION)
    thing.field("start_time", TIMESTAMP).field("note", STRING)
    thing.field("long_name", STRING, output_only=True)
    extend(thing)
    return file.types()["Thing"]


FULL = Thing(
    id=0,
    name="a",
    ratio=0.5,
    kind="odd",
    count=0,
    flag=False,
    blob=b"\x00",
    inner=Inner("i", 0),
    maybe=Inner(),
    many=(Inner("x"), Inner("", 3)),
    tags=("", "t"),
    labels={"k": "", "l": "v"},
    lasts=timedelta(0),
    started_at=MOMENT,
    document=Document("n"),
)


@pytest.mark.parametrize("value", [FULL, Thing(0, "b"), Thing(0, "", lasts=timedelta(-3, 5, 7))])
def test_a_sent_value_is_read_unchanged(value: Thing) -> None:
    converter: Converter[Thing, Any] = Converter(Thing, thing_type(), DIFFERENCES)
    message = converter.to_proto(value)
    assert message.long_name == value.long_name
    assert converter.from_proto(message) == value
    assert (
        converter.from_proto(type(message).FromString(converter.to_proto(value).SerializeToString())) == value
    )


def test_an_absent_field_is_the_default_and_zero_is_a_value() -> None:
    of = thing_type()
    converter: Converter[Thing, Any] = Converter(Thing, of, DIFFERENCES)
    assert converter.from_proto(of()) == Thing(0, "")
    assert converter.from_proto(of(count=0)).count == 0
    message = converter.to_proto(Thing(0, "", inner=Inner()))
    assert not message.HasField("inner")
    assert not message.HasField("maybe")
    assert not message.HasField("lasts")
    assert converter.to_proto(FULL).HasField("maybe")
    assert converter.to_proto(FULL).HasField("lasts")


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_times_are_converted_as_protobuf_does(moment: datetime) -> None:
    converter: Converter[Thing, Any] = Converter(Thing, thing_type(), DIFFERENCES)
    message = converter.to_proto(Thing(0, "", started_at=moment))
    assert message.HasField("start_time")
    assert message.start_time.ToDatetime(tzinfo=UTC) == moment
    assert converter.from_proto(message).started_at == moment


def test_output_only_fields_are_not_read() -> None:
    message = pb.Container(name="a", uid="forged", status=pb.CONTAINER_STATUS_RUNNING, generation=9)
    read = CONTAINER.from_proto(message)
    assert (read.name, read.uid, read.observed.status, read.generation) == ("a", "", "pending", 1)


# --- no field is left out unnoticed ---


class Longer(Thing, frozen=True):
    forgotten: str = ""


def faults(make: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConversionError) as caught:
        make()
    return caught.value.faults


def test_a_field_of_only_the_struct_is_refused() -> None:
    assert faults(lambda: Converter(Longer, thing_type(), DIFFERENCES)) == (
        "struct field forgotten has no counterpart in the message",
    )


def test_a_field_of_only_the_message_is_refused() -> None:
    of = thing_type(lambda thing: thing.field("forgotten", STRING))
    assert faults(lambda: Converter(Thing, of, DIFFERENCES)) == (
        "message field forgotten has no counterpart in the struct",
    )


def test_a_field_of_only_a_nested_struct_is_refused() -> None:
    class Bigger(Inner, frozen=True):
        forgotten: int = 0

    holder = msgspec.defstruct("Holder", [("inner", Bigger | None, None)], frozen=True)
    file = ProtoFile()
    file.message("Inner").field("name", STRING).field("size", INT64, optional=True)
    file.message("Holder").field("inner", "Inner")
    of = file.types()["Holder"]
    assert faults(lambda: Converter(holder, of)) == (
        "struct field forgotten has no counterpart in the message",
    )


def test_a_new_field_of_a_container_is_refused_on_either_side() -> None:
    class More(model.Container, frozen=True):
        forgotten: str = ""

    assert faults(lambda: Converter(More, pb.Container, CONTAINER.differences, (wire.CONDITION,))) == (
        "struct field forgotten has no counterpart in the message",
    )
    listed = Differences(
        within=("spec", "observed"),
        computed=CONTAINER.differences.computed,
        struct_only=[*CONTAINER.differences.struct_only, "replicas"],
    )
    fewer: Any = msgspec.defstruct(
        "Fewer",
        [
            (each.name, each.type, msgspec.field(default=None))
            for each in msgspec.structs.fields(model.Container)
            if each.name not in ("image", "replicas")
        ],
        frozen=True,
    )
    found = faults(lambda: Converter(fewer, pb.Container, listed, (wire.CONDITION,)))
    assert "message field image has no counterpart in the struct" in found


@pytest.mark.parametrize(
    ("differences", "fault"),
    [
        (
            Differences(within=("document",), struct_only=("id", "gone")),
            "gone is listed, but is not a field of the struct",
        ),
        (
            Differences(within=("document",), struct_only=("id", "name")),
            "name is listed as of the struct only, but has a counterpart",
        ),
        (
            Differences(within=("document",), struct_only=("id",), message_only=("gone",)),
            "gone is listed, but is not a field of the message",
        ),
        (
            Differences(within=("document",), struct_only=("id",), names={"gone": "name"}),
            "gone is listed, but is not a field of the message",
        ),
        (
            Differences(within=("document",), struct_only=("id",), names={"note": "gone"}),
            "message field note has no counterpart in the struct",
        ),
    ],
)
def test_a_declared_difference_that_does_not_exist_is_refused(
    differences: Differences[Thing], fault: str
) -> None:
    assert fault in faults(lambda: Converter(Thing, thing_type(), differences))


def test_a_field_that_callers_set_must_not_be_computed() -> None:
    def kinds(_value: Thing) -> str:
        return "x"

    of = thing_type(lambda thing: thing.field("kinds", STRING))
    differences = Differences(within=("document",), struct_only=("id",), computed={"kinds": kinds})
    assert faults(lambda: Converter(Thing, of, differences)) == (
        "message field kinds is given by callers, but is computed in the struct",
    )
    assert AnswerConverter(Thing, of, differences).to_proto(FULL).kinds == "x"


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (STRING, int),
        (STRING, bytes),
        (BYTES, str),
        (INT64, str),
        (BOOL, int),
        (TIMESTAMP, str),
        (DURATION, float),
    ],
)
def test_types_that_do_not_fit_are_refused(kind: int | str, hint: Any) -> None:
    file = ProtoFile()
    file.message("Odd").field("odd", kind)
    struct = msgspec.defstruct("Odd", [("odd", hint)])
    assert faults(lambda: Converter(struct, file.types()["Odd"])) == (
        f"message field odd cannot represent {hint}",
    )


def test_true_by_default_needs_presence() -> None:
    struct = msgspec.defstruct("Odd", [("odd", bool, True)])
    file = ProtoFile()
    file.message("Odd").field("odd", BOOL)
    [fault] = faults(lambda: Converter(struct, file.types()["Odd"]))
    assert "optional" in fault


# --- enums and oneofs ---


def test_enum_words_follow_the_name_rule_in_any_spelling() -> None:
    words: EnumWords[model.ServiceType] = EnumWords(model.ServiceType, pb.ServiceType.DESCRIPTOR)
    assert words.word[pb.SERVICE_TYPE_CLUSTER_IP] == "ClusterIP"
    assert words.word[pb.SERVICE_TYPE_LOAD_BALANCER] == "LoadBalancer"
    assert set(words.word) == set(pb.ServiceType.values()) - {0}


def test_a_word_without_a_value_and_a_value_without_a_word_are_refused() -> None:
    assert faults(lambda: EnumWords(Literal["tcp", "sctp"], pb.Protocol.DESCRIPTOR)) == (
        "the word 'sctp' is not a value of Protocol",
        "the value UDP of Protocol has no word in the model",
    )


def test_unspecified_is_the_default_or_nothing_or_refused() -> None:
    assert CONTAINER.from_proto(pb.Container()).drift_policy == "repair"
    change = STATUS_CHANGE.to_proto(model.StatusChange(None, "running", MOMENT, "system"))
    assert change.previous_status == pb.CONTAINER_STATUS_UNSPECIFIED
    assert change.current_status == pb.CONTAINER_STATUS_RUNNING

    class Claim(msgspec.Struct, frozen=True):
        type: VolumeType
        access_mode: AccessMode | Literal[""] = ""

    others = {each.name for each in storage.Volume.DESCRIPTOR.fields} - {"type", "access_mode"}
    claims: Converter[Claim, storage.Volume] = Converter(
        Claim, storage.Volume, Differences(message_only=others)
    )
    message = claims.to_proto(Claim("host_path"))
    assert (message.type, message.access_mode) == (
        storage.VOLUME_TYPE_HOST_PATH,
        storage.ACCESS_MODE_UNSPECIFIED,
    )
    assert claims.from_proto(message) == Claim("host_path")
    with pytest.raises(InvalidArgument, match="type"):
        claims.from_proto(storage.Volume())


@pytest.mark.parametrize(
    "handler",
    [
        model.HttpGet("/x", 80, http_headers=(model.HttpHeader("a", "b"),)),
        model.TcpSocket(1),
        model.Exec(()),
        model.Grpc(2, "s"),
    ],
)
def test_a_oneof_is_a_union(handler: Any) -> None:
    probes = model.Probes(startup=model.Probe(handler))
    asked = CONTAINER.from_proto(pb.Container(name="a"))
    value = msgspec.structs.replace(asked, spec=model.ContainerSpec(probes=probes))
    assert CONTAINER.from_proto(CONTAINER.to_proto(value)).spec.probes == probes


def test_a_probe_without_handler_is_named() -> None:
    message = pb.Container(probes=pb.Probes(readiness=pb.Probe(period_seconds=3)))
    with pytest.raises(InvalidArgument) as caught:
        CONTAINER.from_proto(message)
    assert [each.field for each in caught.value.violations] == ["container.probes.readiness"]


# --- update masks ---


def test_an_update_changes_only_the_named_fields() -> None:
    stored = CONTAINER.from_proto(
        pb.Container(image="a", service_account="s", resources=pb.Resources(cpu_limit="1", cpu_request="1"))
    )
    asked = pb.Container(image="b", resources=pb.Resources(cpu_limit="2"), command=["x"])
    changed = CONTAINER.merger(asked, ["resources.cpu_limit", "command"])(stored)
    assert (changed.image, changed.spec.service_account) == ("a", "s")
    assert changed.spec.command == ("x",)
    assert changed.resources == model.Resources(cpu_limit="2", cpu_request="1")
    assert CONTAINER.merger(asked, ["resources"])(stored).resources == model.Resources(cpu_limit="2")


def test_immutable_fields_are_not_updatable() -> None:
    assert {"image", "replicas", "resources", "resources.cpu_limit", "probes.startup"} <= CONTAINER.updatable
    refused = {"name", "pod_container_name", "etag", "uid", "status", "ports.name", "probes.startup.http_get"}
    assert not refused & CONTAINER.updatable


def test_the_compiled_text_is_shown_in_tracebacks() -> None:
    with pytest.raises(AttributeError) as caught:
        CONTAINER.to_proto(object())  # type: ignore[arg-type]
    assert "spec = value.spec" in str(caught.getrepr(style="short"))
    assert isinstance(CONTAINER.to_proto(CONTAINER.from_proto(pb.Container())), Message)


def test_a_constant_fills_a_field_that_the_message_lacks() -> None:
    class Counted(Thing, frozen=True):
        pods: int = 0

    differences: Differences[Counted] = Differences(
        within=("document",), struct_only=("id",), constants={"pods": 7}
    )
    converter: Converter[Counted, Any] = Converter(Counted, thing_type(), differences)
    read = converter.from_proto(thing_type()(name="a"))
    assert (read.pods, read.name) == (7, "a")
    with pytest.raises(ConversionError, match="pods"):
        Converter(Counted, thing_type(), DIFFERENCES)


def test_keyword_only_fields_are_also_read() -> None:
    class Keyed(Thing, frozen=True, kw_only=True):
        later: str = ""

    of = thing_type(lambda thing: thing.field("later", STRING))
    differences: Differences[Keyed] = Differences(within=("document",), struct_only=("id",))
    converter: Converter[Keyed, Any] = Converter(Keyed, of, differences)
    assert converter.from_proto(of(name="a", later="b", count=3)) == Keyed(0, "a", count=3, later="b")
