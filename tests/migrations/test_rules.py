"""Accepted and refused rows of the tables, and the counts of the views.

Each fault of the seed is tested by its wrong effect.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import asyncpg
import pytest

import pilothouse
from pilothouse.options.v1 import options_pb2
from pilothouse_server.values import audit_words
from tests.conftest import Database

_PORT = """INSERT INTO port_mappings (container_id, namespace_id, container_port, service_name, service_port{})
    VALUES ({})"""
_VOLUME = "INSERT INTO volumes (name, namespace_id, type, access_mode) VALUES ('v', 1, {}, {})"
_VARIABLE = """INSERT INTO environment_variables
    (container_id, namespace_id, name, value, value_from, source_name, source_key) VALUES (1, 1, 'V', {})"""
_IMAGE = "INSERT INTO container_images (repository, name, tag, digest) VALUES ({})"


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (_PORT.format("", "1, 1, 0, 'a', 80"), "ck_port_mappings_container_port"),
        (_PORT.format("", "1, 1, 65536, 'a', 80"), "ck_port_mappings_container_port"),
        (_PORT.format("", "1, 1, 80, 'a', 70000"), "ck_port_mappings_service_port"),
        (_PORT.format(", node_port", "1, 1, 80, 'a', 80, 29999"), "ck_port_mappings_node_port"),
        (_PORT.format(", node_port", "1, 1, 80, 'a', 80, 32768"), "ck_port_mappings_node_port"),
        (_PORT.format(", host_port", "1, 1, 80, 'a', 80, 0"), "ck_port_mappings_host_port"),
        (_PORT.format(", protocol", "1, 1, 80, 'a', 80, 'tcp'"), "ck_port_mappings_protocol"),
        (_PORT.format("", "1, 1, 80, NULL, NULL"), "ck_port_mappings_service"),
        (_PORT.format("", "1, 1, 9999, 'web', 80"), "uq_port_mappings_service"),
        (_VOLUME.format("'nfs'", "NULL"), "ck_volumes_type"),
        (_VOLUME.format("'host_path'", "'RWO'"), "ck_volumes_access_mode"),
        (_VARIABLE.format("NULL, 'file', 's', 'k'"), "ck_environment_variables_value_from"),
        (_VARIABLE.format("'copied', 'secret', 's', 'k'"), "ck_environment_variables_source"),
        (_VARIABLE.format("NULL, 'secret', 's', NULL"), "ck_environment_variables_source"),
        (_VARIABLE.format("NULL, 'field_ref', NULL, NULL"), "ck_environment_variables_source"),
        (_VARIABLE.format("'x', 'literal', 's', NULL"), "ck_environment_variables_source"),
        ("INSERT INTO environment_variables (container_id, namespace_id, name) VALUES (1, 1, 'TENANT')",
         "uq_environment_variables_name"),
        (_IMAGE.format("'registry.example/alpha', 'web', '1', NULL"), "uq_container_images_reference"),
        (_IMAGE.format("NULL, 'web', NULL, NULL"), "ck_container_images_reference"),
        ("UPDATE containers SET status = 'deleting'", "ck_containers_status"),
        ("UPDATE containers SET labels = '[]'", "ck_containers_labels"),
        ("UPDATE containers SET observed_generation = 2", "ck_containers_generation"),
        ("UPDATE clusters SET key_id = NULL", "ck_clusters_credentials_key"),
        ("DELETE FROM clusters", "fk_namespaces_cluster_name"),
        ("DELETE FROM namespaces", "fk_containers_namespace"),
        ("UPDATE users SET is_bootstrap = true", "uq_users_bootstrap"),
        ("UPDATE reconcile_work SET lease_owner = 'me'", "ck_reconcile_work_lease"),
        ("INSERT INTO stream_head (id) VALUES (2)", "ck_stream_head_id"),
    ],
)  # fmt: skip
async def test_refused(apart: Database, statement: str, rule: str) -> None:
    async with apart.owner() as owner:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as raised:
            await owner.execute(statement)
        assert raised.value.constraint_name == rule


@pytest.mark.parametrize(
    "statement",
    [
        # One port of a container behind two Services, as in the Online Boutique demo.
        _PORT.format("", "1, 1, 8080, 'web-external', 80"),
        # Two ports without a Service.
        _PORT.format(", service_type", "1, 1, 9090, NULL, NULL, 'None'), (1, 1, 9091, NULL, NULL, 'None'"),
        # The same name and tag in another registry, and an image with only a digest.
        _IMAGE.format("'other.example', 'web', '1', NULL"),
        _IMAGE.format("NULL, 'web', NULL, 'sha256:00'"),
        # Eleven busy cores, with a limit of one hundredth of a core.
        "INSERT INTO container_resource_usage (container_id, namespace_id, cpu_usage_percent) VALUES (1, 1, 110000)",
        _VARIABLE.format("NULL, 'field_ref', NULL, 'status.podIP'"),
        "INSERT INTO environment_variables (container_id, namespace_id, container_name, name)"
        " VALUES (1, 1, 'init', 'TENANT')",
    ],
)  # fmt: skip
async def test_a_valid_row_is_accepted(apart: Database, statement: str) -> None:
    async with apart.owner() as owner:
        transaction = owner.transaction()
        await transaction.start()
        assert (await owner.execute(statement)).startswith("INSERT 0 ")
        await transaction.rollback()


async def test_a_container_is_deleted_with_its_dependent_rows(tenants: Database) -> None:
    async with tenants.owner() as owner, tenants.system() as system:
        assert await system.execute("DELETE FROM containers WHERE id = 1") == "DELETE 1"
        rows = await owner.fetch(
            "SELECT conrelid::regclass::text FROM pg_constraint"
            # A Service that a container owned stays until the cluster has deleted it.
            " WHERE confrelid = 'containers'::regclass AND conparentid = 0 AND confdeltype <> 'n'"
        )
        assert len(rows) >= 8
        for (table,) in rows:
            left = await owner.fetch(f"SELECT DISTINCT container_id FROM {table}")
            assert [row[0] for row in left] == [2], table
        assert await owner.fetchval("SELECT count(*) FROM operations") == 2


async def test_a_user_without_operations_counts_none(tenants: Database) -> None:
    async with tenants.owner() as owner:
        rows = {row["username"]: row for row in await owner.fetch("SELECT * FROM user_operation_stats")}
        assert rows["root"]["total_operations"] == 0
        assert rows["root"]["first_operation_at"] is None
        assert (rows["alpha"]["total_operations"], rows["alpha"]["create_operations"]) == (1, 1)
        assert (rows["alpha"]["successful_operations"], rows["alpha"]["failed_operations"]) == (1, 0)
        assert rows["alpha"]["operations_last_30_days"] == 1
        assert rows["alpha"]["avg_duration_ms"] == 5


async def test_the_end_of_a_watch_does_not_count_as_failure(tenants: Database) -> None:
    ends = [
        ("watch", "STREAM", 499, "CANCELLED"),
        ("watch", "STREAM", 504, "DEADLINE_EXCEEDED"),
        ("logs", "STREAM", 499, "CANCELLED"),
        # These count as failures.
        ("watch", "STREAM", 400, "OUT_OF_RANGE"),
        ("record", "STREAM", 504, "DEADLINE_EXCEEDED"),
        ("create", "UNARY", 499, "CANCELLED"),
    ]
    async with tenants.owner() as owner:
        await owner.executemany(
            "INSERT INTO operation_logs (user_id, username, action, resource_type, request_method, status_code,"
            " error_code, sequence, record_hash, mark)"
            " SELECT id, username, $1, 'container', $2, $3, $4, $5, sha256(''), '12345678'"
            " FROM users WHERE username = 'alpha'",
            [(*end, 100 + number) for number, end in enumerate(ends)],
        )
        row = await owner.fetchrow("SELECT * FROM user_operation_stats WHERE username = 'alpha'")
        assert (row["total_operations"], row["successful_operations"], row["failed_operations"]) == (7, 1, 3)


async def test_details_show_the_newest_sample(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute(
            "INSERT INTO container_resource_usage (container_id, namespace_id, timestamp, cpu_usage_percent)"
            " VALUES (1, 1, now() + interval '1 minute', 7), (1, 1, now() - interval '1 minute', 9)"
        )
        await owner.execute("UPDATE containers SET started_at = now() - interval '90 seconds' WHERE id = 1")
        await owner.execute("UPDATE containers SET status = 'stopped' WHERE id = 2")
        rows = await owner.fetch("SELECT * FROM container_details ORDER BY id")
        assert [row["cpu_usage_percent"] for row in rows] == [7, 1200]
        assert 90 <= rows[0]["uptime_seconds"] < 600
        assert rows[1]["uptime_seconds"] is None
        assert (rows[0]["image_repository"], rows[0]["image_tag"]) == ("registry.example/alpha", "1")


async def test_the_summary_counts_an_image_once(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute(
            "INSERT INTO containers (name, namespace_id, image_id, kubernetes_name, status)"
            " VALUES ('second', 1, 1, 'second', 'stopped'), ('third', 1, 9, 'third', 'failed')"
        )
        await owner.execute(
            "INSERT INTO namespaces (id, name, kubernetes_name, cluster_name)"
            " VALUES (3, 'empty', 'empty', 'alpha-cluster')"
        )
        # Other containers use image 1 as their main image; only a sidecar uses image 2.
        await owner.execute(
            "INSERT INTO program_images (container_id, namespace_id, program, image, image_id)"
            " SELECT c.id, 1, p.program, 'x', p.image_id FROM containers AS c"
            " CROSS JOIN (VALUES ('same', 1), ('other', 2)) AS p (program, image_id) WHERE c.name = 'second'"
        )
        await owner.execute("SELECT refresh_container_summary()")
        rows = await owner.fetch("SELECT * FROM container_summary ORDER BY namespace_id")
        assert [tuple(row)[1:] for row in rows] == [
            ("alpha", 3, 1, 1, 1, 307),
            ("beta", 1, 1, 0, 0, 200),
            ("empty", 0, 0, 0, 0, 0),
        ]


async def test_the_summary_is_refreshed_while_it_is_read(tenants: Database) -> None:
    """Only a unique index lets REFRESH … CONCURRENTLY do that."""
    async with tenants.owner() as owner, tenants.owner() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM container_summary")
        await owner.execute("SET lock_timeout = '5s'")
        await owner.execute("SELECT refresh_container_summary()")
        assert await owner.fetchval("SELECT count(*) FROM container_summary") == 2


def test_every_action_and_resource_type_of_a_method_is_allowed() -> None:
    """The log must be able to record every call that the protos define."""
    declared = list(_declared())
    assert len(declared) > 20
    assert {action for action, _ in declared} - audit_words.ACTIONS == set()
    assert {resource_type for _, resource_type in declared} - audit_words.RESOURCE_TYPES == set()


def _declared() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(pilothouse.__path__, "pilothouse."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            for service in file.services_by_name.values():
                for method in service.methods:
                    rule = method.GetOptions().Extensions[options_pb2.method]
                    yield rule.action, rule.resource_type


# The seed and the data model list the values of these columns.
_ENUMS = {
    "container_images.status",
    "container_status_history.triggered_by",
    "containers.status",
    "environment_variables.value_from",
    "namespaces.status",
    "operation_logs.request_method",
    "port_mappings.protocol",
    "user_secrets.secret_type",
    "users.status",
    "volumes.access_mode",
    "volumes.status",
    "volumes.type",
}


async def test_the_database_checks_the_values_of_no_other_enum(tenants: Database) -> None:
    """A value that a later release adds needs no migration there."""
    async with tenants.owner() as owner:
        found = await owner.fetch(
            "SELECT conrelid::regclass || '.' || a.attname AS name FROM pg_constraint AS c"
            " JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]"
            " WHERE contype = 'c' AND conparentid = 0 AND conrelid NOT IN (SELECT inhrelid FROM pg_inherits)"
            " AND pg_get_constraintdef(c.oid) LIKE '%ANY (%ARRAY[%'"
        )
    assert {row["name"] for row in found} == _ENUMS


@pytest.mark.parametrize(
    ("words", "function"),
    [
        ("replica_set_name =", "write_observed"),
        ("lease_owner = NULL, leased_until = NULL, last_error", "release_work"),
    ],
)
async def test_only_one_function_writes_these_columns(tenants: Database, words: str, function: str) -> None:
    async with tenants.owner() as owner:
        found = await owner.fetch("SELECT proname FROM pg_proc WHERE strpos(prosrc, $1) > 0", words)
    assert [row["proname"] for row in found] == [function]
