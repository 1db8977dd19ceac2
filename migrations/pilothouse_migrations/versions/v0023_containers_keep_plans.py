"""The functions that make a container keep their plans, and know the caller's reach once.

PostgreSQL planned their look at taken services and at sources anew for each call, which cost more than all else that
looks did: it takes ten elements for an array whose length it does not know, and then finds a plan for the one there is
cheaper. All their statements go by keys, so one plan serves every call.

The reach of the caller is computed once, and kept in `app.reach` for the policies of all tables that are touched.

`register_image` looked for a row to make available again each time, after it had just read that row.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run
from pilothouse_migrations.versions import v0004_containers, v0021_containers_at_once

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

SETTINGS = "\n    SET plan_cache_mode = force_generic_plan"
REACH = "        PERFORM set_config('app.reach', public.app_reach(), true);\n"


def upgrade() -> None:
    define_admit()
    define_write()
    run("""
CREATE OR REPLACE FUNCTION register_image(p_repository text, p_name text, p_tag text, p_digest text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        v_id bigint;
        v_status text;
    BEGIN
        LOOP
            SELECT i.id, i.status INTO v_id, v_status FROM public.container_images AS i
            WHERE i.repository IS NOT DISTINCT FROM p_repository AND i.name = p_name
              AND i.tag IS NOT DISTINCT FROM p_tag AND i.digest IS NOT DISTINCT FROM p_digest;
            EXIT WHEN FOUND;
            INSERT INTO public.container_images (repository, name, tag, digest)
            VALUES (p_repository, p_name, p_tag, p_digest)
            ON CONFLICT DO NOTHING RETURNING id INTO v_id;
            EXIT WHEN FOUND;
        END LOOP;
        IF v_status = 'deleted' THEN
            UPDATE public.container_images SET status = 'available' WHERE id = v_id AND status = 'deleted';
        END IF;
        RETURN v_id;
    END
    $$;
""")


def define_admit() -> None:
    """Defines the function as this release has it; a later migration comes back to it on its way down."""
    v0021_containers_at_once.define_admit("CREATE OR REPLACE FUNCTION", SETTINGS, REACH)


def define_write() -> None:
    """As `define_admit`."""
    v0021_containers_at_once.define_write("CREATE OR REPLACE FUNCTION", SETTINGS, REACH)


def downgrade() -> None:
    v0021_containers_at_once.define_admit("CREATE OR REPLACE FUNCTION")
    v0021_containers_at_once.define_write("CREATE OR REPLACE FUNCTION")
    v0004_containers.define_register_image("CREATE OR REPLACE FUNCTION")
