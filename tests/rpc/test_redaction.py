"""Redaction: no secrets, nothing that JSONB cannot contain, at most 16 KiB, and a marker for every cut."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.identity.v1 import identity_pb2 as identity
from pilothouse_manifests.translator import literals
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.credential_names import reads_like_a_credential
from pilothouse_server.settings.model import SettingsError, header_names, load
from tests.rpc.message_types import BYTES, DOUBLE, INT64, SECRET, STRING, ProtoFile

CANARY = "CANARY-7f3a"


@pytest.fixture(scope="module")
def types() -> dict[str, type[Message]]:
    file = ProtoFile()
    (
        file.message("Holder")
        .field("text", STRING)
        .field("secret", STRING, sensitivity=SECRET)
        .field("secret_bytes", BYTES, sensitivity=SECRET)
        .field("secret_list", STRING, repeated=True, sensitivity=SECRET)
        .map("secret_map", STRING, sensitivity=SECRET)
        .field("secret_message", "Plain", sensitivity=SECRET)
        .field("child", "Holder")
        .field("children", "Holder", repeated=True)
        .map("named", "Holder")
        .field("plain", "Plain")
    )
    (
        file.message("Plain")
        .field("text", STRING)
        .field("texts", STRING, repeated=True)
        .field("blob", BYTES)
        .field("ratio", DOUBLE)
        .field("count", INT64)
        .field("moment", ".google.protobuf.Timestamp")
        .field("span", ".google.protobuf.Duration")
        .field("mask", ".google.protobuf.FieldMask")
        .map("labels", STRING)
    )
    return file.types()


def full(types: dict[str, type[Message]], depth: int = 2) -> Any:
    """Returns a message with the canary in every secret field, at every depth."""
    make: Any = types["Holder"]
    holder = make(
        text="shown",
        secret=CANARY,
        secret_bytes=CANARY.encode(),
        secret_list=[CANARY],
        secret_map={CANARY: CANARY},
        secret_message=types["Plain"](text=CANARY),
    )
    if depth:
        holder.child.CopyFrom(full(types, depth - 1))
        holder.children.extend([full(types, depth - 1)] * 2)
        holder.named["x"].CopyFrom(full(types, depth - 1))
    return holder


def test_no_secret_is_shown_at_any_depth(types: dict[str, type[Message]]) -> None:
    body = redaction.body(full(types))
    assert CANARY not in json.dumps(body)
    assert body["text"] == "shown"
    for name in ("secret", "secret_bytes", "secret_list", "secret_map", "secret_message"):
        assert body[name] == "[redacted]"
        assert body["children"][1]["named"]["x"][name] == "[redacted]"


def test_no_secret_is_stored_for_a_replay(types: dict[str, type[Message]]) -> None:
    message = full(types)
    before = message.SerializeToString(deterministic=True)
    stripped = redaction.strip_secrets(message)
    assert CANARY.encode() not in stripped.SerializeToString()
    assert stripped.children[1].named["x"].text == "shown"
    assert message.SerializeToString(deterministic=True) == before


def test_fields_that_are_not_secret_are_stored_for_a_replay() -> None:
    answer = containers.CreateContainerResponse(container=containers.Container(name="web", labels={"a": "b"}))
    assert redaction.strip_secrets(answer) == answer
    login = identity.LoginResponse(access_token="a", refresh_token="b", user=identity.User(username="x"))
    assert redaction.strip_secrets(login) == identity.LoginResponse(user=identity.User(username="x"))


def test_values_are_recorded_in_their_json_forms(types: dict[str, type[Message]]) -> None:
    make: Any = types["Plain"]
    message = make(
        text="a\x00b",
        blob=b"12345",
        ratio=0.1,
        count=2**62,
        moment=Timestamp(seconds=1, nanos=500_000_000),
        span=Duration(seconds=90),
        mask=FieldMask(paths=["image", "resources.cpu_limit"]),
        labels={"b": "2", "a": "1"},
    )
    assert redaction.body(message) == {
        "text": "a\\u0000b",
        "blob": "[5 bytes]",
        "ratio": "0.1",
        "count": 2**62,
        "moment": "1970-01-01T00:00:01.500Z",
        "span": "90s",
        "mask": "image,resources.cpuLimit",
        "labels": {"a": "1", "b": "2"},
    }
    request = containers.UpdateContainerRequest(
        container=containers.Container(drift_policy=containers.DRIFT_POLICY_REPORT, replicas=0)
    )
    assert redaction.body(request) == {"container": {"drift_policy": "DRIFT_POLICY_REPORT", "replicas": 0}}
    request.container.MergeFromString(b"\xb8\x01\x63")
    assert redaction.body(request)["container"]["drift_policy"] == "99"


def test_some_paths_of_a_long_mask_are_written(types: dict[str, type[Message]]) -> None:
    make: Any = types["Plain"]
    for number, shown in ((256, 256), (257, 256), (100_000, 16)):
        mask = redaction.body(make(mask=FieldMask(paths=["a_b"] * number)))["mask"]
        rest = f"[truncated, {number - shown} more paths]" if number > shown else ""
        assert mask == ",".join(["aB"] * shown) + rest


def test_values_without_a_json_form_are_still_recorded(types: dict[str, type[Message]]) -> None:
    make: Any = types["Plain"]
    body = redaction.body(make(moment=Timestamp(seconds=2**62), ratio=float("nan")))
    assert body == {"moment": f"seconds: {2**62}", "ratio": "nan"}


def test_a_long_text_is_cut_with_a_marker(types: dict[str, type[Message]]) -> None:
    make: Any = types["Plain"]
    body = redaction.body(make(text="x" * 100_000, count=1))
    whole = make(text="x" * 100_000, count=1).SerializeToString(deterministic=True)
    assert body == {
        "text": "x" * 1024 + "[truncated, 98976 more characters]",
        "count": 1,
        "[truncated]": {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()},
    }


def test_long_lists_and_maps_are_cut_with_a_marker(types: dict[str, type[Message]]) -> None:
    make: Any = types["Plain"]
    body = redaction.body(make(texts=["x"] * 1000, labels={f"{number:04}": "" for number in range(1000)}))
    assert body["texts"][-1] == "[truncated, 744 more items]"
    assert body["labels"]["[truncated]"] == "744 more entries"


# A text is given as its repeated character and their number: the texts themselves are too long for a failure report.
texts = st.tuples(st.sampled_from(["x", "ä", "\0", '"', "\U0001f600"]), st.integers(0, 8000))


@settings(deadline=None)
@given(st.lists(texts, max_size=8), st.dictionaries(texts, texts, max_size=8), st.integers(0, 60))
def test_a_body_is_bounded_and_fits_jsonb(
    types: dict[str, type[Message]],
    items: list[tuple[str, int]],
    labels: dict[tuple[str, int], tuple[str, int]],
    children: int,
) -> None:
    make_plain: Any = types["Plain"]
    plain = make_plain(texts=[letter * times for letter, times in items])
    for (key, key_times), (letter, times) in labels.items():
        plain.labels[key * key_times] = letter * times
    make_holder: Any = types["Holder"]
    body = redaction.body(make_holder(plain=plain, children=[make_holder(plain=plain)] * children))
    written = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    assert len(written.encode()) <= 16 * 1024
    assert "\0" not in str(body)


def _everything(_key: str) -> bool:
    return True


def test_metadata_is_recorded_without_credentials() -> None:
    shown = redaction.metadata(
        [
            ("authorization", f"Bearer {CANARY}"),
            ("Cookie", CANARY),
            ("x-api-key", CANARY),
            ("x-auth-token", CANARY),
            ("proxy-authorization", CANARY),
            ("my.secret", CANARY),
            ("trace-bin", CANARY.encode()),
            ("odd-bin", CANARY),
            ("user-agent", "grpc-python/1.85\x00"),
            ("long", "x" * 1000),
        ],
        _everything,
    )
    assert CANARY not in json.dumps(shown)
    assert shown["authorization"] == "[redacted]"
    assert shown["trace-bin"] == f"[{len(CANARY)} bytes]"
    assert shown["user-agent"] == "grpc-python/1.85\\u0000"
    assert shown["long"] == "x" * 256 + "[truncated, 744 more characters]"


def test_metadata_is_bounded() -> None:
    shown = redaction.metadata(((f"name{number}", "x" * 200) for number in range(1000)), _everything)
    assert len(shown) == 10
    assert shown["[truncated]"] == "only the first 2048 characters are kept"


def test_headers_are_an_allow_list() -> None:
    sent = {
        "user-agent": "grpc-python/1.85",
        "content-type": "application/grpc",
        "traceparent": "00-1-1-00",
        "grpc-timeout": "10S",
        "x-session-id": CANARY,
        "x-amzn-oidc-data": CANARY,
        "tracestate": CANARY,
        "x-forwarded-for": "192.0.2.1",
        "x-request-id": "7",
        "x-team-name": "a",
        "x-team-token": CANARY,
    }
    usual = redaction.metadata(sent.items(), redaction.usual_header)
    assert list(usual) == ["user-agent", "content-type", "traceparent", "grpc-timeout"]
    more = redaction.metadata(sent.items(), redaction.header_rule(header_names("X-Request-Id, x-team-*")))
    assert {*more} - {*usual} == {"x-request-id", "x-team-name", "x-team-token"}
    # A name that suggests a credential is redacted anyway.
    assert more["x-team-token"] == "[redacted]"


@pytest.mark.parametrize("wrong", ["*", "a b", "x-*-y", ":path", "ü"])
def test_an_invalid_header_name_is_refused_at_start(wrong: str) -> None:
    with pytest.raises(SettingsError, match="AUDIT_HEADERS"):
        load({"PILOTHOUSE_AUDIT_HEADERS": wrong})


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("PASSWORD", True), ("PGPASSWORD", True), ("DB_PASS", True), ("apiToken", True), ("API-KEY", True),
        ("aws.secret.access.key", True), ("SSH_PRIVATE_KEY", True), ("Authorization", True), ("SENTRY_DSN", True),
        ("MONKEY", False), ("KEYBOARD", False), ("PASSENGERS", False), ("MODE", False), ("PATH", False), ("", False),
        ("COMPASS", False), ("PINS_OF_MAP", False), ("POSTGRES_HOST_AUTH_METHOD", False), ("REDIS_AUTH", True),
        ("CONNECTION_STRING", True), ("ConnectionStrings__Main", True), ("DSN", True), ("PASSWORD_SALT", True),
        ("SALT", True), ("SALT_MASTER_HOST", False), ("CONNECTIONS", False),
    ],
)  # fmt: skip
def test_names_that_suggest_a_credential_are_recognised(name: str, is_one: bool) -> None:
    assert reads_like_a_credential(name) is is_one
    # `apply` uses the same names for its warnings.
    assert literals.reads_like_a_credential(name) is is_one


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--password", CANARY, "x"], ["--password", "[redacted]", "x"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        ([f"--password={CANARY}"], ["--password=[redacted]"]),
        ([f"sh -c 'TOKEN={CANARY} run' && go"], ["sh -c 'TOKEN=[redacted] run' && go"]),
        ([f"mysql --password {CANARY} --host db"], ["mysql --password [redacted] --host db"]),
        ([f'{{"password": "{CANARY} x", "a": 1}}'], ['{"password": [redacted] "a": 1}']),
        ([f"https://h/?token={CANARY}"], ["https://h/?token=[redacted]"]),
        ([f"OPTS=--secret={CANARY}"], ["OPTS=--secret=[redacted]"]),
        (["-H", f"Authorization: Bearer {CANARY}"], ["-H", "Authorization: [redacted]"]),
        ([f"--header=Authorization:Bearer {CANARY}", "h"], ["--header=Authorization:[redacted]", "h"]),
        (
            [f"curl -H 'proxy-authorization: Digest a=\"b\", response={CANARY}' https://h"],
            ["curl -H 'proxy-authorization: [redacted]' https://h"],
        ),
        ([f'curl -H "Cookie: a=1; session={CANARY}" h'], ['curl -H "Cookie: [redacted]" h']),
        ([f"cookie: a=1; session={CANARY}\nhost: h"], ["cookie: [redacted]\nhost: h"]),
        ([f"X-Token: Bearer {CANARY} https://h"], ["X-Token: [redacted] https://h"]),
        ([f"curl --oauth2-token bearer {CANARY} h"], ["curl --oauth2-token [redacted] h"]),
        ([f"--passphrase=of several {CANARY}"], ["--passphrase=[redacted]"]),
        (["--port=80", "--name", "web"], ["--port=80", "--name", "web"]),
        ([f"postgres://u:{CANARY}@db/x?a=b"], ["postgres://u:[redacted]@db/x?a=b"]),
        (
            [f"psql 'redis://:{CANARY}@h:1/0' http://h:1/@a"],
            ["psql 'redis://:[redacted]@h:1/0' http://h:1/@a"],
        ),
        (["amqp://u:$(PW)@h", "ssh://git@h:22/a"], ["amqp://u:$(PW)@h", "ssh://git@h:22/a"]),
        (["curl", "-u", f"a:{CANARY} b", "h:80"], ["curl", "-u", "a:[redacted]", "h:80"]),
        ([f"--user=a:{CANARY} b"], ["--user=a:[redacted]"]),
        ([f"curl -s -u 'a:{CANARY}' h && x"], ["curl -s -u 'a:[redacted]' h && x"]),
        (["-u", "https://h/a", "--user", "web"], ["-u", "https://h/a", "--user", "web"]),
        (["curl", f"-ua:{CANARY} b", "h:80"], ["curl", "-ua:[redacted]", "h:80"]),
        ([f"curl -s '-Ua:{CANARY}' -ub:{CANARY} h:80"], ["curl -s '-Ua:[redacted]' -ub:[redacted] h:80"]),
        (["-uhttps://h/a", "-upstream=h:80", "x-ua:b"], ["-uhttps://h/a", "-upstream=h:80", "x-ua:b"]),
        (["mysql", "-u", "root", f"-p{CANARY}", "shop"], ["mysql", "-u", "root", "-p[redacted]", "shop"]),
        (["/usr/bin/mariadb-dump", "-psecret"], ["/usr/bin/mariadb-dump", "-p[redacted]"]),
        (
            ["env", "A=b", "mysqladmin", "-p1234", "ping"],
            ["env", "A=b", "mysqladmin", "-p[redacted]", "ping"],
        ),
        (["-uroot", "-psecret"], ["-uroot", "-p[redacted]"]),
        (["start.sh", f"-p{CANARY}"], ["start.sh", "-p[redacted]"]),
        ([f"mysql -uroot -p{CANARY} shop | tee x"], ["mysql -uroot -p[redacted] shop | tee x"]),
        ([f"sleep 1; mysqldump '-p{CANARY} b' shop"], ["sleep 1; mysqldump '-p[redacted]' shop"]),
        ([f"mysql -p'{CANARY} b' -h db && tar -pxf a"], ["mysql -p[redacted] -h db && tar -pxf a"]),
        (["sshpass", f"-p{CANARY}", "ssh", "h"], ["sshpass", "-p[redacted]", "ssh", "h"]),
        (["find", "/", "-print", "-path", "x"], ["find", "/", "-print", "-path", "x"]),
        (["-port=80", "-p80:80", "-p", "-profile"], ["-port=80", "-p80:80", "-p", "-profile"]),
        (["mkdir -pv /a/b"], ["mkdir -pv /a/b"]),
        ([f"docker pull me:{CANARY}@registry.example/x"], ["docker pull me:[redacted]@registry.example/x"]),
    ],
)
def test_arguments_are_shown_without_credentials(arguments: list[str], shown: list[str]) -> None:
    assert redaction.body(containers.Container(command=arguments)) == {"command": shown}
    assert redaction.body(containers.Container(args=arguments)) == {"args": shown}


def test_a_password_in_a_url_is_masked_under_any_name() -> None:
    url = "postgres://shop:{}@db:5432/shop?sslmode=require"
    variable = containers.EnvVar(name="DATABASE_URL", value=url.format(CANARY))
    assert redaction.body(variable)["value"] == url.format("[redacted]")
    # A URL is masked also if the record is so long that the text is cut in the middle of the password.
    long = containers.Container(
        env=[containers.EnvVar(name=f"URL_{n}", value=url.format(CANARY * 900)) for n in range(200)],
        args=[url.format(CANARY * 900)] * 40,
    )
    assert CANARY[:4] not in json.dumps(redaction.body(long))
    # `apply` warns about such a URL.
    named = {
        "DATABASE_URL": url.format(CANARY),
        "REFERRED": url.format("$(PW)"),
        "PLAIN": "https://db:5432/a@b",
    }
    env = [{"name": name, "value": value} for name, value in named.items()]
    found = [name for _, name in literals.literals({"env": env})]
    assert found == ["variable DATABASE_URL"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{CANARY}@h/a", "https://me:[redacted]@h/a"),
        (f"see git+https://me:{CANARY}@h:8443/a and more", "see git+https://me:[redacted]@h:8443/a and more"),
        (f"me:{CANARY}@registry.example/x:1", "me:[redacted]@registry.example/x:1"),
        (f"me:{CANARY}@registry.example:5000/a/b", "me:[redacted]@registry.example:5000/a/b"),
        ("registry.example:5000/a/b:1@sha256:aa", "registry.example:5000/a/b:1@sha256:aa"),
        ("nginx:1.27@sha256:" + "a" * 64, "nginx:1.27@sha256:" + "a" * 64),
        ("https://example.org/@me/page", "https://example.org/@me/page"),
        ("anna@example.org", "anna@example.org"),
    ],
)
def test_passwords_of_addresses_are_masked_in_any_text(text: str, shown: str) -> None:
    container = containers.Container(image=text, annotations={"origin": text})
    body = redaction.body(container)
    assert body == {"image": shown, "annotations": {"origin": shown}}
    assert CANARY not in json.dumps(redaction.changes(containers.Container(), container))
    # The password is also masked if the text is cut in the middle of it.
    container.annotations["origin"] = text.replace(CANARY, CANARY * 9000)
    assert CANARY not in json.dumps(redaction.body(container))


def test_variables_and_headers_are_masked_by_their_names() -> None:
    container = containers.Container(
        env=[
            containers.EnvVar(name="DB_PASSWORD", value=CANARY),
            containers.EnvVar(name="MODE", value="fast"),
        ]
    )
    header = containers.HttpHeader(name="Authorization", value=CANARY)
    container.probes.liveness.http_get.http_headers.append(header)
    body = redaction.body(container)
    assert CANARY not in json.dumps(body)
    assert [variable["value"] for variable in body["env"]] == ["[redacted]", "fast"]
    # A reference to a secret contains no value, so it is shown.
    reference = containers.EnvVar(name="PASSWORD", source_name="db", source_key="password")
    shown = {"name": "PASSWORD", "source_name": "db", "source_key": "password"}
    assert redaction.body(reference) == shown
