"""What each change writes costs PostgreSQL less, and the same however many rows there are.

Messages. `keep_rendered_messages` asked by EXISTS whether an event is of the row as it is. PostgreSQL may answer that
out of a hash of the whole table, and did so while there were some thousand containers: each change read them all.
Now it does not (`OFFSET 0` forbids the hash), and the one event that most changes have takes a way of its own, by key.

Plans. Functions and foreign keys keep their plans for as long as a connection lives. One that was made while a table
was empty, and had been vacuumed so, reads all of it, whatever it has grown to; `pending_changes` is empty
most of the time, with dead rows that a scan would pass over. What these functions look for has an index, so none of
their plans, nor those of foreign keys that are made within them, begins with a scan while there is another way.

Pending rows live for milliseconds, so they are not compressed on their way in, up to the size of a page.

The reach of one who makes a container is looked up for its namespace alone: what is written lies in there, and a
smaller reach allows no more.

The counter of a quota is told of new containers row by row: for the one that nearly every statement inserts, gathering
a statement's rows in a table costs more than the count. A deletion of many is counted by the statement, as before.

The checks of `put_changes` are expressions now instead of queries.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import (
    v0009_events,
    v0016_quota_counters,
    v0019_rendered_messages,
    v0021_containers_at_once,
    v0023_containers_keep_plans,
)

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_REPLACE = "CREATE OR REPLACE FUNCTION"
_SETTINGS = f"{v0023_containers_keep_plans.SETTINGS}\n    SET enable_seqscan = off"
_REACH = "    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);\n"
_SEQUENCERS = (
    "number_pending(bigint[])",
    "number_visible(integer, bigint)",
    "sequence_changes(integer)",
)


def upgrade() -> None:
    _reach()
    _messages()
    define_check()
    define_put_changes()
    _count()
    run("ALTER TABLE pending_changes SET (toast_tuple_target = 8160);")
    for function in _SEQUENCERS:
        run(f"ALTER FUNCTION {function} SET enable_seqscan = off;")
    v0021_containers_at_once.define_admit(_REPLACE, _SETTINGS, v0023_containers_keep_plans.REACH)
    v0021_containers_at_once.define_write(_REPLACE, _SETTINGS, _REACH)


def _reach() -> None:
    run("""
