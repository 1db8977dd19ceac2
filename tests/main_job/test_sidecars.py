"""Containers with several programs: sidecars, native sidecars, init containers, from the call to the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.executing import run, start
from tests.waiting import poll_until

EXPORTER = pb.Program(
    name="exporter",
    image="exporter:1",
    args=["--web.listen-address=:9113"],
    env=[pb.EnvVar(name="TARGET", value="http://127.0.0.1")],
    ports=[pb.ProgramPort(name="metrics", container_port=9113)],
    probes=pb.Probes(readiness=pb.Probe(http_get=pb.HttpGetAction(path="/metrics", port_name="metrics"))),
    resources=pb.Resources(cpu_request="10m", memory_limit="32Mi"),
    volume_mounts=[pb.VolumeMount(volume="scratch", mount_path="/scratch/", read_only=True)],
    security_context=pb.SecurityContext(run_as_non_root=True, run_as_user=1000),
    lifecycle=pb.Lifecycle(pre_stop=pb.LifecycleHandler(sleep=pb.SleepAction(seconds=5))),
)
MESH = pb.InitContainer(
    name="mesh",
    image="mesh:1",
    restart_policy="Always",
    probes=pb.Probes(startup=pb.Probe(tcp_socket=pb.TcpSocketAction(port=15021))),
    lifecycle=pb.Lifecycle(pre_stop=pb.LifecycleHandler(exec=pb.ExecAction(command=["drain"]))),
)
PREPARE = pb.InitContainer(name="prepare", image="busybox:1", command=["true"])


def web(**fields: Any) -> pb.Container:
    return pb.Container(**{"name": "web", "image": "nginx:1.27", **fields})


def whole() -> pb.Container:
    return web(
        sidecars=[EXPORTER],
        init_containers=[MESH, PREPARE],
        empty_dirs=[pb.EmptyDir(name="scratch")],
        lifecycle=pb.Lifecycle(
            post_start=pb.LifecycleHandler(http_get=pb.HttpGetAction(path="/warm", port=80)),
        ),
    )


@pytest.fixture
async def demo(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    server = shared_server.for_one_test()
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))
    return server


def pod_spec(server: Server, name: str = "web") -> dict[str, Any]:
    assert server.cluster is not None
    found = server.cluster.store.get(resources.DEPLOYMENTS, server.namespace, name)
    assert found is not None
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


async def running(server: Server, name: str = "web") -> pb.Container:
    async def get() -> pb.Container:
        return await server.admin.containers.get(namespace=server.namespace, name=name)

    return await poll_until(
        get, lambda seen: seen.status == pb.CONTAINER_STATUS_RUNNING and not seen.reconciling
    )


async def test_the_command_shows_the_programs_of_pods(demo: Server, tmp_path: Path) -> None:
    shell, containers = await logged_in(demo, tmp_path), demo.admin.containers
    await containers.create(namespace=demo.namespace, container=whole())
    await containers.create(namespace=demo.namespace, container=web(name="alone"))
    await running(demo)
    shown = (await shell.succeed("containers", "get", "web", "-n", demo.namespace)).splitlines()
    assert shown[1].split()[1:5] == ["Deployment", "RUNNING", "3/3", "0"]
    assert [line.split("\t") for line in shown[3:8]] == [
        ["PROGRAM", "KIND", "READY", "RESTARTS", "STATE", "IMAGE"],
        ["mesh", "native sidecar", "1/1", "0", "running", "mesh:1"],
        ["prepare", "init container", "", "0", "Completed", "busybox:1"],
        ["main", "main program", "1/1", "0", "running", "nginx:1.27"],
        ["exporter", "sidecar", "1/1", "0", "running", "exporter:1"],
    ]
    await running(demo, "alone")
    shown = (await shell.succeed("containers", "get", "alone", "-n", demo.namespace)).splitlines()
    assert shown[1].split()[1:5] == ["Deployment", "RUNNING", "1/1", "0"]
    assert not any("PROGRAM" in line for line in shown)
    await containers.stop(namespace=demo.namespace, name="web")

    async def programs() -> list[pb.ProgramStatus]:
        return list((await containers.get(namespace=demo.namespace, name="web")).programs)

    await poll_until(programs, lambda found: found == [])
    shown = (await shell.succeed("containers", "get", "web", "-n", demo.namespace)).splitlines()
    assert shown[1].split()[2:4] == ["STOPPED", "0/3"]
    assert [line.split()[0] for line in shown[4:8]] == ["mesh", "prepare", "main", "exporter"]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sidecars", "init_containers"])
async def test_a_wait_fails_with_the_log_of_a_crashing_sidecar(
    demo: Server, tmp_path: Path, kind: str
) -> None:
    shell, file = await logged_in(demo, tmp_path), tmp_path / "web.json"
    crashes: dict[str, Any] = {
        "name": "exporter",
        "image": "busybox:1.37",
        "command": ["sh", "-c", "echo no target; sleep 1; exit 3"],
    }
    if kind == "init_containers":
        crashes["restart_policy"] = "Always"
    file.write_text(json.dumps({"name": "web", "image": "nginx:1.27", kind: [crashes]}))
    outcome = await shell.run(
        "containers", "create", "web", "-n", demo.namespace, "--from-file", str(file), "--wait"
    )
    assert outcome.code == 10, outcome
    assert "web: a newest pod restarts: program exporter of pod web-" in outcome.errors
    assert "ended: Error, exit code 3" in outcome.errors
    assert outcome.errors.endswith("\n  no target\n")

    async def looping() -> pb.Container:
        return await demo.admin.containers.get(namespace=demo.namespace, name="web")

    seen = await poll_until(looping, lambda each: each.status == pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF)
    assert "program exporter" in seen.message
    exporter = next(each for each in seen.programs if each.name == "exporter")
    assert exporter.exit_code == 3
    shown = (await shell.succeed("containers", "get", "web", "-n", demo.namespace)).splitlines()
    assert any("exporter" in line and "Error (3)" in line for line in shown)


async def test_all_programs_run_as_requested(demo: Server) -> None:
    made = await demo.admin.containers.create(namespace=demo.namespace, container=whole())
    assert made.sidecars[0].volume_mounts[0].mount_path == "/scratch"
    seen = await running(demo)
    assert (seen.sidecars, seen.init_containers, seen.lifecycle) == (
        made.sidecars,
        made.init_containers,
        made.lifecycle,
    )
    assert "ForeignPrograms" not in {each.type for each in seen.conditions}
    spec = pod_spec(demo)
    main, exporter = spec["containers"]
    assert main["lifecycle"] == {"postStart": {"httpGet": {"path": "/warm", "port": 80, "scheme": "HTTP"}}}
    assert {name: exporter[name] for name in ("name", "image", "args", "env", "lifecycle")} == {
        "name": "exporter",
        "image": "exporter:1",
        "args": ["--web.listen-address=:9113"],
        "env": [{"name": "TARGET", "value": "http://127.0.0.1"}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    assert exporter["ports"] == [{"name": "metrics", "containerPort": 9113, "protocol": "TCP"}]
    assert exporter["readinessProbe"]["httpGet"]["port"] == "metrics"
    assert exporter["resources"] == {"requests": {"cpu": "10m"}, "limits": {"memory": "32Mi"}}
    assert exporter["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch", "readOnly": True}]
    assert exporter["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000}
    mesh, prepare = spec["initContainers"]
    assert (mesh["restartPolicy"], mesh["startupProbe"]["tcpSocket"]) == ("Always", {"port": 15021})
    assert "restartPolicy" not in prepare


async def test_an_update_of_the_sidecars_replaces_them(demo: Server) -> None:
    await demo.admin.containers.create(namespace=demo.namespace, container=whole())
    await running(demo)
    other = pb.Program(name="proxy", image="envoy:1")
    changed = await demo.admin.containers.update(
        namespace=demo.namespace,
        name="web",
        container=pb.Container(sidecars=[other], init_containers=[PREPARE]),
        update_mask=FieldMask(paths=["sidecars", "init_containers", "lifecycle"]),
    )
    assert [each.name for each in changed.sidecars] == ["proxy"]
    assert not changed.HasField("lifecycle")
    await running(demo)
    spec = pod_spec(demo)
    assert [each["name"] for each in spec["containers"]] == ["main", "proxy"]
    assert [each["name"] for each in spec["initContainers"]] == ["prepare"]
    assert "lifecycle" not in spec["containers"][0]


REFUSED: dict[str, pb.Container] = {
    "container.sidecars[0].name": web(sidecars=[pb.Program(name="main", image="a:1")]),
    "container.sidecars[1].name": web(
        sidecars=[pb.Program(name="a", image="a:1"), pb.Program(name="a", image="a:1")]
    ),
    "container.init_containers[0].name": web(
        sidecars=[pb.Program(name="a", image="a:1")],
        init_containers=[pb.InitContainer(name="a", image="a:1")],
    ),
    "container.sidecars[0].env[1]": web(
        sidecars=[pb.Program(name="a", image="a:1", env=[pb.EnvVar(name="A"), pb.EnvVar(name="A")])]
    ),
    "container.sidecars[0].volume_mounts[0].volume": web(
        sidecars=[
            pb.Program(
                name="a", image="a:1", volume_mounts=[pb.VolumeMount(volume="nothing", mount_path="/a")]
            )
        ]
    ),
    "container.sidecars[0].image_pull_policy": web(
        sidecars=[pb.Program(name="a", image="a:1", image_pull_policy="Sometimes")]
    ),
    "container.sidecars[0].ports[1]": web(
        sidecars=[
            pb.Program(
                name="a",
                image="a:1",
                ports=[
                    pb.ProgramPort(name="one", container_port=80),
                    pb.ProgramPort(name="one", container_port=81),
                ],
            )
        ]
    ),
    "container.sidecars[0].probes.liveness.http_get.port_name": web(
        # The main program has a port of this name, but the kubelet looks for it in the probed program.
        ports=[pb.Port(name="http", container_port=80)],
        sidecars=[
            pb.Program(
                name="a",
                image="a:1",
                probes=pb.Probes(liveness=pb.Probe(http_get=pb.HttpGetAction(port_name="http"))),
            )
        ],
    ),
    "container.sidecars[0].probes.liveness": web(
        sidecars=[pb.Program(name="a", image="a:1", probes=pb.Probes(liveness=pb.Probe()))]
    ),
    "container.sidecars[0].lifecycle.pre_stop": web(
        sidecars=[pb.Program(name="a", image="a:1", lifecycle=pb.Lifecycle(pre_stop=pb.LifecycleHandler()))]
    ),
    "container.lifecycle.pre_stop.sleep.seconds": web(
        lifecycle=pb.Lifecycle(pre_stop=pb.LifecycleHandler(sleep=pb.SleepAction(seconds=31)))
    ),
    "container.sidecars[0].resources.cpu_request": web(
        sidecars=[pb.Program(name="a", image="a:1", resources=pb.Resources(cpu_request="2", cpu_limit="1"))]
    ),
    "container.init_containers[0].restart_policy": web(
        init_containers=[pb.InitContainer(name="a", image="a:1", restart_policy="Never")]
    ),
    "container.empty_dirs[0].medium": web(empty_dirs=[pb.EmptyDir(name="a", medium="HugePages-2")]),
    "container.init_containers[0].probes": web(
        init_containers=[pb.InitContainer(name="a", image="a:1", probes=MESH.probes)]
    ),
    "container.init_containers[0].lifecycle": web(
        init_containers=[pb.InitContainer(name="a", image="a:1", lifecycle=MESH.lifecycle)]
    ),
}


async def test_a_rule_broken_by_a_program_is_named_with_its_field(demo: Server) -> None:
    for field, wanted in REFUSED.items():
        with pytest.raises(PilothouseError) as told:
            await demo.admin.containers.create(namespace=demo.namespace, container=wanted)
        assert (told.value.code.name, told.value.metadata["field"]) == ("INVALID_ARGUMENT", field), field
        assert field in told.value.message


async def test_logs_and_exec_use_the_named_program(demo: Server, tmp_path: Path) -> None:
    sidecars = [
        pb.Program(name="teller", image="busybox:1.37", command=["sh", "-c", "echo told; sleep 3600"])
    ]
    init_containers = [
        pb.InitContainer(name="first", image="busybox:1.37", command=["sh", "-c", "echo before"])
    ]
    await demo.admin.containers.create(
        namespace=demo.namespace, container=web(sidecars=sidecars, init_containers=init_containers)
    )
    await running(demo)

    async def lines(program: str) -> list[bytes]:
        found: list[bytes] = []
        async for answer in demo.admin.containers.stream_logs(
            namespace=demo.namespace, name="web", program=program
        ):
            found += [entry.line for entry in answer.entries]
        return found

    await poll_until(lambda: lines("teller"), lambda found: found == [b"told"])
    assert await lines("first") == [b"before"]
    assert b"told" not in await lines("")
    with pytest.raises(PilothouseError) as told:
        await lines("nobody")
    assert told.value.code.name == "FAILED_PRECONDITION"
    assert told.value.message == 'container "web" has no program "nobody": it has main, teller, first'
    shell = await logged_in(demo, tmp_path)
    outcome = await shell.run("containers", "logs", "web", "-n", demo.namespace, "-c", "teller")
    assert (outcome.code, outcome.output, outcome.errors) == (0, "told\n", "")
    outcome = await shell.run("containers", "logs", "web", "-n", demo.namespace)
    assert outcome.code == 0
    assert outcome.errors == 'defaulted to program "main" out of: main, teller, first\n'
    [pod] = [each async for each in demo.admin.containers.list_pods(namespace=demo.namespace, name="web")]
    shown = await shell.succeed(
        "containers", "logs", "web", "-n", demo.namespace, "-c", "teller", "-c", "first"
    )
    assert sorted(shown.splitlines()) == [f"web/{pod.name}/first before", f"web/{pod.name}/teller told"]
    shown = await shell.succeed(
        "containers", "logs", "web", "-n", demo.namespace, "--all-programs", "--grep", "^(to|be)"
    )
    assert sorted(shown.splitlines()) == [f"web/{pod.name}/first before", f"web/{pod.name}/teller told"]
    outcome = await shell.run("containers", "logs", "web", "-n", demo.namespace, "--grep", "(")
    assert (outcome.code, outcome.errors.startswith("error: --grep '(' is not a regular expression: ")) == (
        2,
        True,
    )
    answers = [
        answer
        async for answer in demo.admin.containers.stream_logs(
            namespace=demo.namespace, name="web", programs=["teller", "first"]
        )
    ]
    again = [
        answer
        async for answer in demo.admin.containers.stream_logs(
            namespace=demo.namespace,
            name="web",
            programs=["teller", "first"],
            resume_token=answers[-1].resume_token,
        )
    ]
    assert all(answer.several for answer in answers)
    assert {entry.program for answer in answers for entry in answer.entries} == {"teller", "first"}
    assert [entry.line for answer in again for entry in answer.entries] == []
    with pytest.raises(PilothouseError, match="program: is not allowed with all_programs"):
        async for _ in demo.admin.containers.stream_logs(
            namespace=demo.namespace, name="web", program="main", all_programs=True
        ):
            pass
    await demo.admin.containers.create(namespace=demo.namespace, container=web(name="alone"))
    await running(demo, "alone")
    assert (await shell.run("containers", "logs", "alone", "-n", demo.namespace)).errors == ""
    wanted = start("sh", "-c", "echo here")
    wanted.start.namespace, wanted.start.program = demo.namespace, "teller"
    assert (await run(demo.admin, [wanted]))[0] == b"here\n"
    wanted.start.program = "injected"
    with pytest.raises(PilothouseError) as told:
        await run(demo.admin, [wanted])
    assert told.value.metadata["field"] == "start.program"
    assert 'has no program "injected": it has main, teller, first' in told.value.message
