"""Functions that make partitions ahead, list them, and drop old ones.

Which rows a partition holds is read from the catalogue (`pg_inherits`, `pg_get_expr(relpartbound)`), never from its
name: the seed's function compared `y2025m10` with `202510`, took the third part of names that have more, and
matched other tables by prefix. A name that is taken by another relation only makes the new partition's name
longer. Makers lock the parent against each other before they look, and not against readers or writers.

A partition is made as a table of its own and then attached, which takes SHARE UPDATE EXCLUSIVE on the parent
instead of the ACCESS EXCLUSIVE of CREATE TABLE … PARTITION OF. There is no default partition: it would forbid
DETACH CONCURRENTLY and would have to be scanned at each attach. Partitions get row-level security without a policy
and no grants, because a policy of the parent does not guard a partition that is queried by its own name.

`drop_old_partitions` keeps the seed's name and arguments and detaches under a lock of one statement. A running
server uses the listing functions and DETACH CONCURRENTLY, which cannot run inside a function.

All functions run with the caller's rights and are granted to nobody: the maintenance login calls them as the owner.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _listing()
    _making()
    _dropping()


def _listing() -> None:
    run("""
CREATE FUNCTION partition_bounds(table_name text)
    RETURNS TABLE (partition_name text, lower_bound text, upper_bound text, detach_pending boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    SELECT c.relname::text,
           substring(b.bound FROM 'FROM \\(''([^'']*)''\\)'),
           substring(b.bound FROM 'TO \\(''([^'']*)''\\)'),
           i.inhdetachpending
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
    WHERE i.inhparent = to_regclass(format('public.%I', $1)) AND c.relispartition
    $$;

CREATE FUNCTION old_partitions(table_name text, before timestamptz)
    RETURNS TABLE (partition_name text, lower_bound timestamptz, upper_bound timestamptz, detach_pending boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    SELECT b.partition_name, b.lower_bound::timestamptz, b.upper_bound::timestamptz, b.detach_pending
    FROM public.partition_bounds($1) AS b
    WHERE b.upper_bound::timestamptz <= $2
    ORDER BY b.upper_bound::timestamptz
    $$;

CREATE FUNCTION old_partitions(table_name text, before bigint)
    RETURNS TABLE (partition_name text, lower_bound bigint, upper_bound bigint, detach_pending boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT b.partition_name, b.lower_bound::bigint, b.upper_bound::bigint, b.detach_pending
    FROM public.partition_bounds($1) AS b
    WHERE b.upper_bound::bigint <= $2
    ORDER BY b.upper_bound::bigint
    $$;

CREATE FUNCTION detached_partitions(table_name text)
    RETURNS TABLE (partition_name text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT c.relname::text
    FROM pg_class AS c
    JOIN pg_class AS parent ON parent.oid = to_regclass(format('public.%I', $1))
    WHERE c.relnamespace = parent.relnamespace AND c.relowner = parent.relowner
      AND c.relkind = 'r' AND NOT c.relispartition
      AND obj_description(c.oid, 'pg_class') = format('Was a partition of %s; to be dropped.', $1)
    ORDER BY c.relname
    $$;

COMMENT ON FUNCTION partition_bounds(text) IS
    'Partitions of a table with their bounds as the catalogue has them.';
COMMENT ON FUNCTION old_partitions(text, timestamptz) IS 'Partitions that hold nothing at or after a time.';
COMMENT ON FUNCTION old_partitions(text, bigint) IS 'Partitions that hold nothing at or above a number.';
COMMENT ON FUNCTION detached_partitions(text) IS
    'What was detached in order to be dropped and then was not, as after a crash.';
""")


def _making() -> None:
    run("""
CREATE FUNCTION create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        free_name text := wanted_name;
        attempt integer := 1;
    BEGIN
        WHILE to_regclass(format('public.%I', free_name)) IS NOT NULL LOOP
            attempt := attempt + 1;
            free_name := wanted_name || '_' || attempt;
        END LOOP;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING DEFAULTS)',
            free_name, table_name);
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', free_name);
        EXECUTE format('COMMENT ON TABLE public.%I IS %L', free_name,
            format('Partition of %s from %s to %s.', table_name, lower_bound, upper_bound));
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            table_name, free_name, lower_bound, upper_bound);
    END
    $$;

CREATE FUNCTION create_monthly_partitions(table_name text, start_date date, months integer DEFAULT 12)
    RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        lower_time timestamptz;
        upper_time timestamptz;
        made integer := 0;
    BEGIN
        EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', table_name);
        FOR i IN 0 .. months - 1 LOOP
            lower_time := date_trunc('month', start_date::timestamp) + make_interval(months => i);
            upper_time := date_trunc('month', start_date::timestamp) + make_interval(months => i + 1);
            CONTINUE WHEN EXISTS (
                SELECT FROM public.partition_bounds(table_name) AS b
                WHERE b.lower_bound::timestamptz <= lower_time AND b.upper_bound::timestamptz >= upper_time);
            PERFORM public.create_partition(table_name, table_name || to_char(lower_time, '"_y"YYYY"m"MM'),
                lower_time::text, upper_time::text);
            made := made + 1;
        END LOOP;
        RETURN made;
    END
    $$;

CREATE FUNCTION create_daily_partitions(table_name text, start_date date, days integer DEFAULT 14)
    RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        lower_time timestamptz;
        upper_time timestamptz;
        made integer := 0;
    BEGIN
        EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', table_name);
        FOR i IN 0 .. days - 1 LOOP
            lower_time := (start_date + i)::timestamp;
            upper_time := (start_date + i + 1)::timestamp;
            CONTINUE WHEN EXISTS (
                SELECT FROM public.partition_bounds(table_name) AS b
                WHERE b.lower_bound::timestamptz <= lower_time AND b.upper_bound::timestamptz >= upper_time);
            PERFORM public.create_partition(table_name, table_name || to_char(lower_time, '"_y"YYYY"m"MM"d"DD'),
                lower_time::text, upper_time::text);
            made := made + 1;
        END LOOP;
        RETURN made;
    END
    $$;

CREATE FUNCTION create_revision_partitions(
    table_name text, start_revision bigint, partitions integer DEFAULT 3, partition_size bigint DEFAULT 1000000)
    RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        lower_revision bigint;
        made integer := 0;
    BEGIN
        EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', table_name);
        FOR i IN 0 .. partitions - 1 LOOP
            lower_revision := (start_revision / partition_size + i) * partition_size;
            CONTINUE WHEN EXISTS (
                SELECT FROM public.partition_bounds(table_name) AS b
                WHERE b.lower_bound::bigint <= lower_revision
                  AND b.upper_bound::bigint >= lower_revision + partition_size);
            PERFORM public.create_partition(table_name, table_name || '_r' || lower_revision,
                lower_revision::text, (lower_revision + partition_size)::text);
            made := made + 1;
        END LOOP;
        RETURN made;
    END
    $$;

COMMENT ON FUNCTION create_partition(text, text, text, text) IS 'Makes one empty partition and attaches it.';
COMMENT ON FUNCTION create_monthly_partitions(text, date, integer) IS
    'Makes the missing partitions of the given number of months (UTC); returns how many were made.';
COMMENT ON FUNCTION create_daily_partitions(text, date, integer) IS
    'Makes the missing partitions of the given number of days (UTC); returns how many were made.';
COMMENT ON FUNCTION create_revision_partitions(text, bigint, integer, bigint) IS
    'Makes the missing partitions from the one that holds start_revision on; returns how many were made.';
""")


def _dropping() -> None:
    run("""
CREATE FUNCTION drop_old_partitions(table_name text, retention_months integer)
    RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        old record;
        dropped integer := 0;
    BEGIN
        IF retention_months IS NULL OR retention_months < 0 THEN
            RAISE EXCEPTION 'retention_months must be zero or more' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        FOR old IN
            SELECT * FROM public.old_partitions(table_name, now() - make_interval(months => retention_months))
        LOOP
            EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I %s', table_name, old.partition_name,
                CASE WHEN old.detach_pending THEN 'FINALIZE' ELSE '' END);
            EXECUTE format('DROP TABLE public.%I', old.partition_name);
            dropped := dropped + 1;
        END LOOP;
        RETURN dropped;
    END
    $$;

COMMENT ON FUNCTION drop_old_partitions(text, integer) IS
    'Drops the partitions whose rows are all older than the given months; returns how many were dropped.';
""")


def downgrade() -> None:
    run("""
DROP FUNCTION drop_old_partitions(text, integer);
DROP FUNCTION create_revision_partitions(text, bigint, integer, bigint);
DROP FUNCTION create_daily_partitions(text, date, integer);
DROP FUNCTION create_monthly_partitions(text, date, integer);
DROP FUNCTION create_partition(text, text, text, text);
DROP FUNCTION detached_partitions(text);
DROP FUNCTION old_partitions(text, bigint);
DROP FUNCTION old_partitions(text, timestamptz);
DROP FUNCTION partition_bounds(text);
""")
