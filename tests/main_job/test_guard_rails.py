"""A holder of a namespace cannot lift the limits that were set for it: its quota and its Pod Security level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.authorization.access import Grant
from pilothouse_server.settings.model import SettingsError, load
from pilothouse_simulator.admission.pod_security import ENFORCE
from pilothouse_simulator.values import resources
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.main_job.command import logged_in
from tests.waiting import poll_until

QUOTA = pb.ResourceQuota(containers=12, cpu="4")
ROOT = container_pb2.SecurityContext(privileged=True)


def update(client: AsyncClient, *paths: str, **fields: Any) -> Any:
    return client.namespaces.update(
        name="shop", namespace=pb.Namespace(**fields), update_mask=FieldMask(paths=paths or list(fields))
    )


async def refused(made: Any, permission: str) -> PilothouseError:
    with pytest.raises(PilothouseError) as told:
        await made
    assert told.value.code.name == "PERMISSION_DENIED"
    assert told.value.metadata["permission"] == permission
    assert f"permission {permission} is needed" in told.value.message
    assert "from a grant over all namespaces" in told.value.message
    return told.value


async def shop(server: Server, **labels: str) -> None:
    await server.admin.namespaces.create(
        namespace=pb.Namespace(name="shop", resource_quota=QUOTA, labels=labels)
    )


def labels_there(server: Server, name: str = "shop") -> dict[str, str]:
    assert server.cluster is not None
    found = server.cluster.store.get(resources.NAMESPACES, None, name)
    return dict(found["metadata"].get("labels", {})) if found else {}


async def shows_level(server: Server, level: str, name: str = "shop") -> None:
    async def shown() -> bool:
        found = await server.admin.namespaces.get(name=name)
        return found.phase == "Active" and found.pod_security_level == level

    await poll_until(shown)


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_a_holder_of_a_namespace_lifts_none_of_its_limits(
    database: Database, tmp_path: Path, role: str
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await shop(server, **{ENFORCE: "restricted"})
        holder = await server.user("dora", {"shop": role})
        for wanted in (pb.ResourceQuota(containers=100_000, cpu="4"), pb.ResourceQuota()):
            told = await refused(update(holder, resource_quota=wanted), "namespace.quota")
            assert told.metadata["field"] == "namespace.resource_quota"
        await refused(
            update(holder, "resource_quota.containers", resource_quota=pb.ResourceQuota(containers=13)),
            "namespace.quota",
        )
        told = await refused(update(holder, enforce_on_cluster=True), "namespace.quota")
        assert told.metadata["field"] == "namespace.enforce_on_cluster"
        labels: list[dict[str, str]] = [
            {},
            {ENFORCE: "privileged"},
            {ENFORCE: "restricted", f"{ENFORCE}-version": "v1.20"},
            {ENFORCE: "restricted", "istio-injection": "disabled"},
        ]
        for wrong in labels:
            told = await refused(update(holder, "labels", labels=wrong), "namespace.security")
            assert told.metadata["field"] == "namespace.labels"
        for key in (
            "openshift.io/sa.scc.uid-range",
            "iam.amazonaws.com/permitted",
            "linkerd.io/inject",
            "control-plane",
            "openpolicyagent.org/webhook",
            "kubesphere.io/workspace",
            "cert-manager.io/disable-validation",
        ):
            told = await refused(update(holder, annotations={key: "any"}), "namespace.security")
            assert told.metadata["key"] == key
        for field, kept_keys in (("labels", {ENFORCE: "restricted"}), ("annotations", {})):
            wrong = {**kept_keys, "pilothouse.dev/namespace-uid": "any"}
            with pytest.raises(PilothouseError, match=f"{field} of pilothouse.dev are set by the platform"):
                await update(holder, field, **{field: wrong})
        # Unchanged values need no permission, and neither do keys on which no cluster acts.
        kept = await update(
            holder,
            display_name="The shop",
            labels={ENFORCE: "restricted", "team": "a", "app.kubernetes.io/part-of": "shop"},
            annotations={"example.org/note": "mine"},
            resource_quota=pb.ResourceQuota(containers=12, cpu="4000m"),
        )
        assert (kept.labels["team"], kept.resource_quota.containers) == ("a", 12)
        # Both holders have a grant in one namespace; a grant over all namespaces allows the change.
        operator = await server.user("olga", {"": "operator"})
        raised = await update(
            operator, resource_quota=pb.ResourceQuota(containers=13), labels={ENFORCE: "baseline"}
        )
        assert (raised.resource_quota.containers, dict(raised.labels)) == (13, {ENFORCE: "baseline"})


async def test_domains_from_the_settings_are_guarded_with_their_keys(
    database: Database, tmp_path: Path
) -> None:
    guarded: dict[str, Any] = {"guarded_namespace_keys": "example.org", "guarded_pod_keys": "example.net"}
    async with running_server(database, tmp_path, with_cluster=False, **guarded) as server:
        await shop(server)
        holder = await server.user("dora", {"shop": "operator"})
        told = await refused(update(holder, labels={"example.org/level": "any"}), "namespace.security")
        assert told.metadata["key"] == "example.org/level"
        web = container_pb2.Container(name="web", image="nginx:1.27", annotations={"example.net/nets": "any"})
        told = await refused(
            holder.containers.create(namespace="shop", container=web), "container.privileged"
        )
        assert "example.net/nets" in told.message
        # Each list applies to one kind of object.
        await update(holder, labels={"example.net/level": "any"})


@pytest.mark.full
async def test_without_the_rule_a_grant_in_one_namespace_would_suffice(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: if a grant gives every permission of its role, its holder raises quota and level."""
    monkeypatch.setattr(Grant, "left_out", property(lambda self: self.excluded))
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await shop(server, **{ENFORCE: "restricted"})
        holder = await server.user("dora", {"shop": "operator"})
        raised = await update(
            holder, resource_quota=pb.ResourceQuota(containers=100_000), labels={ENFORCE: "privileged"}
        )
        assert (raised.resource_quota.containers, raised.labels[ENFORCE]) == (100_000, "privileged")


