"""The output of the main verbs, as text, on terminals of 80 and 200 columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.application.v1 import application_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.commands import applications, apply_report, container_revisions, images, objects, roles
from pilothouse_client.commands.change_report import change_value
from pilothouse_client.commands.container_columns import COLUMNS as CONTAINERS
from pilothouse_client.commands.container_columns import HISTORY_COLUMNS
from pilothouse_client.commands.container_description import describe_container
from pilothouse_client.commands.description import Description
from pilothouse_client.commands.failures import CommandError, report
from pilothouse_client.commands.kubernetes_events import EVENT_COLUMNS
from pilothouse_client.commands.options import Format, one_namespace
from pilothouse_client.commands.output import Columns, show_all, show_changes
from pilothouse_client.streams import Change, ChangeKind

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[mK]")
DIGEST = "sha256:c19ebe98f5b89872df05539e5aa728dd08d4c0754fe7fe50f1e93855b8d52e22"


@pytest.fixture
def screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., list[str]]]:
    """Returns a function that returns the printed lines at a given width, without trailing blanks."""
    # rich assumes that a dumb terminal has 80 columns.
    monkeypatch.setenv("TERM", "xterm")
    given = one_namespace.set("shop")

    def shown(width: int, show: Callable[[], Any]) -> list[str]:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        show()
        written = capsys.readouterr()
        text = _ESCAPE.sub("", written.out + written.err)
        lines = [line.rstrip() for line in text.splitlines()]
        assert max(map(len, lines)) <= width
        return lines

    yield shown
    one_namespace.reset(given)


_M = TypeVar("_M", pb.Container, application_pb2.Application)


def made(message: _M) -> _M:
    message.create_time.FromDatetime(datetime.now(UTC) - timedelta(minutes=5, seconds=1))
    return message


def container(name: str, image: str, **fields: Any) -> pb.Container:
    return made(
        pb.Container(
            namespace="shop",
            name=name,
            image=image,
            workload_kind=pb.WORKLOAD_KIND_DEPLOYMENT,
            **{"status": pb.CONTAINER_STATUS_RUNNING, "replicas": 2, "ready_replicas": 2, **fields},
        )
    )


def broken() -> pb.Container:
    return container(
        "loyalty-program-worker",
        "registry.k8s.io/e2e-test-images/agnhost:2.53",
        status=pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF,
        ready_replicas=0,
        restart_count=12,
        reason="CrashLoopBackOff",
    )


def listed(rows: Iterable[Any], columns: Columns, form: Format = Format.TABLE) -> Callable[[], None]:
    return lambda: show_all(rows, columns, form)


def test_containers(screen: Callable[..., list[str]]) -> None:
    """A narrow terminal cuts cells, names last. A `-o wide` column is dropped rather than a time in it cut."""
    rows = [container("front", "nginx:1.27"), broken()]
    narrow = [
        "NAME                    KIND     STATUS   READY  RESTARTS  IMAGE    REASON   AGE",
        "front                   Deploy…  RUNNING  2/2    0         …x:1.27           5m",
        "loyalty-program-worker  Deploy…  CRASH_…  0/2    12        …t:2.53  CrashL…  5m",
    ]
    assert screen(80, listed(rows, CONTAINERS)) == narrow
    assert screen(80, listed(rows, CONTAINERS, Format.WIDE)) == [
        *narrow,
        "the terminal is too narrow for CREATED; -o json or a pipe shows all columns",
    ]
    assert screen(200, listed(rows[1:], CONTAINERS)) == [
        "NAME                    KIND        STATUS               READY  RESTARTS  "
        "IMAGE                                         REASON            AGE",
        "loyalty-program-worker  Deployment  CRASH_LOOP_BACK_OFF  0/2    12        "
        "registry.k8s.io/e2e-test-images/agnhost:2.53  CrashLoopBackOff  5m",
    ]
    assert "CREATED" in screen(200, listed(rows, CONTAINERS, Format.WIDE))[0]


def test_kinds_of_objects(screen: Callable[..., list[str]]) -> None:
    kinds = [
        object_pb2.ObjectKind(
            api_version="autoscaling/v2",
            kind="HorizontalPodAutoscaler",
            access=object_pb2.KIND_ACCESS_TENANTS,
            max_per_namespace=1000,
            reason="OpenByDefault",
        ),
        object_pb2.ObjectKind(
            api_version="v1",
            kind="LimitRange",
            access=object_pb2.KIND_ACCESS_NEVER,
            message="it changes the pods of the whole namespace; ask the administrator of the cluster",
        ),
    ]
    assert screen(80, lambda: objects.show_kinds(kinds, Format.TABLE)) == [
        "KIND                     API VERSION     FOR      MOST",
        "HorizontalPodAutoscaler  autoscaling/v2  TENANTS  1000",
        "kinds that no object may have: 1; -o wide lists them with the reasons",
    ]
    assert screen(200, lambda: objects.show_kinds(kinds, Format.WIDE))[-1] == (
        "LimitRange               v1              NEVER          "
        "it changes the pods of the whole namespace; ask the administrator of the cluster"
    )


def test_images(screen: Callable[..., list[str]]) -> None:
    """A cut image keeps its end, and a cut digest its beginning."""
    rows = [
        pb.Image(
            image="registry.k8s.io/e2e-test-images/agnhost:2.53",
            digest=DIGEST,
            container_count=1,
            status=pb.IMAGE_STATUS_AVAILABLE,
            size_bytes=72_000_000,
        )
    ]
    assert screen(80, listed(rows, images.COLUMNS)) == [
        "IMAGE                        STATUS     SIZE     CONTAINERS  DIGEST",
        "…e-test-images/agnhost:2.53  AVAILABLE  68.66Mi  1           sha256:c19ebe98f5b8",
    ]
    assert screen(200, listed(rows, images.COLUMNS, Format.WIDE)) == [
        "IMAGE                                         STATUS     SIZE     CONTAINERS  "
        "DIGEST               WHOLE DIGEST",
        "registry.k8s.io/e2e-test-images/agnhost:2.53  AVAILABLE  68.66Mi  1           "
        f"sha256:c19ebe98f5b8  {DIGEST}",
    ]


def test_applications(screen: Callable[..., list[str]]) -> None:
    shop = application_pb2.Application(
        namespace="shop",
        name="shop",
        revision=12,
        members=[application_pb2.ApplicationMember()] * 5,
        status=application_pb2.APPLICATION_STATUS_PROGRESSING,
        reason="Progressing",
        message="container front: 0 of 2 replicas are available",
    )
    assert screen(80, listed([made(shop)], applications.COLUMNS)) == [
        "NAME  STATUS       REVISION  OBJECTS  REASON                                 AGE",
        "shop  PROGRESSING  12        5        Progressing: container front: 0 of 2…  5m",
    ]
    assert screen(200, listed([shop], applications.COLUMNS))[1] == (
        "shop  PROGRESSING  12        5        "
        "Progressing: container front: 0 of 2 replicas are available  5m"
    )


def test_a_long_label_is_followed_by_a_blank() -> None:
    page = Description()
    page.field("Termination grace seconds", "15")
    page.field("Name", "front")
    assert list(page.lines(80)) == ["Termination grace seconds: 15", "Name:                     front"]


def test_a_container_description(screen: Callable[..., list[str]]) -> None:
    """A digest that does not fit next to its label is printed below it, and never cut."""
    shown = container(
        "front",
        "nginx:1.28",
        programs=[pb.ProgramStatus(name="main", kind=pb.PROGRAM_KIND_MAIN, image_id=DIGEST)],
        ports=[pb.Port(name="http", container_port=80, service_type=pb.SERVICE_TYPE_NONE)],
    )

    def describe() -> None:
        page = Description()
        describe_container(page, shown, [])
        page.write()

    lines = screen(80, describe)
    assert lines[:4] + lines[5:] == [
        "Name:      front",
        "Namespace: shop",
        "Kind:      Deployment",
        "Status:    RUNNING",
        "Replicas:  2 wanted, 2 ready",
        "Image:     nginx:1.28",
        "Runs:",
        f"  {DIGEST}",
        "Ports:     http 80/TCP, creates no Service (other Services may select its pods)",
    ]
    assert f"Runs:      {DIGEST}" in screen(200, describe)


FAILED = (
    'failed to pull and unpack image "docker.io/library/nginx:1.99": failed to resolve reference '
    '"docker.io/library/nginx:1.99": dial tcp: lookup docker.io on 10.96.0.10:53: no such host'
)
MOMENT = Timestamp(seconds=1_796_000_000)


def test_a_message_that_does_not_fit_is_printed_below_its_row(screen: Callable[..., list[str]]) -> None:
    history = [
        pb.StatusChange(
            change_time=MOMENT,
            previous_status=pb.CONTAINER_STATUS_RUNNING,
            current_status=pb.CONTAINER_STATUS_RUNNING,
            triggered_by="kubernetes",
            reason="ErrImagePull",
            message=FAILED,
        ),
        pb.StatusChange(change_time=MOMENT, current_status=pb.CONTAINER_STATUS_PENDING, username="admin"),
    ]
    assert screen(80, listed(history, HISTORY_COLUMNS)) == [
        "TIME                  FROM     TO       BY          REASON",
        "2026-11-30T00:53:20Z  RUNNING  RUNNING  kubernetes  ErrImagePull",
        '    failed to pull and unpack image "docker.io/library/nginx:1.99": failed to',
        '        resolve reference "docker.io/library/nginx:1.99": dial tcp: lookup',
        "        docker.io on 10.96.0.10:53: no such host",
        "2026-11-30T00:53:20Z           PENDING  admin",
    ]
    history[0].message = "the cluster has yet to follow"
    assert screen(200, listed(history, HISTORY_COLUMNS))[:2] == [
        "TIME                  FROM     TO       BY          REASON        MESSAGE",
        "2026-11-30T00:53:20Z  RUNNING  RUNNING  kubernetes  ErrImagePull  the cluster has yet to follow",
    ]


def test_a_message_of_a_watched_event_is_also_printed_below(screen: Callable[..., list[str]]) -> None:
    event = resource_pb2.KubernetesEvent(
        type="Warning",
        reason="Failed",
        object_kind="Pod",
        object_name="front-5f85d7bd4d-5b4n4",
        message=FAILED,
    )
    short = resource_pb2.KubernetesEvent(
        type="Normal", reason="Started", object_kind="Pod", object_name="a", message="Container started"
    )
    changes = [Change(ChangeKind.ADDED, each, 1, "1") for each in (short, event, short)]
    changes.insert(1, Change(ChangeKind.SYNCED, short, 1, "1"))
    assert screen(80, lambda: show_changes(changes, EVENT_COLUMNS, Format.TABLE)) == [
        "CHANGE    AGE  TYPE    EVENT    COUNT  OBJECT  MESSAGE",
        "ADDED          Normal  Started         Pod/a   Container started",
        "ADDED          Warning  Failed          Pod/front-5f85d7bd4d-5b4n4",
        '    failed to pull and unpack image "docker.io/library/nginx:1.99": failed to',
        '        resolve reference "docker.io/library/nginx:1.99": dial tcp: lookup',
        "        docker.io on 10.96.0.10:53: no such host",
        "ADDED          Normal   Started         Pod/a",
        "    Container started",
    ]


def test_revisions(screen: Callable[..., list[str]]) -> None:
    path, image = "pod_annotations.simulate.pilothouse.dev/behavior", '"registry.example.org/shop/front'
    revision = resource_pb2.Revision(
        number=2,
        create_time=MOMENT,
        created_by="admin",
        changes=[
            resource_pb2.FieldChange(path="image", before=f'{image}:1.27"', after=f'{image}:1.99"'),
            resource_pb2.FieldChange(path=path, after='"run"'),
        ],
    )
    assert screen(80, listed([revision], container_revisions.COLUMNS)) == [
        "REVISION  TIME                  BY",
        "2         2026-11-30T00:53:20Z  admin",
        "    image registry.example.org/shop/front:1.27 ->",
        "        registry.example.org/shop/front:1.99;",
        "        pod_annotations.simulate.pilothouse.dev/behavior none -> run",
    ]
    failed = resource_pb2.Revision(
        number=5, create_time=MOMENT, created_by="admin", origin=3, failed_revision=4, reason=FAILED
    )
    assert screen(200, listed([failed], applications.REVISION_COLUMNS))[:2] == [
        "REVISION  TIME                  BY     ROLLBACK TO",
        "5         2026-11-30T00:53:20Z  admin  3",
    ]


def test_roles(screen: Callable[..., list[str]]) -> None:
    role = identity_pb2.Role(
        name="responder",
        is_system=True,
        permissions=[f"container.{verb}" for verb in ("get", "list", "watch", "start", "stop", "pause")],
        description="Sees everything and logs; starts, stops, pauses, restarts, runs and scales.",
    )
    assert screen(80, listed([role], roles.LIST_COLUMNS)) == [
        "NAME       SYSTEM",
        "responder  yes",
        "    Sees everything and logs; starts, stops, pauses, restarts, runs and scales.",
    ]
    assert screen(200, listed([role], roles.LIST_COLUMNS)) == [
        "NAME       SYSTEM  DESCRIPTION",
        f"responder  yes     {role.description}",
    ]
    assert screen(80, listed([role], roles.COLUMNS))[2:4] == [
        "    Sees everything and logs; starts, stops, pauses, restarts, runs and scales.",
        "    container.get, container.list, container.watch, container.start,",
    ]


def test_differences_of_an_application(screen: Callable[..., list[str]]) -> None:
    """Neither value is ever cut; each has its own line with the path, at every width."""
    path = "spec.template.metadata.annotations.simulate.pilothouse.dev/behavior"
    change = application_pb2.ApplicationChange(
        kind="Deployment",
        name="front",
        action=application_pb2.CHANGE_ACTION_UPDATE,
        fields=[
            resource_pb2.FieldChange(path=path, before='"run"', after='"image-pull-error"'),
            resource_pb2.FieldChange(path="data.password", masked=True),
        ],
    )
    gone = application_pb2.ApplicationChange(
        kind="Service", name="front", action=application_pb2.CHANGE_ACTION_PRUNE
    )

    def show() -> None:
        for each in (change, gone):
            applications.say_difference(each, "revision 1", "revision 2")

    narrow = screen(80, show)
    assert narrow == [
        "--- container/front (revision 1)",
        "+++ container/front (revision 2)",
        f"-{path}: run",
        f"+{path}:",
        "    image-pull-error",
        "~data.password: (a secret value)",
        "--- service/front (revision 1)",
        "+++ /dev/null",
    ]
    assert f"+{path}: image-pull-error" in screen(200, show)


@pytest.mark.parametrize(
    ("total", "width", "shown"),
    [
        (4, 80, ["container/menu running (1 ready)", "4 created"]),
        (11, 80, ["[#########...........] 5/11 run; container/menu running (1 ready)", "4 created"]),
        (11, 40, ["[#########...........] 5/11 run; conta…", "4 created"]),
    ],
)
def test_a_wait_for_many_containers_shows_a_progress_bar(
    screen: Callable[..., list[str]], total: int, width: int, shown: list[str]
) -> None:
    def apply() -> None:
        lines = apply_report.lines_of(False)
        lines.count(min(5, total), total)
        lines.show_progress("container/menu running (1 ready)")
        lines.say("4 created")

    assert sorted(filter(None, screen(width, apply))) == sorted(shown)


def test_a_long_progress_line_is_wrapped(screen: Callable[..., list[str]]) -> None:
    line = "application/shop degraded: container front: its image cannot be pulled: failed to resolve it"
    assert screen(80, lambda: apply_report.lines_of(False).show_progress(line)) == [
        "application/shop degraded: container front: its image cannot be pulled: failed",
        "    to resolve it",
    ]


def test_an_error_is_wrapped(screen: Callable[..., list[str]]) -> None:
    error = CommandError(
        "name the namespace with -n, or set one with: pilothouse contexts set --namespace NAME", 2
    )
    assert screen(80, lambda: report(error)) == [
        "error: name the namespace with -n, or set one with: pilothouse contexts set",
        "    --namespace NAME",
    ]
    assert len(screen(200, lambda: report(error))) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            '[{"name":"A","value":"b","value_from":"ENV_VALUE_FROM_LITERAL"},{"name":"C","value":""}]',
            "A=b, C=",
        ),
        ('[{"name":"data","mount_path":"/data"}]', "name=data, mount_path=/data"),
        ('[{"name":"a"},{"name":"b"}]', "name=a; name=b"),
        ('{"http_get":{"path":"/","port":80}}', "http_get=(path=/, port=80)"),
        ('"x"', "x"),
        ("", "none"),
        ("[]", "[]"),
        ("cut by the ser", "cut by the ser"),
    ],
)
def test_a_changed_value_is_readable(value: str, words: str) -> None:
    assert change_value(value) == words
