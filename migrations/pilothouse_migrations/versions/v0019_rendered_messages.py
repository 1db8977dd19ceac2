"""The message that a change renders for its event is kept beside the row: `rendered_messages`.

A read then answers with ready bytes instead of rendering the row and its parts. Bytes that are not of the row as it
is are never shown: each row counts its own writes in `row_version`, by a trigger, so whoever writes it counts, a
server of the release before and an observer too (`resource_version`, what etags are made of, stays where only the
observed state changes). The message carries the `row_version` that it was rendered from, and the format of the release
that rendered it; where either differs from what a reader expects, the reader renders the row.

`put_changes` writes messages before its pending row, after which nothing may be written. It runs with its owner's
rights, so it looks whether a resource is in the namespace that its event names, which is one that the caller reaches:
else a caller could put bytes beside another tenant's row. Of a resource's events in one transaction the last counts.
Two transactions that write messages lock them in one order.

What a message shows that is not of its own row is not in the bytes: it is added when they are read.
"""

from __future__ import annotations

from pilothouse_migrations.statements import belongs_to_namespace, run
from pilothouse_migrations.versions import v0015_pending_changes

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Type of a resource -> its table, and the column that says in which namespace it is.
WATCHED = {
    "config_map": ("config_maps", "namespace_id"),
    "container": ("containers", "namespace_id"),
    "namespace": ("namespaces", "id"),
    "secret": ("secrets", "namespace_id"),
    "volume": ("volumes", "namespace_id"),
}

# That a node found out an image's digest is noted alone, without a change of anything that is shown.
_COUNTED = """
    WHEN (OLD.image_id = NEW.image_id OR OLD.updated_at IS DISTINCT FROM NEW.updated_at)
    """

_KEEP_COMMENT = """
COMMENT ON FUNCTION keep_rendered_messages(jsonb, bytea[]) IS
    'Keeps the parts of messages that are answers to reads beside the rows that they were rendered from.';
"""


def upgrade() -> None:
    _table()
    _versions()
    define_keep("CREATE FUNCTION")
    run(_KEEP_COMMENT)
    define_put_changes()


def _table() -> None:
    run("""
CREATE TABLE rendered_messages (
    resource_type varchar(50) NOT NULL,
    resource_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    row_version bigint NOT NULL,
    format integer NOT NULL,
    message bytea NOT NULL,
    CONSTRAINT pk_rendered_messages PRIMARY KEY (resource_type, resource_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE rendered_messages IS
    'What reads of a resource answer, serialised: that part of its message that follows from its own row.';
COMMENT ON COLUMN rendered_messages.row_version IS
    'The version of the row that it was rendered from; where the row has another one, it is not shown.';
COMMENT ON COLUMN rendered_messages.format IS
    'Grows with each release that renders more; one that is not the server''s own is not shown.';
""")
    belongs_to_namespace("rendered_messages", privileges="SELECT")


def _versions() -> None:
    run("""
CREATE FUNCTION raise_row_version() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        NEW.row_version := OLD.row_version + 1;
        RETURN NEW;
    END
    $$;

COMMENT ON FUNCTION raise_row_version() IS 'Counts the writes of a row, whoever makes them.';

CREATE FUNCTION forget_rendered_messages() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        DELETE FROM public.rendered_messages AS m USING gone AS g
        WHERE m.resource_type = TG_ARGV[0] AND m.resource_id = g.id;
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION forget_rendered_messages() IS 'Deletes the messages of rows that are deleted.';
""")
    for resource_type, (table, _) in WATCHED.items():
        counted = _COUNTED if table == "containers" else ""
        run(f"""
ALTER TABLE {table} ADD COLUMN row_version bigint NOT NULL DEFAULT 1;

COMMENT ON COLUMN {table}.row_version IS 'Raised by each write of the row, by a trigger.';

CREATE TRIGGER raise_row_version BEFORE UPDATE ON {table}
    FOR EACH ROW {counted}EXECUTE FUNCTION raise_row_version();

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION forget_rendered_messages('{resource_type}');
""")


