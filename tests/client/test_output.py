"""Output for people: aligned tables, lines that fit, errors that state a fact once, and complete help."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import commands
from pilothouse_client.commands import kubernetes_events, top, usage
from pilothouse_client.commands.container_columns import COLUMNS as CONTAINER_COLUMNS
from pilothouse_client.commands.options import Format, one_namespace
from pilothouse_client.commands.output import Columns, OutputColumn, show, show_all, show_changes
from pilothouse_client.commands.terminal import wrapped
from pilothouse_client.errors import FieldViolation, error_of
from pilothouse_client.retry import RetryPolicy
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_server.cli.server import described
from pilothouse_server.settings.model import Settings
from tests.client.command import Command
from tests.client.fake_server import FakeServer
from tests.waiting import patient

COLUMNS: Columns = [
    OutputColumn("NAME", lambda row: row.name),
    OutputColumn("STATUS", lambda row: row.status),
]
SYNCED: Change[container_pb2.Container] = Change(ChangeKind.SYNCED, container_pb2.Container(), 1, "1")


def change(name: str) -> Change[container_pb2.Container]:
    return Change(
        ChangeKind.ADDED,
        container_pb2.Container(name=name, status=container_pb2.CONTAINER_STATUS_STOPPED),
        1,
        "1",
    )


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes the captured output look like a terminal of 80 columns. Returns the width."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    return 80


def test_a_watched_table_that_starts_empty_is_aligned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_terminal(monkeypatch)
    show_changes([SYNCED, change("storefront"), change("a"), change("the-longest")], COLUMNS, Format.TABLE)
    assert capsys.readouterr().out.splitlines() == [
        "CHANGE    NAME        STATUS",
        "ADDED     storefront  4",
        "ADDED     a           4",
        "ADDED     the-longest  4",
    ]


def _container(name: str, **fields: object) -> container_pb2.Container:
    made = container_pb2.Container(
        name=name, namespace="shop", image="registry.example.org/a/long/image:1.27.4-alpine"
    )
    made.create_time.FromDatetime(datetime.now(UTC) - timedelta(minutes=5))
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_a_row_fits_one_line_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The widest cells are cut first, and names last; empty columns are left out."""
    terminal = pretend_terminal(monkeypatch)
    rows = [_container("productcatalogservice", reason="ContainersNotReady"), _container("web")]
    show_all(rows, CONTAINER_COLUMNS, Format.TABLE)
    headings, first, second = capsys.readouterr().out.splitlines()
    assert headings.split() == ["NAMESPACE", "NAME", "READY", "RESTARTS", "IMAGE", "REASON", "AGE"]
    assert max(map(len, (headings, first, second))) <= terminal
    assert "productcatalogservice" in first
    assert "…" in first
    assert second.rstrip().endswith("5m")
    show_changes(
        [SYNCED, *(Change(ChangeKind.ADDED, row, 1, "1") for row in rows)], CONTAINER_COLUMNS, Format.TABLE
    )
    assert max(map(len, capsys.readouterr().out.splitlines())) <= terminal


def test_a_pipe_receives_uncut_cells_separated_by_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    row = _container("web")
    show_all([row], CONTAINER_COLUMNS, Format.WIDE)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAMESPACE", "NAME", "READY", "RESTARTS", "IMAGE", "AGE", "CREATED"]
    assert lines[1][:5] == ["shop", "web", "0/1", "0", row.image]
    show_all([row], CONTAINER_COLUMNS, Format.NAME)
    assert capsys.readouterr().out == "web\n"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_usage_sample_takes_one_line_at_any_width(width: int) -> None:
    samples = [
        metrics_pb2.UsageSample(
            namespace="a-namespace-of-a-usual-length",
            container=name,
            cpu_usage_percent=12.5,
            memory_bytes_used=1 << 30,
            memory_usage_percent=50.0,
            network_bytes_rx=1 << 40,
            network_bytes_tx=1 << 40,
            timestamp=Timestamp(seconds=1_700_000_000),
        )
        for name in ("web", "productcatalogservice", "x" * 63)
    ]
    console = Console(width=width, record=True)
    console.print(top.live_table(samples[:2], width))
    lines = console.export_text().splitlines()
    assert len(lines) == 3
    assert all(name in text for name, text in zip(("web", "productcatalogservice"), lines[1:], strict=True))
    assert ("MEASURED" in lines[0]) is (width == 200)
    console.print(top.live_table(samples, width))
    assert len(console.export_text().splitlines()) == 4


def test_live_usage_of_one_namespace_has_no_namespace_column() -> None:
    sample = metrics_pb2.UsageSample(namespace="shop", container="web", timestamp=Timestamp(seconds=1))
    for namespace in ("shop", ""):
        given = one_namespace.set(namespace)
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(top.live_table([sample], 80))
        one_namespace.reset(given)
        assert ("NAMESPACE" in console.export_text()) is not bool(namespace)