async def test_a_new_namespace_gets_a_quota_or_level_only_with_the_permission(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.identity.create_role(
            role=identity_pb2.Role(name="maker", permissions=["namespace.create", "namespace.get"])
        )
        maker = await server.user("mia", {"": "maker"})
        await refused(
            maker.namespaces.create(namespace=pb.Namespace(name="a", resource_quota=QUOTA)), "namespace.quota"
        )
        await refused(
            maker.namespaces.create(namespace=pb.Namespace(name="a", labels={ENFORCE: "restricted"})),
            "namespace.security",
        )
        made = await maker.namespaces.create(namespace=pb.Namespace(name="a", labels={"team": "a"}))
        assert dict(made.labels) == {"team": "a"}


async def test_a_level_is_shown_before_the_cluster_has_it(database: Database, tmp_path: Path) -> None:
    """No reconciler runs here: the shown level is the one that the namespace will get."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        namespaces = server.admin.namespaces
        await shop(server)
        made = {"open": {ENFORCE: "privileged"}, "theirs": {}, "odd": {ENFORCE: "x" * 63}}
        answers = [
            await namespaces.create(namespace=pb.Namespace(name=name, labels=labels), adopt=name == "theirs")
            for name, labels in made.items()
        ]
        # An adopted namespace keeps its level, which was not observed yet.
        assert [answer.pod_security_level for answer in answers] == ["privileged", "", "x" * 20]
        shell = await logged_in(server, tmp_path)
        table = await shell.succeed("namespaces", "create", "new")
        heads, line = (each.split("\t") for each in table.splitlines())
        assert line[heads.index("POD SECURITY")] == "baseline"
        changed = await update(server.admin, labels={ENFORCE: "restricted"})
        assert (changed.reconciling, changed.pod_security_level) == (True, "restricted")
        changed = await update(server.admin, labels={})
        assert changed.pod_security_level == "baseline"
        taken = await namespaces.update(
            name="shop", namespace=pb.Namespace(), update_mask=FieldMask(paths=["display_name"]), adopt=True
        )
        assert taken.pod_security_level == ""


async def test_an_observed_level_is_shown_until_another_is_observed(server: Server) -> None:
    await shop(server)
    await shows_level(server, "baseline")
    changed = await update(server.admin, labels={ENFORCE: "restricted"})
    assert (changed.reconciling, changed.pod_security_level) == (True, "baseline")
    await shows_level(server, "restricted")


async def test_new_namespaces_are_baseline_and_all_are_listed_with_their_level(
    server: Server, tmp_path: Path
) -> None:
    assert server.cluster is not None
    theirs = {"metadata": {"name": "theirs", "labels": {ENFORCE: "restricted"}}}
    server.cluster.store.create(resources.NAMESPACES, theirs)
    await shop(server)
    await server.admin.namespaces.create(namespace=pb.Namespace(name="theirs"), adopt=True)
    await server.admin.namespaces.create(namespace=pb.Namespace(name="open", labels={ENFORCE: "privileged"}))
    for name, level in (("shop", "baseline"), ("theirs", "restricted"), ("open", "privileged")):
        await shows_level(server, level, name)
        assert labels_there(server, name)[ENFORCE] == level
    # The platform sets the label: the caller's labels stay as given, and need not contain it.
    assert dict((await server.admin.namespaces.get(name="shop")).labels) == {}
    listed = [
        item.name async for item in server.admin.namespaces.list(filter='pod_security_level = "baseline"')
    ]
    assert listed == ["shop"]
    shell = await logged_in(server, tmp_path)
    table = await shell.succeed("namespaces", "list")
    assert "POD SECURITY" in table
    (line,) = [line for line in table.splitlines() if line.startswith("theirs")]
    assert "restricted" in line

    # The cluster enforces the level against every caller, even an administrator.
    await server.admin.containers.create(
        namespace="shop",
        container=container_pb2.Container(name="web", image="nginx:1.27", security_context=ROOT),
    )

    async def kept_off() -> bool:
        found = await server.admin.containers.get(namespace="shop", name="web")
        return 'violates PodSecurity "baseline:latest"' in found.message

    await poll_until(kept_off)
    # A holder of the permission may lift the level and restore it.
    await update(server.admin, labels={ENFORCE: "privileged"})
    await shows_level(server, "privileged")
    await update(server.admin, "labels", labels={})
    await shows_level(server, "baseline")


async def test_the_level_of_new_namespaces_is_a_setting(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, namespace_pod_security="") as server:
        await shop(server)
        await shows_level(server, "")
        assert ENFORCE not in labels_there(server)
    with pytest.raises(SettingsError, match="PILOTHOUSE_NAMESPACE_POD_SECURITY must be"):
        load({"PILOTHOUSE_NAMESPACE_POD_SECURITY": "strict"})


async def test_changes_of_the_level_by_others_on_the_cluster_are_reverted(server: Server) -> None:
    assert server.cluster is not None
    await shop(server)
    await shows_level(server, "baseline")
    found = server.cluster.store.get(resources.NAMESPACES, None, "shop")
    assert found is not None
    changed = {
        **found,
        "metadata": {**found["metadata"], "labels": {**labels_there(server), ENFORCE: "privileged"}},
    }
    server.cluster.store.update(resources.NAMESPACES, changed)

    async def taken_back() -> bool:
        return labels_there(server)[ENFORCE] == "baseline"

    await poll_until(taken_back)
