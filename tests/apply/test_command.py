"""The command line of `pilothouse apply`: arguments, streams and exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from tests.applications.conftest import Place, place
from tests.client.command import Command, command_of_administrator
from tests.translator.manifests import SERVICE, WEB, web

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.kustomized import kustomized

__all__ = ["place"]


@pytest_asyncio.fixture(loop_scope="session")
async def apply(place: Place, tmp_path: Path) -> Command:
    return command_of_administrator(place.server, place.name, tmp_path)


async def test_files_by_option_and_by_argument(apply: Command, tmp_path: Path) -> None:
    (tmp_path / "yaml").mkdir()
    files = [tmp_path / "yaml" / name for name in ("web.yaml", "service.yaml")]
    for file, text in zip(files, (WEB, SERVICE), strict=True):
        file.write_text(text)
    done = await apply("apply", "-f", *map(str, files))
    assert (done.code, done.out) == (0, "service/web created\ncontainer/web created\n2 created\n")
    tried = await apply("apply", "-f", str(tmp_path / "yaml"), "--dry-run")
    assert tried.out == (
        "service/web unchanged (dry run)\ncontainer/web unchanged (dry run)\n"
        "2 unchanged (dry run: nothing was changed)\n"
    )


async def test_output_of_get_is_applied_without_a_change(place: Place, apply: Command) -> None:
    """Covers `get -o yaml` and `-o manifest` of every noun that has documents, created by the noun's own calls."""
    client, where = place.client, place.name
    await client.containers.create(
        namespace=where,
        container=container_pb2.Container(
            name="api", image="nginx", labels={"a": "b"}, ports=[container_pb2.Port(container_port=80)]
        ),
    )
    await client.network.create_service(
        namespace=where,
        service=network_pb2.Service(
            name="front", containers=["api"], ports=[network_pb2.ServicePort(port=80)]
        ),
    )
    await client.config.create_config_map(
        namespace=where, config_map=config_pb2.ConfigMap(name="settings", data={"a": "b"})
    )
    await client.storage.create_volume(
        namespace=where,
        volume=storage_pb2.Volume(
            name="data", size="1Gi", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
        ),
    )
    document = '{"spec": {"defaultBackend": {"service": {"name": "front", "port": {"number": 80}}}}}'
    await client.objects.create(
        namespace=where,
        object=object_pb2.Object(
            api_version="networking.k8s.io/v1", kind="Ingress", name="front", document=document
        ),
    )
    for noun, name, subject in (
        ("containers", "api", "container/api"),
        ("services", "front", "service/front"),
        ("configs", "settings", "configmap/settings"),
        ("volumes", "data", "volume/data"),
        ("objects", "ingress front", "ingress/front"),
    ):
        for form in ("yaml", "manifest"):
            shown = await apply(noun, "get", *name.split(), "-o", form)
            done = await apply("apply", "-f", "-", stdin=shown.out.encode())
            assert (done.code, done.out.splitlines()[0]) == (0, f"{subject} unchanged"), (done, shown.out)
    listed = await apply("services", "list", "-o", "yaml")
    done = await apply("apply", "-f", "-", stdin=listed.out.encode())
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 unchanged")
    other = (await apply("services", "get", "front", "-o", "manifest")).out.replace(
        "name: api", "name: other"
    )
    assert (await apply("diff", "-f", "-", stdin=other.encode())).code == 1
    assert (await apply("apply", "-f", "-", stdin=other.encode())).code == 0


async def test_each_outcome_has_its_exit_code(apply: Command) -> None:
    async def code(*options: str, text: str = WEB) -> int:
        return (await apply("apply", *options, stdin=text.encode())).code

    assert await code() == 2
    assert await code("-f", "-", "--prune") == 2
    assert await code("-f", "-", "-k", "folder") == 2
    assert await code("-f", "-", "-n", "nowhere") == 6
    assert await code("-f", "-", text="a: b: c\n") == 3
    assert await code("-f", "-", text=web("paused: true")) == 3
    assert await code("-f", "-", "--skip-unsupported=security", text=web("paused: true")) == 11
    assert await code("-f", "-", "--wait", "--stable-for", "600", "--wait-timeout", "0.3") == 10


async def test_the_result_as_json(apply: Command) -> None:
    """The output is one document; with --wait, a line for each state comes before it."""
    done = await apply("apply", "-f", "-", "-o", "json", stdin=SERVICE.encode() + b"---\n" + WEB.encode())
    changes = json.loads(done.out)["changes"]
    assert (done.code, done.err, [each["action"] for each in changes]) == (
        0,
        "",
        ["CHANGE_ACTION_CREATE"] * 2,
    )
    waited = await apply(
        "apply", "-f", "-", "-o", "json", "--wait", "--stable-for", "0.1", stdin=SERVICE.encode()
    )
    *progress, last = map(json.loads, waited.lines)
    assert (last["result"], last["unhealthy"]) == ("done", [])
    assert progress[-1] == {"progress": {"object": "service/web", "state": "healthy"}}
    refused = await apply("apply", "-f", "-", "-o", "json", stdin=web("paused: true").encode())
    [problem] = json.loads(refused.out)["problems"]
    assert (refused.code, problem["object"], problem["field"]) == (3, "deployment/web", "spec.paused")
    assert (problem["file"], problem["weight"], problem["reason"]) == ("stdin", "behaviour", "UNSUPPORTED")


async def test_errors_as_json_have_a_reason_fields_and_a_remedy(apply: Command) -> None:
    refused = await apply("apply", "-f", "-", "--json-errors", stdin=web("paused: true").encode())
    error = json.loads(refused.err)
    assert (error["reason"], error["exit_code"]) == ("MANIFESTS_REFUSED", 3)
    [violation] = error["violations"]
    assert violation["field"].endswith("deployment/web: spec.paused")
    assert (violation["rule"], error["fix"]) == (
        "UNSUPPORTED",
        ["--skip-unsupported=behaviour continues without these"],
    )
    late = await apply(
        *("apply", "-f", "-", "--json-errors", "--wait", "--stable-for", "600", "--wait-timeout", "0.3"),
        stdin=WEB.encode(),
    )
    error = json.loads(late.err)
    assert (late.code, error["reason"], error["exit_code"]) == (10, "WAIT_FAILED", 10)
    assert error["lines"][0].startswith("container/web ")
    empty = await apply("apply", "-f", "-", "--json-errors")
    assert json.loads(empty.err)["reason"] == "NOTHING_TO_APPLY"


@pytest.mark.full
@pytest.mark.skipif(
    not (shutil.which("kustomize") or shutil.which("kubectl")), reason="kubectl is not installed"
)
async def test_the_output_of_kustomize_is_applied(apply: Command, tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "web.yaml").write_text(WEB)
    (folder / "kustomization.yaml").write_text("resources: [web.yaml]\nnamePrefix: blue-\n")
    done = await apply("apply", "-k", str(folder))
    assert (done.code, done.out) == (0, "container/blue-web created\n1 created\n"), done


def test_missing_kustomize_is_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="there is no such folder"):
        kustomized(str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="needs kustomize or kubectl in the PATH"):
        kustomized(str(tmp_path))
    program = tmp_path / "kustomize"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.exit('no kustomization.yaml in ' + sys.argv[2])\n"
    )
    program.chmod(0o755)
    with pytest.raises(CommandError, match="no kustomization"):
        kustomized(str(tmp_path))
