"""Records are written in the caller's own name and namespaces, whichever role calls `put_changes`.

`put_changes` compared a record's user id with the caller's, and only where the role was the one of requests by name: a
login that is a member of that role was not checked at all, and nobody's user name or namespace was. Now every role is
checked but the system role and the owner, which write in others' names by design. A login that is a member of one of
these two takes the role on first (`SET ROLE`), as a server does when it connects.

A record names the caller, by id and by name, and no namespace or one that the caller reaches. A caller who gives up a
grant of their own does not reach its namespace any more when the record is written, so a trigger notes such namespaces
in `app.given_up` for the transaction. Whoever could forge that setting could as well forge the identity.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import v0027_changes_cost_less

revision = "0055"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE FUNCTION note_given_up_grant() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM set_config('app.given_up',
            concat_ws(',', nullif(current_setting('app.given_up', true), ''), OLD.namespace_id), true);
        RETURN NULL;
    END
    $$;

COMMENT ON FUNCTION note_given_up_grant() IS
    'Notes for the transaction the namespace of a grant that its own holder deletes; see check_appended_changes.';

CREATE TRIGGER note_given_up_grant AFTER DELETE ON user_roles
    FOR EACH ROW WHEN (OLD.namespace_id IS NOT NULL AND OLD.user_id = app_user_id())
    EXECUTE FUNCTION note_given_up_grant();

CREATE OR REPLACE FUNCTION check_appended_changes(
    p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        caller bigint := public.app_user_id();
        own boolean := caller IS NOT NULL
            AND coalesce((p_idempotency ->> 'user_id')::bigint = caller, true)
            AND coalesce((p_operation ->> 'user_id')::bigint = caller, true);
        caller_name text;
        known_reach text;
        reachable bigint[];
        recordable bigint[];
    BEGIN
        IF own AND p_audit <> '[]' THEN
            SELECT u.username INTO caller_name FROM public.users AS u WHERE u.id = caller;
            FOR position IN 0 .. jsonb_array_length(p_audit) - 1 LOOP
                own := own AND coalesce((p_audit -> position ->> 'user_id')::bigint = caller
                    AND p_audit -> position ->> 'username' = caller_name, false);
            END LOOP;
        END IF;
        IF NOT own THEN
            RAISE EXCEPTION 'the caller may append changes in their own name only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        known_reach := split_part(public.app_known_reach(), '/', 2);
        IF starts_with(known_reach, '1') THEN
            RETURN;
        END IF;
        reachable := coalesce(nullif(substr(known_reach, 2), ''), '{}');
        FOR position IN 0 .. jsonb_array_length(p_events) - 1 LOOP
            IF NOT coalesce((p_events -> position ->> 'namespace_id')::bigint = ANY (reachable), false) THEN
                RAISE EXCEPTION 'the caller may append events of reachable namespaces only'
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
        END LOOP;
        recordable := reachable || string_to_array(nullif(current_setting('app.given_up', true), ''), ',')::bigint[];
        -- NULL = ANY of an empty array is false.
        own := p_operation ->> 'namespace_id' IS NULL OR (p_operation ->> 'namespace_id')::bigint = ANY (recordable);
        FOR position IN 0 .. jsonb_array_length(p_audit) - 1 LOOP
            own := own AND (p_audit -> position ->> 'namespace_id' IS NULL
                OR (p_audit -> position ->> 'namespace_id')::bigint = ANY (recordable));
        END LOOP;
        IF NOT own THEN
            RAISE EXCEPTION 'the caller may append records of reachable namespaces only'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END
    $$;
""")
    v0027_changes_cost_less.define_put_changes("caller_role NOT IN ('@system@', '@owner@')")


def downgrade() -> None:
    v0027_changes_cost_less.define_put_changes()
    v0027_changes_cost_less.define_check()
    run("""
DROP TRIGGER note_given_up_grant ON user_roles;
DROP FUNCTION note_given_up_grant();
""")
