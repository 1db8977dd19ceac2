"""Output formats: paths, custom columns, YAML and manifests for files, and tables without headings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse_client.apply.sent_documents import document_subject
from pilothouse_client.commands import output
from pilothouse_client.commands.container_columns import COLUMNS
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.json_paths import JsonPath, JsonTemplate, custom_columns
from pilothouse_client.commands.manifests import manifests_of
from pilothouse_client.commands.message_data import FieldError, message_of
from pilothouse_client.commands.options import Format
from pilothouse_client.commands.own_documents import read_documents
from pilothouse_manifests.translator.problems import Problems
from tests.client.command import Command
from tests.client.fake_server import FakeServer
from tests.client.test_output import pretend_terminal

DATA = {
    "name": "web",
    "labels": {"app.kubernetes.io/name": "web", "tier": "front"},
    "replicas": 2,
    "ports": [{"name": "http", "container_port": 80}, {"name": "admin", "container_port": 9000}],
    "env": [],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.name}", "web"),
        (".name", "web"),
        ("{$.name}", "web"),
        ("{.replicas}", "2"),
        ('{.name}{"\\n"}{.replicas}', "web\n2"),
        ("{.ports[*].name}", "http admin"),
        ("{.ports[0].name}/{.ports[-1].name}", "http/admin"),
        ("{.ports[0:1].name}", "http"),
        ("{.ports[1,0].name}", "admin http"),
        ("{.labels['app.kubernetes.io/name']}", "web"),
        ("{.labels.app\\.kubernetes\\.io/name}", "web"),
        ("{..container_port}", "80 9000"),
        ('{.ports[?(@.name=="admin")].container_port}', "9000"),
        ("{.ports[?(@.container_port<100)].name}", "http"),
        ("{.ports[?(@.protocol)].name}", ""),
        ('{range .ports[*]}{.name}={.container_port}{"\\t"}{end}', "http=80\tadmin=9000\t"),
        ("{.nobody.here[3]}", ""),
        ("{.ports[0]}", '{"name": "http", "container_port": 80}'),
        ("{.labels.*}", "web front"),
        ("name is {.name}!", "name is web!"),
    ],
)
def test_paths_select_the_same_values_as_in_kubectl(template: str, text: str) -> None:
    assert JsonTemplate(template).text(DATA) == text


@pytest.mark.parametrize(
    "wrong", ["{.a", "{.a[}", "{.a[x]}", "{end}", "{range .a}", "a}b{", "{.a[?(b)]}", "{ .a b }"]
)
def test_an_invalid_path_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(CommandError, match="write a path such as") as refused:
        JsonTemplate(wrong)
    assert refused.value.exit_code == 2


_KEYS = st.text(min_size=1, max_size=6).filter(
    lambda key: key.isprintable() and "\\" not in key and not {"'", '"'} <= set(key)
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


def _leads(data: Any) -> list[tuple[str, Any]]:
    """Returns the path and the value of every node of the data."""
    found = [("", data)]
    if isinstance(data, dict):
        for key, value in data.items():
            quoted = json.dumps(key, ensure_ascii=False) if "'" in key else f"'{key}'"
            found += [(f"[{quoted}]{path}", each) for path, each in _leads(value)]
    elif isinstance(data, list):
        for index, value in enumerate(data):
            found += [(f"[{index}]{path}", each) for path, each in _leads(value)]
    return found


@settings(max_examples=60, deadline=None)
@given(_VALUES)
def test_every_node_has_a_path(data: Any) -> None:
    for path, value in _leads(data):
        assert JsonPath(path).values(data) == [value], path


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]().*$@?<>=!'\"\\,: abrnge0-", max_size=16))
def test_any_text_is_a_valid_path_or_is_refused(text: str) -> None:
    refusal = ""
    try:
        JsonTemplate(text).text(DATA)
    except CommandError as refused:
        refusal = str(refused)
    assert refusal == "" or "write a path such as" in refusal


def test_custom_columns(capsys: pytest.CaptureFixture[str]) -> None:
    row = pb.Container(name="web", image="nginx:1.27")
    row.env.add(name="A", value="1")
    form = Format("custom-columns", "NAME:.name,IMAGE:{.image},VARS:.env[?(@.name=='A')].value,WHO:.nobody")
    output.show_all([row], COLUMNS, form)
    assert capsys.readouterr().out == "NAME\tIMAGE\tVARS\tWHO\nweb\tnginx:1.27\t1\t<none>\n"
    with pytest.raises(CommandError, match="HEADING:PATH"):
        custom_columns("NAME")


def test_yaml_is_for_files_and_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """YAML omits fields without a value, and events; it keeps labels that are empty or zero."""
    row = pb.Container(name="web", image="nginx", labels={"zero": "0", "none": ""}, replicas=0)
    output.show(row, COLUMNS, Format.YAML, {"events": [1]})
    assert yaml.safe_load(capsys.readouterr().out) == {
        "@type": "pilothouse.container.v1.Container",
        "name": "web",
        "image": "nginx",
        "replicas": 0,
        "labels": {"zero": "0", "none": ""},
    }
    output.show(row, COLUMNS, Format.JSON, {"events": [1]})
    shown = json.loads(capsys.readouterr().out)
    assert (shown["events"], shown["display_name"]) == ([1], "")


async def test_formats_of_a_list(fake: FakeServer, logged_in: Command) -> None:
    for name in ("web", "db"):
        await fake.commit(
            "container", ("shop", name), pb.Container(namespace="shop", name=name, image=f"{name}:1")
        )
    listed = ("containers", "list", "-n", "shop")
    assert (await logged_in(*listed, "-o", "jsonpath={.items[*].image}")).out == "db:1 web:1\n"
    assert (await logged_in(*listed, "-o", "custom-columns=A:.name", "--no-headers")).lines == ["db", "web"]
    assert (await logged_in(*listed, "-o", "name")).lines == ["db", "web"]
    assert "NAME" not in (await logged_in(*listed, "--no-headers")).out
    documents = list(yaml.safe_load_all((await logged_in(*listed, "-o", "manifest")).out))
    assert [(each["kind"], each["metadata"]["name"]) for each in documents] == [
        ("Deployment", "db"),
        ("Deployment", "web"),
    ]
    wrong = await logged_in(*listed, "-o", "jsn")
    assert wrong.code == 2
    assert "'jsn' is not one of table, wide, name, json, yaml, manifest, jsonpath=PATH" in wrong.err


def test_manifests_of_other_nouns() -> None:
    [service] = manifests_of(
        network_pb2.Service(
            name="web",
            headless=True,
            containers=["web"],
            ports=[network_pb2.ServicePort(port=80, target="http")],
        )
    )
    assert service["spec"] == {
        "selector": {"app.kubernetes.io/name": "web"},
        "ports": [{"port": 80, "targetPort": "http"}],
        "clusterIP": "None",
    }
    [config] = manifests_of(config_pb2.ConfigMap(name="web", data={"a": "b"}, binary_data={"c": b"d"}))
    assert (config["data"], config["binaryData"]) == ({"a": "b"}, {"c": "ZA=="})
    for message, why in (
        (config_pb2.Secret(name="web"), "values are not shown"),
        (network_pb2.Service(name="web", owner="web"), "is created from the ports of container web"),
        (namespace_pb2.Namespace(name="web"), "a Namespace has no manifest"),
    ):
        with pytest.raises(CommandError, match=why):
            manifests_of(message)


def test_a_long_table_is_paged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend_terminal(monkeypatch)
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("PAGER", "pages")
    paged: list[str] = []
    monkeypatch.setattr("pydoc.pager", paged.append)
    rows = [pb.Container(name=f"web-{number}") for number in range(3)]
    output.show_all(rows, COLUMNS, Format.TABLE)
    assert paged == []
    output.show_all(rows * 3, COLUMNS, Format.TABLE)
    assert "web-2" in paged[0]
    capsys.readouterr()
    monkeypatch.setenv("PAGER", "cat")
    output.show_all(rows * 3, COLUMNS, Format.TABLE)
    assert "web-2" in capsys.readouterr().out


@pytest.mark.parametrize("colours", [True, False])
def test_no_color(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], colours: bool) -> None:
    pretend_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    output.show_all([pb.Container(name="web", status=pb.CONTAINER_STATUS_FAILED)], COLUMNS, Format.TABLE)
    assert ("\x1b[31m" in capsys.readouterr().out) is colours


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"imge": "a"}, "imge: there is no such field; did you mean image"),
        ({"env": [{"name": "a"}, {"name": 3}]}, "env[1].name: expected a text, found 3"),
        ({"env": "a"}, "env: expected a list, found 'a'"),
        ({"labels": ["a"]}, "labels: expected keys with values, found a list"),
        ({"deployment": 3}, "deployment: expected fields, found 3"),
        ({"workload_kind": "X"}, "workload_kind: expected one of WORKLOAD_KIND_UNSPECIFIED, "),
        (
            {"create_time": "today"},
            "create_time: expected a time such as 2026-01-31T12:00:00Z, found 'today'",
        ),
        ({"deployment": {}, "job": {}}, "does not contain the fields of one resource"),
    ],
)
def test_invalid_resource_data_is_refused_with_its_field(data: dict[str, Any], words: str) -> None:
    with pytest.raises(FieldError) as refused:
        message_of(data, pb.Container)
    assert str(refused.value).startswith(words)


def test_a_list_of_resources_is_a_list_of_documents(tmp_path: Path) -> None:
    """Each document has the position of its resource; Services of containers are created with the containers."""
    file, problems = tmp_path / "all.yaml", Problems()
    file.write_text(
        "- '@type': pilothouse.config.v1.ConfigMap\n  name: a\n"
        "- '@type': pilothouse.config.v1.Secret\n  name: b\n"
        "- '@type': pilothouse.network.v1.Service\n  name: c\n  owner: web\n"
        "- '@type': pilothouse.audit.v1.Operation\n"
    )
    [document] = read_documents([str(file)], problems)
    assert (str(document.place), document_subject(document.root)) == (f"{file}:1", "configmap/a")
    assert [str(each.place) for each in problems.all] == [f"{file}:3", f"{file}:8"]
    assert "values are not shown" in problems.all[0].message
    assert "found pilothouse.audit.v1.Operation" in problems.all[1].message
    assert [each.place.line for each in problems.notes] == [5]