CREATE FUNCTION app_reach_in(p_namespace_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RETURN (
        SELECT current_setting('app.current_user_id', true) || '/'
            || CASE WHEN bool_or(g.namespace_id IS NULL) THEN '1' ELSE '0' END
            || CASE WHEN bool_or(g.namespace_id IS NOT NULL) THEN '{' || p_namespace_id || '}' ELSE '{}' END
        FROM public.user_roles AS g
        JOIN public.roles AS r ON r.id = g.role_id
        WHERE g.user_id = nullif(current_setting('app.current_user_id', true), '')::bigint
          AND (g.namespace_id IS NULL OR g.namespace_id = p_namespace_id)
          AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
          AND jsonb_array_length(r.permissions) > 0
          AND EXISTS (
              SELECT FROM public.users AS u
              WHERE u.id = nullif(current_setting('app.current_user_id', true), '')::bigint
                AND u.status = 'active' AND u.deleted_at IS NULL));
    END
    $$;

COMMENT ON FUNCTION app_reach_in(bigint) IS
    'As app_reach, of one namespace: whether the caller reaches it, by a grant over all or by one of its own.';

GRANT EXECUTE ON FUNCTION app_reach_in(bigint) TO @app@, @system@;
""")


def _messages() -> None:
    v0019_rendered_messages.define_keep(_REPLACE, "\n                OFFSET 0")
    kept = "ELS".join(
        f"""IF v_type = '{resource_type}' THEN
            INSERT INTO public.rendered_messages AS m
                (resource_type, resource_id, namespace_id, row_version, format, message)
            SELECT v_type, r.id, v_namespace_id, r.row_version, v_format, v_message
            FROM public.{table} AS r
            WHERE r.id = v_id AND r.{namespace} = v_namespace_id AND r.row_version = v_row_version
            ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
            SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
                message = EXCLUDED.message
            WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
        """
        for resource_type, (table, namespace) in v0019_rendered_messages.WATCHED.items()
    )
    run(f"""
CREATE FUNCTION keep_rendered_message(p_event jsonb, p_message bytea)
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        v_type text := p_event ->> 'resource_type';
        v_id bigint := p_event ->> 'resource_id';
        v_namespace_id bigint := p_event ->> 'namespace_id';
        v_row_version bigint := p_event ->> 'row_version';
        v_format integer := p_event ->> 'format';
        v_message bytea := substring(p_message FROM (p_event ->> 'kept_at')::integer + 1
            FOR (p_event ->> 'kept_bytes')::integer);
    BEGIN
        {kept}END IF;
    END
    $$;

COMMENT ON FUNCTION keep_rendered_message(jsonb, bytea) IS
    'As keep_rendered_messages, of one event that is no deletion.';
""")


def define_check() -> None:
    """Defines the check as this release has it; a later migration comes back to it on its way down."""
    run("""
CREATE OR REPLACE FUNCTION check_appended_changes(
    p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller bigint := public.app_user_id();
        own boolean := coalesce((p_idempotency ->> 'user_id')::bigint = caller, true)
            AND coalesce((p_operation ->> 'user_id')::bigint = caller, true);
        reachable bigint[];
    BEGIN
        FOR position IN 0 .. jsonb_array_length(p_audit) - 1 LOOP
            own := own AND (p_audit -> position ->> 'user_id')::bigint IS NOT DISTINCT FROM caller;
        END LOOP;
        IF NOT own THEN
            RAISE EXCEPTION 'the caller may append changes in their own name only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF p_events = '[]' OR public.app_sees_all() THEN
            RETURN;
        END IF;
        reachable := public.app_namespace_ids();
        FOR position IN 0 .. jsonb_array_length(p_events) - 1 LOOP
            IF NOT coalesce((p_events -> position ->> 'namespace_id')::bigint = ANY (reachable), false) THEN
                RAISE EXCEPTION 'the caller may append events of reachable namespaces only'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
        END LOOP;
    END
    $$;
""")


def define_put_changes(checked: str = "caller_role = '@app@'") -> None:
    """As `define_check`; `checked` is the condition under which the caller's changes are checked."""
    run(f"""
CREATE OR REPLACE FUNCTION put_changes(
    p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[],
    p_operation jsonb DEFAULT NULL, p_idempotency jsonb DEFAULT NULL)
    RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    AS $$
    DECLARE
        caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
        v_records public.pending_record[];
        v_events public.pending_event[];
        put_id bigint;
    BEGIN
        IF {checked} THEN
            PERFORM public.check_appended_changes(p_audit, p_events, p_operation, p_idempotency);
        END IF;
        IF p_operation IS NOT NULL THEN
            INSERT INTO public.operations
                (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id, created_at)
            SELECT o.operation_id, o.user_id, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id,
                   coalesce(o.created_at, now())
            FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
            ON CONFLICT (operation_id) DO NOTHING;
        END IF;
        IF p_idempotency IS NOT NULL THEN
            INSERT INTO public.idempotency_keys
                (user_id, request_id, method, request_hmac, response, operation_id, expires_at)
            VALUES ((p_idempotency ->> 'user_id')::bigint, (p_idempotency ->> 'request_id')::uuid,
                p_idempotency ->> 'method', decode(p_idempotency ->> 'request_hmac', 'base64'),
                decode(p_idempotency ->> 'response', 'base64'), (p_idempotency ->> 'operation_id')::uuid,
                coalesce((p_idempotency ->> 'expires_at')::timestamptz, now() + interval '24 hours'));
        END IF;
        IF jsonb_array_length(p_events) = 1 AND p_events #>> '{{0,kind}}' <> 'deleted' THEN
            IF (p_events #>> '{{0,kept_bytes}}')::integer > 0 THEN
                PERFORM public.keep_rendered_message(p_events -> 0, p_messages[1]);
            END IF;
            v_events := ARRAY[
                jsonb_populate_record(NULL::public.pending_event_row, p_events -> 0)::public.pending_event];
        ELSE
            IF p_events <> '[]' THEN
                PERFORM public.keep_rendered_messages(p_events, p_messages);
            END IF;
            v_events := ARRAY(SELECT e::public.pending_event
                FROM jsonb_populate_recordset(NULL::public.pending_event_row, p_events) AS e);
        END IF;
        IF jsonb_array_length(p_audit) = 1 THEN
            v_records := ARRAY[
                jsonb_populate_record(NULL::public.pending_record_row, p_audit -> 0)::public.pending_record];
        ELSE
            v_records := ARRAY(SELECT r::public.pending_record
                FROM jsonb_populate_recordset(NULL::public.pending_record_row, p_audit) AS r);
        END IF;
        -- The transaction has its id before the row takes its own: the floor rests on that.
        PERFORM pg_current_xact_id();
        INSERT INTO public.pending_changes (records, record_hashes, events, messages)
        VALUES (v_records, p_hashes, v_events, p_messages)
        RETURNING id INTO put_id;
        RETURN put_id;
    END
    $$;
""")


def _count() -> None:
    run("""
DROP TRIGGER count_container_insert ON containers;

CREATE OR REPLACE FUNCTION count_container_insert() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
        VALUES (NEW.namespace_id, 1, NEW.quota_cpu_millicores, NEW.quota_memory_bytes);
        IF random() < 0.03125 THEN
            PERFORM public.fold_quota_changes(NEW.namespace_id);
        END IF;
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION count_container_insert() IS 'Notes in quota_counters what a new container adds.';

CREATE TRIGGER count_container_insert AFTER INSERT ON containers
    FOR EACH ROW WHEN (NEW.deletion_requested_at IS NULL) EXECUTE FUNCTION count_container_insert();
""")


def downgrade() -> None:
    v0023_containers_keep_plans.define_write()
    v0023_containers_keep_plans.define_admit()
    for function in _SEQUENCERS:
        run(f"ALTER FUNCTION {function} RESET enable_seqscan;")
    run("""
ALTER TABLE pending_changes RESET (toast_tuple_target);

DROP TRIGGER count_container_insert ON containers;

DROP FUNCTION count_container_insert();
""")
    v0016_quota_counters.define_count("insert", "NEW", "")
    v0019_rendered_messages.define_put_changes()
    v0009_events.define_check(_REPLACE)
    v0019_rendered_messages.define_keep(_REPLACE)
    run("""
DROP FUNCTION keep_rendered_message(jsonb, bytea);
DROP FUNCTION app_reach_in(bigint);
""")
