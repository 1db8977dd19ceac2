"""Reads by key in one message: functions that say who asks, and then return the rows; the caller's reach, once.

A read took three messages: the transaction with the caller's identity, the statement, the end. `read_container` and
its like take one: the statement that calls them is a transaction by itself, so the identity ends with it. They run as
who calls them, under row-level security; their text is fixed, so that its plan is kept. (One plain SELECT that sets
the identity and reads is not safe: what it sets may be seen after it has read.) Each is made of the same statement
as the server's own, which a test compares.

Policies asked for the caller's reach six to eight times a statement, each time by a query of its own. These functions
compute it once (`app_reach`) and leave it in `app.reach`, from where `app_sees_all` and `app_namespace_ids` take it;
these have become plain expressions that the planner puts into the policies. Where it is not set, as in a transaction of
the release before, or was computed for another user than the present one, they compute it as before. Who could
forge `app.reach` could as well forge the identity, of an administrator, so it opens nothing new.
"""

from __future__ import annotations

from pilothouse_migrations.statements import caller_function, run
from pilothouse_migrations.versions import v0003_grants_and_credentials

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_GRANTS = """
        FROM public.user_roles AS g
        JOIN public.users AS u ON u.id = g.user_id
        JOIN public.roles AS r ON r.id = g.role_id
        WHERE g.user_id = nullif(current_setting('app.current_user_id', true), '')::bigint
          AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
          AND u.status = 'active' AND u.deleted_at IS NULL
          AND jsonb_array_length(r.permissions) > 0"""


def upgrade() -> None:
    _reach()
    _reads()


def _reach() -> None:
    run(f"""
CREATE FUNCTION app_reach() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RETURN (
        SELECT current_setting('app.current_user_id', true) || '/'
            || CASE WHEN bool_or(g.namespace_id IS NULL) THEN '1' ELSE '0' END
            || coalesce(array_agg(DISTINCT g.namespace_id) FILTER (WHERE g.namespace_id IS NOT NULL), '{{}}')::text
        {_GRANTS.strip()});
    END
    $$;

COMMENT ON FUNCTION app_reach() IS
    'What the caller reaches, as app.reach keeps it: user id, "/", 1 or 0 for all namespaces, those of its own grants.';

GRANT EXECUTE ON FUNCTION app_reach() TO @app@, @system@;

CREATE OR REPLACE FUNCTION app_user_id() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('app.current_user_id', true), '')::bigint;

CREATE FUNCTION app_known_reach() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN starts_with(current_setting('app.reach', true), current_setting('app.current_user_id', true) || '/')
        THEN current_setting('app.reach', true)
        ELSE app_reach() END;

COMMENT ON FUNCTION app_known_reach() IS
    'What the caller reaches: as the transaction keeps it for this very user, else computed.';

GRANT EXECUTE ON FUNCTION app_known_reach() TO @app@, @system@;

CREATE OR REPLACE FUNCTION app_sees_all() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(split_part(app_known_reach(), '/', 2) LIKE '1%', false);

CREATE OR REPLACE FUNCTION app_namespace_ids() RETURNS bigint[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(substr(split_part(app_known_reach(), '/', 2), 2), '{{}}')::bigint[];
""")