def _tables() -> Iterator[tuple[str, Columns]]:
    """Yields each table of the command and its columns, without those of `-o wide`."""
    for module in pkgutil.iter_modules(commands.__path__):
        for name, value in vars(importlib.import_module(f"{commands.__name__}.{module.name}")).items():
            if isinstance(value, list) and value and all(isinstance(each, OutputColumn) for each in value):
                yield f"{module.name}.{name}", [each for each in value if not each.wide]


def test_each_table_fits_eighty_columns() -> None:
    """A name takes 20 characters and any other value 6, or the width of its heading. `top` drops columns itself."""
    tables = {name: columns for name, columns in _tables() if not name.startswith("top.")}
    assert len(tables) > 30
    for name, columns in tables.items():
        widths = [
            max(len(each.heading), 20 if each.whole or each.heading in ("NAME", "USERNAME") else 6)
            for each in columns
            if each.heading != "NAMESPACE"
        ]
        assert sum(widths) + 2 * (len(widths) - 1) <= 80, (name, [each.heading for each in columns])


def test_events_of_a_container_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is printed below its event, and a count of one is left out."""
    width = pretend_terminal(monkeypatch)
    event = resource_pb2.KubernetesEvent(
        type="Warning",
        reason="BackOff",
        count=1,
        object_kind="Pod",
        object_name="web-5bf7d6954d-abcde",
        message="Back-off restarting failed container main in pod web-5bf7d6954d-abcde",
    )
    show_all([event], kubernetes_events.EVENT_COLUMNS, Format.TABLE)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "TYPE     EVENT    OBJECT",
        "Warning  BackOff  Pod/web-5bf7d6954d-abcde",
        "    Back-off restarting failed container main in pod web-5bf7d6954d-abcde",
    ]
    assert width == 80


def test_long_messages_are_wrapped_and_indented() -> None:
    line = "a.yaml:6: limitrange/lim: LimitRange of v1 cannot be represented"
    assert wrapped(line, 80) == line
    assert wrapped(line, 40) == ("a.yaml:6: limitrange/lim: LimitRange of\n    v1 cannot be represented")
    path = "  spec.template.spec.containers[name=main].securityContext: cannot be represented"
    assert wrapped(path, 40) == (
        "  spec.template.spec.containers[name=main].securityContext:\n      cannot be represented"
    )


def test_usage_of_all_containers_is_summed_up() -> None:
    points = [
        metrics_pb2.UsagePoint(
            samples=1, cpu_cores_avg=0.1, cpu_cores_max=0.2, memory_bytes_max=5, network_bytes_rx=7
        ),
        metrics_pb2.UsagePoint(
            samples=3, cpu_cores_avg=0.5, cpu_cores_max=0.6, memory_bytes_max=4, network_bytes_rx=8
        ),
    ]
    found = usage.summed_up(points)
    assert (found.samples, round(found.cpu_cores_avg, 3), found.cpu_cores_max) == (4, 0.4, 0.6)
    assert (found.memory_bytes_max, found.network_bytes_rx) == (5, 15)
    assert usage.summed_up([]).cpu_cores_avg == 0


def test_each_violation_is_printed_once() -> None:
    first = FieldViolation("container.image", "must be given", "required")
    second = FieldViolation("container.name", "must be given", "required")
    summary = "container.image: must be given"

    def told(message: str, *violations: FieldViolation) -> str:
        return str(error_of(grpc.StatusCode.INVALID_ARGUMENT, message, reason="BAD", violations=violations))

    assert told(summary, first) == f"INVALID_ARGUMENT (BAD): {summary}"
    both = told(f"{summary} (and 1 more)", first, second)
    assert both == f"INVALID_ARGUMENT (BAD): {summary}; container.name: must be given"
    cluster = FieldViolation("spec.ports[0].nodePort", "provided port is already allocated")
    words = 'cluster "local" refuses: spec.ports[0].nodePort: provided port is already allocated'
    assert told(words, cluster) == f"INVALID_ARGUMENT (BAD): {words}"


async def test_a_field_error_takes_one_line(fake: FakeServer, logged_in: Command) -> None:
    summary = "namespace.name: must be given"
    fake.fail(
        "GetContainer",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="REQUIRED",
        message=summary,
        violations=[("namespace.name", "must be given")],
    )
    assert (await logged_in("containers", "get", "web")).err == f"error: {summary} [REQUIRED]\n"


async def test_control_characters_are_removed_from_cluster_messages(
    fake: FakeServer, logged_in: Command
) -> None:
    fake.fail(
        "GetContainer",
        grpc.StatusCode.FAILED_PRECONDITION,
        reason="CLUSTER_REFUSED",
        message="probe failed:\n\x1b]0;title\x07 \x9b2J \u202e.\tend",
    )
    ended = await logged_in("containers", "get", "web")
    assert ended.err == "error: probe failed:\n ]0;title   2J  .\tend [CLUSTER_REFUSED]\n"


def test_json_output_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    words = "probe failed: \x1b[2J \x9b2J \u202e \x7f für"
    for one in (True, False):
        container = container_pb2.Container(name="web", message=words)
        if one:
            show(container, (), Format.JSON)
        else:
            show_all([container], (), Format.JSON)
        written = capsys.readouterr().out
        assert all(character.isprintable() or character == "\n" for character in written)
        assert "für" in written
        found = json.loads(written)
        assert (found if one else found[0])["message"] == words


@pytest.mark.full
async def test_an_unavailable_server_is_named(fake: FakeServer, logged_in: Command) -> None:
    await fake.stop()
    ended = await logged_in("--timeout", "4", "whoami")
    words = f"no server responds at {fake.address}"
    assert ended.err == f"retrying until the timeout: {words}\nerror: {words} [UNAVAILABLE]\n"
    assert ended.code == 9


async def test_a_change_with_unknown_outcome_is_reported_as_such(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.fail(
        "DeleteContainer", grpc.StatusCode.UNAVAILABLE, reason="GOING", message="going", retry_delay=99.0
    )
    ended = await logged_in("containers", "delete", "web", "--yes")
    request = fake.calls_of("DeleteContainer")[0].request.request_id
    assert f"the change may have been made: check before you repeat it (request {request})" in ended.err
    await fake.stop()
    # Its attempts end this call, not its deadline: an attempt that a deadline cuts off may have been sent.
    monkeypatch.setattr("pilothouse_client.retry.DEFAULT_RETRY", RetryPolicy(attempts=3))
    unsent = await logged_in("--timeout", f"{patient(10.0):.0f}", "containers", "delete", "web", "--yes")
    assert unsent.err.endswith(f"error: no server responds at {fake.address} [UNAVAILABLE]\n")


async def test_an_unreachable_cluster_is_not_reported_as_unknown_outcome(
    fake: FakeServer, logged_in: Command
) -> None:
    words = "cluster 'far' at h:443 cannot be reached: its name cannot be resolved"
    fake.fail("RegisterCluster", grpc.StatusCode.UNAVAILABLE, reason="CLUSTER_UNREACHABLE", message=words)
    ended = await logged_in(
        "clusters", "register", "far", "--api-server", "https://h", "--token-stdin", stdin="t"
    )
    assert ended.err == f"error: {words} [CLUSTER_UNREACHABLE]\n"
    assert ended.code == 9


async def test_top_waits_for_the_first_sample_of_a_new_container(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Timestamp()
    begun.GetCurrentTime()
    running = container_pb2.Container(name="web", namespace="shop", uid="another", started_at=begun)
    # No container runs, so there is nothing to wait for.
    await logged_in("top", "-n", "shop", "--once")
    assert fake.calls_of("WatchUsage") == []
    await fake.commit("container", ("shop", "web"), running)
    monkeypatch.setattr(top, "FIRST_SAMPLE_SECONDS", 0.3)
    ended = await logged_in("top", "-n", "shop", "--once")
    assert ended.code == 0
    (watched,) = fake.calls_of("WatchUsage")
    assert watched.time_left is not None
    assert watched.time_left < 1


@pytest.mark.parametrize("verb", [(), ("containers",), ("containers", "logs"), ("migrate",), ("serve",)])
async def test_help_is_plain_and_complete(
    pilothouse: Command, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = (await pilothouse(*verb, "--help")).out
    assert told.startswith("Usage: ")
    assert "..." not in told.replace("[ARGS]...", "").replace("NAME...", "")
    assert "─" not in told
    assert all(len(line) <= 80 for line in told.splitlines())
    assert ("\n  completion " in told) is (verb == ())


async def test_every_setting_is_listed_with_default_and_description(pilothouse: Command) -> None:
    # A long list continues after a comma, indented further than the description of a setting.
    told = re.sub(r",\n {8}(?=\S)", ",", (await pilothouse("serve", "--help")).out).splitlines()
    listed = described()
    assert len(listed) == len(Settings.__struct_fields__)
    for variable, default, what in listed:
        line = told.index(f"  {variable}={default}")
        assert told[line + 1].split() == what.split()[: len(told[line + 1].split())]
    assert "PILOTHOUSE_LISTEN=127.0.0.1:50051" in "".join(told)
    assert "PILOTHOUSE_REFLECTION=true" in "".join(told)


async def test_a_dry_run_is_marked_in_the_output(logged_in: Command) -> None:
    made = ("containers", "create", "web", "--image", "nginx:1.27", "-n", "shop")
    tried = await logged_in(*made, "--validate-only")
    assert tried.code == 0, tried.err
    assert tried.lines[1].startswith("web (dry run)\t")
    as_data = await logged_in(*made, "--validate-only", "-o", "json")
    assert json.loads(as_data.out)["dry_run"] is True
    assert (await logged_in(*made)).lines[1].startswith("web\t")
    gone = ("containers", "delete", "web", "-n", "shop", "--yes")
    assert "(dry run)" in (await logged_in(*gone, "--validate-only")).out
    assert "(dry run)" not in (await logged_in(*gone)).out


async def test_the_audit_log_marks_dry_runs(logged_in: Command, fake: FakeServer) -> None:
    for number, tried_out in (("1", True), ("2", False)):
        fake.tables["operation"][number] = audit_pb2.Operation(
            operation_id=number, action="create", resource_type="container", validate_only=tried_out
        )
    listed = (await logged_in("audit", "list")).lines
    assert ["create (dry run)" in line for line in listed[1:]] == [True, False]
