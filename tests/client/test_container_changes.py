"""Changes of containers: single parts by `set`, whole containers by a file or an editor, and their diffs."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import pytest
import yaml

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse_client.commands.container_changes import changed_fields
from tests.client.command import Command
from tests.client.fake_server import FakeServer


async def _made(fake: FakeServer) -> pb.Container:
    made = pb.Container(
        namespace="shop", name="web", image="nginx:1.27", pod_container_name="main", etag="e1"
    )
    made.env.add(name="A", value="1", value_from=pb.ENV_VALUE_FROM_LITERAL)
    made.sidecars.add(name="proxy", image="envoy:1")
    await fake.commit("container", ("shop", "web"), made)
    return made


async def test_set_image_changes_any_program(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake)
    assert (await logged_in("containers", "set", "image", "web", "nginx:1.28", "proxy=envoy:2")).code == 0
    [call] = fake.calls_of("UpdateContainer")
    assert list(call.request.update_mask.paths) == ["image", "sidecars"]
    assert (call.request.container.image, call.request.container.sidecars[0].image) == (
        "nginx:1.28",
        "envoy:2",
    )
    assert call.request.etag
    assert call.request.include_changes
    unknown = await logged_in("containers", "set", "image", "web", "nobody=x:1")
    assert (unknown.code, "no program 'nobody'; known: main, proxy" in unknown.err) == (2, True)


async def test_set_env_keeps_other_variables(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake)
    await logged_in("containers", "set", "env", "web", "B=2=3")
    await logged_in("containers", "set", "env", "web", "A-", "B=4")
    assert [
        (each.name, each.value) for each in fake.calls_of("UpdateContainer")[-1].request.container.env
    ] == [("B", "4")]


async def test_set_resources_masks_the_changed_resources(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake)
    line = ("--requests", "cpu=100m,nvidia.com/gpu=1", "--limits", "memory=1Gi")
    assert (await logged_in("containers", "set", "resources", "web", *line)).code == 0
    [call] = fake.calls_of("UpdateContainer")
    assert list(call.request.update_mask.paths) == [
        "resources.cpu_request",
        "resources.memory_limit",
        "resources.requests",
    ]
    assert call.request.container.resources.memory_limit == "1Gi"
    assert (await logged_in("containers", "set", "resources", "web")).code == 2


async def test_an_update_from_a_file_clears_missing_fields(
    fake: FakeServer, logged_in: Command, tmp_path: Path
) -> None:
    """The file comes from `get -o yaml`: fields removed from it are cleared, and its etag is sent."""
    await _made(fake)
    file = tmp_path / "web.yaml"
    file.write_text((await logged_in("containers", "get", "web", "-o", "yaml")).out)
    same = await logged_in("containers", "update", "web", "-f", str(file))
    assert (same.err, fake.calls_of("UpdateContainer")) == ("web: nothing changed\n", [])
    data = yaml.safe_load(file.read_text())
    del data["env"]
    data["image"] = "nginx:1.28"
    file.write_text(yaml.safe_dump(data))
    await logged_in("containers", "update", "web", "-f", str(file), "--label", "a=b")
    [call] = fake.calls_of("UpdateContainer")
    assert list(call.request.update_mask.paths) == ["env", "image", "labels"]
    assert call.request.etag == data["etag"]


async def test_validate_only_prints_a_diff(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake)
    ended = await logged_in("containers", "update", "web", "--image", "nginx:2", "--validate-only")
    assert "-image: nginx:1.27\n+image: nginx:2\n" in ended.out


def _editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Sets an editor that runs a Python script over `text` and stores each text that it received.

    In the script, `number` is the number of earlier calls.
    """
    program = tmp_path / "editor.py"
    program.write_text(
        "import pathlib, sys\n"
        f"shown = pathlib.Path({str(tmp_path / 'shown')!r}); path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text(); number = len(list(shown.parent.glob('shown*')))\n"
        "shown.with_name(f'shown{number}').write_text(text)\n"
        f"{script}\n"
        "path.write_text(text)\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program}")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


async def test_edit_reopens_the_editor_with_the_error(
    fake: FakeServer, logged_in: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _made(fake)
    _editor(tmp_path, monkeypatch, "text = text.replace('1.27', '1.28' if number else '1 27')")
    fake.fail("UpdateContainer", grpc.StatusCode.INVALID_ARGUMENT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = tmp_path / "editor.py"
    script.write_text(script.read_text().replace("replace('1.27'", "replace('1 27' if number else '1.27'"))
    ended = await logged_in("containers", "edit", "web")
    assert ended.code == 0, ended.err
    assert [call.request.container.image for call in fake.calls_of("UpdateContainer")] == [
        "nginx:1 27",
        "nginx:1.28",
    ]
    assert "# error: " not in (tmp_path / "shown0").read_text()
    assert "# error: INVALID_ARGUMENT" in (tmp_path / "shown1").read_text()
    assert "status" not in (tmp_path / "shown0").read_text()
    assert list(tmp_path.glob("pilothouse-*")) == []


async def test_edit_sends_only_its_own_fields_after_a_concurrent_change(
    fake: FakeServer, logged_in: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _made(fake)
    _editor(tmp_path, monkeypatch, "text = text.replace('1.27', '1.28')")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fake.fail("UpdateContainer", grpc.StatusCode.ABORTED)
    assert (await logged_in("containers", "edit", "web")).code == 0
    assert [list(call.request.update_mask.paths) for call in fake.calls_of("UpdateContainer")] == [
        ["image"]
    ] * 2
    assert "changed by others" in (tmp_path / "shown1").read_text()


@pytest.mark.parametrize(
    ("script", "code"), [("", 0), ("text = ''", 0), ("sys.exit(3)", 1), ("text = '['", 1)]
)
async def test_edit_without_a_change_sends_nothing(
    fake: FakeServer,
    logged_in: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
) -> None:
    await _made(fake)
    _editor(tmp_path, monkeypatch, script)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = await logged_in("containers", "edit", "web")
    assert (ended.code, fake.calls_of("UpdateContainer")) == (code, [])


def test_changed_fields_are_listed() -> None:
    before = pb.Container(image="r/a:1")
    after = pb.Container(image="r/a:2", replicas=3, status=pb.CONTAINER_STATUS_PENDING)
    after.ports.add(name="http", container_port=81)
    after.labels["x"] = "y"
    assert changed_fields(before, after) == ["image", "ports", "replicas", "labels"]


_FILE = """
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
"""


async def test_delete_by_file_continues_after_failures(
    fake: FakeServer, logged_in: Command, tmp_path: Path
) -> None:
    """Workloads are deleted first; missing objects are skipped; a failure does not stop the other deletions."""
    await _made(fake)
    file = tmp_path / "all.yaml"
    file.write_text(_FILE)
    assert (await logged_in("delete", "-f", str(file))).code == 2
    await fake.commit("service", ("shop", "web"), network_pb2.Service(namespace="shop", name="web"))
    ended = await logged_in("delete", "-f", str(file), "-y")
    assert (ended.code, ended.lines[0], ended.lines[-1]) == (
        0,
        "container/web deleted",
        "2 deleted, 1 not found",
    ), ended.err
    fake.fail("DeleteContainer", grpc.StatusCode.PERMISSION_DENIED)
    failed = await logged_in("delete", str(file), "--dry-run")
    assert failed.code == 5
    assert "error: container/web: " in failed.err
    assert fake.calls_of("DeleteContainer")[-1].request.validate_only
