"""A container is made in two messages: `admit_container` reads what decides, `write_container` writes.

A create took ten round trips, and a round trip costs the server and PostgreSQL more than what it does. Now the first
call reads all that the rules need (a replay, the namespace, what counts against its quota, names, sources) and takes an
id and the time; it locks nothing that outlives it. The server decides, renders message and record once, and sends all
of it with the second call, which is the transaction: it takes the locks in their order, compares what was seen with
what there is now, and writes. Where something has changed meanwhile it raises a serialization failure, and the server
begins again; so every refusal is decided, and worded, in one place. The caller's rows are written as the app role
under row-level security; `put_changes` checks and writes the rest, and its last statement is the pending row.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


_ADMIT = """
@create@ admit_container(
    p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[],
    p_secrets text[],
    OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea,
    OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text,
    OUT status text, OUT deletion_requested_at timestamptz, OUT quota text,
    OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric,
    OUT name_taken boolean, OUT services text, OUT config_maps text[], OUT secrets text,
    OUT container_id bigint, OUT moment timestamptz)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp@settings@
    AS $$
    BEGIN
        PERFORM set_config('app.current_user_id', p_user_id::text, true), set_config('app.operation_id', '', true);
@reach@        moment := transaction_timestamp();
        IF p_request_id IS NOT NULL THEN
            -- Free, or held by the transaction that serves the request: nothing is waited for.
            ours := pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || p_request_id, 0));
            SELECT k.method, k.request_hmac, k.response INTO method, request_hmac, response
            FROM public.idempotency_keys AS k WHERE k.user_id = p_user_id AND k.request_id = p_request_id;
            IF FOUND OR NOT ours THEN
                RETURN;
            END IF;
        END IF;
        ours := true;
        SELECT n.id, n.uid, n.cluster_name, n.kubernetes_name, n.status, n.deletion_requested_at,
               n.resource_quota::text
        INTO namespace_id, namespace_uid, cluster_name, kubernetes_name, status, deletion_requested_at, quota
        FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        name_taken := EXISTS (
            SELECT FROM public.containers AS c WHERE c.namespace_id = admit_container.namespace_id AND c.name = p_name);
        IF quota IS NOT NULL THEN
            SELECT coalesce(sum(q.containers), 0), coalesce(sum(q.cpu_millicores), 0),
                   coalesce(sum(q.memory_bytes), 0)
            INTO used_containers, used_cpu, used_memory
            FROM public.quota_counters AS q WHERE q.namespace_id = admit_container.namespace_id;
        END IF;
        IF cardinality(p_services) > 0 THEN
            SELECT jsonb_object_agg(p.service_name, c.name)::text INTO services
            FROM public.port_mappings AS p JOIN public.containers AS c ON c.id = p.container_id
            WHERE p.namespace_id = admit_container.namespace_id AND p.service_name = ANY (p_services);
        END IF;
        IF cardinality(p_config_maps) > 0 THEN
            SELECT array_agg(m.name) INTO config_maps FROM public.config_maps AS m
            WHERE m.namespace_id = admit_container.namespace_id AND m.name = ANY (p_config_maps)
              AND m.deletion_requested_at IS NULL;
        END IF;
        IF cardinality(p_secrets) > 0 THEN
            SELECT jsonb_object_agg(s.name, s.type)::text INTO secrets FROM public.secrets AS s
            WHERE s.namespace_id = admit_container.namespace_id AND s.name = ANY (p_secrets)
              AND s.deletion_requested_at IS NULL;
        END IF;
        container_id := nextval('public.containers_id_seq');
    END
    $$;
"""
_WRITE = """
@create@ write_container(
    p_user_id bigint, p_operation_id uuid, p_container jsonb, p_env jsonb, p_ports jsonb, p_quota jsonb,
    p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[],
    p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb)
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp@settings@
    AS $$
    DECLARE
        c public.containers;
        home record;
        used record;
    BEGIN
        PERFORM set_config('app.current_user_id', p_user_id::text, true),
            set_config('app.operation_id', p_operation_id::text, true);