def define_keep(create: str, end: str = "") -> None:
    """Defines the function as this release has it; a later migration ends its conditions otherwise, and comes back."""
    is_row = "\n".join(
        f"""            WHEN '{resource_type}' THEN EXISTS (
                SELECT FROM public.{table} AS r
                WHERE r.id = e.resource_id AND r.{namespace} = e.namespace_id AND r.row_version = e.row_version{end})"""
        for resource_type, (table, namespace) in WATCHED.items()
    )
    run(f"""
{create} keep_rendered_messages(p_events jsonb, p_messages bytea[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        INSERT INTO public.rendered_messages AS m
            (resource_type, resource_id, namespace_id, row_version, format, message)
        SELECT e.resource_type, e.resource_id, e.namespace_id, e.row_version, e.format,
               substring(p_messages[e.position::integer] FROM e.kept_at + 1 FOR e.kept_bytes)
        FROM (
            SELECT DISTINCT ON (a.resource_type, a.resource_id) a.*
            FROM ROWS FROM (jsonb_to_recordset(p_events) AS (
                     resource_type text, resource_id bigint, namespace_id bigint, kind text, row_version bigint,
                     format integer, kept_at integer, kept_bytes integer)) WITH ORDINALITY
                 AS a(resource_type, resource_id, namespace_id, kind, row_version, format, kept_at, kept_bytes,
                     position)
            ORDER BY a.resource_type, a.resource_id, a.position DESC) AS e
        WHERE e.kept_bytes > 0 AND e.kind <> 'deleted' AND CASE e.resource_type
{is_row}
            ELSE false END
        ORDER BY e.resource_type, e.resource_id
        ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
        SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
            message = EXCLUDED.message
        WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
        -- The row of a namespace that has ended stays.
        IF p_events @> '[{{"resource_type": "namespace", "kind": "deleted"}}]' THEN
            DELETE FROM public.rendered_messages AS m
            USING jsonb_to_recordset(p_events) AS e(
                resource_type text, resource_id bigint, namespace_id bigint, kind text)
            WHERE e.resource_type = 'namespace' AND e.kind = 'deleted' AND m.resource_type = e.resource_type
              AND m.resource_id = e.resource_id AND m.namespace_id = e.namespace_id;
        END IF;
    END
    $$;
""")


def define_put_changes() -> None:
    """Defines the function as this release has it; a later migration comes back to it on its way down."""
    run("""
CREATE OR REPLACE FUNCTION put_changes(
    p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[],
    p_operation jsonb DEFAULT NULL, p_idempotency jsonb DEFAULT NULL)
    RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
        put_id bigint;
    BEGIN
        IF caller_role = '@app@' THEN
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
            SELECT k.user_id, k.request_id, k.method, decode(k.request_hmac, 'base64'), decode(k.response, 'base64'),
                   k.operation_id, coalesce(k.expires_at, now() + interval '24 hours')
            FROM jsonb_to_record(p_idempotency) AS k(user_id bigint, request_id uuid, method text, request_hmac text,
                response text, operation_id uuid, expires_at timestamptz);
        END IF;
        IF p_events <> '[]' THEN
            PERFORM public.keep_rendered_messages(p_events, p_messages);
        END IF;
        -- The transaction has its id before the row takes its own: the floor rests on that.
        PERFORM pg_current_xact_id();
        INSERT INTO public.pending_changes (records, record_hashes, events, messages)
        VALUES (
            ARRAY(SELECT r::public.pending_record
                  FROM jsonb_populate_recordset(NULL::public.pending_record_row, p_audit) AS r),
            p_hashes,
            ARRAY(SELECT e::public.pending_event
                  FROM jsonb_populate_recordset(NULL::public.pending_event_row, p_events) AS e),
            p_messages)
        RETURNING id INTO put_id;
        RETURN put_id;
    END
    $$;
""")


def downgrade() -> None:
    run("DROP FUNCTION put_changes(jsonb, bytea[], jsonb, bytea[], jsonb, jsonb);")
    v0015_pending_changes.define_put_changes()
    run("DROP FUNCTION keep_rendered_messages(jsonb, bytea[]);")
    for table, _ in WATCHED.values():
        run(f"""
DROP TRIGGER forget_rendered_messages ON {table};
DROP TRIGGER raise_row_version ON {table};
ALTER TABLE {table} DROP COLUMN row_version;
""")
    run("""
DROP FUNCTION forget_rendered_messages();
DROP FUNCTION raise_row_version();
DROP TABLE rendered_messages;
""")
