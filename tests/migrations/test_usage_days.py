"""What was rolled up before there were days in one row has its rows from the upgrade on."""

from __future__ import annotations

from pilothouse_migrations import runner
from tests.conftest import Database

_FILL = """
INSERT INTO clusters (name, api_server) VALUES ('local', 'https://127.0.0.1') ON CONFLICT DO NOTHING;
INSERT INTO namespaces (id, name, kubernetes_name, cluster_name) VALUES (1, 'shop', 'shop', 'local');
INSERT INTO containers (id, name, kubernetes_name, namespace_id, image_id)
SELECT i, 'web-' || i, 'web-' || i, 1, register_image(NULL, 'nginx', '1.27', NULL) FROM generate_series(1, 3) AS i;
INSERT INTO container_usage_hourly (container_id, namespace_id, bucket, samples)
SELECT i, 1, timestamptz '2026-03-01 00:00+00' + h * interval '5 hours', 1
FROM generate_series(1, 3) AS i, generate_series(0, 11) AS h WHERE i < 3 OR h > 9;
INSERT INTO container_usage_daily (container_id, namespace_id, bucket, samples)
SELECT DISTINCT container_id, 1, date_trunc('day', bucket, 'UTC'), 1 FROM container_usage_hourly
WHERE bucket < '2026-03-03 00:00+00';
"""
_DAYS = "SELECT container_id, day FROM container_usage_days ORDER BY 1, 2"
_OF_HOURS = (
    "SELECT DISTINCT container_id, date_trunc('day', bucket, 'UTC') FROM container_usage_hourly ORDER BY 1, 2"
)


async def test_an_upgrade_makes_a_row_for_each_day_that_has_hours(database: Database) -> None:
    await runner.downgrade(database.maintenance_dsn, "0019")
    async with database.owner() as owner:
        await owner.execute(_FILL)
        assert await owner.fetchval("SELECT count(DISTINCT bucket) FROM container_usage_daily") == 2
    await runner.upgrade(database.maintenance_dsn)
    async with database.owner() as owner:
        made = [tuple(row) for row in await owner.fetch(_DAYS)]
        assert made == [tuple(row) for row in await owner.fetch(_OF_HOURS)]
        # Two of three days are rolled up; of the third there are hours alone.
        assert len(made) == 2 * 3 + 1
        assert await owner.fetchval("SELECT count(*) FROM container_usage_days WHERE format > 0") == 0
