"""A file is applied completely or not at all: a refusal by server or cluster is found before the first write."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.namespace.v1 import namespace_pb2
from tests.harness import Server
from tests.main_job.command import Outcome, Shell, logged_in
from tests.waiting import within


def deployment(name: str, *, image: str = "nginx:1.27", container: str = "", pod: str = "") -> str:
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers: [{{name: main, image: "{image}"{container}}}]
{pod}"""


def service(name: str, app: str) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {app}}}
  ports: [{{port: 80}}]
"""


SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: given}
stringData: {password: hunter2}
"""
# The mount of this claim does not state `readOnly`, and stays as written.
MANY = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: books}
spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}}
"""
SHELF = "      volumes: [{name: books, persistentVolumeClaim: {claimName: books}}]\n"
LENDS = ", volumeMounts: [{name: books, mountPath: /books}]"
READS = (
    ", env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: given, key: password}}}]"
    ", volumeMounts: [{name: files, mountPath: /given}]"
)
SHOWS = "      volumes: [{name: files, secret: {secretName: given}}]\n"
LIMITED = ', resources: {requests: {cpu: "400m"}}'


class Place:
    """A namespace, and `apply` in it."""

    def __init__(self, server: Server, shell: Shell) -> None:
        self._server = server
        self._shell = shell

    async def apply(self, *documents: str, dry_run: bool = False) -> Outcome:
        options = ("--dry-run",) if dry_run else ()
        return await self._shell.run(
            "apply", "-f", "-", "-n", "demo", *options, given="---\n".join(documents)
        )

    async def names(self) -> list[str]:
        return [item.name async for item in self._server.admin.containers.list(namespace="demo")]


async def place(server: Server, directory: Path, **quota: str) -> Place:
    wanted = namespace_pb2.Namespace(name="demo", resource_quota=namespace_pb2.ResourceQuota(**quota))  # type: ignore[arg-type]
    if not quota:
        wanted.ClearField("resource_quota")
    await server.admin.namespaces.create(namespace=wanted)
    return Place(server, await logged_in(server, directory))


@pytest.mark.full
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (deployment("bad", image="BAD::"), "stdin:19: container/bad: container.image: "),
        (
            deployment("bad", container=READS, pod=SHOWS),
            'there is no secret "given" in the namespace; if the cluster has one, import it: run `pilothouse apply` '
            "on the output of `kubectl get",
        ),
        # A field of Kubernetes 1.37; the cluster is older.
        (
            deployment("bad", pod="      evictionResponders: [{name: a, priority: 1}]\n"),
            "stdin:20: container/bad: spec.template.spec.evictionResponders: "
            '"spec.template.spec.evictionResponders" is no field of Kubernetes in the version of the cluster',
        ),
    ],
    ids=["image", "secret", "version"],
)
async def test_one_refusal_prevents_all_writes(server: Server, tmp_path: Path, bad: str, words: str) -> None:
    demo = await place(server, tmp_path)
    refused = await demo.apply(deployment("good"), bad)
    assert (refused.code, refused.output) == (3, "")
    assert "stdin:" in refused.errors
    assert words in refused.errors
    assert "nothing was applied" in refused.errors
    assert await demo.names() == []
    tried = await demo.apply(deployment("good"), bad, dry_run=True)
    assert tried.code == 3
    assert "nothing would be applied" in tried.errors
    assert "container/good created (dry run)" in tried.output
    assert "container/bad" in tried.errors


@pytest.mark.full
async def test_quota_is_counted_over_the_whole_file(server: Server, tmp_path: Path) -> None:
    demo = await place(server, tmp_path, cpu="1")
    three = [deployment(name, container=LIMITED) for name in ("a", "b", "c")]
    refused = await demo.apply(*three)
    assert refused.code == 3
    assert 'container/c: quota of namespace "demo" exceeded: cpu 800m used' in refused.errors
    assert await demo.names() == []
    assert (await demo.apply(*three[:2])).code == 0
    # Quota that an earlier step of the same file frees is counted, too.
    smaller = deployment("a", container=', resources: {requests: {cpu: "100m"}}')
    assert (await demo.apply(smaller, three[2])).code == 0
    assert await demo.names() == ["a", "b", "c"]


@pytest.mark.full
async def test_objects_of_the_same_file_count_as_existing(server: Server, tmp_path: Path) -> None:
    demo = await place(server, tmp_path)
    assert (await demo.apply(deployment("reader"), deployment("other"), service("web", "reader"))).code == 0
    reader = deployment("reader", container=READS, pod=SHOWS)
    # The service moves to the container `other`.
    shelf = deployment("shelf", container=LENDS, pod=SHELF)
    files = (reader, deployment("other"), service("web", "other"), SECRET, MANY, shelf)
    tried = await demo.apply(*files, dry_run=True)
    assert tried.code == 0, tried
    done = await demo.apply(*files)
    assert done.code == 0, done
    assert "service/web updated" in done.output
    assert "secret/given created" in done.output
    assert (await demo.apply(*files)).output.splitlines()[-1] == "7 unchanged"


@pytest.mark.full
@pytest.mark.parametrize("stalled", [False, True], ids=["refusing", "stalled"])
async def test_an_unreachable_cluster_does_not_delay_an_apply(
    server: Server, tmp_path: Path, *, stalled: bool
) -> None:
    demo = await place(server, tmp_path)
    assert server.cluster is not None
    if stalled:
        server.cluster.faults.storage_stalled = True
    else:
        server.cluster.faults.refuse_connections = True
    # Eight requests to the cluster, sent one after another, would take longer to time out.
    async with within(25):
        done = await demo.apply(*(deployment(f"app-{number}") for number in range(8)))
        assert done.code == 0, done
        assert len(await demo.names()) == 8
    server.cluster.faults.clear()
