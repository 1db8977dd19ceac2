"""The points of a container's day, hour by hour, in one row: `container_usage_days`.

A month of usage at steps of an hour was answered from 720 rows of each container, each made into a message of its own.
Now a day that is over is one row with its points as they stand in an answer, and a month is thirty rows that are put
one behind the other.

Such a row is a copy of `container_usage_hourly` and must never be an old one. So triggers keep, for each container and
day of which there are hours, a row that says so; whoever writes an hour, a server of the release before as well, makes
that row empty again (`format` 0), and hours that come late are seen at once: what is empty is read from the hours. The
server packs empty rows of days that are over. It locks such a row before it reads the hours; who writes an hour locks
it, too, also where it is empty already, so that neither goes by what the other is about to change.

`format` is that of the bytes: a release that shows more of a point packs anew what is of a lower one, and reads the
hours until it has. `hours` says which points there are, bit by bit, so that a part of a day can be cut out.

Rows are made here for what was rolled up before: those of the days by `container_usage_daily`, which has a row for
each, and those of the days since by the hours.

`usage_rolled_until` says until when all is rolled up. A tenant that has none, or none lately, looked through the whole
of the roll-ups for the newest one that it may see.
"""

from __future__ import annotations

from pilothouse_migrations.statements import belongs_to_namespace, run

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE TABLE container_usage_days (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    day timestamptz NOT NULL,
    format smallint NOT NULL DEFAULT 0,
    hours integer NOT NULL DEFAULT 0,
    points bytea,
    CONSTRAINT pk_container_usage_days PRIMARY KEY (container_id, day),
    CONSTRAINT fk_container_usage_days_container FOREIGN KEY (container_id, namespace_id)
        REFERENCES containers (id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT ck_container_usage_days_points CHECK ((format > 0) = (points IS NOT NULL)),
    CONSTRAINT ck_container_usage_days_length CHECK (octet_length(points) <= 4096)
);

ALTER TABLE container_usage_days ALTER COLUMN points SET STORAGE PLAIN;

COMMENT ON TABLE container_usage_days IS
    'Days of which there are hourly roll-ups, with those of a day in one row, ready to be sent.';
COMMENT ON COLUMN container_usage_days.day IS 'Start of the day in UTC.';
COMMENT ON COLUMN container_usage_days.format IS 'Of the points; 0: there are none, the hours are to be read.';
COMMENT ON COLUMN container_usage_days.hours IS 'Bit by bit from the first hour on, of which hours there are points.';

CREATE INDEX idx_container_usage_days_container ON container_usage_days (container_id, namespace_id);
CREATE INDEX idx_container_usage_days_format ON container_usage_days (format, day, container_id);
CREATE INDEX idx_container_usage_days_namespace ON container_usage_days (namespace_id);
""")
    belongs_to_namespace("container_usage_days", privileges="SELECT")
    run("""
CREATE FUNCTION mark_usage_days() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            UPDATE public.container_usage_days AS d SET format = 0, hours = 0, points = NULL
            FROM (SELECT DISTINCT container_id, date_trunc('day', bucket, 'UTC') AS day FROM changed) AS c
            WHERE d.container_id = c.container_id AND d.day = c.day;
        ELSE
            INSERT INTO public.container_usage_days AS d (container_id, namespace_id, day)
            SELECT DISTINCT container_id, namespace_id, date_trunc('day', bucket, 'UTC') FROM changed ORDER BY 1, 3
            ON CONFLICT ON CONSTRAINT pk_container_usage_days
            DO UPDATE SET format = 0, hours = 0, points = NULL WHERE d.format <> 0;
        END IF;
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION mark_usage_days() IS 'Makes the rows of container_usage_days empty whose hours were changed.';

CREATE TRIGGER mark_usage_days_inserted AFTER INSERT ON container_usage_hourly
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER mark_usage_days_updated AFTER UPDATE ON container_usage_hourly
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();
CREATE TRIGGER mark_usage_days_deleted AFTER DELETE ON container_usage_hourly
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mark_usage_days();

CREATE FUNCTION usage_rolled_until() RETURNS TABLE (hour timestamptz, day timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT (SELECT max(bucket) FROM public.container_usage_hourly),
           (SELECT max(bucket) FROM public.container_usage_daily)
    $$;

COMMENT ON FUNCTION usage_rolled_until() IS
    'The newest hour and the newest day that are rolled up, whoever they are of.';

GRANT EXECUTE ON FUNCTION usage_rolled_until() TO @app@, @system@;

INSERT INTO container_usage_days (container_id, namespace_id, day)
SELECT container_id, namespace_id, bucket FROM container_usage_daily
UNION
SELECT container_id, namespace_id, date_trunc('day', bucket, 'UTC') FROM container_usage_hourly
WHERE bucket >= coalesce((SELECT max(bucket) FROM container_usage_daily), '-infinity');
""")


def downgrade() -> None:
    run("""
DROP FUNCTION usage_rolled_until();
DROP TRIGGER mark_usage_days_deleted ON container_usage_hourly;
DROP TRIGGER mark_usage_days_updated ON container_usage_hourly;
DROP TRIGGER mark_usage_days_inserted ON container_usage_hourly;
DROP FUNCTION mark_usage_days();
DROP TABLE container_usage_days;
""")