def _reads() -> None:
    caller_function(
        "read_container",
        "p_namespace text, p_name text, p_format integer",
        "id bigint, namespace_id bigint, creator varchar, message bytea, status varchar, started_at timestamptz",
        "What a read of a container answers, where its message is kept in this format.",
        """
SELECT public.containers.id, public.containers.namespace_id, (SELECT public.users.username
FROM public.users
WHERE public.containers.created_by = public.users.id) AS creator, public.rendered_messages.message,
    public.containers.status, public.containers.started_at
FROM public.containers
JOIN public.namespaces ON public.containers.namespace_id = public.namespaces.id
LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'container' AND
    public.containers.id = public.rendered_messages.resource_id AND public.containers.row_version =
    public.rendered_messages.row_version AND public.rendered_messages.format = p_format
WHERE public.namespaces.name = p_namespace AND public.containers.name = p_name
""",
    )
    caller_function(
        "read_volume",
        "p_namespace text, p_name text, p_format integer",
        "id bigint, namespace_id bigint, creator varchar, message bytea, mounted_by varchar[]",
        "What a read of a volume answers, where its message is kept in this format.",
        """
SELECT public.volumes.id, public.volumes.namespace_id, (SELECT public.users.username
FROM public.users
WHERE public.volumes.created_by = public.users.id) AS creator, public.rendered_messages.message, (SELECT
    coalesce(array_agg(DISTINCT public.containers.name ORDER BY public.containers.name), CAST('{}' AS TEXT[]))
    AS coalesce_1
FROM public.container_volumes
JOIN public.containers ON public.containers.id = public.container_volumes.container_id
WHERE public.volumes.id = public.container_volumes.volume_id AND public.containers.deletion_requested_at IS
    NULL) AS mounted_by
FROM public.volumes
JOIN public.namespaces ON public.volumes.namespace_id = public.namespaces.id
LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'volume' AND
    public.volumes.id = public.rendered_messages.resource_id AND public.volumes.row_version =
    public.rendered_messages.row_version AND public.rendered_messages.format = p_format
WHERE public.namespaces.name = p_namespace AND public.volumes.name = p_name
""",
    )
    caller_function(
        "read_config_map",
        "p_namespace text, p_name text, p_format integer",
        "id bigint, namespace_id bigint, creator varchar, message bytea",
        "What a read of a config map answers, where its message is kept in this format.",
        """
SELECT public.config_maps.id, public.config_maps.namespace_id, (SELECT public.users.username
FROM public.users
WHERE public.config_maps.created_by = public.users.id) AS creator, public.rendered_messages.message
FROM public.config_maps
JOIN public.namespaces ON public.config_maps.namespace_id = public.namespaces.id
LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'config_map' AND
    public.config_maps.id = public.rendered_messages.resource_id AND public.config_maps.row_version =
    public.rendered_messages.row_version AND public.rendered_messages.format = p_format
WHERE public.namespaces.name = p_namespace AND public.config_maps.name = p_name
""",
    )
    caller_function(
        "read_secret",
        "p_namespace text, p_name text, p_format integer",
        "id bigint, namespace_id bigint, creator varchar, message bytea",
        "What a read of a secret answers, where its message is kept in this format.",
        """
SELECT public.secrets.id, public.secrets.namespace_id, (SELECT public.users.username
FROM public.users
WHERE public.secrets.created_by = public.users.id) AS creator, public.rendered_messages.message
FROM public.secrets
JOIN public.namespaces ON public.secrets.namespace_id = public.namespaces.id
LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'secret' AND
    public.secrets.id = public.rendered_messages.resource_id AND public.secrets.row_version =
    public.rendered_messages.row_version AND public.rendered_messages.format = p_format
WHERE public.namespaces.name = p_namespace AND public.secrets.name = p_name
""",
    )
    caller_function(
        "read_namespace",
        "p_name text, p_format integer",
        "id bigint, namespace_id bigint, creator varchar, message bytea, stale_since timestamptz",
        "What a read of a namespace answers, where its message is kept in this format.",
        """
SELECT public.namespaces.id, public.namespaces.id AS namespace_id, public.users.username AS creator,
    public.rendered_messages.message, public.clusters.stale_since
FROM public.namespaces
LEFT OUTER JOIN public.users ON public.users.id = public.namespaces.created_by
LEFT OUTER JOIN public.clusters ON public.clusters.name = public.namespaces.cluster_name
LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'namespace' AND
    public.rendered_messages.resource_id = public.namespaces.id AND public.rendered_messages.row_version =
    public.namespaces.row_version AND public.rendered_messages.format = p_format
WHERE public.namespaces.deleted_at IS NULL AND public.namespaces.name = p_name
""",
    )


def downgrade() -> None:
    run("DROP FUNCTION read_namespace(bigint, text, integer);")
    for resource_type in ("container", "volume", "config_map", "secret"):
        run(f"DROP FUNCTION read_{resource_type}(bigint, text, text, integer);")
    v0003_grants_and_credentials.define_reach("CREATE OR REPLACE FUNCTION")
    v0003_grants_and_credentials.define_user_id("CREATE OR REPLACE FUNCTION")
    run("""
DROP FUNCTION app_known_reach();
DROP FUNCTION app_reach();
""")
