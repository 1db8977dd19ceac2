"""`pilothouse clusters`, run by an administrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pilothouse_simulator.values.resources import CONFIG_MAPS
from tests.clusters.given import another_cluster, kubeconfig, role
from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.main_job.command import Shell
from tests.waiting import poll_until

pytestmark = pytest.mark.full


async def test_a_cluster_is_registered_updated_and_deregistered_by_commands(
    database: Database, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    async with (
        another_cluster(tls=True) as cluster,
        running_server(database, tmp_path, with_cluster=False) as server,
    ):
        logged_in = await shell.run(
            "login", "--server", server.address, "--user", "admin", "--password-stdin", given=PASSWORD
        )
        assert logged_in.code == 0, logged_in.errors

        # The command sends the content of files that the kubeconfig names: the server reads no files.
        document = kubeconfig(cluster)
        entry = document["clusters"][0]["cluster"]
        del entry["certificate-authority-data"]
        entry["certificate-authority"] = "ca.pem"
        document["users"][0]["user"] = {"tokenFile": str(tmp_path / "token")}
        document["users"].append({"name": "other", "user": {"exec": {"command": "not-ours"}}})
        (tmp_path / "ca.pem").write_bytes(cluster.authority.certificate)
        (tmp_path / "token").write_text(cluster.token + "\n")
        file = tmp_path / "config"
        file.write_text(yaml.safe_dump(document))
        made = await shell.run(
            "clusters", "register", "second", "--kubeconfig", str(file), "--label", "a=b", "-o", "json"
        )
        assert made.code == 0, made.errors
        shown = json.loads(made.output)
        assert (shown["version"], shown["labels"]) == ("v1.36.2", {"a": "b"})
        assert cluster.token not in made.output

        # The token arrives on standard input; the rights that the cluster denies are printed separately from
        # the result.
        cluster.users.add("narrow", "narrow", role("get pods/log"))
        given = ("--api-server", cluster.url, "--token-stdin", "--ca-file", str(tmp_path / "ca.pem"))
        changed = await shell.run("clusters", "update", "second", *given, given="narrow\n")
        assert changed.code == 0, changed.errors
        assert "denies: get pods/log (for logs)" in changed.errors
        asked = await shell.run("clusters", "rbac", "second", "-o", "json")
        assert [right["resource"] for right in json.loads(asked.output) if right["denied"]] == ["pods/log"]
        printed = await shell.run("clusters", "rbac")
        kinds = [each["kind"] for each in yaml.safe_load_all(printed.output)]
        assert kinds == ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"]

        wrong = await shell.run("clusters", "register", "third", *given, given="wrong\n")
        assert wrong.code != 0
        assert "does not accept the credentials" in wrong.errors
        nothing = await shell.run("clusters", "register", "third")
        assert nothing.code == 2
        assert "--kubeconfig" in nothing.errors

        unsure = await shell.run("clusters", "deregister", "second")
        assert unsure.code == 2
        # With `--wait` the command returns when the cluster is deregistered; its namespaces, and objects in
        # them, delay that.
        await shell.succeed("namespaces", "create", "shop", "--cluster", "second", "--wait")
        held = {"metadata": {"name": "stays", "namespace": "shop", "finalizers": ["example.com/hold"]}}
        cluster.store.create(CONFIG_MAPS, held)
        ends = ("--objects", "delete", "--yes", "--wait")
        late = await shell.run("clusters", "deregister", "second", *ends, "--wait-timeout", "1")
        assert (late.code, "second is not deregistered after 1 s" in late.errors) == (10, True), late
        kept = cluster.store.get(CONFIG_MAPS, "shop", "stays")
        assert kept is not None
        cluster.store.update(CONFIG_MAPS, {**kept, "metadata": {**kept["metadata"], "finalizers": []}})
        # The deregistration completes without another command.
        clusters = server.admin.namespaces.list_clusters

        async def names() -> list[str]:
            return [each.name async for each in clusters()]

        await poll_until(names, lambda found: found == ["local"])