@reach@        c := jsonb_populate_record(NULL::public.containers, p_container);
        -- The locks, in their order: the request, the namespace, what counts against its quota.
        -- Whether it was served meanwhile is decided by the primary key of its row.
        IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
            PERFORM public.refuse_outdated('the request');
        END IF;
        SELECT n.cluster_name INTO home FROM public.namespaces AS n
        WHERE n.id = c.namespace_id AND n.deleted_at IS NULL AND n.deletion_requested_at IS NULL
          AND n.status = 'active' AND n.resource_quota IS NOT DISTINCT FROM p_quota
        FOR SHARE;
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('the namespace');
        END IF;
        IF p_limits IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || c.namespace_id, 0));
            SELECT coalesce(sum(q.containers), 0) AS containers, coalesce(sum(q.cpu_millicores), 0) AS cpu,
                   coalesce(sum(q.memory_bytes), 0) AS memory
            INTO used FROM public.quota_counters AS q WHERE q.namespace_id = c.namespace_id;
            IF used.containers + 1 > p_limits[1]
                OR c.quota_cpu_millicores > 0 AND used.cpu + c.quota_cpu_millicores > p_limits[2]
                OR c.quota_memory_bytes > 0 AND used.memory + c.quota_memory_bytes > p_limits[3] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
        -- An expression that holds a query costs its start even where it is not reached, so those stand by themselves.
        IF cardinality(p_services) > 0 THEN
            PERFORM FROM public.port_mappings AS p
            WHERE p.namespace_id = c.namespace_id AND p.service_name = ANY (p_services);
            IF FOUND THEN
                PERFORM public.refuse_outdated('a service');
            END IF;
        END IF;
        IF cardinality(p_config_maps) > 0 THEN
            PERFORM FROM public.config_maps AS m
            WHERE m.namespace_id = c.namespace_id AND m.name = ANY (p_config_maps) AND m.deletion_requested_at IS NULL
            HAVING count(*) = cardinality(p_config_maps);
            IF NOT FOUND THEN
                PERFORM public.refuse_outdated('a config map');
            END IF;
        END IF;
        IF cardinality(p_secrets) > 0 THEN
            PERFORM FROM public.secrets AS s
            WHERE s.namespace_id = c.namespace_id AND s.name = ANY (p_secrets) AND s.deletion_requested_at IS NULL
            HAVING count(*) = cardinality(p_secrets);
            IF NOT FOUND THEN
                PERFORM public.refuse_outdated('a secret');
            END IF;
        END IF;
        INSERT INTO public.containers (
            id, uid, name, display_name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit,
            memory_request, memory_limit, created_at, updated_at, created_by, updated_by, labels, annotations, spec,
            desired_state, replicas, quota_cpu_millicores, quota_memory_bytes, drift_policy, hold_rollout,
            restart_requested_at)
        VALUES (
            c.id, c.uid, c.name, c.display_name, c.namespace_id,
            public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
                p_container #>> '{image,tag}', p_container #>> '{image,digest}'),
            c.kubernetes_name, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.created_at,
            c.updated_at, p_user_id, p_user_id, c.labels, c.annotations, c.spec, c.desired_state, c.replicas,
            c.quota_cpu_millicores, c.quota_memory_bytes, c.drift_policy, c.hold_rollout, c.restart_requested_at)
        ON CONFLICT ON CONSTRAINT uq_containers_name DO NOTHING;
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('the name');
        END IF;
        IF p_env IS NOT NULL THEN
            INSERT INTO public.environment_variables
                (container_id, namespace_id, position, name, value, value_from, source_name, source_key, optional)
            SELECT c.id, c.namespace_id, e.position, e.name, e.value, e.value_from, e.source_name, e.source_key,
                   e.optional
            FROM jsonb_to_recordset(p_env) AS e(
                position int, name text, value text, value_from text, source_name text, source_key text,
                optional boolean);
        END IF;
        IF p_ports IS NOT NULL THEN
            INSERT INTO public.port_mappings (container_id, namespace_id, name, container_port, host_port, protocol,
                app_protocol, service_type, service_name, service_port, node_port)
            SELECT c.id, c.namespace_id, r.name, r.container_port, r.host_port, r.protocol, r.app_protocol,
                   r.service_type, r.service_name, r.service_port, r.node_port
            FROM ROWS FROM (jsonb_to_recordset(p_ports) AS (
                name text, container_port int, host_port int, protocol text, app_protocol text, service_type text,
                service_name text, service_port int, node_port int)) WITH ORDINALITY AS r
            ORDER BY r.ordinality;
        END IF;
        -- Before the history, which refers to it.
        INSERT INTO public.operations
            (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
        SELECT o.operation_id, p_user_id, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
        FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o;
        INSERT INTO public.container_status_history
            (container_id, namespace_id, current_status, triggered_by, user_id, operation_id)
        VALUES (c.id, c.namespace_id, 'pending', 'user', p_user_id, p_operation_id);
        INSERT INTO public.reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
        VALUES ('container', c.id, home.cluster_name, c.namespace_id, clock_timestamp());
        PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
    END
    $$;
"""


def upgrade() -> None:
    _admit()
    _write()
    run("GRANT USAGE ON SEQUENCE containers_id_seq TO @app@;")


def _admit() -> None:
    define_admit("CREATE FUNCTION")
    run("""
COMMENT ON FUNCTION admit_container(bigint, uuid, text, text, text[], text[], text[]) IS
    'What decides whether a container may be made, as the caller sees it, with an id for it and the time.';

GRANT EXECUTE ON FUNCTION admit_container(bigint, uuid, text, text, text[], text[], text[]) TO @app@;
""")


def _write() -> None:
    run("""
CREATE FUNCTION refuse_outdated(p_what text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RAISE EXCEPTION '% changed since it was read', p_what USING ERRCODE = 'serialization_failure';
    END
    $$;

COMMENT ON FUNCTION refuse_outdated(text) IS 'Ends a transaction whose caller must look again.';

GRANT EXECUTE ON FUNCTION refuse_outdated(text) TO @app@;
""")
    define_write("CREATE FUNCTION")
    run("""
COMMENT ON FUNCTION write_container(bigint, uuid, jsonb, jsonb, jsonb, jsonb, numeric[], text[], text[], text[], jsonb,
    bytea[], jsonb, bytea[], jsonb, jsonb) IS
    'Makes a container that was admitted, with all that belongs to the change; refuses what is outdated.';

GRANT EXECUTE ON FUNCTION write_container(bigint, uuid, jsonb, jsonb, jsonb, jsonb, numeric[], text[], text[], text[],
    jsonb, bytea[], jsonb, bytea[], jsonb, jsonb) TO @app@;
""")


def define_admit(create: str, settings: str = "", reach: str = "") -> None:
    """Defines the function as this release has it; later migrations change its settings and how it knows the reach."""
    run(_filled(_ADMIT, create, settings, reach))


def define_write(create: str, settings: str = "", reach: str = "") -> None:
    """As `define_admit`."""
    run(_filled(_WRITE, create, settings, reach))


def _filled(text: str, create: str, settings: str, reach: str) -> str:
    return text.replace("@create@", create).replace("@settings@", settings).replace("@reach@", reach)


def downgrade() -> None:
    run("""
REVOKE USAGE ON SEQUENCE containers_id_seq FROM @app@;
DROP FUNCTION write_container(bigint, uuid, jsonb, jsonb, jsonb, jsonb, numeric[], text[], text[], text[], jsonb,
    bytea[], jsonb, bytea[], jsonb, jsonb);
DROP FUNCTION refuse_outdated(text);
DROP FUNCTION admit_container(bigint, uuid, text, text, text[], text[], text[]);
""")
