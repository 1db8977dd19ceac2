-- The schema, written by `make schema` from the migrations. To change it, change those: see CONTRIBUTING.md.
--
-- PostgreSQL database dump
--

\restrict pilothouse


SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA public;


--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA public IS 'standard public schema';


--
-- Name: pending_event_row; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.pending_event_row AS (
	resource_type character varying(50),
	resource_id bigint,
	resource_uid uuid,
	namespace_id bigint,
	resource_name character varying(253),
	kind character varying(10),
	labels jsonb,
	status character varying(20),
	labels_before jsonb,
	status_before character varying(20),
	operation_id uuid
);


--
-- Name: pending_event; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.pending_event AS public.pending_event_row
	CONSTRAINT ck_events_kind CHECK (((VALUE).kind IS NOT NULL))
	CONSTRAINT ck_events_resource_id CHECK (((VALUE).resource_id IS NOT NULL))
	CONSTRAINT ck_events_resource_name CHECK (((VALUE).resource_name IS NOT NULL))
	CONSTRAINT ck_events_resource_type CHECK (((VALUE).resource_type IS NOT NULL));


--
-- Name: DOMAIN pending_event; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON DOMAIN public.pending_event IS 'An event before it has its revision; its message stands beside it.';


--
-- Name: pending_hash; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.pending_hash AS bytea NOT NULL
	CONSTRAINT ck_operation_logs_record_hash CHECK ((octet_length(VALUE) = 32));


--
-- Name: DOMAIN pending_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON DOMAIN public.pending_hash IS 'SHA-256 of a record''s canonical JSON.';


--
-- Name: pending_record_row; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.pending_record_row AS (
	operation_id uuid,
	user_id bigint,
	username character varying(50),
	action character varying(50),
	resource_type character varying(50),
	resource_id bigint,
	resource_name character varying(253),
	namespace_id bigint,
	request_method character varying(10),
	request_path character varying(500),
	request_body jsonb,
	request_headers jsonb,
	client_ip character varying(45),
	user_agent text,
	status_code integer,
	response_body jsonb,
	duration_ms integer,
	error_code character varying(50),
	error_message text,
	started_at timestamp with time zone,
	completed_at timestamp with time zone,
	metadata jsonb,
	stream_id uuid
);


--
-- Name: pending_record; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.pending_record AS public.pending_record_row
	CONSTRAINT ck_operation_logs_action CHECK (((VALUE).action IS NOT NULL))
	CONSTRAINT ck_operation_logs_duration_ms CHECK (((VALUE).duration_ms >= 0))
	CONSTRAINT ck_operation_logs_request_method CHECK ((((VALUE).request_method)::text = ANY ((ARRAY['UNARY'::character varying, 'STREAM'::character varying])::text[])))
	CONSTRAINT ck_operation_logs_resource_type CHECK (((VALUE).resource_type IS NOT NULL))
	CONSTRAINT ck_operation_logs_status_code CHECK ((((VALUE).status_code >= 100) AND ((VALUE).status_code <= 599)));


--
-- Name: DOMAIN pending_record; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON DOMAIN public.pending_record IS 'A record of the audit log before it has its place; its hash stands beside it.';


--
-- Name: admit_container(bigint, uuid, text, text, text[], text[], text[], text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    moment := transaction_timestamp();
    SELECT b.ours, b.method, b.request_hmac, b.response INTO ours, method, request_hmac, response
    FROM public.begin_request(p_user_id, p_request_id) AS b;
    IF method IS NOT NULL OR NOT ours THEN
        RETURN;
    END IF;
    SELECT n.id, n.uid, n.cluster_name, n.kubernetes_name, n.status, n.deletion_requested_at,
           n.resource_quota::text, n.row_version
    INTO namespace_id, namespace_uid, cluster_name, kubernetes_name, status, deletion_requested_at, quota,
        namespace_version
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT CASE WHEN c.deletion_requested_at IS NULL THEN 'taken' ELSE 'being_deleted' END INTO name_taken
    FROM public.containers AS c WHERE c.namespace_id = admit_container.namespace_id AND c.name = p_name;
    IF quota IS NOT NULL THEN
        SELECT coalesce(sum(q.containers), 0), coalesce(sum(q.cpu_millicores), 0),
               coalesce(sum(q.memory_bytes), 0)
        INTO used_containers, used_cpu, used_memory
        FROM public.quota_counters AS q WHERE q.namespace_id = admit_container.namespace_id;
    END IF;
    IF cardinality(p_services) > 0 THEN
        -- By name, its container; null: the Service is one of its own.
        SELECT jsonb_object_agg(t.name, t.owner)::text INTO services
        FROM (
            SELECT s.name, NULL AS owner FROM public.services AS s
            WHERE s.namespace_id = admit_container.namespace_id AND s.name = ANY (p_services) AND s.owner IS NULL
            UNION ALL
            SELECT p.service_name, c.name
            FROM public.port_mappings AS p JOIN public.containers AS c ON c.id = p.container_id
            WHERE p.namespace_id = admit_container.namespace_id AND p.service_name = ANY (p_services)) AS t;
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
    IF cardinality(p_volumes) > 0 THEN
        SELECT jsonb_agg(public.volume_definition(v) ORDER BY v.name)::text INTO volumes
        FROM public.volumes AS v
        WHERE v.namespace_id = admit_container.namespace_id AND v.name = ANY (p_volumes)
          AND v.deletion_requested_at IS NULL;
    END IF;
    container_id := nextval('public.containers_id_seq');
END
$$;


--
-- Name: FUNCTION admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone) IS 'What decides whether a container may be made, as the caller sees it, with an id for it and the time.';


--
-- Name: admit_container_change(bigint, uuid, text, text, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    found_id bigint;
BEGIN
    moment := transaction_timestamp();
    SELECT b.ours, b.method, b.request_hmac, b.response INTO ours, method, request_hmac, response
    FROM public.begin_request(p_user_id, p_request_id) AS b;
    IF method IS NOT NULL OR NOT ours THEN
        RETURN;
    END IF;
    IF p_lock THEN
        PERFORM FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL FOR SHARE;
    END IF;
    SELECT n.id, n.uid, n.cluster_name, n.kubernetes_name, n.status, n.deletion_requested_at,
           n.resource_quota::text, n.row_version
    INTO namespace_id, namespace_uid, cluster_name, kubernetes_name, status, deletion_requested_at, quota,
        namespace_version
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_lock THEN
        IF quota IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || admit_container_change.namespace_id, 0));
        END IF;
        PERFORM FROM public.containers AS c
        WHERE c.namespace_id = admit_container_change.namespace_id AND c.name = p_name FOR NO KEY UPDATE;
    END IF;
    SELECT w.id, row_to_json(w)::text INTO found_id, container
    FROM (
        SELECT c.*,
               (SELECT u.username FROM public.users AS u WHERE u.id = c.created_by) AS creator,
               (SELECT json_agg(e ORDER BY e.position) FROM public.environment_variables AS e
                WHERE e.container_id = c.id AND e.container_name IS NULL) AS env,
               (SELECT json_agg(p ORDER BY p.id) FROM public.port_mappings AS p
                WHERE p.container_id = c.id) AS ports,
               (SELECT jsonb_agg(DISTINCT public.volume_definition(v))
                FROM public.container_volumes AS m JOIN public.volumes AS v ON v.id = m.volume_id
                WHERE m.container_id = c.id) AS mounted_volumes
        FROM public.containers AS c
        WHERE c.namespace_id = admit_container_change.namespace_id AND c.name = p_name) AS w;
    IF quota IS NOT NULL AND container IS NOT NULL THEN
        SELECT coalesce(sum(q.containers), 0), coalesce(sum(q.cpu), 0), coalesce(sum(q.memory), 0)
        INTO used_containers, used_cpu, used_memory
        FROM (
            SELECT u.containers, u.cpu_millicores AS cpu, u.memory_bytes AS memory
            FROM public.quota_counters AS u WHERE u.namespace_id = admit_container_change.namespace_id
            UNION ALL
            SELECT -1, -o.quota_cpu_millicores, -o.quota_memory_bytes FROM public.containers AS o
            WHERE o.id = found_id AND o.deletion_requested_at IS NULL) AS q;
    END IF;
END
$$;


--
-- Name: FUNCTION admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone) IS 'A container as the caller sees it, with what else decides whether it may be changed, and the time.';


--
-- Name: allowed_external_sources(bigint, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]) RETURNS text[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.external_sources INTO external_sources
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;


--
-- Name: FUNCTION allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]) IS 'The names of config maps and secrets of the cluster that a namespace allows, as the caller sees it; null: there is none.';


--
-- Name: app_reach(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_reach() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN (
    SELECT current_setting('app.current_user_id', true) || '/'
        || CASE WHEN bool_or(g.namespace_id IS NULL) THEN '1' ELSE '0' END
        || coalesce(array_agg(DISTINCT g.namespace_id) FILTER (WHERE g.namespace_id IS NOT NULL), '{}')::text
    FROM public.user_roles AS g
    JOIN public.users AS u ON u.id = g.user_id
    JOIN public.roles AS r ON r.id = g.role_id
    WHERE g.user_id = nullif(current_setting('app.current_user_id', true), '')::bigint
      AND (g.expires_at IS NULL OR g.expires_at > statement_timestamp())
      AND u.status = 'active' AND u.deleted_at IS NULL
      AND jsonb_array_length(r.permissions) > 0);
END
$$;


--
-- Name: FUNCTION app_reach(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_reach() IS 'What the caller reaches, as app.reach keeps it: user id, "/", 1 or 0 for all namespaces, those of its own grants.';


--
-- Name: app_known_reach(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_known_reach() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN starts_with(current_setting('app.reach'::text, true), (current_setting('app.current_user_id'::text, true) || '/'::text)) THEN current_setting('app.reach'::text, true) ELSE public.app_reach() END;


--
-- Name: FUNCTION app_known_reach(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_known_reach() IS 'What the caller reaches: as the transaction keeps it for this very user, else computed.';


--
-- Name: app_namespace_ids(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_namespace_ids() RETURNS bigint[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (COALESCE(substr(split_part(public.app_known_reach(), '/'::text, 2), 2), '{}'::text))::bigint[];


--
-- Name: FUNCTION app_namespace_ids(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_namespace_ids() IS 'The namespaces in which the caller has a living grant of their own.';


--
-- Name: app_password_hash(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_password_hash() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT u.password_hash FROM public.users AS u
WHERE u.id = nullif(current_setting('app.current_user_id', true), '')::bigint AND u.deleted_at IS NULL
$$;


--
-- Name: FUNCTION app_password_hash(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_password_hash() IS 'The caller''s own password hash; other users'' cannot be read by the app role.';


--
-- Name: app_peer_ids(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_peer_ids() RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT coalesce(array_agg(DISTINCT g.user_id), '{}')
FROM public.user_roles AS g
WHERE cardinality(public.app_namespace_ids()) > 0
  AND (g.namespace_id IS NULL OR g.namespace_id = ANY (public.app_namespace_ids()))
$$;


--
-- Name: FUNCTION app_peer_ids(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_peer_ids() IS 'The users who share a namespace with the caller.';


--
-- Name: app_reach_in(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_reach_in(p_namespace_id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION app_reach_in(p_namespace_id bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_reach_in(p_namespace_id bigint) IS 'As app_reach, of one namespace: whether the caller reaches it, by a grant over all or by one of its own.';


--
-- Name: app_sees_all(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_sees_all() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE((split_part(public.app_known_reach(), '/'::text, 2) ~~ '1%'::text), false);


--
-- Name: FUNCTION app_sees_all(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_sees_all() IS 'Whether the caller has a living grant over all namespaces.';


--
-- Name: app_user_id(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.app_user_id() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (NULLIF(current_setting('app.current_user_id'::text, true), ''::text))::bigint;


--
-- Name: FUNCTION app_user_id(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.app_user_id() IS 'The caller''s user id as set for this transaction, or null.';


--
-- Name: begin_new_history(text, text, uuid, boolean); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.begin_new_history(p_reason text DEFAULT 'an administrator asked for it'::text, p_seen text DEFAULT ''::text, p_expected uuid DEFAULT NULL::uuid, p_tampering boolean DEFAULT false) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    head public.stream_head;
    tree public.audit_tree;
    begun uuid := gen_random_uuid();
    removed text := '';
    record text;
BEGIN
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
    IF head.history_id <> p_expected THEN
        RETURN head.history_id;
    END IF;
    PERFORM FROM public.leases AS l ORDER BY l.name FOR UPDATE;
    UPDATE public.leases SET owner = NULL, epoch = epoch + 1, expires_at = clock_timestamp();
    PERFORM FROM public.reconcile_work AS w WHERE w.lease_owner IS NOT NULL
    ORDER BY w.resource_type, w.resource_id FOR UPDATE;
    UPDATE public.reconcile_work
    SET lease_owner = NULL, leased_until = NULL, lease_epoch = lease_epoch + 1,
        due_at = LEAST(due_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE lease_owner IS NOT NULL;
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
    IF head.history_id <> p_expected THEN
        RETURN head.history_id;
    END IF;
    UPDATE public.stream_head
    SET history_id = begun, pending_floor = 0, floor_candidate = 0, floor_transaction = NULL
    WHERE id = 1;
    -- A server that seals holds this row, so no head is signed for a history that ends here.
    SELECT * INTO tree FROM public.audit_tree WHERE id = 1 FOR UPDATE;
    IF p_tampering THEN
        UPDATE public.audit_tree SET stopped_history = begun, stopped_reason = left(p_seen, 500) WHERE id = 1;
    ELSIF p_expected IS NOT NULL THEN
        UPDATE public.audit_tree SET stopped_history = begun
        WHERE id = 1 AND stopped_history = head.history_id;
    ELSE
        SELECT s.note INTO removed FROM public.audit_seals AS s
        WHERE s.size > tree.size ORDER BY s.size DESC LIMIT 1;
        DELETE FROM public.audit_seals AS s WHERE s.size > tree.size;
    END IF;
    PERFORM pg_notify('pilothouse_history', begun::text);
    -- Canonical JSON (sorted keys, no spaces), as the application hashes its records.
    record := '{"action":"other","client_ip":null,"completed_at":null,"duration_ms":null,"error_code":'
        || CASE WHEN p_tampering THEN '"DATA_LOSS"' ELSE 'null' END || ',"error_message":'
        || CASE WHEN p_tampering THEN to_json(left(p_reason, 500))::text ELSE 'null' END
        || ',"metadata":{"history":"' || begun || '","history_before":"' || head.history_id
        || '","reason":' || to_json(left(p_reason, 500))
        || CASE WHEN removed <> '' THEN ',"removed_head":' || to_json(left(removed, 4000)) ELSE '' END
        || ',"revision":' || head.revision
        || ',"seen":' || to_json(left(p_seen, 500)) || ',"sequence":' || head.audit_sequence
        || '},"namespace_id":null,"operation_id":"' || gen_random_uuid()
        || '","request_body":null,"request_headers":null,"request_method":null,"request_path":null,'
        || '"resource_id":null,"resource_name":null,"resource_type":"database","response_body":null,'
        || '"started_at":"' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || '","status_code":' || CASE WHEN p_tampering THEN 500 ELSE 200 END
        || ',"stream_id":null,"user_agent":null,"user_id":null,"username":"system"}';
    PERFORM public.put_changes(
        p_audit => jsonb_build_array(record::jsonb), p_hashes => ARRAY[sha256(convert_to(record, 'UTF8'))],
        p_events => '[]', p_messages => '{}');
    RETURN begun;
END
$$;


--
-- Name: FUNCTION begin_new_history(p_reason text, p_seen text, p_expected uuid, p_tampering boolean); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.begin_new_history(p_reason text, p_seen text, p_expected uuid, p_tampering boolean) IS 'Starts a new line of events where the database went back, or while it is the expected one; returns its name.';


--
-- Name: begin_request(bigint, uuid); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    ours := true;
    IF p_request_id IS NOT NULL THEN
        ours := pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || p_request_id, 0));
        SELECT k.method, k.request_hmac, k.response INTO method, request_hmac, response
        FROM public.idempotency_keys AS k WHERE k.user_id = p_user_id AND k.request_id = p_request_id;
    END IF;
END
$$;


--
-- Name: FUNCTION begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea) IS 'Sets the caller, and finds the stored answer of a request and whether it is this transaction''s to serve.';


--
-- Name: change_container(bigint, jsonb, jsonb, jsonb, text[], bigint, numeric[], text[], text[], text[], jsonb, jsonb, bytea[], jsonb, bytea[], jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
        PERFORM public.refuse_outdated('the request');
    END IF;
    PERFORM public.update_container(p_container, p_parts, p_history, p_operation, p_mounted, p_namespace_version,
        p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
END
$$;


--
-- Name: FUNCTION change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) IS 'Writes a change of a container that the server has decided, with its record and event.';


--
-- Name: check_allowed_hosts(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.check_allowed_hosts() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF public.taken_hosts(NEW.cluster_name, NEW.id, NEW.allowed_hosts) <> '{}' THEN
        RAISE EXCEPTION 'hosts overlap those of another namespace'
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'ex_namespaces_allowed_hosts';
    END IF;
    RETURN NEW;
END
$$;


--
-- Name: FUNCTION check_allowed_hosts(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.check_allowed_hosts() IS 'Refuses hosts that overlap those of another namespace of the cluster.';


--
-- Name: check_appended_changes(jsonb, jsonb, jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb) RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb) IS 'What row-level security would refuse of the app role''s changes, were they plain inserts.';


--
-- Name: count_container_delete(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_container_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_namespace_id bigint;
BEGIN
    FOR v_namespace_id IN
        INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
        SELECT namespace_id, -count(*), -sum(quota_cpu_millicores), -sum(quota_memory_bytes)
        FROM changed WHERE deletion_requested_at IS NULL GROUP BY namespace_id
        RETURNING namespace_id
    LOOP
        IF random() < 0.03125 THEN
            PERFORM public.fold_quota_changes(v_namespace_id);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION count_container_delete(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.count_container_delete() IS 'Notes in quota_counters what a statement adds or takes away.';


--
-- Name: count_container_insert(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_container_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION count_container_insert(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.count_container_insert() IS 'Notes in quota_counters what a new container adds.';


--
-- Name: count_container_update(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_container_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_before integer := (OLD.deletion_requested_at IS NULL)::integer;
    v_after integer := (NEW.deletion_requested_at IS NULL)::integer;
BEGIN
    INSERT INTO public.quota_counters (namespace_id, containers, cpu_millicores, memory_bytes)
    SELECT d.namespace_id, sum(d.n), sum(d.n * d.cpu), sum(d.n * d.memory)
    FROM (VALUES (OLD.namespace_id, -v_before, OLD.quota_cpu_millicores, OLD.quota_memory_bytes),
                 (NEW.namespace_id, v_after, NEW.quota_cpu_millicores, NEW.quota_memory_bytes))
        AS d (namespace_id, n, cpu, memory)
    GROUP BY d.namespace_id;
    IF random() < 0.03125 THEN
        PERFORM public.fold_quota_changes(NEW.namespace_id);
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION count_container_update(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.count_container_update() IS 'Notes in quota_counters what a change of a container makes.';


--
-- Name: count_services(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_services(p_namespace_id bigint) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (SELECT count(*) FROM public.services AS s WHERE s.namespace_id = p_namespace_id AND s.owner IS NULL)
        + (SELECT count(DISTINCT p.service_name) FROM public.port_mappings AS p
           WHERE p.namespace_id = p_namespace_id AND p.service_name IS NOT NULL)
$$;


--
-- Name: FUNCTION count_services(p_namespace_id bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.count_services(p_namespace_id bigint) IS 'How many Services count against the quota of a namespace.';


--
-- Name: count_storage(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.count_storage(p_namespace_id bigint) RETURNS numeric
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (SELECT coalesce(sum(public.quantity_bytes(v.size)), 0) FROM public.volumes AS v
            WHERE v.namespace_id = p_namespace_id AND v.type = 'persistent_volume_claim')
        + (SELECT coalesce(sum(n.storage_bytes), 0) FROM public.claim_changes AS n
           WHERE n.namespace_id = p_namespace_id)
$$;


--
-- Name: FUNCTION count_storage(p_namespace_id bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.count_storage(p_namespace_id bigint) IS 'How many bytes of storage count against the quota of a namespace.';


--
-- Name: create_container(bigint, jsonb, jsonb, jsonb, jsonb, bigint, numeric[], text[], text[], text[], jsonb, jsonb, bytea[], jsonb, bytea[], jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach_in((p_container ->> 'namespace_id')::bigint), true);
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_user_id || '/' || (p_idempotency ->> 'request_id'), 0)) THEN
        PERFORM public.refuse_outdated('the request');
    END IF;
    PERFORM public.write_container(p_container, p_env, p_ports, p_mounts, p_operation, p_namespace_version, p_limits,
        p_services, p_config_maps, p_secrets, p_volumes);
    next_id := nextval('public.containers_id_seq');
    moment := transaction_timestamp();
    PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);
END
$$;


--
-- Name: FUNCTION create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone) IS 'Makes a container that was admitted, with its record and event; returns an id for the next one, and the time.';


--
-- Name: create_daily_partitions(text, date, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_daily_partitions(table_name text, start_date date, days integer DEFAULT 14) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
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


--
-- Name: FUNCTION create_daily_partitions(table_name text, start_date date, days integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.create_daily_partitions(table_name text, start_date date, days integer) IS 'Makes the missing partitions of the given number of days (UTC); returns how many were made.';


--
-- Name: create_monthly_partitions(text, date, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_monthly_partitions(table_name text, start_date date, months integer DEFAULT 12) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
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


--
-- Name: FUNCTION create_monthly_partitions(table_name text, start_date date, months integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.create_monthly_partitions(table_name text, start_date date, months integer) IS 'Makes the missing partitions of the given number of months (UTC); returns how many were made.';


--
-- Name: create_partition(text, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
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


--
-- Name: FUNCTION create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text) IS 'Makes one empty partition and attaches it.';


--
-- Name: create_revision_partitions(text, bigint, integer, bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.create_revision_partitions(table_name text, start_revision bigint, partitions integer DEFAULT 3, partition_size bigint DEFAULT 1000000) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION create_revision_partitions(table_name text, start_revision bigint, partitions integer, partition_size bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.create_revision_partitions(table_name text, start_revision bigint, partitions integer, partition_size bigint) IS 'Makes the missing partitions from the one that holds start_revision on; returns how many were made.';


--
-- Name: current_history(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.current_history() RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT history_id FROM public.stream_head WHERE id = 1
$$;


--
-- Name: FUNCTION current_history(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.current_history() IS 'The name of the present history of events.';


--
-- Name: detached_partitions(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.detached_partitions(table_name text) RETURNS TABLE(partition_name text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
SELECT c.relname::text
FROM pg_class AS c
JOIN pg_class AS parent ON parent.oid = to_regclass(format('public.%I', $1))
WHERE c.relnamespace = parent.relnamespace AND c.relowner = parent.relowner
  AND c.relkind = 'r' AND NOT c.relispartition
  AND obj_description(c.oid, 'pg_class') = format('Was a partition of %s; to be dropped.', $1)
ORDER BY c.relname
$_$;


--
-- Name: FUNCTION detached_partitions(table_name text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.detached_partitions(table_name text) IS 'What was detached in order to be dropped and then was not, as after a crash.';


--
-- Name: drop_old_partitions(text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.drop_old_partitions(table_name text, retention_months integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
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


--
-- Name: FUNCTION drop_old_partitions(table_name text, retention_months integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.drop_old_partitions(table_name text, retention_months integer) IS 'Drops the partitions whose rows are all older than the given months; returns how many were dropped.';


--
-- Name: event_mark(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.event_mark(p_revision bigint) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT CASE WHEN h.revision = p_revision THEN h.event_mark
    ELSE (SELECT e.mark FROM public.events AS e
          WHERE e.revision = p_revision) END
FROM public.stream_head AS h WHERE h.id = 1
$$;


--
-- Name: FUNCTION event_mark(p_revision bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.event_mark(p_revision bigint) IS 'The random bytes of an event; null where the event is not kept.';


--
-- Name: fold_quota_changes(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.fold_quota_changes(p_namespace_id bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM FROM public.quota_counters WHERE namespace_id = p_namespace_id AND id = 0 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A statement of its own, so that it sees what was committed before it got the lock.
    WITH taken AS (
        DELETE FROM public.quota_counters WHERE namespace_id = p_namespace_id AND id > 0
        RETURNING containers, cpu_millicores, memory_bytes),
    added AS (
        SELECT sum(containers) AS containers, sum(cpu_millicores) AS cpu, sum(memory_bytes) AS memory FROM taken)
    UPDATE public.quota_counters AS q
    SET containers = q.containers + a.containers, cpu_millicores = q.cpu_millicores + a.cpu,
        memory_bytes = q.memory_bytes + a.memory
    FROM added AS a
    WHERE q.namespace_id = p_namespace_id AND q.id = 0 AND a.containers IS NOT NULL;
    RETURN true;
END
$$;


--
-- Name: FUNCTION fold_quota_changes(p_namespace_id bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.fold_quota_changes(p_namespace_id bigint) IS 'Adds a namespace''s differences to its counter; false, and nothing done, if another transaction does so.';


--
-- Name: forget_rendered_messages(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.forget_rendered_messages() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    DELETE FROM public.rendered_messages AS m USING gone AS g
    WHERE m.resource_type = TG_ARGV[0] AND m.resource_id = g.id;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION forget_rendered_messages(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.forget_rendered_messages() IS 'Deletes the messages of rows that are deleted.';


--
-- Name: forget_revisions(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.forget_revisions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    DELETE FROM public.revisions AS r USING gone AS g
    WHERE r.resource_type = TG_ARGV[0] AND r.resource_id = g.id;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION forget_revisions(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.forget_revisions() IS 'Deletes the revisions of rows that are deleted.';


--
-- Name: hosts_of_namespace(bigint, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]) RETURNS text[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.allowed_hosts INTO allowed_hosts
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;


--
-- Name: FUNCTION hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]) IS 'The hosts that a namespace may use, as the caller sees it; null: there is none.';


--
-- Name: hosts_overlap(text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.hosts_overlap(p_first text, p_second text) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT p_first = p_second
        OR (starts_with(p_first, '*.') AND right(p_second, length(p_first) - 1) = substr(p_first, 2))
        OR (starts_with(p_second, '*.') AND right(p_first, length(p_second) - 1) = substr(p_second, 2))
$$;


--
-- Name: FUNCTION hosts_overlap(p_first text, p_second text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.hosts_overlap(p_first text, p_second text) IS 'Whether some host is covered by both patterns, which are in normal form.';


--
-- Name: keep_program_images(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.keep_program_images() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM public.write_program_images(NEW.id, NEW.namespace_id, NEW.spec);
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION keep_program_images(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.keep_program_images() IS 'Writes the images of the sidecars and init containers of a written container.';


--
-- Name: keep_quota_counter(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.keep_quota_counter() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.quota_counters WHERE namespace_id = OLD.id;
    ELSE
        INSERT INTO public.quota_counters (namespace_id, id, containers, cpu_millicores, memory_bytes)
        VALUES (NEW.id, 0, 0, 0, 0);
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION keep_quota_counter(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.keep_quota_counter() IS 'Gives each namespace its counter.';


--
-- Name: keep_rendered_message(jsonb, bytea); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.keep_rendered_message(p_event jsonb, p_message bytea) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
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
    INSERT INTO public.rendered_messages AS m
        (resource_type, resource_id, namespace_id, row_version, format, message)
    SELECT r.resource_type, r.resource_id, r.namespace_id, r.row_version, v_format, v_message
    FROM public.watched_rows AS r
    WHERE r.resource_type = v_type AND r.resource_id = v_id AND r.namespace_id = v_namespace_id
      AND r.row_version = v_row_version
    ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
    SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
        message = EXCLUDED.message
    WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
END
$$;


--
-- Name: FUNCTION keep_rendered_message(p_event jsonb, p_message bytea); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.keep_rendered_message(p_event jsonb, p_message bytea) IS 'As keep_rendered_messages, of one event that is no deletion.';


--
-- Name: keep_rendered_messages(jsonb, bytea[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.keep_rendered_messages(p_events jsonb, p_messages bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
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
    WHERE e.kept_bytes > 0 AND e.kind <> 'deleted' AND EXISTS (
        SELECT FROM public.watched_rows AS r
        WHERE r.resource_type = e.resource_type AND r.resource_id = e.resource_id
          AND r.namespace_id = e.namespace_id AND r.row_version = e.row_version
        OFFSET 0)
    ORDER BY e.resource_type, e.resource_id
    ON CONFLICT ON CONSTRAINT pk_rendered_messages DO UPDATE
    SET namespace_id = EXCLUDED.namespace_id, row_version = EXCLUDED.row_version, format = EXCLUDED.format,
        message = EXCLUDED.message
    WHERE (m.row_version, m.format) < (EXCLUDED.row_version, EXCLUDED.format);
    -- The row of a deleted namespace stays, so no trigger deletes its message.
    IF p_events @> '[{"resource_type": "namespace", "kind": "deleted"}]' THEN
        DELETE FROM public.rendered_messages AS m
        USING jsonb_to_recordset(p_events) AS e(
            resource_type text, resource_id bigint, namespace_id bigint, kind text)
        WHERE e.resource_type = 'namespace' AND e.kind = 'deleted' AND m.resource_type = e.resource_type
          AND m.resource_id = e.resource_id AND m.namespace_id = e.namespace_id;
    END IF;
END
$$;


--
-- Name: FUNCTION keep_rendered_messages(p_events jsonb, p_messages bytea[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.keep_rendered_messages(p_events jsonb, p_messages bytea[]) IS 'Keeps the parts of messages that are answers to reads beside the rows that they were rendered from.';


--
-- Name: lease_work(text, double precision, integer, text[], integer[], bigint[], integer[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]) RETURNS TABLE(resource_type text, resource_id bigint, cluster_name text, namespace_id bigint, attempts integer, lease_owner text, lease_epoch bigint, next_seconds double precision)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    -- One time for all clusters.
    v_now timestamptz := statement_timestamp();
    v_cluster text := (SELECT w.cluster_name FROM public.reconcile_work AS w ORDER BY w.cluster_name LIMIT 1);
    v_next timestamptz;
    v_rows integer;
    v_due integer;
    v_taken integer;
    v_homes bigint[];
    v_share integer;
    v_shared boolean;
BEGIN
    WHILE v_cluster IS NOT NULL LOOP
        v_next := least(v_next, (
            SELECT w.due_at FROM public.reconcile_work AS w
            WHERE w.cluster_name = v_cluster AND w.due_at > v_now ORDER BY w.due_at LIMIT 1));
        v_rows := coalesce(p_free[array_position(p_clusters, v_cluster)], p_most);
        v_due := 0;
        v_shared := false;
        IF v_rows > 0 THEN
            v_due := (SELECT count(*) FROM (
                SELECT FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                ORDER BY w.due_at LIMIT v_rows + 1) AS s);
        END IF;
        -- Shares are computed only where a namespace could get too much.
        IF v_due > v_rows
           OR v_due > 0 AND 4 * v_due + coalesce((SELECT max(h) FROM unnest(p_held) AS h), 0) > 3 * v_rows
              AND p_held IS NOT NULL THEN
            -- One index step for each namespace and kind; the planner by itself would read all that is due.
            v_homes := ARRAY(
                SELECT n.id FROM public.namespaces AS n CROSS JOIN LATERAL (
                    (SELECT w.due_at FROM public.reconcile_work AS w
                     WHERE w.namespace_id = n.id AND NOT w.going AND w.due_at <= v_now
                       AND (w.leased_until IS NULL OR w.leased_until <= v_now) ORDER BY w.due_at LIMIT 1)
                    UNION ALL
                    (SELECT w.due_at FROM public.reconcile_work AS w
                     WHERE w.namespace_id = n.id AND w.going AND w.due_at <= v_now
                       AND (w.leased_until IS NULL OR w.leased_until <= v_now) ORDER BY w.due_at LIMIT 1)
                    LIMIT 1) AS one
                WHERE n.cluster_name = v_cluster AND n.deleted_at IS NULL);
            -- Twice the even share, because others may have less due.
            v_share := ceil(2 * v_rows::float8 / greatest(1, cardinality(v_homes)));
            RETURN QUERY
            WITH homes AS MATERIALIZED (
                SELECT h.id, least(v_rows, v_share, CASE WHEN p_held IS NOT NULL THEN ceil(
                    (3 * v_rows - coalesce(b.held, 0))::float8 / (1 + 3 * cardinality(v_homes)))::integer
                    END) AS room
                FROM unnest(v_homes) AS h(id) LEFT JOIN unnest(p_busy, p_held) AS b(id, held) ON b.id = h.id),
            shares AS MATERIALIZED (
                SELECT s.resource_type, s.resource_id
                FROM homes AS home CROSS JOIN LATERAL (
                    SELECT e.resource_type, e.resource_id, e.place FROM (
                        (SELECT w.resource_type, w.resource_id,
                             row_number() OVER (ORDER BY w.due_at) AS place
                         FROM public.reconcile_work AS w
                         WHERE w.namespace_id = home.id AND NOT w.going AND w.due_at <= v_now
                           AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                         ORDER BY w.due_at LIMIT home.room)
                        UNION ALL
                        (SELECT w.resource_type, w.resource_id,
                             row_number() OVER (ORDER BY w.due_at)
                                 * CASE WHEN w.due_at < v_now - interval '30 seconds' THEN 1 ELSE 4 END AS place
                         FROM public.reconcile_work AS w
                         WHERE w.namespace_id = home.id AND w.going AND w.due_at <= v_now
                           AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                         ORDER BY w.due_at LIMIT home.room)) AS e
                    ORDER BY e.place LIMIT home.room) AS s
                WHERE home.room > 0
                -- With more namespaces than rows, chance decides which come first.
                ORDER BY s.place, random() LIMIT v_rows),
            due AS MATERIALIZED (
                SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                JOIN shares AS s ON s.resource_type = w.resource_type AND s.resource_id = w.resource_id
                WHERE w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now) FOR UPDATE OF w SKIP LOCKED)
            UPDATE public.reconcile_work AS w
            SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                leased_until = v_now + make_interval(secs => p_lease_seconds),
                due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()
            FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id
            RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                w.lease_owner::text, w.lease_epoch, NULL::double precision;
            GET DIAGNOSTICS v_taken = ROW_COUNT;
            v_rows := v_rows - v_taken;
            -- The namespaces have as much as they may; the rest is for work without a namespace.
            v_shared := p_held IS NOT NULL;
        ELSE
            v_rows := v_due;
        END IF;
        IF v_due > 0 AND v_rows > 0 THEN
            RETURN QUERY
            WITH due AS MATERIALIZED (
                SELECT w.resource_type, w.resource_id FROM public.reconcile_work AS w
                WHERE w.cluster_name = v_cluster AND w.due_at <= v_now
                  AND (w.leased_until IS NULL OR w.leased_until <= v_now)
                  AND (NOT v_shared OR w.namespace_id IS NULL OR NOT w.namespace_id = ANY (v_homes)
                      AND NOT EXISTS (
                          SELECT FROM public.namespaces AS n WHERE n.id = w.namespace_id AND n.deleted_at IS NULL))
                ORDER BY w.due_at LIMIT v_rows FOR UPDATE SKIP LOCKED)
            UPDATE public.reconcile_work AS w
            SET lease_owner = p_owner, lease_epoch = w.lease_epoch + 1,
                leased_until = v_now + make_interval(secs => p_lease_seconds),
                due_at = v_now + make_interval(secs => p_lease_seconds), updated_at = clock_timestamp()
            FROM due WHERE w.resource_type = due.resource_type AND w.resource_id = due.resource_id
            RETURNING w.resource_type::text, w.resource_id, w.cluster_name::text, w.namespace_id, w.attempts,
                w.lease_owner::text, w.lease_epoch, NULL::double precision;
        END IF;
        v_cluster := (SELECT w.cluster_name FROM public.reconcile_work AS w
                      WHERE w.cluster_name > v_cluster ORDER BY w.cluster_name LIMIT 1);
    END LOOP;
    RETURN QUERY SELECT NULL::text, NULL::bigint, NULL::text, NULL::bigint, NULL::integer, NULL::text, NULL::bigint,
        extract(epoch FROM v_next - v_now)::double precision;
END
$$;


--
-- Name: FUNCTION lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]) IS 'Leases due work, fairly between namespaces; returns it, and last a row that says when more will be due.';


--
-- Name: lock_facts(bigint, bigint, bigint, bigint, bigint, numeric[], text[], text[], text[], jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    unchanged boolean;
    v_volumes text[];
    used record;
    own record;
BEGIN
    SELECT n.cluster_name, n.row_version = p_namespace_version INTO cluster, unchanged
    FROM public.namespaces AS n WHERE n.id = p_namespace_id FOR SHARE;
    IF unchanged IS NOT TRUE THEN
        PERFORM public.refuse_outdated('the namespace');
    END IF;
    IF p_limits IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || p_namespace_id, 0));
        SELECT coalesce(sum(q.containers), 0) AS containers, coalesce(sum(q.cpu_millicores), 0) AS cpu,
               coalesce(sum(q.memory_bytes), 0) AS memory
        INTO used FROM public.quota_counters AS q WHERE q.namespace_id = p_namespace_id;
        -- A container that changes counts already.
        SELECT count(*) AS containers, coalesce(sum(o.quota_cpu_millicores), 0) AS cpu,
               coalesce(sum(o.quota_memory_bytes), 0) AS memory
        INTO own FROM public.containers AS o
        WHERE o.id = p_container_id AND o.deletion_requested_at IS NULL;
        IF used.containers - own.containers + 1 > p_limits[1]
            OR p_cpu > 0 AND used.cpu - own.cpu + p_cpu > p_limits[2]
            OR p_memory > 0 AND used.memory - own.memory + p_memory > p_limits[3] THEN
            PERFORM public.refuse_outdated('what the quota leaves');
        END IF;
    END IF;
    -- An expression that contains a query costs its start even where it is not reached, so these are statements.
    IF cardinality(p_services) > 0 THEN
        -- No constraint keeps a name to one container. The creation of a Service of its own waits for the namespace.
        PERFORM pg_advisory_xact_lock(hashtextextended('service/' || p_namespace_id || '/' || s.name, 0))
        FROM (SELECT unnest(p_services) AS name ORDER BY 1) AS s;
        PERFORM FROM public.port_mappings AS p
        WHERE p.namespace_id = p_namespace_id AND p.service_name = ANY (p_services);
        IF FOUND THEN
            PERFORM public.refuse_outdated('a service');
        END IF;
        PERFORM FROM public.services AS s
        WHERE s.namespace_id = p_namespace_id AND s.name = ANY (p_services) AND s.owner IS NULL;
        IF FOUND THEN
            PERFORM public.refuse_outdated('a service');
        END IF;
    END IF;
    IF cardinality(p_config_maps) > 0 THEN
        PERFORM FROM public.config_maps AS m
        WHERE m.namespace_id = p_namespace_id AND m.name = ANY (p_config_maps) AND m.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_config_maps);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a config map');
        END IF;
    END IF;
    IF cardinality(p_secrets) > 0 THEN
        PERFORM FROM public.secrets AS s
        WHERE s.namespace_id = p_namespace_id AND s.name = ANY (p_secrets) AND s.deletion_requested_at IS NULL
        HAVING count(*) = cardinality(p_secrets);
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a secret');
        END IF;
    END IF;
    IF p_volumes IS NOT NULL THEN
        -- A deletion has locked the namespace, and a change of a volume its row.
        v_volumes := ARRAY(SELECT d ->> 'name' FROM jsonb_array_elements(p_volumes) AS d);
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.name = ANY (v_volumes) ORDER BY v.id FOR SHARE;
        PERFORM FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.name = ANY (v_volumes) AND v.deletion_requested_at IS NULL
        HAVING jsonb_agg(public.volume_definition(v) ORDER BY v.name) = p_volumes;
        IF NOT FOUND THEN
            PERFORM public.refuse_outdated('a volume');
        END IF;
    END IF;
END
$$;


--
-- Name: FUNCTION lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text) IS 'Locks what decides whether a container may be written, refuses what is outdated, and returns its cluster.';


--
-- Name: mark_usage_days(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.mark_usage_days() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION mark_usage_days(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.mark_usage_days() IS 'Makes the rows of container_usage_days empty whose hours were changed.';


--
-- Name: missing_claims(bigint, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.missing_claims(p_namespace_id bigint, p_claims jsonb) RETURNS numeric
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(sum(k.bytes), 0)
    FROM jsonb_to_recordset(p_claims -> 'templates') AS k(prefix text, bytes numeric),
         generate_series((p_claims ->> 'first')::bigint, (p_claims ->> 'last')::bigint) AS o
    WHERE NOT EXISTS (
        SELECT FROM public.volumes AS v
        WHERE v.namespace_id = p_namespace_id AND v.kubernetes_name = k.prefix || o::text)
$$;


--
-- Name: FUNCTION missing_claims(p_namespace_id bigint, p_claims jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.missing_claims(p_namespace_id bigint, p_claims jsonb) IS 'Bytes of the claims of a StatefulSet that have no row yet.';


--
-- Name: note_given_up_grant(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.note_given_up_grant() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.given_up',
        concat_ws(',', nullif(current_setting('app.given_up', true), ''), OLD.namespace_id), true);
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION note_given_up_grant(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.note_given_up_grant() IS 'Notes for the transaction the namespace of a grant that its own holder deletes; see check_appended_changes.';


--
-- Name: note_member_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.note_member_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_ARGV[0] = 'object' THEN
        INSERT INTO public.application_changes (application_id, namespace_id)
        SELECT m.application_id, m.namespace_id FROM public.application_members AS m
        WHERE m.namespace_id = old.namespace_id AND m.resource_type = 'object'
            AND m.api_group = old.api_group AND m.object_kind = old.kind AND m.name = old.name;
    ELSE
        INSERT INTO public.application_changes (application_id, namespace_id)
        SELECT m.application_id, m.namespace_id FROM public.application_members AS m
        WHERE m.namespace_id = old.namespace_id AND m.resource_type = TG_ARGV[0]
            AND m.api_group = '' AND m.object_kind = '' AND m.name = old.name;
    END IF;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION note_member_change(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.note_member_change() IS 'Notes the application of a row that has changed or is gone.';


--
-- Name: note_revision(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.note_revision() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    r record;
    fields jsonb;
    desired jsonb;
    added jsonb;
BEGIN
    r := new;
    LOOP
        CASE TG_ARGV[0]
        WHEN 'service' THEN
            fields := jsonb_build_object('type', r.type, 'spec', r.spec - 'rights', 'labels', r.labels,
                'annotations', r.annotations, 'drift_policy', r.drift_policy);
        WHEN 'object' THEN
            fields := jsonb_build_object('api_version', r.api_version, 'document', r.document,
                'drift_policy', r.drift_policy, 'protected', r.protected);
        WHEN 'volume' THEN
            fields := jsonb_build_object('type', r.type, 'storage_class', r.storage_class, 'size', r.size,
                'access_mode', r.access_mode, 'mount_path', r.mount_path, 'host_path', r.host_path,
                'source_name', r.source_name, 'spec', r.spec - 'ends_with_claim', 'labels', r.labels,
                'annotations', r.annotations);
        WHEN 'config_map' THEN
            fields := jsonb_build_object('data', r.data, 'binary_data', r.binary_data, 'immutable', r.immutable,
                'labels', r.labels, 'annotations', r.annotations);
        WHEN 'secret' THEN
            fields := jsonb_build_object('type', r.type, 'sizes', r.data, 'immutable', r.immutable,
                'labels', r.labels, 'annotations', r.annotations,
                'ciphertext_digest', encode(sha256(r.ciphertext), 'hex'));
        END CASE;
        EXIT WHEN desired IS NOT NULL;
        desired := fields;
        EXIT WHEN TG_OP = 'INSERT';
        r := old;
    END LOOP;
    added := jsonb_build_object(
        'document', desired, 'operation_id', nullif(current_setting('app.operation_id', true), ''), 'kept', 20);
    IF TG_OP = 'UPDATE' THEN
        IF desired = fields THEN
            RETURN NULL;
        END IF;
        added := added || jsonb_build_object('before', fields, 'before_at', old.updated_at);
    END IF;
    PERFORM public.write_revision(TG_ARGV[0], new.id, new.namespace_id, added);
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION note_revision(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.note_revision() IS 'Adds a revision of a row whose fields that callers set have changed.';


--
-- Name: number_pending(bigint[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.number_pending(p_ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    head public.stream_head;
    hashes bytea[];
    event_count bigint;
    newest_record_mark bytea;
    newest_event_mark bytea;
BEGIN
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
    SELECT coalesce(array_agg(h.hash ORDER BY p.id, h.position), '{}'), count(DISTINCT p.id) INTO hashes
    FROM public.pending_changes AS p, unnest(p.record_hashes) WITH ORDINALITY AS h(hash, position)
    WHERE p.id = ANY (p_ids);
    IF cardinality(hashes) > 0 THEN
        newest_record_mark := substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8);
    END IF;
    INSERT INTO public.operation_logs
        (operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
         request_method, request_path, request_body, request_headers, client_ip, user_agent,
         status_code, response_body, duration_ms, error_code, error_message, started_at, completed_at,
         metadata, stream_id, sequence, record_hash, mark)
    SELECT coalesce(n.operation_id, gen_random_uuid()), n.user_id, n.username, n.action, n.resource_type,
           n.resource_id, n.resource_name, n.namespace_id, n.request_method, n.request_path, n.request_body,
           n.request_headers, n.client_ip, n.user_agent, n.status_code, n.response_body, n.duration_ms,
           n.error_code, n.error_message, coalesce(n.started_at, n.created_at), n.completed_at,
           coalesce(n.metadata, '{}'), n.stream_id, head.audit_sequence + n.number, hashes[n.number],
           CASE WHEN n.number = cardinality(hashes) THEN newest_record_mark
               ELSE substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8) END
    FROM (SELECT row_number() OVER (ORDER BY p.id, r.position) AS number, p.created_at, r.*
          FROM public.pending_changes AS p, unnest(p.records) WITH ORDINALITY AS
              r(operation_id, user_id, username, action, resource_type, resource_id, resource_name, namespace_id,
                request_method, request_path, request_body, request_headers, client_ip, user_agent,
                status_code, response_body, duration_ms, error_code, error_message, started_at,
                completed_at, metadata, stream_id, position)
          WHERE p.id = ANY (p_ids)) AS n;
    INSERT INTO public.events
        (revision, resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, message, labels,
         status, labels_before, status_before, operation_id, pending_id, mark)
    SELECT head.revision + n.number, n.resource_type, n.resource_id, n.resource_uid, n.namespace_id,
           n.resource_name, n.kind, n.message, coalesce(n.labels, '{}'), n.status, n.labels_before,
           n.status_before, n.operation_id, n.pending_id, substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8)
    FROM (SELECT row_number() OVER (ORDER BY p.id, e.position) AS number, p.id AS pending_id, e.*
          FROM public.pending_changes AS p, unnest(p.events, p.messages) WITH ORDINALITY AS
              e(resource_type, resource_id, resource_uid, namespace_id, resource_name, kind, labels, status,
                labels_before, status_before, operation_id, message, position)
          WHERE p.id = ANY (p_ids)) AS n;
    GET DIAGNOSTICS event_count = ROW_COUNT;
    IF event_count > 0 THEN
        SELECT e.mark INTO newest_event_mark FROM public.events AS e WHERE e.revision = head.revision + event_count;
    END IF;
    UPDATE public.stream_head AS h
    SET revision = head.revision + event_count,
        audit_sequence = head.audit_sequence + cardinality(hashes),
        record_mark = coalesce(newest_record_mark, head.record_mark),
        event_mark = coalesce(newest_event_mark, head.event_mark)
    WHERE h.id = 1;
    DELETE FROM public.pending_changes AS p WHERE p.id = ANY (p_ids);
    -- Ask for new partitions every half partition: two million revisions are a few minutes at full speed.
    IF head.revision / 500000 <> (head.revision + event_count) / 500000 THEN
        PERFORM pg_notify('pilothouse_partitions', '');
    END IF;
END
$$;


--
-- Name: FUNCTION number_pending(p_ids bigint[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.number_pending(p_ids bigint[]) IS 'Numbers these pending rows, in the order of their ids, under the lock of the head that the caller holds.';


--
-- Name: number_visible(integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.number_visible(p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    head public.stream_head;
    waiting text := current_setting('lock_timeout');
    taken bigint[];
    oldest_running xid8;
    one bigint;
    state text;
    broken text;
    relation text;
BEGIN
    -- This waits for the head, however long, and after that for at most a second.
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1 FOR UPDATE;
    PERFORM set_config('lock_timeout', '1s', true);
    numbered := '{}';
    aside := 0;
    revision_before := head.revision;
    -- A statement of its own: its snapshot is younger than the lock, and xmin is of the same snapshot.
    SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}'), pg_snapshot_xmin(pg_current_snapshot())
    INTO taken, oldest_running
    FROM (SELECT q.id FROM public.pending_changes AS q
          WHERE q.id > head.pending_floor ORDER BY q.id LIMIT p_limit) AS p;
    more := cardinality(taken) = p_limit;
    IF cardinality(taken) > 0 THEN
        BEGIN
            PERFORM public.number_pending(taken);
            numbered := taken;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            -- One by one. A row that fails for the first time holds those behind it until the next pass, so that
            -- no later change of the same object overtakes it.
            FOREACH one IN ARRAY taken LOOP
                BEGIN
                    PERFORM public.number_pending(ARRAY[one]);
                    numbered := numbered || one;
                EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, broken = CONSTRAINT_NAME,
                        relation = TABLE_NAME;
                    IF state = '23514' AND broken = '' AND relation = 'events' THEN
                        RAISE EXCEPTION 'no partition of events holds the next revision'
                            USING ERRCODE = 'configuration_limit_exceeded';
                    END IF;
                    IF (SELECT p.failures FROM public.pending_changes AS p WHERE p.id = one) > 0 THEN
                        PERFORM public.set_aside(one, state, coalesce(nullif(broken, ''), relation));
                        aside := aside + 1;
                    ELSE
                        UPDATE public.pending_changes AS p SET failures = 1 WHERE p.id = one;
                        more := true;
                        EXIT;
                    END IF;
                END;
            END LOOP;
        END;
        PERFORM public.raise_floor(numbered = taken AND NOT more, oldest_running);
        IF (SELECT h.revision > head.revision FROM public.stream_head AS h WHERE h.id = 1) THEN
            PERFORM pg_notify('pilothouse_changes',
                (SELECT h.revision FROM public.stream_head AS h WHERE h.id = 1)::text);
        END IF;
    END IF;
    PERFORM set_config('lock_timeout', waiting, true);
END
$$;


--
-- Name: FUNCTION number_visible(p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.number_visible(p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean) IS 'One pass: takes the lock of the head, then numbers the pending rows that are visible.';


--
-- Name: old_partitions(text, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.old_partitions(table_name text, before timestamp with time zone) RETURNS TABLE(partition_name text, lower_bound timestamp with time zone, upper_bound timestamp with time zone, detach_pending boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
SELECT b.partition_name, b.lower_bound::timestamptz, b.upper_bound::timestamptz, b.detach_pending
FROM public.partition_bounds($1) AS b
WHERE b.upper_bound::timestamptz <= $2
ORDER BY b.upper_bound::timestamptz
$_$;


--
-- Name: FUNCTION old_partitions(table_name text, before timestamp with time zone); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.old_partitions(table_name text, before timestamp with time zone) IS 'Partitions that hold nothing at or after a time.';


--
-- Name: partition_bounds(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.partition_bounds(table_name text) RETURNS TABLE(partition_name text, lower_bound text, upper_bound text, detach_pending boolean)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
SELECT c.relname::text,
       substring(b.bound FROM 'FROM \(''([^'']*)''\)'),
       substring(b.bound FROM 'TO \(''([^'']*)''\)'),
       i.inhdetachpending
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) AS b
WHERE i.inhparent = to_regclass(format('public.%I', $1)) AND c.relispartition
$_$;


--
-- Name: FUNCTION partition_bounds(table_name text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.partition_bounds(table_name text) IS 'Partitions of a table with their bounds as the catalogue has them.';


--
-- Name: pending_event_ids(integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.pending_event_ids(p_most integer DEFAULT 257) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT coalesce(array_agg(p.id ORDER BY p.id), '{}')
FROM (SELECT c.id FROM public.pending_changes AS c
      WHERE c.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)
        AND cardinality(c.events) > 0
      ORDER BY c.id LIMIT p_most) AS p
$$;


--
-- Name: FUNCTION pending_event_ids(p_most integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.pending_event_ids(p_most integer) IS 'Ids of the pending rows with events that a snapshot sees: their events are in its rows already.';


--
-- Name: put_changes(jsonb, bytea[], jsonb, bytea[], jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb DEFAULT NULL::jsonb, p_idempotency jsonb DEFAULT NULL::jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    caller_role text := CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END;
    v_records public.pending_record[];
    v_events public.pending_event[];
    put_id bigint;
BEGIN
    IF caller_role NOT IN ('pilothouse_system', 'pilothouse_owner') THEN
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
    IF jsonb_array_length(p_events) = 1 AND p_events #>> '{0,kind}' <> 'deleted' THEN
        IF (p_events #>> '{0,kept_bytes}')::integer > 0 THEN
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
    -- The transaction gets its id before the row does: the floor rests on that (number_visible).
    PERFORM pg_current_xact_id();
    INSERT INTO public.pending_changes (records, record_hashes, events, messages)
    VALUES (v_records, p_hashes, v_events, p_messages)
    RETURNING id INTO put_id;
    RETURN put_id;
END
$$;


--
-- Name: FUNCTION put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) IS 'The last statement of a mutation: its records and events, to be numbered once it is committed.';


--
-- Name: put_cluster_event(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_cluster_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    kind text := 'modified';
BEGIN
    IF NEW.deleted_at IS NOT NULL THEN
        kind := 'deleted';
    ELSIF TG_OP = 'INSERT' OR OLD.deleted_at IS NOT NULL THEN
        kind := 'added';
    END IF;
    PERFORM public.put_row_event('cluster', NEW.id, ARRAY[NULL::bigint], NEW.name, kind,
        jsonb_build_object('uid', NEW.uid));
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION put_cluster_event(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_cluster_event() IS 'Puts the event of a changed cluster.';


--
-- Name: put_grant_event(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_grant_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    changed public.user_roles := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    holder text;
BEGIN
    SELECT u.username INTO holder FROM public.users AS u WHERE u.id = changed.user_id;
    -- A role that is deleted with its grants is gone already.
    PERFORM public.put_row_event('grant', changed.id, ARRAY[changed.namespace_id], coalesce(holder, ''),
        CASE TG_OP WHEN 'INSERT' THEN 'added' WHEN 'UPDATE' THEN 'modified' ELSE 'deleted' END,
        jsonb_build_object(
            'role', coalesce((SELECT r.name FROM public.roles AS r WHERE r.id = changed.role_id), ''),
            'namespace', coalesce((SELECT n.name FROM public.namespaces AS n WHERE n.id = changed.namespace_id), '')));
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION put_grant_event(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_grant_event() IS 'Puts the event of a changed grant.';


--
-- Name: put_image_event(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_image_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    changed public.container_images := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    used_in bigint[];
BEGIN
    SELECT array_agg(u.namespace_id) INTO used_in
    FROM (SELECT c.namespace_id FROM public.containers AS c WHERE c.image_id = changed.id
          UNION SELECT p.namespace_id FROM public.program_images AS p WHERE p.image_id = changed.id) AS u;
    PERFORM public.put_row_event('image', changed.id, coalesce(used_in, ARRAY[NULL::bigint]),
        concat(nullif(changed.repository, '') || '/', changed.name, coalesce(':' || changed.tag, '@' || changed.digest)),
        CASE TG_OP WHEN 'UPDATE' THEN 'modified' ELSE 'deleted' END, '{}');
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION put_image_event(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_image_event() IS 'Puts the events of a changed image.';


--
-- Name: put_image_use_event(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_image_use_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    ids bigint[] := CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[NEW.image_id] WHEN 'DELETE' THEN ARRAY[OLD.image_id]
        ELSE ARRAY[OLD.image_id, NEW.image_id] END;
    used record;
BEGIN
    FOR used IN
        SELECT DISTINCT ON (shown.name) i.id, shown.name FROM public.container_images AS i
        CROSS JOIN LATERAL (SELECT concat(nullif(i.repository, '') || '/', i.name,
            coalesce(':' || i.tag, '@' || i.digest)) AS name) AS shown
        WHERE i.id = ANY (ids) ORDER BY shown.name, i.id
    LOOP
        PERFORM public.put_row_event('image', used.id,
            ARRAY[CASE TG_OP WHEN 'DELETE' THEN OLD.namespace_id ELSE NEW.namespace_id END], used.name, 'modified', '{}');
    END LOOP;
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION put_image_use_event(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_image_use_event() IS 'Puts the events of images that a container uses, or no longer uses.';


--
-- Name: put_row_event(text, bigint, bigint[], text, text, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_row_event(p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    -- The transaction gets its id before the row does (number_visible).
    PERFORM pg_current_xact_id();
    INSERT INTO public.pending_changes (records, record_hashes, events, messages)
    SELECT '{}', '{}',
           array_agg(ROW(p_type, p_id, NULL, n.id, p_name, p_kind, p_labels, NULL, NULL, NULL, NULL)
               ::public.pending_event_row::public.pending_event),
           array_agg(''::bytea)
    FROM unnest(p_namespace_ids) AS n(id);
END
$$;


--
-- Name: FUNCTION put_row_event(p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_row_event(p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb) IS 'Puts an event without a message for a changed row.';


--
-- Name: put_user_event(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.put_user_event() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM public.put_row_event('user', NEW.id, ARRAY[NULL::bigint], NEW.username,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'deleted' WHEN TG_OP = 'INSERT' THEN 'added' ELSE 'modified' END,
        jsonb_build_object('uid', NEW.uid));
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION put_user_event(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.put_user_event() IS 'Puts the event of a changed user.';


--
-- Name: quantity_bytes(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.quantity_bytes(p_quantity text) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (p_quantity ~ '[eE][0-9]+$'::text) THEN ceil((p_quantity)::numeric) ELSE ceil((("substring"(p_quantity, '^[0-9.]+'::text))::numeric * CASE "substring"(p_quantity, '[A-Za-z]+$'::text) WHEN 'n'::text THEN 0.000000001 WHEN 'u'::text THEN 0.000001 WHEN 'm'::text THEN 0.001 WHEN 'k'::text THEN (1000)::numeric WHEN 'M'::text THEN (1000000)::numeric WHEN 'G'::text THEN (1000000000)::numeric WHEN 'T'::text THEN ('1000000000000'::bigint)::numeric WHEN 'P'::text THEN ('1000000000000000'::bigint)::numeric WHEN 'E'::text THEN ('1000000000000000000'::bigint)::numeric WHEN 'Ki'::text THEN (1024)::numeric WHEN 'Mi'::text THEN (1048576)::numeric WHEN 'Gi'::text THEN (1073741824)::numeric WHEN 'Ti'::text THEN ('1099511627776'::bigint)::numeric WHEN 'Pi'::text THEN ('1125899906842624'::bigint)::numeric WHEN 'Ei'::text THEN ('1152921504606846976'::bigint)::numeric ELSE (1)::numeric END)) END;


--
-- Name: FUNCTION quantity_bytes(p_quantity text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.quantity_bytes(p_quantity text) IS 'Whole units of a Kubernetes quantity, rounded up.';


--
-- Name: raise_floor(boolean, xid8); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.raise_floor(p_took_all boolean, p_oldest_running xid8) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
UPDATE public.stream_head
SET pending_floor = CASE WHEN passed THEN floor_candidate ELSE pending_floor END,
    floor_candidate = CASE WHEN passed OR floor_candidate = 0
        THEN (SELECT last_value FROM public.pending_changes_id_seq) ELSE floor_candidate END,
    floor_transaction = CASE WHEN passed OR floor_candidate = 0 THEN NULL
        ELSE coalesce(floor_transaction, pg_current_xact_id()) END
FROM (SELECT p_took_all
          AND coalesce(p_oldest_running >= h.floor_transaction, false) AS passed
      FROM public.stream_head AS h WHERE h.id = 1) AS state
WHERE id = 1
$$;


--
-- Name: FUNCTION raise_floor(p_took_all boolean, p_oldest_running xid8); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.raise_floor(p_took_all boolean, p_oldest_running xid8) IS 'Moves the floor below which no search for pending rows goes.';


--
-- Name: raise_row_version(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.raise_row_version() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    NEW.row_version := OLD.row_version + 1;
    RETURN NEW;
END
$$;


--
-- Name: FUNCTION raise_row_version(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.raise_row_version() IS 'Counts the writes of a row, whoever makes them.';


--
-- Name: reachable_container_summary(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.reachable_container_summary() RETURNS TABLE(namespace_id bigint, namespace_name character varying, total_containers bigint, running_containers bigint, stopped_containers bigint, failed_containers bigint, total_size_bytes numeric)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT s.* FROM public.container_summary AS s
WHERE (SELECT public.app_sees_all()) OR s.namespace_id = ANY ((SELECT public.app_namespace_ids())::bigint[])
$$;


--
-- Name: FUNCTION reachable_container_summary(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.reachable_container_summary() IS 'The rows of container_summary that the caller reaches.';


--
-- Name: read_config_map(bigint, text, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.config_maps.id, public.config_maps.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.config_maps.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.config_maps
    JOIN public.namespaces ON public.config_maps.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'config_map' AND
        public.config_maps.id = public.rendered_messages.resource_id AND public.config_maps.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.config_maps.name = p_name;
END
$$;


--
-- Name: FUNCTION read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer) IS 'What a read of a config map answers, where its message is kept in this format.';


--
-- Name: read_container(bigint, text, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea, status character varying, started_at timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.containers.id, public.containers.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.containers.created_by = public.users.id) AS creator, public.rendered_messages.message,
        public.containers.status, public.containers.started_at
    FROM public.containers
    JOIN public.namespaces ON public.containers.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'container' AND
        public.containers.id = public.rendered_messages.resource_id AND public.containers.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.containers.name = p_name;
END
$$;


--
-- Name: FUNCTION read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer) IS 'What a read of a container answers, where its message is kept in this format.';


--
-- Name: read_namespace(bigint, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_namespace(p_user_id bigint, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea, stale_since timestamp with time zone)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.namespaces.id, public.namespaces.id AS namespace_id, public.users.username AS creator,
        public.rendered_messages.message, public.clusters.stale_since
    FROM public.namespaces
    LEFT OUTER JOIN public.users ON public.users.id = public.namespaces.created_by
    LEFT OUTER JOIN public.clusters ON public.clusters.name = public.namespaces.cluster_name
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'namespace' AND
        public.rendered_messages.resource_id = public.namespaces.id AND public.rendered_messages.row_version =
        public.namespaces.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.deleted_at IS NULL AND public.namespaces.name = p_name;
END
$$;


--
-- Name: FUNCTION read_namespace(p_user_id bigint, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_namespace(p_user_id bigint, p_name text, p_format integer) IS 'What a read of a namespace answers, where its message is kept in this format.';


--
-- Name: read_revision(bigint, text, bigint, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN (
        SELECT r.document::text FROM public.revisions AS r
        WHERE r.resource_type = p_type AND r.resource_id = p_id AND r.number = p_number);
END
$$;


--
-- Name: FUNCTION read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer) IS 'The document of one revision that the caller reaches; null: there is none.';


--
-- Name: read_secret(bigint, text, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.secrets.id, public.secrets.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.secrets.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.secrets
    JOIN public.namespaces ON public.secrets.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'secret' AND
        public.secrets.id = public.rendered_messages.resource_id AND public.secrets.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.secrets.name = p_name;
END
$$;


--
-- Name: FUNCTION read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer) IS 'What a read of a secret answers, where its message is kept in this format.';


--
-- Name: read_service(bigint, text, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
    SELECT public.services.id, public.services.namespace_id, (SELECT public.users.username
    FROM public.users
    WHERE public.services.created_by = public.users.id) AS creator, public.rendered_messages.message
    FROM public.services
    JOIN public.namespaces ON public.services.namespace_id = public.namespaces.id
    LEFT OUTER JOIN public.rendered_messages ON public.rendered_messages.resource_type = 'service' AND
        public.services.id = public.rendered_messages.resource_id AND public.services.row_version =
        public.rendered_messages.row_version AND public.rendered_messages.format = p_format
    WHERE public.namespaces.name = p_namespace AND public.services.name = p_name;
END
$$;


--
-- Name: FUNCTION read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer) IS 'What a read of a Service returns, where its message is stored in this format.';


--
-- Name: read_volume(bigint, text, text, integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer) RETURNS TABLE(id bigint, namespace_id bigint, creator character varying, message bytea, mounted_by character varying[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    RETURN QUERY
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
    WHERE public.namespaces.name = p_namespace AND public.volumes.name = p_name;
END
$$;


--
-- Name: FUNCTION read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer) IS 'What a read of a volume answers, where its message is kept in this format.';


--
-- Name: record_mark(bigint); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.record_mark(p_sequence bigint) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT CASE WHEN h.audit_sequence = p_sequence THEN h.record_mark
    ELSE (SELECT l.mark FROM public.operation_logs AS l WHERE l.sequence = p_sequence) END
FROM public.stream_head AS h WHERE h.id = 1
$$;


--
-- Name: FUNCTION record_mark(p_sequence bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.record_mark(p_sequence bigint) IS 'The random bytes of a record of the audit log; null where the record is not kept.';


--
-- Name: refresh_container_summary(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refresh_container_summary() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    REFRESH MATERIALIZED VIEW CONCURRENTLY public.container_summary;
END
$$;


--
-- Name: FUNCTION refresh_container_summary(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.refresh_container_summary() IS 'Refreshes container_summary; readers are not blocked.';


--
-- Name: refuse_outdated(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.refuse_outdated(p_what text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION '% changed since it was read', p_what USING ERRCODE = 'serialization_failure';
END
$$;


--
-- Name: FUNCTION refuse_outdated(p_what text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.refuse_outdated(p_what text) IS 'Ends a transaction whose caller must look again.';


--
-- Name: register_image(text, text, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.register_image(p_repository text, p_name text, p_tag text, p_digest text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


--
-- Name: FUNCTION register_image(p_repository text, p_name text, p_tag text, p_digest text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.register_image(p_repository text, p_name text, p_tag text, p_digest text) IS 'The id of an image reference, registered if it is new.';


--
-- Name: release_work(text[], bigint[], bigint[], text[], double precision[], integer[], text[], text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    UPDATE public.reconcile_work AS w
    SET due_at = least(CASE WHEN w.due_at < w.leased_until OR w.leased_until <= clock_timestamp()
                            THEN w.due_at END,
                       clock_timestamp() + make_interval(secs => d.seconds)),
        lease_owner = NULL, leased_until = NULL, last_error = d.error, updated_at = clock_timestamp(),
        attempts = CASE WHEN w.due_at < w.leased_until THEN 0 ELSE d.attempts END,
        applied_objects = coalesce(d.objects::jsonb, w.applied_objects)
    FROM unnest(p_types, p_ids, p_epochs, p_owners, p_seconds, p_attempts, p_errors, p_objects)
        AS d(type, id, epoch, owner, seconds, attempts, error, objects)
    WHERE w.resource_type = d.type AND w.resource_id = d.id AND w.lease_epoch = d.epoch
      AND w.lease_owner = d.owner;
END
$$;


--
-- Name: FUNCTION release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]) IS 'Ends leases on work; the rows are due again after so many seconds.';


--
-- Name: sequence_changes(integer); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.sequence_changes(p_limit integer DEFAULT 200) RETURNS TABLE(revision bigint, resource_type text, namespace_id bigint, resource_name text, kind text, message bytea, labels jsonb, status text, labels_before jsonb, status_before text, pending_id bigint, mark bytea, audit_sequence bigint, history_id uuid, more boolean, aside integer, oldest_seconds double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
DECLARE
    pass record;
    set_aside integer := 0;
    goes_on boolean := false;
BEGIN
    IF EXISTS (SELECT FROM public.pending_changes AS p
               WHERE p.id > (SELECT h.pending_floor FROM public.stream_head AS h WHERE h.id = 1)) THEN
        SELECT * INTO STRICT pass FROM public.number_visible(p_limit);
        set_aside := pass.aside;
        goes_on := pass.more;
        RETURN QUERY
        SELECT e.revision, e.resource_type::text, e.namespace_id, e.resource_name::text, e.kind::text, e.message,
               e.labels, e.status::text, e.labels_before, e.status_before::text, e.pending_id, e.mark,
               NULL::bigint, NULL::uuid, NULL::boolean, NULL::integer, NULL::double precision
        FROM public.events AS e WHERE e.revision > pass.revision_before ORDER BY e.revision;
    END IF;
    RETURN QUERY
    SELECT h.revision, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::bytea, NULL::jsonb, NULL::text,
           NULL::jsonb, NULL::text, NULL::bigint, h.event_mark, h.audit_sequence, h.history_id,
           goes_on, set_aside,
           coalesce(extract(epoch FROM clock_timestamp() - o.created_at), 0)::double precision
    FROM public.stream_head AS h
    LEFT JOIN LATERAL (SELECT p.created_at FROM public.pending_changes AS p WHERE p.id > h.pending_floor
                       ORDER BY p.id LIMIT 1) AS o ON true
    WHERE h.id = 1;
END
$$;


--
-- Name: FUNCTION sequence_changes(p_limit integer); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.sequence_changes(p_limit integer) IS 'Numbers what is pending; returns the events that it numbered, and last a row of the head (resource_type null).';


--
-- Name: service_limits(bigint, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.id, n.service_types, nullif((n.resource_quota ->> 'services')::bigint, 0)
    INTO found_id, service_types, most
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    IF most IS NOT NULL THEN
        used := public.count_services(found_id);
    END IF;
END
$$;


--
-- Name: FUNCTION service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint) IS 'Types and number of Services that a namespace allows, as the caller sees it, and how many it has; null: no limit.';


--
-- Name: set_aside(bigint, text, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.set_aside(p_id bigint, p_sqlstate text, p_constraint text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    head public.stream_head;
    started text := to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    operation uuid := gen_random_uuid();
    message text := 'a committed change could not be numbered and was set aside';
    metadata text;
    hash bytea;
    mark bytea := substring(uuid_send(gen_random_uuid()) FROM 9 FOR 8);
BEGIN
    -- A missing partition is the fault of no change: everything waits until there is one.
    IF p_sqlstate = '23514' AND p_constraint = 'operation_logs' THEN
        RAISE EXCEPTION 'no partition of operation_logs holds the time of a record'
            USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    SELECT * INTO STRICT head FROM public.stream_head WHERE id = 1;
    -- Canonical JSON (sorted keys, no spaces), as the application hashes its records.
    SELECT format('{"constraint":%s,"pending_id":%s,"record_hashes":[%s],"sqlstate":%s}', to_json(p_constraint),
               p.id, (SELECT coalesce(string_agg('"' || encode(h.hash, 'hex') || '"', ',' ORDER BY h.position), '')
                      FROM unnest(p.record_hashes) WITH ORDINALITY AS h(hash, position)), to_json(p_sqlstate))
    INTO STRICT metadata FROM public.pending_changes AS p WHERE p.id = p_id;
    hash := sha256(convert_to(
        '{"action":"other","client_ip":null,"completed_at":null,"duration_ms":null,"error_code":"INTERNAL",'
        || '"error_message":' || to_json(message) || ',"metadata":' || metadata || ',"namespace_id":null,'
        || '"operation_id":"' || operation || '","request_body":null,"request_headers":null,'
        || '"request_method":null,"request_path":null,"resource_id":null,"resource_name":null,'
        || '"resource_type":"audit_log","response_body":null,"started_at":"' || started || '",'
        || '"status_code":500,"stream_id":null,"user_agent":null,"user_id":null,"username":"system"}', 'UTF8'));
    INSERT INTO public.operation_logs
        (operation_id, username, action, resource_type, status_code, error_code, error_message, started_at,
         metadata, sequence, record_hash, mark)
    VALUES (operation, 'system', 'other', 'audit_log', 500, 'INTERNAL', message, started::timestamptz,
        metadata::jsonb, head.audit_sequence + 1, hash, mark);
    UPDATE public.stream_head AS h
    SET audit_sequence = head.audit_sequence + 1,
        record_mark = mark
    WHERE h.id = 1;
    INSERT INTO public.pending_incidents
        (id, records, record_hashes, events, messages, created_at, sqlstate, constraint_name, incident_sequence)
    SELECT p.id, p.records, p.record_hashes, p.events, p.messages, p.created_at, p_sqlstate, p_constraint,
           head.audit_sequence + 1
    FROM public.pending_changes AS p WHERE p.id = p_id;
    DELETE FROM public.pending_changes AS p WHERE p.id = p_id;
END
$$;


--
-- Name: FUNCTION set_aside(p_id bigint, p_sqlstate text, p_constraint text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.set_aside(p_id bigint, p_sqlstate text, p_constraint text) IS 'Sets a pending row aside that cannot be numbered, with a record that names the hashes of its records.';


--
-- Name: storage_limits(bigint, text, bigint, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT n.id, n.resource_quota ->> 'storage' INTO found_id, most
    FROM public.namespaces AS n WHERE n.name = p_namespace AND n.deleted_at IS NULL;
    -- The row of a claim would have the name of a volume that is no such claim.
    SELECT v.name INTO taken
    FROM jsonb_to_recordset(p_claims -> 'templates') AS k(prefix text),
         generate_series((p_claims ->> 'first')::bigint, (p_claims ->> 'last')::bigint) AS o
         JOIN public.volumes AS v ON v.namespace_id = found_id AND v.kubernetes_name IS DISTINCT FROM v.name
    WHERE v.name = k.prefix || o::text LIMIT 1;
    IF most IS NOT NULL THEN
        used := public.count_storage(found_id) - (SELECT coalesce(sum(c.storage_bytes), 0)
            FROM public.claim_changes AS c WHERE c.container_id = p_container_id);
        asked := public.missing_claims(found_id, p_claims);
    END IF;
END
$$;


--
-- Name: FUNCTION storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text) IS 'The quota of storage of a namespace, as the caller sees it, and what claims of a container ask of it; null: no limit.';


--
-- Name: taken_hosts(text, bigint, text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('hosts/' || p_cluster, 0));
    RETURN (
        SELECT coalesce(array_agg(h.host), '{}')
        FROM unnest(p_hosts) AS h(host)
        WHERE EXISTS (
            SELECT FROM public.namespaces AS n, unnest(n.allowed_hosts) AS o(host)
            WHERE n.cluster_name = p_cluster AND n.deleted_at IS NULL AND n.id IS DISTINCT FROM p_namespace_id
                AND public.hosts_overlap(h.host, o.host)));
END
$$;


--
-- Name: FUNCTION taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]) IS 'Those patterns that overlap hosts of another namespace of the cluster.';


--
-- Name: update_container(jsonb, jsonb, jsonb, jsonb, text[], bigint, numeric[], text[], text[], text[], jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    c public.containers := jsonb_populate_record(NULL::public.containers, p_container);
    caller bigint := public.app_user_id();
    deleting boolean := (p_container ->> 'deleting')::boolean;
    v_image_id bigint;
BEGIN
    IF p_namespace_version IS NOT NULL THEN
        PERFORM public.lock_facts(c.namespace_id, c.id, c.quota_cpu_millicores, c.quota_memory_bytes,
            p_namespace_version, p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    END IF;
    IF p_container ? 'image' THEN
        v_image_id := public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}');
    END IF;
    UPDATE public.containers AS t
    SET display_name = c.display_name, cpu_request = c.cpu_request, cpu_limit = c.cpu_limit,
        memory_request = c.memory_request, memory_limit = c.memory_limit, labels = c.labels,
        annotations = c.annotations, spec = c.spec, desired_state = c.desired_state, replicas = c.replicas,
        drift_policy = c.drift_policy, hold_rollout = c.hold_rollout, restart_requested_at = c.restart_requested_at,
        status = c.status, reason = c.reason, message = c.message, generation = c.generation,
        kubernetes_name = coalesce(c.kubernetes_name, t.kubernetes_name),
        image_id = coalesce(v_image_id, t.image_id),
        revision_number = coalesce((p_container #>> '{revision,number}')::integer, t.revision_number),
        quota_cpu_millicores = coalesce(c.quota_cpu_millicores, t.quota_cpu_millicores),
        quota_memory_bytes = coalesce(c.quota_memory_bytes, t.quota_memory_bytes),
        deletion_requested_at = CASE WHEN deleting THEN coalesce(c.updated_at, now()) ELSE t.deletion_requested_at END,
        resource_version = t.resource_version + 1, updated_at = coalesce(c.updated_at, now()), updated_by = caller
    WHERE t.id = c.id AND t.row_version = c.row_version
    RETURNING t.row_version, t.resource_version, t.updated_at
    INTO new_row_version, new_resource_version, moment;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the container');
    END IF;
    IF p_parts IS NOT NULL THEN
        DELETE FROM public.environment_variables AS e WHERE e.container_id = c.id;
        DELETE FROM public.port_mappings AS p WHERE p.container_id = c.id;
        DELETE FROM public.container_volumes AS m WHERE m.container_id = c.id;
        PERFORM public.write_container_parts(c.id, c.namespace_id, p_parts -> 'env', p_parts -> 'ports',
            p_parts -> 'mounts');
    END IF;
    IF cardinality(p_services) > 0 AND p_limits[4] IS NOT NULL THEN
        IF public.count_services(c.namespace_id) > p_limits[4] THEN
            PERFORM public.refuse_outdated('what the quota leaves');
        END IF;
    END IF;
    -- A server writes the rows and events of its Services in another transaction. Servers of 0.2 do not say whether
    -- they changed.
    IF coalesce((p_container ->> 'services_changed')::boolean, true) THEN
        INSERT INTO public.service_changes (container_id, namespace_id) VALUES (c.id, c.namespace_id);
    END IF;
    IF p_container ? 'claims' THEN
        -- The note for the present claims takes the place of one that no server has seen yet. A server that writes the
        -- rows at this moment has locked that one, and its rows are seen afterwards.
        DELETE FROM public.claim_changes AS n WHERE n.container_id = c.id;
        INSERT INTO public.claim_changes (container_id, namespace_id, storage_bytes)
        VALUES (c.id, c.namespace_id, public.missing_claims(c.namespace_id, p_container -> 'claims'));
        IF p_limits[5] IS NOT NULL THEN
            IF public.count_storage(c.namespace_id) > p_limits[5] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
    END IF;
    -- Before the history, which refers to the operation. Others of the same unit of work belong to it, too.
    IF p_operation IS NOT NULL THEN
        INSERT INTO public.operations
            (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
        SELECT o.operation_id, caller, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
        FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
        ON CONFLICT (operation_id) DO NOTHING;
    END IF;
    IF p_history IS NOT NULL THEN
        INSERT INTO public.container_status_history
            (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by, user_id,
            operation_id)
        SELECT c.id, c.namespace_id, h.previous_status, h.current_status, h.reason, h.message, h.triggered_by, caller,
               (p_operation ->> 'operation_id')::uuid
        FROM jsonb_populate_record(NULL::public.container_status_history, p_history) AS h;
    END IF;
    -- Only where the desired state differs; servers of 0.2 send none.
    IF p_container ? 'revision' THEN
        PERFORM public.write_revision('container', c.id, c.namespace_id, p_container -> 'revision');
    END IF;
    INSERT INTO public.reconcile_work AS w
        (resource_type, resource_id, cluster_name, namespace_id, going, due_at)
    VALUES ('container', c.id, p_container ->> 'cluster_name', c.namespace_id, deleting, clock_timestamp())
    ON CONFLICT (resource_type, resource_id) DO UPDATE
    SET due_at = LEAST(w.due_at, EXCLUDED.due_at), going = EXCLUDED.going, attempts = 0, updated_at = clock_timestamp();
    IF cardinality(p_mounted) > 0 THEN
        INSERT INTO public.mount_changes (volume_id, namespace_id)
        SELECT v.id, v.namespace_id FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name = ANY (p_mounted);
    END IF;
END
$$;


--
-- Name: FUNCTION update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone) IS 'Changes what is wanted of a container, with all that belongs to the change but its record.';


--
-- Name: usage_rolled_until(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.usage_rolled_until() RETURNS TABLE(hour timestamp with time zone, day timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT (SELECT max(bucket) FROM public.container_usage_hourly),
       (SELECT max(bucket) FROM public.container_usage_daily)
$$;


--
-- Name: FUNCTION usage_rolled_until(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.usage_rolled_until() IS 'The newest hour and the newest day that are rolled up, whoever they are of.';


--
-- Name: version_of_cluster(bigint, text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.version_of_cluster(p_user_id bigint, p_namespace text, OUT version text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('app.current_user_id', p_user_id::text, true);
    PERFORM set_config('app.reach', public.app_reach(), true);
    SELECT c.version INTO version
    FROM public.namespaces AS n JOIN public.clusters AS c ON c.name = n.cluster_name
    WHERE n.name = p_namespace AND n.deleted_at IS NULL;
END
$$;


--
-- Name: FUNCTION version_of_cluster(p_user_id bigint, p_namespace text, OUT version text); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.version_of_cluster(p_user_id bigint, p_namespace text, OUT version text) IS 'The version of Kubernetes that the cluster of a namespace had last, as the caller sees it; null: not known.';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: volumes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.volumes (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(253) NOT NULL,
    namespace_id bigint NOT NULL,
    type character varying(50) NOT NULL,
    storage_class character varying(100),
    size character varying(20),
    capacity character varying(20),
    access_mode character varying(20),
    mount_path character varying(500),
    host_path character varying(500),
    source_name character varying(253),
    kubernetes_name character varying(253),
    status character varying(20) DEFAULT 'available'::character varying NOT NULL,
    reason character varying(100),
    message text,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    spec jsonb DEFAULT '{}'::jsonb NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    stale_since timestamp with time zone,
    taken_over character varying(64),
    claim_uid character varying(64),
    persistent_volume character varying(253),
    claim_storage_class character varying(253),
    row_version bigint DEFAULT 1 NOT NULL,
    owner character varying(63),
    owner_id bigint,
    CONSTRAINT ck_volumes_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_volumes_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_volumes_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_volumes_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_volumes_spec CHECK ((jsonb_typeof(spec) = 'object'::text)),
    CONSTRAINT ck_volumes_status CHECK (((status)::text = ANY ((ARRAY['available'::character varying, 'bound'::character varying, 'failed'::character varying, 'deleted'::character varying])::text[]))),
    CONSTRAINT ck_volumes_type CHECK (((type)::text = ANY ((ARRAY['persistent_volume_claim'::character varying, 'config_map'::character varying, 'secret'::character varying, 'host_path'::character varying, 'empty_dir'::character varying])::text[])))
);

ALTER TABLE ONLY public.volumes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE volumes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.volumes IS 'Storage that containers of a namespace can mount.';


--
-- Name: COLUMN volumes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN volumes.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN volumes.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.name IS 'Name of the volume in its namespace.';


--
-- Name: COLUMN volumes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.namespace_id IS 'Namespace of the volume.';


--
-- Name: COLUMN volumes.type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.type IS 'Kind of volume.';


--
-- Name: COLUMN volumes.storage_class; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.storage_class IS 'Requested storage class; null: the cluster''s default.';


--
-- Name: COLUMN volumes.size; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.size IS 'Desired size, a Kubernetes quantity; capacity is the actual one.';


--
-- Name: COLUMN volumes.capacity; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.capacity IS 'Size that the cluster gave.';


--
-- Name: COLUMN volumes.access_mode; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.access_mode IS 'Access mode, as in Kubernetes.';


--
-- Name: COLUMN volumes.mount_path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.mount_path IS 'Default path for mounts.';


--
-- Name: COLUMN volumes.host_path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.host_path IS 'Folder of the node, for host_path.';


--
-- Name: COLUMN volumes.source_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.source_name IS 'The config map or secret of a volume of that type.';


--
-- Name: COLUMN volumes.kubernetes_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.kubernetes_name IS 'Name of the claim on the cluster; null: it has none.';


--
-- Name: COLUMN volumes.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.status IS 'State on the cluster, as observed.';


--
-- Name: COLUMN volumes.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN volumes.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN volumes.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN volumes.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN volumes.spec; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.spec IS 'Desired fields without a column.';


--
-- Name: COLUMN volumes.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN volumes.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN volumes.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN volumes.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN volumes.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.created_at IS 'When the row was created.';


--
-- Name: COLUMN volumes.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN volumes.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN volumes.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN volumes.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN volumes.stale_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.stale_since IS 'Since when the observed state is old, because the cluster is unreachable.';


--
-- Name: COLUMN volumes.taken_over; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.taken_over IS 'uid of the claim that was on the cluster before; null: we created it.';


--
-- Name: COLUMN volumes.claim_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.claim_uid IS 'uid of the claim when it was last seen on the cluster.';


--
-- Name: COLUMN volumes.persistent_volume; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.persistent_volume IS 'The PersistentVolume that the claim was last seen bound to.';


--
-- Name: COLUMN volumes.claim_storage_class; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.claim_storage_class IS 'Storage class of the claim when it was last seen on the cluster.';


--
-- Name: COLUMN volumes.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: COLUMN volumes.owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.owner IS 'Name of the container whose template makes the claim; null: it stands by itself.';


--
-- Name: COLUMN volumes.owner_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.volumes.owner_id IS 'That container; null: it is gone, or there is none.';


--
-- Name: volume_definition(public.volumes); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.volume_definition(p_volume public.volumes) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN jsonb_strip_nulls(jsonb_build_object('name', (p_volume).name, 'type', (p_volume).type, 'kubernetes_name', (p_volume).kubernetes_name, 'source_name', (p_volume).source_name, 'host_path', (p_volume).host_path, 'size', (p_volume).size, 'access_mode', (p_volume).access_mode, 'medium', ((p_volume).spec ->> 'medium'::text), 'optional', ((p_volume).spec -> 'optional'::text), 'external', ((p_volume).spec -> 'external'::text)));


--
-- Name: FUNCTION volume_definition(p_volume public.volumes); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.volume_definition(p_volume public.volumes) IS 'A volume as the containers that mount it have it.';


--
-- Name: wake_services(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.wake_services() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO public.reconcile_work AS work
        (resource_type, resource_id, cluster_name, namespace_id, going, due_at)
    SELECT 'service', s.id, n.cluster_name, s.namespace_id, false, clock_timestamp()
    FROM public.services AS s JOIN public.namespaces AS n ON n.id = s.namespace_id
    WHERE s.namespace_id = new.namespace_id AND s.spec -> 'containers' ->> 0 = new.name
      AND s.deletion_requested_at IS NULL
    ON CONFLICT (resource_type, resource_id) DO UPDATE
    SET due_at = LEAST(work.due_at, EXCLUDED.due_at), attempts = 0, updated_at = clock_timestamp();
    RETURN NULL;
END
$$;


--
-- Name: FUNCTION wake_services(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.wake_services() IS 'Has the Services that name a new container reconciled.';


--
-- Name: work_is_due(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.work_is_due() RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM public.clusters AS c
        CROSS JOIN LATERAL (
            SELECT FROM public.reconcile_work AS w
            WHERE w.cluster_name = c.name AND w.due_at <= statement_timestamp()
              AND (w.leased_until IS NULL OR w.leased_until <= statement_timestamp())
            ORDER BY w.due_at LIMIT 1) AS one);
END
$$;


--
-- Name: FUNCTION work_is_due(); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.work_is_due() IS 'Whether work for the reconciler is due and not leased.';


--
-- Name: write_applied(bigint[], bigint[], text[], bigint[], double precision[], jsonb, jsonb, jsonb, bytea[], text[]); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]) RETURNS TABLE(id bigint, lost boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
    v_same bigint[];
    v_held bigint[];
BEGIN
    SELECT coalesce(array_agg(s.id), '{}') INTO v_same FROM (
        SELECT c.id FROM public.containers AS c
        JOIN unnest(p_ids, p_row_versions) AS w(id, row_version) ON w.id = c.id AND w.row_version = c.row_version
        ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED) AS s;
    SELECT coalesce(array_agg(h.resource_id), '{}') INTO v_held FROM (
        SELECT w.resource_id FROM public.reconcile_work AS w
        JOIN unnest(p_ids, p_epochs, p_owners) AS l(id, epoch, owner)
          ON l.id = w.resource_id AND l.epoch = w.lease_epoch AND l.owner = w.lease_owner
        WHERE w.resource_type = 'container' AND w.resource_id = ANY (v_same)
        ORDER BY w.resource_id FOR UPDATE OF w) AS h;
    PERFORM public.write_observed(v_held, p_rows, p_history);
    PERFORM public.release_work(array_agg('container'::text), array_agg(d.id), array_agg(d.epoch), array_agg(d.owner),
        array_agg(d.seconds), array_agg(0), array_agg(NULL::text), array_agg(d.objects))
    FROM unnest(p_ids, p_epochs, p_owners, p_seconds, p_objects) AS d(id, epoch, owner, seconds, objects)
    WHERE d.id = ANY (v_held);
    IF cardinality(v_held) < cardinality(p_ids) THEN
        SELECT coalesce(jsonb_agg(e.value ORDER BY e.position), '[]'),
               coalesce(array_agg(p_messages[e.position] ORDER BY e.position), '{}')
        INTO p_events, p_messages
        FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e(value, position)
        WHERE (e.value ->> 'resource_id')::bigint = ANY (v_held);
    END IF;
    IF p_events <> '[]' THEN
        PERFORM public.put_changes('[]', '{}', p_events, p_messages);
    END IF;
    RETURN QUERY SELECT s.id, NOT s.id = ANY (v_held) FROM unnest(v_same) AS s(id);
END
$$;


--
-- Name: FUNCTION write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]) IS 'Writes what came of applying containers, of those that are as they were loaded; returns them, and what was lost.';


--
-- Name: write_container(jsonb, jsonb, jsonb, jsonb, jsonb, bigint, numeric[], text[], text[], text[], jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
DECLARE
    c public.containers := jsonb_populate_record(NULL::public.containers, p_container);
    caller bigint := public.app_user_id();
    cluster text;
BEGIN
    cluster := public.lock_facts(c.namespace_id, c.id, c.quota_cpu_millicores, c.quota_memory_bytes,
        p_namespace_version, p_limits, p_services, p_config_maps, p_secrets, p_volumes);
    INSERT INTO public.containers (
        id, uid, name, display_name, namespace_id, image_id, kubernetes_name, cpu_request, cpu_limit,
        memory_request, memory_limit, created_at, updated_at, created_by, updated_by, labels, annotations, spec,
        desired_state, replicas, quota_cpu_millicores, quota_memory_bytes, drift_policy, hold_rollout,
        restart_requested_at, imported, revision_number)
    VALUES (
        c.id, c.uid, c.name, c.display_name, c.namespace_id,
        public.register_image(p_container #>> '{image,repository}', p_container #>> '{image,name}',
            p_container #>> '{image,tag}', p_container #>> '{image,digest}'),
        c.kubernetes_name, c.cpu_request, c.cpu_limit, c.memory_request, c.memory_limit, c.created_at,
        c.updated_at, caller, caller, c.labels, c.annotations, c.spec, c.desired_state, c.replicas,
        c.quota_cpu_millicores, c.quota_memory_bytes, c.drift_policy, c.hold_rollout, c.restart_requested_at,
        c.imported, coalesce((p_container #>> '{revision,number}')::integer, 0))
    ON CONFLICT ON CONSTRAINT uq_containers_name DO NOTHING;
    IF NOT FOUND THEN
        PERFORM public.refuse_outdated('the name');
    END IF;
    PERFORM public.write_container_parts(c.id, c.namespace_id, p_env, p_ports, p_mounts);
    IF p_volumes IS NOT NULL THEN
        -- The volume shows its containers: a server writes its event in another transaction.
        INSERT INTO public.mount_changes (volume_id, namespace_id)
        SELECT v.id, v.namespace_id FROM public.volumes AS v
        WHERE v.namespace_id = c.namespace_id AND v.name IN (SELECT d ->> 'name' FROM jsonb_array_elements(p_volumes) AS d);
    END IF;
    IF cardinality(p_services) > 0 THEN
        IF p_limits[4] IS NOT NULL THEN
            IF public.count_services(c.namespace_id) > p_limits[4] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
        -- A server writes the rows and events of its Services in another transaction.
        INSERT INTO public.service_changes (container_id, namespace_id) VALUES (c.id, c.namespace_id);
    END IF;
    IF p_container ? 'claims' THEN
        -- A server writes the rows and events of the claims in another transaction.
        INSERT INTO public.claim_changes (container_id, namespace_id, storage_bytes)
        VALUES (c.id, c.namespace_id, public.missing_claims(c.namespace_id, p_container -> 'claims'));
        IF p_limits[5] IS NOT NULL THEN
            IF public.count_storage(c.namespace_id) > p_limits[5] THEN
                PERFORM public.refuse_outdated('what the quota leaves');
            END IF;
        END IF;
    END IF;
    -- Before the history, which refers to the operation. Others of the same unit of work belong to it, too.
    INSERT INTO public.operations
        (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
    SELECT o.operation_id, caller, o.method, o.resource_type, o.resource_id, o.namespace_id, o.request_id
    FROM jsonb_populate_record(NULL::public.operations, p_operation) AS o
    ON CONFLICT (operation_id) DO NOTHING;
    INSERT INTO public.container_status_history
        (container_id, namespace_id, current_status, triggered_by, user_id, operation_id)
    VALUES (c.id, c.namespace_id, 'pending', 'user', caller, (p_operation ->> 'operation_id')::uuid);
    -- Servers of 0.2 send none.
    IF p_container ? 'revision' THEN
        PERFORM public.write_revision('container', c.id, c.namespace_id, p_container -> 'revision');
    END IF;
    INSERT INTO public.reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    VALUES ('container', c.id, cluster, c.namespace_id, clock_timestamp());
END
$$;


--
-- Name: FUNCTION write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb) IS 'Makes a container that was admitted, with all that belongs to it but its record; refuses what is outdated.';


--
-- Name: write_container_parts(bigint, bigint, jsonb, jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF p_env IS NOT NULL THEN
        INSERT INTO public.environment_variables
            (container_id, namespace_id, position, name, value, value_from, source_name, source_key, optional, external)
        SELECT p_container_id, p_namespace_id, e.position, e.name, e.value, e.value_from, e.source_name, e.source_key,
               e.optional, coalesce(e.external, false)
        FROM jsonb_to_recordset(p_env) AS e(
            position int, name text, value text, value_from text, source_name text, source_key text,
            optional boolean, external boolean);
    END IF;
    IF p_ports IS NOT NULL THEN
        INSERT INTO public.port_mappings (container_id, namespace_id, name, container_port, host_port, protocol,
            app_protocol, service_type, service_name, service_port, node_port)
        SELECT p_container_id, p_namespace_id, r.name, r.container_port, r.host_port, r.protocol, r.app_protocol,
               r.service_type, r.service_name, r.service_port, r.node_port
        FROM ROWS FROM (jsonb_to_recordset(p_ports) AS (
            name text, container_port int, host_port int, protocol text, app_protocol text, service_type text,
            service_name text, service_port int, node_port int)) WITH ORDINALITY AS r
        ORDER BY r.ordinality;
    END IF;
    IF p_mounts IS NOT NULL THEN
        -- A container and its init container may mount the same volume in the same place: one row stands for both.
        INSERT INTO public.container_volumes (container_id, volume_id, namespace_id, mount_path, read_only, sub_path)
        SELECT p_container_id, v.id, p_namespace_id, m.mount_path, m.read_only, m.sub_path
        FROM jsonb_to_recordset(p_mounts) AS m(volume text, mount_path text, read_only boolean, sub_path text)
        JOIN public.volumes AS v ON v.namespace_id = p_namespace_id AND v.name = m.volume
        ON CONFLICT ON CONSTRAINT uq_container_volumes_mount DO NOTHING;
    END IF;
END
$$;


--
-- Name: FUNCTION write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb) IS 'Writes the rows of a container that belong to its own.';


--
-- Name: write_observed(bigint[], jsonb, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    UPDATE public.containers AS c
    SET status = r.status, phase = nullif(r.phase, ''), reason = nullif(r.reason, ''),
        message = nullif(r.message, ''), ready_replicas = r.ready_replicas,
        observed_replicas = coalesce(r.observed_replicas, c.observed_replicas),
        deployment_name = nullif(r.deployment_name, ''), replica_set_name = nullif(r.replica_set_name, ''),
        pod_name = nullif(r.pod_name, ''), pod_ip = nullif(r.pod_ip, ''), host_ip = nullif(r.host_ip, ''),
        restart_count = r.restart_count, started_at = r.started_at, finished_at = r.finished_at,
        conditions = r.conditions, programs = coalesce(r.programs, '[]'), stale_since = r.stale_since,
        observed_generation = r.observed_generation, updated_at = coalesce(r.updated_at, now())
    FROM jsonb_populate_recordset(NULL::public.containers, p_rows) AS r
    WHERE c.id = r.id AND r.id = ANY (p_ids);
    IF p_history <> '[]' THEN
        INSERT INTO public.container_status_history
            (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by)
        SELECT h.container_id, h.namespace_id, h.previous_status, h.current_status, nullif(h.reason, ''),
            nullif(h.message, ''), h.triggered_by
        FROM jsonb_populate_recordset(NULL::public.container_status_history, p_history) AS h
        WHERE h.container_id = ANY (p_ids);
    END IF;
END
$$;


--
-- Name: FUNCTION write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb) IS 'Writes the state of containers on their cluster, with its history.';


--
-- Name: write_program_images(bigint, bigint, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    wanted jsonb := coalesce(p_spec -> 'sidecars', '[]') || coalesce(p_spec -> 'init_containers', '[]');
BEGIN
    DELETE FROM public.program_images AS p
    WHERE p.container_id = p_container_id AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(wanted) AS w(name text, image text)
        WHERE w.name = p.program AND w.image = p.image);
    INSERT INTO public.program_images (container_id, namespace_id, program, image, image_id)
    SELECT p_container_id, p_namespace_id, w.name, w.image, public.register_image(
        substring(t.path FROM '^(.*)/[^/]*$'),
        substring(t.path FROM '[^/]*$'),
        -- As every runtime takes it.
        coalesce(t.tag, CASE WHEN t.digest IS NULL THEN 'latest' END),
        t.digest)
    FROM jsonb_to_recordset(wanted) AS w(name text, image text)
    CROSS JOIN LATERAL (
        SELECT regexp_replace(split_part(w.image, '@', 1), ':[^:/]*$', '') AS path,
               substring(split_part(w.image, '@', 1) FROM ':([^:/]*)$') AS tag,
               nullif(split_part(w.image, '@', 2), '') AS digest) AS t
    -- In one order, because several transactions may register the same images.
    ORDER BY w.image
    ON CONFLICT ON CONSTRAINT pk_program_images DO NOTHING;
END
$_$;


--
-- Name: FUNCTION write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb) IS 'Writes the images of the sidecars and init containers of a container.';


--
-- Name: write_revision(text, bigint, bigint, jsonb); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    newest integer := (p_revision ->> 'number')::integer;
    last integer;
    bytes bigint;
    most_bytes CONSTANT bigint := 4 * 1024 * 1024;
BEGIN
    IF newest IS NULL THEN
        SELECT max(r.number) INTO last FROM public.revisions AS r WHERE r.resource_type = p_type AND r.resource_id = p_id;
        IF last IS NULL AND p_revision ? 'before' THEN
            newest := 2;
        ELSE
            newest := coalesce(last, 0) + 1;
            p_revision := p_revision - 'before';
        END IF;
    END IF;
    IF p_revision ? 'before' THEN
        INSERT INTO public.revisions (resource_type, resource_id, namespace_id, number, document, created_at)
        VALUES (p_type, p_id, p_namespace_id, newest - 1, p_revision -> 'before',
            (p_revision ->> 'before_at')::timestamptz);
    END IF;
    INSERT INTO public.revisions
        (resource_type, resource_id, namespace_id, number, document, origin, operation_id, created_by)
    VALUES (p_type, p_id, p_namespace_id, newest, p_revision -> 'document', (p_revision ->> 'origin')::integer,
        (p_revision ->> 'operation_id')::uuid, public.app_user_id());
    IF newest = 1 THEN
        RETURN;
    END IF;
    DELETE FROM public.revisions AS r
    WHERE r.resource_type = p_type AND r.resource_id = p_id AND r.number <= newest - (p_revision ->> 'kept')::integer;
    -- Few have large documents: what each has is summed up only where all together are too large.
    SELECT sum(pg_column_size(r.document)) INTO bytes
    FROM public.revisions AS r WHERE r.resource_type = p_type AND r.resource_id = p_id;
    IF p_type IN ('secret', 'application') THEN
        SELECT bytes + coalesce(sum(length(v.ciphertext)), 0) INTO bytes
        FROM public.revisions AS r JOIN public.revision_values AS v ON v.revision_id = r.id
        WHERE r.resource_type = p_type AND r.resource_id = p_id;
    END IF;
    IF bytes > most_bytes THEN
        DELETE FROM public.revisions AS r
        USING (
            SELECT k.id, k.number, sum(pg_column_size(k.document) + v.bytes) OVER (ORDER BY k.number DESC) AS bytes
            FROM public.revisions AS k
            CROSS JOIN LATERAL (
                SELECT coalesce(sum(length(w.ciphertext)), 0) AS bytes
                FROM public.revision_values AS w WHERE w.revision_id = k.id) AS v
            WHERE k.resource_type = p_type AND k.resource_id = p_id) AS o
        WHERE r.id = o.id AND o.number < newest AND o.bytes > most_bytes;
    END IF;
END
$$;


--
-- Name: FUNCTION write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb); Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON FUNCTION public.write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb) IS 'Adds the newest revision of a resource, and deletes those beyond its limits.';


--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

ALTER TABLE ONLY public.alembic_version FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE alembic_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.alembic_version IS 'The newest applied migration.';


--
-- Name: COLUMN alembic_version.version_num; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.alembic_version.version_num IS 'Its id; no row: none is applied.';


--
-- Name: api_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.api_keys (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    name character varying(100) NOT NULL,
    key_hash bytea NOT NULL,
    prefix character varying(16) NOT NULL,
    permissions jsonb,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    account_namespace_id bigint,
    namespace_ids bigint[],
    read_only boolean DEFAULT false NOT NULL,
    allowed_networks text[] DEFAULT '{}'::text[] NOT NULL,
    last_used_ip character varying(45),
    rotated_at timestamp with time zone,
    created_by bigint,
    CONSTRAINT ck_api_keys_expires_at CHECK ((expires_at IS NOT NULL)),
    CONSTRAINT ck_api_keys_permissions CHECK ((jsonb_typeof(permissions) = 'array'::text))
);

ALTER TABLE ONLY public.api_keys FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE api_keys; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.api_keys IS 'Long-lived keys of a user, kept as SHA-256, revocable one by one.';


--
-- Name: COLUMN api_keys.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN api_keys.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.user_id IS 'The user it belongs to.';


--
-- Name: COLUMN api_keys.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.name IS 'Name of the key, unique among those of its user that are in use.';


--
-- Name: COLUMN api_keys.key_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.key_hash IS 'SHA-256 of the key.';


--
-- Name: COLUMN api_keys.prefix; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.prefix IS 'The first characters of the key, to recognise it by.';


--
-- Name: COLUMN api_keys.permissions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.permissions IS 'Limits the permissions of its user; null: all of them.';


--
-- Name: COLUMN api_keys.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.expires_at IS 'When the key stops working.';


--
-- Name: COLUMN api_keys.last_used_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.last_used_at IS 'When the key was last used; written at intervals.';


--
-- Name: COLUMN api_keys.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.created_at IS 'When the row was created.';


--
-- Name: COLUMN api_keys.revoked_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.revoked_at IS 'When the key was revoked.';


--
-- Name: COLUMN api_keys.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN api_keys.account_namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.account_namespace_id IS 'Namespace of the service account that has the key; null: none.';


--
-- Name: COLUMN api_keys.namespace_ids; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.namespace_ids IS 'Limits the key to these namespaces; null: to those of its user.';


--
-- Name: COLUMN api_keys.read_only; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.read_only IS 'Whether the key may only read.';


--
-- Name: COLUMN api_keys.allowed_networks; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.allowed_networks IS 'Networks the key works from, as CIDR; empty: everywhere.';


--
-- Name: COLUMN api_keys.last_used_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.last_used_ip IS 'Address the key was last used from.';


--
-- Name: COLUMN api_keys.rotated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.rotated_at IS 'When a successor was made; the key works until expires_at.';


--
-- Name: COLUMN api_keys.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.created_by IS 'User who created it; null: the system.';


--
-- Name: api_keys_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.api_keys ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.api_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: application_changes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.application_changes (
    id bigint NOT NULL,
    application_id bigint NOT NULL,
    namespace_id bigint NOT NULL
);

ALTER TABLE ONLY public.application_changes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE application_changes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.application_changes IS 'Applications with a changed member, until a server has written their status.';


--
-- Name: COLUMN application_changes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_changes.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN application_changes.application_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_changes.application_id IS 'The application; its row may be gone.';


--
-- Name: COLUMN application_changes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_changes.namespace_id IS 'The namespace of the application.';


--
-- Name: application_changes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.application_changes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.application_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: application_documents; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.application_documents (
    id bigint NOT NULL,
    application_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    digest character varying(64) NOT NULL,
    document text NOT NULL
);

ALTER TABLE ONLY public.application_documents FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE application_documents; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.application_documents IS 'Documents of revisions of applications, equal ones once; no Secrets.';


--
-- Name: COLUMN application_documents.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_documents.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN application_documents.application_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_documents.application_id IS 'The application it belongs to.';


--
-- Name: COLUMN application_documents.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_documents.namespace_id IS 'The namespace of the application.';


--
-- Name: COLUMN application_documents.digest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_documents.digest IS 'SHA-256 of the document in hexadecimal; revisions name it.';


--
-- Name: COLUMN application_documents.document; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_documents.document IS 'The document as JSON text.';


--
-- Name: application_documents_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.application_documents ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.application_documents_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: application_members; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.application_members (
    id bigint NOT NULL,
    application_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    resource_type character varying(50) NOT NULL,
    api_group character varying(253) DEFAULT ''::character varying NOT NULL,
    object_kind character varying(63) DEFAULT ''::character varying NOT NULL,
    name character varying(253) NOT NULL,
    api_version character varying(317) NOT NULL,
    kind character varying(63) NOT NULL,
    generation bigint NOT NULL,
    phase character varying(20) DEFAULT 'sync'::character varying NOT NULL,
    wave integer DEFAULT 0 NOT NULL,
    step integer DEFAULT 0 NOT NULL,
    hook boolean DEFAULT false NOT NULL,
    pruned boolean DEFAULT false NOT NULL,
    delete_on jsonb DEFAULT '[]'::jsonb NOT NULL,
    outcome character varying(20),
    outcome_reason character varying(100),
    outcome_message text
);

ALTER TABLE ONLY public.application_members FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE application_members; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.application_members IS 'Objects of applications; each belongs to one at most.';


--
-- Name: COLUMN application_members.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN application_members.application_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.application_id IS 'The application it belongs to.';


--
-- Name: COLUMN application_members.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.namespace_id IS 'The namespace of both.';


--
-- Name: COLUMN application_members.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN application_members.api_group; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.api_group IS 'Group of a carried object; else empty.';


--
-- Name: COLUMN application_members.object_kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.object_kind IS 'Kind of a carried object; else empty.';


--
-- Name: COLUMN application_members.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.name IS 'Name of the resource in its namespace.';


--
-- Name: COLUMN application_members.api_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.api_version IS 'Group and version in its document.';


--
-- Name: COLUMN application_members.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.kind IS 'Kind in its document.';


--
-- Name: COLUMN application_members.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.generation IS 'Its generation when the newest revision was written.';


--
-- Name: COLUMN application_members.phase; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.phase IS 'Phase in which it is applied.';


--
-- Name: COLUMN application_members.wave; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.wave IS 'Wave within its phase.';


--
-- Name: COLUMN application_members.step; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.step IS 'Place of its phase and wave among those of the revision, from 0.';


--
-- Name: COLUMN application_members.hook; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.hook IS 'Whether it is a hook.';


--
-- Name: COLUMN application_members.pruned; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.pruned IS 'Whether it is deleted at its step, because no document names it.';


--
-- Name: COLUMN application_members.delete_on; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.delete_on IS 'Outcomes of a hook after which it is deleted.';


--
-- Name: COLUMN application_members.outcome; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.outcome IS 'How a hook ended: succeeded, failed (and deleted for that), or skipped; null: its object shows it.';


--
-- Name: COLUMN application_members.outcome_reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.outcome_reason IS 'Reason of a failed hook, a word.';


--
-- Name: COLUMN application_members.outcome_message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.application_members.outcome_message IS 'Reason of a failed hook, in words.';


--
-- Name: application_members_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.application_members ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.application_members_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: applications; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.applications (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(63) NOT NULL,
    namespace_id bigint NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    revision_number integer DEFAULT 0 NOT NULL,
    revisions_kept integer DEFAULT 20 NOT NULL,
    rollback_on_failure boolean DEFAULT false NOT NULL,
    progress_deadline_seconds integer DEFAULT 0 NOT NULL,
    status character varying(20) DEFAULT 'progressing'::character varying NOT NULL,
    reason character varying(100),
    message text,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    row_version bigint DEFAULT 1 NOT NULL,
    healthy_since timestamp with time zone,
    deadline_at timestamp with time zone,
    look_at timestamp with time zone,
    not_rolled_back text,
    step integer DEFAULT 0 NOT NULL,
    installed boolean DEFAULT true NOT NULL,
    CONSTRAINT ck_applications_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_applications_revisions_kept CHECK (((revisions_kept >= 1) AND (revisions_kept <= 100)))
);

ALTER TABLE ONLY public.applications FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE applications; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.applications IS 'Applications: objects of a namespace that change together.';


--
-- Name: COLUMN applications.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN applications.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN applications.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.name IS 'Name of the application in its namespace.';


--
-- Name: COLUMN applications.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN applications.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.labels IS 'Labels of the application itself.';


--
-- Name: COLUMN applications.revision_number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.revision_number IS 'Number of its newest row in revisions.';


--
-- Name: COLUMN applications.revisions_kept; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.revisions_kept IS 'Number of revisions that are kept.';


--
-- Name: COLUMN applications.rollback_on_failure; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.rollback_on_failure IS 'Whether the newest revision is rolled back if it fails.';


--
-- Name: COLUMN applications.progress_deadline_seconds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.progress_deadline_seconds IS 'Seconds for the newest revision; 0: the default.';


--
-- Name: COLUMN applications.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.status IS 'Health, as last computed from the members.';


--
-- Name: COLUMN applications.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN applications.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN applications.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.resource_version IS 'Raised by each change that users make; the etag is made from it.';


--
-- Name: COLUMN applications.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.created_at IS 'When the row was created.';


--
-- Name: COLUMN applications.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN applications.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN applications.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN applications.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: COLUMN applications.healthy_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.healthy_since IS 'Since when all members are healthy; null: they are not.';


--
-- Name: COLUMN applications.deadline_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.deadline_at IS 'Until when the newest revision may become healthy before it is rolled back; null: it is not rolled back.';


--
-- Name: COLUMN applications.look_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.look_at IS 'When its status may change though no member does; null: never.';


--
-- Name: COLUMN applications.not_rolled_back; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.not_rolled_back IS 'Why the newest revision, which failed, was not rolled back.';


--
-- Name: COLUMN applications.step; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.step IS 'Step that the newest revision has come to; members of later ones wait.';


--
-- Name: COLUMN applications.installed; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.applications.installed IS 'Whether a revision has come to its phase Sync, so that hooks of an upgrade run and those of an install do not.';


--
-- Name: applications_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.applications ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.applications_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: audit_seals; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_seals (
    size bigint NOT NULL,
    root bytea NOT NULL,
    note text NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT ck_audit_seals_root CHECK ((octet_length(root) = 32)),
    CONSTRAINT ck_audit_seals_size CHECK ((size > 0))
);

ALTER TABLE ONLY public.audit_seals FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE audit_seals; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_seals IS 'Heads of the tree over the audit log, as they were signed.';


--
-- Name: COLUMN audit_seals.size; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_seals.size IS 'Leaves of the tree: one for each record.';


--
-- Name: COLUMN audit_seals.root; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_seals.root IS 'Root of the tree of that size, by RFC 6962.';


--
-- Name: COLUMN audit_seals.note; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_seals.note IS 'The head as a signed note (C2SP tlog-checkpoint), with what witnesses signed.';


--
-- Name: COLUMN audit_seals.sealed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_seals.sealed_at IS 'When the head was signed.';


--
-- Name: audit_sinks; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_sinks (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(63) NOT NULL,
    kind character varying(10) NOT NULL,
    format character varying(20) DEFAULT 'ocsf'::character varying NOT NULL,
    address character varying(2048) NOT NULL,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    required boolean DEFAULT false NOT NULL,
    secrets bytea,
    data_key bytea,
    key_id character varying(64),
    "position" bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    status character varying(10) DEFAULT 'pending'::character varying NOT NULL,
    reason character varying(50),
    message text,
    attempts integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT now() NOT NULL,
    failing_since timestamp with time zone,
    last_delivered_at timestamp with time zone,
    lease_owner character varying(100),
    lease_epoch bigint DEFAULT 0 NOT NULL,
    leased_until timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    CONSTRAINT ck_audit_sinks_attempts CHECK ((attempts >= 0)),
    CONSTRAINT ck_audit_sinks_options CHECK ((jsonb_typeof(options) = 'object'::text)),
    CONSTRAINT ck_audit_sinks_position CHECK (("position" >= 0)),
    CONSTRAINT ck_audit_sinks_secrets_key CHECK (((secrets IS NULL) OR (key_id IS NOT NULL))),
    CONSTRAINT ck_audit_sinks_skipped CHECK ((skipped >= 0))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

ALTER TABLE ONLY public.audit_sinks FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE audit_sinks; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_sinks IS 'Where records of the audit log are sent, each with the sequence of the last one that it has acknowledged.';


--
-- Name: COLUMN audit_sinks.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN audit_sinks.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN audit_sinks.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.name IS 'Name of the sink.';


--
-- Name: COLUMN audit_sinks.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.kind IS 'Kind of receiver.';


--
-- Name: COLUMN audit_sinks.format; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.format IS 'Format of the records that are sent.';


--
-- Name: COLUMN audit_sinks.address; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.address IS 'URL, file or host and port of the receiver.';


--
-- Name: COLUMN audit_sinks.options; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.options IS 'Options of the kind, such as certificates or sizes of files.';


--
-- Name: COLUMN audit_sinks.required; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.required IS 'Whether records that it does not have are kept beyond their retention.';


--
-- Name: COLUMN audit_sinks.secrets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.secrets IS 'AES-256-GCM ciphertext made by the application: headers and keys; null where there are none.';


--
-- Name: COLUMN audit_sinks.data_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.data_key IS 'The row''s data key, wrapped by the key-encryption key that key_id names.';


--
-- Name: COLUMN audit_sinks.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.key_id IS 'Key-encryption key that wraps data_key.';


--
-- Name: COLUMN audit_sinks."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks."position" IS 'Sequence of the last record that was acknowledged.';


--
-- Name: COLUMN audit_sinks.skipped; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.skipped IS 'Records that retention dropped before they could be sent.';


--
-- Name: COLUMN audit_sinks.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.status IS 'Whether records arrive.';


--
-- Name: COLUMN audit_sinks.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.reason IS 'Reason of the last failure, a word.';


--
-- Name: COLUMN audit_sinks.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.message IS 'Reason of the last failure, in words.';


--
-- Name: COLUMN audit_sinks.attempts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.attempts IS 'Failed attempts in a row.';


--
-- Name: COLUMN audit_sinks.next_attempt_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.next_attempt_at IS 'When a server may try again.';


--
-- Name: COLUMN audit_sinks.failing_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.failing_since IS 'Since when attempts fail; null: they do not.';


--
-- Name: COLUMN audit_sinks.last_delivered_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.last_delivered_at IS 'When records were last acknowledged.';


--
-- Name: COLUMN audit_sinks.lease_owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.lease_owner IS 'Server that sends; null: none.';


--
-- Name: COLUMN audit_sinks.lease_epoch; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.lease_epoch IS 'Raised by each lease; the cursor is written under it.';


--
-- Name: COLUMN audit_sinks.leased_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.leased_until IS 'When the lease ends.';


--
-- Name: COLUMN audit_sinks.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.created_at IS 'When the row was created.';


--
-- Name: COLUMN audit_sinks.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_sinks.created_by IS 'User who created it; null: the system.';


--
-- Name: audit_sinks_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.audit_sinks ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.audit_sinks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: audit_tiles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_tiles (
    level smallint NOT NULL,
    "position" bigint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT ck_audit_tiles_hashes CHECK ((octet_length(hashes) = 8192)),
    CONSTRAINT ck_audit_tiles_level CHECK (((level >= 0) AND (level <= 7))),
    CONSTRAINT ck_audit_tiles_position CHECK (("position" >= 0))
);
ALTER TABLE ONLY public.audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

ALTER TABLE ONLY public.audit_tiles FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE audit_tiles; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_tiles IS 'Full tiles of the tree over the audit log, 256 hashes each; written once.';


--
-- Name: COLUMN audit_tiles.level; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tiles.level IS '0: hashes of records; above: roots of full tiles of the level below.';


--
-- Name: COLUMN audit_tiles."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tiles."position" IS 'Number of the tile on its level, from 0.';


--
-- Name: COLUMN audit_tiles.hashes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tiles.hashes IS '256 hashes of 32 bytes.';


--
-- Name: audit_tree; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_tree (
    id smallint DEFAULT 1 NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    origin character varying(200),
    history_id uuid NOT NULL,
    size bigint DEFAULT 0 NOT NULL,
    edge bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    origins text[] DEFAULT '{}'::text[] NOT NULL,
    stopped_history uuid,
    stopped_reason text,
    CONSTRAINT ck_audit_tree_id CHECK ((id = 1)),
    CONSTRAINT ck_audit_tree_size CHECK ((size >= 0))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

ALTER TABLE ONLY public.audit_tree FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE audit_tree; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.audit_tree IS 'One row: how far the tree over the audit log has grown. Its lock is held to grow it.';


--
-- Name: COLUMN audit_tree.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.id IS 'Always 1.';


--
-- Name: COLUMN audit_tree.log_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.log_id IS 'Random id of the log.';


--
-- Name: COLUMN audit_tree.origin; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.origin IS 'Name of the log in its heads; set once.';


--
-- Name: COLUMN audit_tree.history_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.history_id IS 'History of the database of which heads are signed under this origin.';


--
-- Name: COLUMN audit_tree.size; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.size IS 'Number of leaves.';


--
-- Name: COLUMN audit_tree.edge; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.edge IS 'The tiles that are not full yet, by level.';


--
-- Name: COLUMN audit_tree.origins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.origins IS 'Names under which heads were signed, oldest first: one for each history.';


--
-- Name: COLUMN audit_tree.stopped_history; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.stopped_history IS 'No head is signed while this is the history of the database.';


--
-- Name: COLUMN audit_tree.stopped_reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.audit_tree.stopped_reason IS 'Why: how the log contradicts what was signed.';


--
-- Name: claim_changes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.claim_changes (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    storage_bytes numeric NOT NULL
);

ALTER TABLE ONLY public.claim_changes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE claim_changes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.claim_changes IS 'Containers whose claims changed, until a server has written the rows and events of these volumes.';


--
-- Name: COLUMN claim_changes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.claim_changes.id IS 'In the order of the changes.';


--
-- Name: COLUMN claim_changes.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.claim_changes.container_id IS 'The container; its row may be gone.';


--
-- Name: COLUMN claim_changes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.claim_changes.namespace_id IS 'The namespace of the container.';


--
-- Name: COLUMN claim_changes.storage_bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.claim_changes.storage_bytes IS 'Bytes of its claims that have no row yet; the quota counts them.';


--
-- Name: claim_changes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.claim_changes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.claim_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: clusters; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.clusters (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(100) NOT NULL,
    display_name character varying(100),
    api_server character varying(500) NOT NULL,
    credentials bytea,
    data_key bytea,
    key_id character varying(64),
    credentials_expires_at timestamp with time zone,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    status character varying(20) DEFAULT 'pending'::character varying NOT NULL,
    reason character varying(100),
    message text,
    version character varying(100),
    last_seen_at timestamp with time zone,
    stale_since timestamp with time zone,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deleted_at timestamp with time zone,
    orphans_decided_in uuid DEFAULT public.current_history(),
    orphans_seen_in uuid,
    object_kinds jsonb DEFAULT '[]'::jsonb NOT NULL,
    shared_gateways text[] DEFAULT '{}'::text[] NOT NULL,
    forbid_blocking_budgets boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_clusters_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_clusters_credentials_key CHECK (((credentials IS NULL) OR (key_id IS NOT NULL))),
    CONSTRAINT ck_clusters_labels CHECK ((jsonb_typeof(labels) = 'object'::text))
);

ALTER TABLE ONLY public.clusters FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE clusters; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.clusters IS 'Kubernetes clusters that containers are brought up on; local is the default one.';


--
-- Name: COLUMN clusters.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN clusters.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN clusters.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.name IS 'Name of the cluster, unique also among deregistered ones.';


--
-- Name: COLUMN clusters.display_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.display_name IS 'Name for people.';


--
-- Name: COLUMN clusters.api_server; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.api_server IS 'Address of its API server.';


--
-- Name: COLUMN clusters.credentials; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.credentials IS 'AES-256-GCM ciphertext made by the application; null for in-cluster or kubeconfig access.';


--
-- Name: COLUMN clusters.data_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.data_key IS 'The row''s data key, wrapped by the key-encryption key that key_id names.';


--
-- Name: COLUMN clusters.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.key_id IS 'Key-encryption key that wraps data_key.';


--
-- Name: COLUMN clusters.credentials_expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.credentials_expires_at IS 'When the stored token or certificate expires, where it says so.';


--
-- Name: COLUMN clusters.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN clusters.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN clusters.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.status IS 'Whether the cluster is reached.';


--
-- Name: COLUMN clusters.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN clusters.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN clusters.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.version IS 'Version of Kubernetes.';


--
-- Name: COLUMN clusters.last_seen_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.last_seen_at IS 'When the cluster last responded.';


--
-- Name: COLUMN clusters.stale_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.stale_since IS 'Since when facts about the cluster are old; null: it is watched.';


--
-- Name: COLUMN clusters.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN clusters.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.created_at IS 'When the row was created.';


--
-- Name: COLUMN clusters.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN clusters.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN clusters.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN clusters.deleted_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.deleted_at IS 'When it was deregistered; null: it is registered.';


--
-- Name: COLUMN clusters.orphans_decided_in; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.orphans_decided_in IS 'History in which an administrator decided about its orphans; in others the sweep deletes none.';


--
-- Name: COLUMN clusters.orphans_seen_in; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.orphans_seen_in IS 'The history in which a sweep has listed its orphans.';


--
-- Name: COLUMN clusters.object_kinds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.object_kinds IS 'Custom resources that its namespaces may hold.';


--
-- Name: COLUMN clusters.shared_gateways; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.shared_gateways IS 'Gateways that routes of all namespaces may name, as Kubernetes namespace and name.';


--
-- Name: COLUMN clusters.forbid_blocking_budgets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.clusters.forbid_blocking_budgets IS 'Whether budgets that block every drain of a node are refused.';


--
-- Name: clusters_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.clusters ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.clusters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: config_maps; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.config_maps (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(253) NOT NULL,
    namespace_id bigint NOT NULL,
    kubernetes_name character varying(253) NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    binary_data jsonb DEFAULT '{}'::jsonb NOT NULL,
    immutable boolean DEFAULT false NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    taken_over character varying(64),
    row_version bigint DEFAULT 1 NOT NULL,
    CONSTRAINT ck_config_maps_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_config_maps_binary_data CHECK ((jsonb_typeof(binary_data) = 'object'::text)),
    CONSTRAINT ck_config_maps_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_config_maps_data CHECK ((jsonb_typeof(data) = 'object'::text)),
    CONSTRAINT ck_config_maps_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_config_maps_labels CHECK ((jsonb_typeof(labels) = 'object'::text))
);

ALTER TABLE ONLY public.config_maps FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE config_maps; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.config_maps IS 'Configuration that containers of a namespace read; not for secrets.';


--
-- Name: COLUMN config_maps.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN config_maps.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN config_maps.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.name IS 'Name of the config map in its namespace.';


--
-- Name: COLUMN config_maps.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN config_maps.kubernetes_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.kubernetes_name IS 'Name of the object on the cluster.';


--
-- Name: COLUMN config_maps.data; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.data IS 'Key -> value in UTF-8.';


--
-- Name: COLUMN config_maps.binary_data; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.binary_data IS 'Values that are not UTF-8 text, in base64.';


--
-- Name: COLUMN config_maps.immutable; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.immutable IS 'Whether its data can never change.';


--
-- Name: COLUMN config_maps.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN config_maps.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN config_maps.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN config_maps.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN config_maps.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN config_maps.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN config_maps.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.created_at IS 'When the row was created.';


--
-- Name: COLUMN config_maps.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN config_maps.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN config_maps.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN config_maps.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN config_maps.taken_over; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.taken_over IS 'uid of the ConfigMap that was on the cluster before; null: we created it.';


--
-- Name: COLUMN config_maps.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.config_maps.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: config_maps_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.config_maps ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.config_maps_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: container_images; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_images (
    id bigint NOT NULL,
    name character varying(255) NOT NULL,
    tag character varying(128),
    digest character varying(128),
    repository character varying(255),
    size_bytes bigint,
    architecture character varying(20),
    os character varying(20),
    created_at timestamp with time zone,
    pulled_at timestamp with time zone DEFAULT now() NOT NULL,
    status character varying(20) DEFAULT 'available'::character varying NOT NULL,
    CONSTRAINT ck_container_images_reference CHECK (((tag IS NOT NULL) OR (digest IS NOT NULL))),
    CONSTRAINT ck_container_images_size_bytes CHECK ((size_bytes >= 0)),
    CONSTRAINT ck_container_images_status CHECK (((status)::text = ANY ((ARRAY['available'::character varying, 'deleted'::character varying, 'error'::character varying])::text[])))
);

ALTER TABLE ONLY public.container_images FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_images; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_images IS 'Images that containers use or used; registered by being used.';


--
-- Name: COLUMN container_images.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN container_images.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.name IS 'Last part of the path.';


--
-- Name: COLUMN container_images.tag; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.tag IS 'Tag; null where the image is given by digest alone.';


--
-- Name: COLUMN container_images.digest; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.digest IS 'Digest, as sha256:...';


--
-- Name: COLUMN container_images.repository; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.repository IS 'Registry and path before the name; null for the default registry.';


--
-- Name: COLUMN container_images.size_bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.size_bytes IS 'Size, as the registry says; null: unknown.';


--
-- Name: COLUMN container_images.architecture; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.architecture IS 'CPU architecture; null: unknown.';


--
-- Name: COLUMN container_images.os; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.os IS 'Operating system; null: unknown.';


--
-- Name: COLUMN container_images.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.created_at IS 'When the image was built, as its registry says; null if unknown.';


--
-- Name: COLUMN container_images.pulled_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.pulled_at IS 'When a container first named the image.';


--
-- Name: COLUMN container_images.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_images.status IS 'available, deleted or error.';


--
-- Name: container_resource_usage; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_resource_usage (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    "timestamp" timestamp with time zone DEFAULT now() NOT NULL,
    cpu_cores_used numeric(10,4),
    cpu_cores_request numeric(10,4),
    cpu_cores_limit numeric(10,4),
    cpu_usage_percent numeric(12,2),
    memory_bytes_used bigint,
    memory_bytes_request bigint,
    memory_bytes_limit bigint,
    memory_usage_percent numeric(12,2),
    network_bytes_rx bigint,
    network_bytes_tx bigint,
    network_packets_rx bigint,
    network_packets_tx bigint,
    disk_bytes_used bigint,
    disk_bytes_total bigint,
    disk_usage_percent numeric(12,2),
    filesystem_reads bigint,
    filesystem_writes bigint,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL
)
PARTITION BY RANGE ("timestamp");

ALTER TABLE ONLY public.container_resource_usage FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_resource_usage; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_resource_usage IS 'Usage samples of containers, all replicas together, as collected.';


--
-- Name: COLUMN container_resource_usage.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.id IS 'Key of the row together with timestamp; its order means nothing.';


--
-- Name: COLUMN container_resource_usage.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_resource_usage.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_resource_usage."timestamp"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage."timestamp" IS 'When the sample was taken; the table is partitioned by it.';


--
-- Name: COLUMN container_resource_usage.cpu_cores_used; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.cpu_cores_used IS 'CPU in cores.';


--
-- Name: COLUMN container_resource_usage.cpu_cores_request; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.cpu_cores_request IS 'Requested cores at that time.';


--
-- Name: COLUMN container_resource_usage.cpu_cores_limit; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.cpu_cores_limit IS 'Limit of cores at that time.';


--
-- Name: COLUMN container_resource_usage.cpu_usage_percent; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.cpu_usage_percent IS 'Of the limit if there is one, else of the request, else null; the same for memory.';


--
-- Name: COLUMN container_resource_usage.memory_bytes_used; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.memory_bytes_used IS 'Memory in use.';


--
-- Name: COLUMN container_resource_usage.memory_bytes_request; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.memory_bytes_request IS 'Requested memory at that time.';


--
-- Name: COLUMN container_resource_usage.memory_bytes_limit; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.memory_bytes_limit IS 'Memory limit at that time.';


--
-- Name: COLUMN container_resource_usage.memory_usage_percent; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.memory_usage_percent IS 'As cpu_usage_percent.';


--
-- Name: COLUMN container_resource_usage.network_bytes_rx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.network_bytes_rx IS 'Counter since the pod started, as the kubelet has it.';


--
-- Name: COLUMN container_resource_usage.network_bytes_tx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.network_bytes_tx IS 'Bytes sent since the pod started.';


--
-- Name: COLUMN container_resource_usage.network_packets_rx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.network_packets_rx IS 'Packets received since the pod started.';


--
-- Name: COLUMN container_resource_usage.network_packets_tx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.network_packets_tx IS 'Packets sent since the pod started.';


--
-- Name: COLUMN container_resource_usage.disk_bytes_used; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.disk_bytes_used IS 'Disk in use.';


--
-- Name: COLUMN container_resource_usage.disk_bytes_total; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.disk_bytes_total IS 'Disk that is there.';


--
-- Name: COLUMN container_resource_usage.disk_usage_percent; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.disk_usage_percent IS 'Of disk_bytes_total.';


--
-- Name: COLUMN container_resource_usage.filesystem_reads; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.filesystem_reads IS 'Reads since the pod started.';


--
-- Name: COLUMN container_resource_usage.filesystem_writes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.filesystem_writes IS 'Writes since the pod started.';


--
-- Name: COLUMN container_resource_usage.metadata; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_resource_usage.metadata IS 'Further facts about the sample.';


--
-- Name: containers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.containers (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(253) NOT NULL,
    display_name character varying(253),
    namespace_id bigint NOT NULL,
    image_id bigint NOT NULL,
    kubernetes_name character varying(253) NOT NULL,
    pod_name character varying(253),
    deployment_name character varying(253),
    replica_set_name character varying(253),
    status character varying(20) DEFAULT 'pending'::character varying NOT NULL,
    phase character varying(20),
    reason character varying(100),
    message text,
    cpu_request character varying(20),
    cpu_limit character varying(20),
    memory_request character varying(20),
    memory_limit character varying(20),
    restart_count integer DEFAULT 0 NOT NULL,
    pod_ip character varying(45),
    host_ip character varying(45),
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    spec jsonb DEFAULT '{}'::jsonb NOT NULL,
    desired_state character varying(20) DEFAULT 'running'::character varying NOT NULL,
    replicas integer DEFAULT 1 NOT NULL,
    quota_cpu_millicores bigint DEFAULT 0 NOT NULL,
    quota_memory_bytes bigint DEFAULT 0 NOT NULL,
    ready_replicas integer DEFAULT 0 NOT NULL,
    observed_replicas integer DEFAULT 0 NOT NULL,
    drift_policy character varying(20) DEFAULT 'repair'::character varying NOT NULL,
    hold_rollout boolean DEFAULT false NOT NULL,
    imported boolean DEFAULT false NOT NULL,
    restart_requested_at timestamp with time zone,
    deletion_requested_at timestamp with time zone,
    stale_since timestamp with time zone,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    row_version bigint DEFAULT 1 NOT NULL,
    programs jsonb DEFAULT '[]'::jsonb NOT NULL,
    revision_number integer DEFAULT 0 NOT NULL,
    CONSTRAINT ck_containers_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_containers_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_containers_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_containers_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_containers_quota CHECK (((quota_cpu_millicores >= 0) AND (quota_memory_bytes >= 0))),
    CONSTRAINT ck_containers_replicas CHECK (((replicas >= 0) AND (ready_replicas >= 0) AND (observed_replicas >= 0))),
    CONSTRAINT ck_containers_restart_count CHECK ((restart_count >= 0)),
    CONSTRAINT ck_containers_spec CHECK ((jsonb_typeof(spec) = 'object'::text))
);

ALTER TABLE ONLY public.containers FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE containers; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.containers IS 'Desired and observed state of a container; one Deployment on its cluster.';


--
-- Name: COLUMN containers.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN containers.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN containers.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.name IS 'Name of the container in its namespace.';


--
-- Name: COLUMN containers.display_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.display_name IS 'Name for people.';


--
-- Name: COLUMN containers.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.namespace_id IS 'Namespace of the container.';


--
-- Name: COLUMN containers.image_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.image_id IS 'The image it runs.';


--
-- Name: COLUMN containers.kubernetes_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.kubernetes_name IS 'Name of the object on the cluster.';


--
-- Name: COLUMN containers.pod_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.pod_name IS 'Newest pod, as observed.';


--
-- Name: COLUMN containers.deployment_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.deployment_name IS 'Deployment, as observed.';


--
-- Name: COLUMN containers.replica_set_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.replica_set_name IS 'Newest ReplicaSet, as observed.';


--
-- Name: COLUMN containers.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.status IS 'State on the cluster, as observed.';


--
-- Name: COLUMN containers.phase; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.phase IS 'Phase of the newest pod.';


--
-- Name: COLUMN containers.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN containers.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN containers.cpu_request; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.cpu_request IS 'Requested CPU of a replica, a Kubernetes quantity.';


--
-- Name: COLUMN containers.cpu_limit; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.cpu_limit IS 'CPU limit of a replica, a Kubernetes quantity.';


--
-- Name: COLUMN containers.memory_request; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.memory_request IS 'Requested memory of a replica, a Kubernetes quantity.';


--
-- Name: COLUMN containers.memory_limit; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.memory_limit IS 'Memory limit of a replica, a Kubernetes quantity.';


--
-- Name: COLUMN containers.restart_count; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.restart_count IS 'Restarts of the present pods together.';


--
-- Name: COLUMN containers.pod_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.pod_ip IS 'Address of the newest pod.';


--
-- Name: COLUMN containers.host_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.host_ip IS 'Address of its node.';


--
-- Name: COLUMN containers.started_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.started_at IS 'When the newest pod started.';


--
-- Name: COLUMN containers.finished_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.finished_at IS 'When the newest pod ended.';


--
-- Name: COLUMN containers.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.created_at IS 'When the row was created.';


--
-- Name: COLUMN containers.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN containers.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN containers.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN containers.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN containers.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN containers.spec; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.spec IS 'Desired fields without a column: command, args, probes, security contexts, init containers, empty dirs and so on.';


--
-- Name: COLUMN containers.desired_state; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.desired_state IS 'State that was requested last; status is the state on the cluster.';


--
-- Name: COLUMN containers.replicas; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.replicas IS 'Desired replicas, also while stopped or paused.';


--
-- Name: COLUMN containers.quota_cpu_millicores; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.quota_cpu_millicores IS 'CPU that counts against the namespace''s quota: request, else limit, times replicas.';


--
-- Name: COLUMN containers.quota_memory_bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.quota_memory_bytes IS 'Memory that counts against the namespace''s quota; as quota_cpu_millicores.';


--
-- Name: COLUMN containers.ready_replicas; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.ready_replicas IS 'Ready replicas, as observed.';


--
-- Name: COLUMN containers.observed_replicas; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.observed_replicas IS 'Replicas, as observed.';


--
-- Name: COLUMN containers.drift_policy; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.drift_policy IS 'What happens to changes that others make on the cluster.';


--
-- Name: COLUMN containers.hold_rollout; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.hold_rollout IS 'Whether a rollout in progress is paused.';


--
-- Name: COLUMN containers.imported; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.imported IS 'Whether it ran on the cluster before.';


--
-- Name: COLUMN containers.restart_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.restart_requested_at IS 'When a restart was last requested.';


--
-- Name: COLUMN containers.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.deletion_requested_at IS 'Deletion is in progress since then; the row goes when the objects on the cluster are gone.';


--
-- Name: COLUMN containers.stale_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.stale_since IS 'Since when the observed state is old, because the cluster is unreachable.';


--
-- Name: COLUMN containers.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN containers.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN containers.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN containers.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN containers.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: COLUMN containers.programs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.programs IS 'The programs of its living pods with their states, as observed.';


--
-- Name: COLUMN containers.revision_number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.containers.revision_number IS 'Number of its newest row in revisions; 0: it has none, because it was last changed by a release without them.';


--
-- Name: namespaces; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.namespaces (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(63) NOT NULL,
    display_name character varying(100),
    description text,
    kubernetes_name character varying(63) NOT NULL,
    cluster_name character varying(100) NOT NULL,
    status character varying(20) DEFAULT 'active'::character varying NOT NULL,
    phase character varying(20),
    reason character varying(100),
    message text,
    resource_quota jsonb,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    adopted boolean DEFAULT false NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    deleted_at timestamp with time zone,
    row_version bigint DEFAULT 1 NOT NULL,
    legal_hold boolean DEFAULT false NOT NULL,
    default_pod_security character varying(20) DEFAULT ''::character varying NOT NULL,
    pod_security_level character varying(20) DEFAULT ''::character varying NOT NULL,
    service_types text[] DEFAULT '{}'::text[] NOT NULL,
    external_sources text[] DEFAULT '{}'::text[] NOT NULL,
    allowed_hosts text[] DEFAULT '{}'::text[] NOT NULL,
    network_policies character varying(20) DEFAULT 'open'::character varying NOT NULL,
    enforce_on_cluster boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_namespaces_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_namespaces_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_namespaces_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_namespaces_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_namespaces_resource_quota CHECK ((jsonb_typeof(resource_quota) = 'object'::text)),
    CONSTRAINT ck_namespaces_status CHECK (((status)::text = ANY ((ARRAY['active'::character varying, 'inactive'::character varying])::text[])))
);

ALTER TABLE ONLY public.namespaces FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE namespaces; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.namespaces IS 'What belongs to one tenant, kept apart from every other; one Kubernetes namespace each.';


--
-- Name: COLUMN namespaces.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN namespaces.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN namespaces.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.name IS 'Name, unique among those that are not deleted.';


--
-- Name: COLUMN namespaces.display_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.display_name IS 'Name for people.';


--
-- Name: COLUMN namespaces.description; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.description IS 'Free text.';


--
-- Name: COLUMN namespaces.kubernetes_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.kubernetes_name IS 'Name of its Kubernetes namespace.';


--
-- Name: COLUMN namespaces.cluster_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.cluster_name IS 'Cluster of its Kubernetes namespace.';


--
-- Name: COLUMN namespaces.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.status IS 'active, or inactive: nothing new is created in it.';


--
-- Name: COLUMN namespaces.phase; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.phase IS 'Phase of the Kubernetes namespace, as observed.';


--
-- Name: COLUMN namespaces.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN namespaces.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN namespaces.resource_quota; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.resource_quota IS 'Limits of the namespace: containers (count), cpu and memory (Kubernetes quantities).';


--
-- Name: COLUMN namespaces.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN namespaces.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN namespaces.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN namespaces.adopted; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.adopted IS 'Whether the Kubernetes namespace was there before; then it stays when the row goes.';


--
-- Name: COLUMN namespaces.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN namespaces.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN namespaces.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN namespaces.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.created_at IS 'When the row was created.';


--
-- Name: COLUMN namespaces.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN namespaces.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN namespaces.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN namespaces.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN namespaces.deleted_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.deleted_at IS 'When it was deleted; null: it exists.';


--
-- Name: COLUMN namespaces.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: COLUMN namespaces.legal_hold; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.legal_hold IS 'Whether retention keeps audit records of the namespace.';


--
-- Name: COLUMN namespaces.default_pod_security; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.default_pod_security IS 'Level that its Kubernetes namespace is given where the labels name none; empty: none.';


--
-- Name: COLUMN namespaces.pod_security_level; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.pod_security_level IS 'Level that its Kubernetes namespace enforced when it was seen last; empty: it named none, or was not seen.';


--
-- Name: COLUMN namespaces.service_types; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.service_types IS 'Types that its Services may have; empty: all but ExternalName.';


--
-- Name: COLUMN namespaces.external_sources; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.external_sources IS 'Patterns for names of config maps and secrets of the cluster that may be named; empty: none.';


--
-- Name: COLUMN namespaces.allowed_hosts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.allowed_hosts IS 'Hosts that objects may name, as patterns in normal form; empty: none.';


--
-- Name: COLUMN namespaces.network_policies; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.network_policies IS 'Whether everybody may change NetworkPolicies (open), or only privileged callers (protected).';


--
-- Name: COLUMN namespaces.enforce_on_cluster; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.namespaces.enforce_on_cluster IS 'Whether the ResourceQuota on the cluster also limits cpu and memory.';


--
-- Name: users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.users (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    username character varying(50) NOT NULL,
    username_normalized character varying(200) NOT NULL,
    email character varying(255) NOT NULL,
    email_normalized character varying(1000) NOT NULL,
    password_hash character varying(255) NOT NULL,
    full_name character varying(100),
    avatar_url character varying(500),
    status character varying(20) DEFAULT 'active'::character varying NOT NULL,
    last_login_at timestamp with time zone,
    password_changed_at timestamp with time zone DEFAULT now() NOT NULL,
    is_bootstrap boolean DEFAULT false NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deleted_at timestamp with time zone,
    kind character varying(20) DEFAULT 'person'::character varying NOT NULL,
    namespace_id bigint,
    totp_since timestamp with time zone,
    totp_last_step bigint DEFAULT 0 NOT NULL,
    password_expires_at timestamp with time zone,
    totp_failures integer DEFAULT 0 NOT NULL,
    CONSTRAINT ck_users_namespace CHECK (((namespace_id IS NULL) OR ((kind)::text = 'service_account'::text))),
    CONSTRAINT ck_users_status CHECK (((status)::text = ANY ((ARRAY['active'::character varying, 'inactive'::character varying, 'locked'::character varying])::text[])))
);

ALTER TABLE ONLY public.users FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE users; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.users IS 'People and programs that log in; never deleted for good, see deleted_at.';


--
-- Name: COLUMN users.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN users.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN users.username; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.username IS 'Name, as it was chosen.';


--
-- Name: COLUMN users.username_normalized; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.username_normalized IS 'Name in normal form (NFKC, case folded by the application), for look-ups and uniqueness.';


--
-- Name: COLUMN users.email; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.email IS 'E-mail address, as it was given.';


--
-- Name: COLUMN users.email_normalized; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.email_normalized IS 'E-mail address in normal form, as username_normalized.';


--
-- Name: COLUMN users.password_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.password_hash IS 'Argon2id in PHC form; ''!'' for a user that cannot log in by password.';


--
-- Name: COLUMN users.full_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.full_name IS 'Full name.';


--
-- Name: COLUMN users.avatar_url; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.avatar_url IS 'URL of a picture.';


--
-- Name: COLUMN users.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.status IS 'Only active users can log in.';


--
-- Name: COLUMN users.last_login_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.last_login_at IS 'When the user last logged in.';


--
-- Name: COLUMN users.password_changed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.password_changed_at IS 'When the password was last set.';


--
-- Name: COLUMN users.is_bootstrap; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.is_bootstrap IS 'Made at the first start; never made a second time, even after its deletion.';


--
-- Name: COLUMN users.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN users.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.created_at IS 'When the row was created.';


--
-- Name: COLUMN users.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN users.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN users.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN users.deleted_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.deleted_at IS 'When the user was deleted; null: the user exists.';


--
-- Name: COLUMN users.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.kind IS 'A service account has no password and acts by keys.';


--
-- Name: COLUMN users.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.namespace_id IS 'Where a service account belongs; null where it is the platform''s.';


--
-- Name: COLUMN users.totp_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.totp_since IS 'Since when the user needs an authenticator''s code; null: never.';


--
-- Name: COLUMN users.totp_last_step; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.totp_last_step IS 'The newest step of 30 seconds of a used code.';


--
-- Name: COLUMN users.password_expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.password_expires_at IS 'Not null: the password is the one-time code of a reset, good until then for setting another.';


--
-- Name: COLUMN users.totp_failures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.users.totp_failures IS 'Wrong codes in a row, each after a right password.';


--
-- Name: container_details; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.container_details WITH (security_invoker='true') AS
 SELECT c.id,
    c.name,
    c.display_name,
    c.status,
    c.phase,
    c.reason,
    c.message,
    c.kubernetes_name,
    c.pod_name,
    c.pod_ip,
    c.host_ip,
    c.restart_count,
    c.cpu_request,
    c.cpu_limit,
    c.memory_request,
    c.memory_limit,
    c.started_at,
    c.finished_at,
    c.created_at,
    c.updated_at,
    n.name AS namespace_name,
    n.kubernetes_name AS namespace_k8s_name,
    ci.name AS image_name,
    ci.tag AS image_tag,
    ci.repository AS image_repository,
    u.username AS created_by_username,
    u.full_name AS created_by_full_name,
        CASE
            WHEN ((c.status)::text = 'running'::text) THEN EXTRACT(epoch FROM (now() - c.started_at))
            ELSE NULL::numeric
        END AS uptime_seconds,
    latest.cpu_usage_percent,
    latest.memory_usage_percent,
    latest."timestamp" AS last_metric_timestamp,
    c.namespace_id,
    ci.digest AS image_digest
   FROM ((((public.containers c
     LEFT JOIN public.namespaces n ON ((n.id = c.namespace_id)))
     LEFT JOIN public.container_images ci ON ((ci.id = c.image_id)))
     LEFT JOIN public.users u ON ((u.id = c.created_by)))
     LEFT JOIN LATERAL ( SELECT r.cpu_usage_percent,
            r.memory_usage_percent,
            r."timestamp"
           FROM public.container_resource_usage r
          WHERE (r.container_id = c.id)
          ORDER BY r."timestamp" DESC
         LIMIT 1) latest ON (true));


--
-- Name: VIEW container_details; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.container_details IS 'Containers with names of what they refer to and their newest usage sample.';


--
-- Name: container_images_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.container_images ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.container_images_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: container_pods; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_pods (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    pod_name character varying(253) NOT NULL,
    uid character varying(64) NOT NULL,
    phase character varying(20),
    reason character varying(100),
    message text,
    ready boolean DEFAULT false NOT NULL,
    pod_ip character varying(45),
    host_ip character varying(45),
    node_name character varying(253),
    restart_count integer DEFAULT 0 NOT NULL,
    image character varying(1000),
    image_id character varying(1000),
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    deleting boolean DEFAULT false NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    revision character varying(253),
    created_at timestamp with time zone,
    programs jsonb
);

ALTER TABLE ONLY public.container_pods FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_pods; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_pods IS 'Pods of a container as last observed.';


--
-- Name: COLUMN container_pods.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN container_pods.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_pods.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_pods.pod_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.pod_name IS 'Name of the pod.';


--
-- Name: COLUMN container_pods.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.uid IS 'The uid that Kubernetes gave the pod.';


--
-- Name: COLUMN container_pods.phase; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.phase IS 'Phase of the pod.';


--
-- Name: COLUMN container_pods.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.reason IS 'Why the pod or its container is not running, a word.';


--
-- Name: COLUMN container_pods.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.message IS 'The same in words.';


--
-- Name: COLUMN container_pods.ready; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.ready IS 'Whether the pod is ready.';


--
-- Name: COLUMN container_pods.pod_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.pod_ip IS 'Address of the pod.';


--
-- Name: COLUMN container_pods.host_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.host_ip IS 'Address of its node.';


--
-- Name: COLUMN container_pods.node_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.node_name IS 'Its node.';


--
-- Name: COLUMN container_pods.restart_count; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.restart_count IS 'Restarts of its main container.';


--
-- Name: COLUMN container_pods.image; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.image IS 'Image that runs, as the node says.';


--
-- Name: COLUMN container_pods.image_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.image_id IS 'Image that runs, by digest.';


--
-- Name: COLUMN container_pods.started_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.started_at IS 'When its main container started.';


--
-- Name: COLUMN container_pods.finished_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.finished_at IS 'When its main container ended.';


--
-- Name: COLUMN container_pods.deleting; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.deleting IS 'Whether the pod is being deleted.';


--
-- Name: COLUMN container_pods.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN container_pods.revision; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.revision IS 'The template or run that it was made of: its replica set or Job, or the hash of its controller; null: none.';


--
-- Name: COLUMN container_pods.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.created_at IS 'When the cluster made the pod.';


--
-- Name: COLUMN container_pods.programs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_pods.programs IS 'The state of each of its programs.';


--
-- Name: container_pods_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.container_pods ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.container_pods_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: container_resource_usage_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.container_resource_usage_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: container_resource_usage_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.container_resource_usage_id_seq OWNED BY public.container_resource_usage.id;


--
-- Name: container_runs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_runs (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    number integer NOT NULL,
    name character varying(253) NOT NULL,
    status character varying(20) NOT NULL,
    reason character varying(100),
    message text,
    exit_code integer,
    start_time timestamp with time zone,
    end_time timestamp with time zone,
    CONSTRAINT ck_container_runs_number CHECK ((number > 0))
);

ALTER TABLE ONLY public.container_runs FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_runs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_runs IS 'Runs of a container as last observed; they stay when the cluster deletes their Jobs.';


--
-- Name: COLUMN container_runs.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN container_runs.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_runs.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_runs.number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.number IS 'Number of the run, from 1.';


--
-- Name: COLUMN container_runs.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.name IS 'Name of its Job on the cluster.';


--
-- Name: COLUMN container_runs.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.status IS 'State of the run, as observed.';


--
-- Name: COLUMN container_runs.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN container_runs.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.message IS 'The same in words.';


--
-- Name: COLUMN container_runs.exit_code; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.exit_code IS 'Exit code of the pod that failed; null: none has.';


--
-- Name: COLUMN container_runs.start_time; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.start_time IS 'When it began, by the cluster; null: not yet.';


--
-- Name: COLUMN container_runs.end_time; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_runs.end_time IS 'When it ended, by the cluster; null: not yet.';


--
-- Name: container_runs_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.container_runs ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.container_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: container_status_history; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_status_history (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    previous_status character varying(20),
    current_status character varying(20) NOT NULL,
    reason character varying(100),
    message text,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    triggered_by character varying(50) DEFAULT 'system'::character varying NOT NULL,
    user_id bigint,
    operation_id uuid,
    CONSTRAINT ck_container_status_history_triggered_by CHECK (((triggered_by)::text = ANY ((ARRAY['system'::character varying, 'user'::character varying, 'kubernetes'::character varying])::text[])))
);

ALTER TABLE ONLY public.container_status_history FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_status_history; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_status_history IS 'Every change of a container''s status, with who or what caused it.';


--
-- Name: COLUMN container_status_history.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN container_status_history.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_status_history.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_status_history.previous_status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.previous_status IS 'Status before; null for a new container.';


--
-- Name: COLUMN container_status_history.current_status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.current_status IS 'Status after.';


--
-- Name: COLUMN container_status_history.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.reason IS 'Reason of the change, a word.';


--
-- Name: COLUMN container_status_history.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.message IS 'Reason of the change, in words.';


--
-- Name: COLUMN container_status_history.changed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.changed_at IS 'When it changed.';


--
-- Name: COLUMN container_status_history.triggered_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.triggered_by IS 'Whether a user, the system or Kubernetes caused it.';


--
-- Name: COLUMN container_status_history.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.user_id IS 'User who caused it; null: nobody.';


--
-- Name: COLUMN container_status_history.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_status_history.operation_id IS 'Operation that caused it; null: none, or retention removed it.';


--
-- Name: container_status_history_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.container_status_history ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.container_status_history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: program_images; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.program_images (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    program character varying(63) NOT NULL,
    image character varying(1000) NOT NULL,
    image_id bigint NOT NULL
);

ALTER TABLE ONLY public.program_images FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE program_images; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.program_images IS 'Images of sidecars and init containers; that of the main program is in the row of its container.';


--
-- Name: COLUMN program_images.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.program_images.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN program_images.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.program_images.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN program_images.program; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.program_images.program IS 'Name of the program in its pods.';


--
-- Name: COLUMN program_images.image; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.program_images.image IS 'The image as the container has it.';


--
-- Name: COLUMN program_images.image_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.program_images.image_id IS 'The image it runs.';


--
-- Name: container_summary; Type: MATERIALIZED VIEW; Schema: public; Owner: -
--

CREATE MATERIALIZED VIEW public.container_summary AS
 SELECT n.id AS namespace_id,
    n.name AS namespace_name,
    COALESCE(c.total_containers, (0)::bigint) AS total_containers,
    COALESCE(c.running_containers, (0)::bigint) AS running_containers,
    COALESCE(c.stopped_containers, (0)::bigint) AS stopped_containers,
    COALESCE(c.failed_containers, (0)::bigint) AS failed_containers,
    COALESCE(i.total_size_bytes, (0)::numeric) AS total_size_bytes
   FROM ((public.namespaces n
     LEFT JOIN ( SELECT containers.namespace_id,
            count(*) AS total_containers,
            count(*) FILTER (WHERE ((containers.status)::text = 'running'::text)) AS running_containers,
            count(*) FILTER (WHERE ((containers.status)::text = 'stopped'::text)) AS stopped_containers,
            count(*) FILTER (WHERE ((containers.status)::text = 'failed'::text)) AS failed_containers
           FROM public.containers
          GROUP BY containers.namespace_id) c ON ((c.namespace_id = n.id)))
     LEFT JOIN ( SELECT used.namespace_id,
            sum(ci.size_bytes) AS total_size_bytes
           FROM (( SELECT containers.namespace_id,
                    containers.image_id
                   FROM public.containers
                UNION
                 SELECT program_images.namespace_id,
                    program_images.image_id
                   FROM public.program_images) used
             JOIN public.container_images ci ON ((ci.id = used.image_id)))
          GROUP BY used.namespace_id) i ON ((i.namespace_id = n.id)))
  WHERE (n.deleted_at IS NULL)
  WITH NO DATA;


--
-- Name: MATERIALIZED VIEW container_summary; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON MATERIALIZED VIEW public.container_summary IS 'Containers and image sizes per namespace, refreshed every hour.';


--
-- Name: container_usage_daily; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_usage_daily (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    bucket timestamp with time zone NOT NULL,
    samples integer NOT NULL,
    cpu_cores_avg numeric(12,4),
    cpu_cores_max numeric(12,4),
    memory_bytes_avg bigint,
    memory_bytes_max bigint,
    network_bytes_rx bigint,
    network_bytes_tx bigint,
    disk_bytes_max bigint,
    CONSTRAINT ck_container_usage_daily_samples CHECK ((samples > 0))
);

ALTER TABLE ONLY public.container_usage_daily FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_usage_daily; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_usage_daily IS 'Usage rolled up by the day.';


--
-- Name: COLUMN container_usage_daily.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_usage_daily.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_usage_daily.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.bucket IS 'Start of the day in UTC.';


--
-- Name: COLUMN container_usage_daily.samples; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.samples IS 'Samples of the day.';


--
-- Name: COLUMN container_usage_daily.cpu_cores_avg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.cpu_cores_avg IS 'Average cores.';


--
-- Name: COLUMN container_usage_daily.cpu_cores_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.cpu_cores_max IS 'Most cores in a sample.';


--
-- Name: COLUMN container_usage_daily.memory_bytes_avg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.memory_bytes_avg IS 'Average memory.';


--
-- Name: COLUMN container_usage_daily.memory_bytes_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.memory_bytes_max IS 'Most memory in a sample.';


--
-- Name: COLUMN container_usage_daily.network_bytes_rx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.network_bytes_rx IS 'Bytes received within the day: sum of the counter''s increases.';


--
-- Name: COLUMN container_usage_daily.network_bytes_tx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.network_bytes_tx IS 'Bytes sent within the day.';


--
-- Name: COLUMN container_usage_daily.disk_bytes_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_daily.disk_bytes_max IS 'Most disk in a sample.';


--
-- Name: container_usage_days; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_usage_days (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    day timestamp with time zone NOT NULL,
    format smallint DEFAULT 0 NOT NULL,
    hours integer DEFAULT 0 NOT NULL,
    points bytea,
    CONSTRAINT ck_container_usage_days_length CHECK ((octet_length(points) <= 4096)),
    CONSTRAINT ck_container_usage_days_points CHECK (((format > 0) = (points IS NOT NULL)))
);
ALTER TABLE ONLY public.container_usage_days ALTER COLUMN points SET STORAGE PLAIN;

ALTER TABLE ONLY public.container_usage_days FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_usage_days; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_usage_days IS 'Days of which there are hourly roll-ups, with those of a day in one row, ready to be sent.';


--
-- Name: COLUMN container_usage_days.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_usage_days.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_usage_days.day; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.day IS 'Start of the day in UTC.';


--
-- Name: COLUMN container_usage_days.format; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.format IS 'Format of points; 0: there are none, readers take the hours.';


--
-- Name: COLUMN container_usage_days.hours; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.hours IS 'Which hours have points, bit by bit from the first hour.';


--
-- Name: COLUMN container_usage_days.points; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_days.points IS 'The serialised points of the day.';


--
-- Name: container_usage_hourly; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_usage_hourly (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    bucket timestamp with time zone NOT NULL,
    samples integer NOT NULL,
    cpu_cores_avg numeric(12,4),
    cpu_cores_max numeric(12,4),
    memory_bytes_avg bigint,
    memory_bytes_max bigint,
    network_bytes_rx bigint,
    network_bytes_tx bigint,
    disk_bytes_max bigint,
    CONSTRAINT ck_container_usage_hourly_samples CHECK ((samples > 0))
);

ALTER TABLE ONLY public.container_usage_hourly FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_usage_hourly; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_usage_hourly IS 'Usage rolled up by the hour.';


--
-- Name: COLUMN container_usage_hourly.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN container_usage_hourly.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN container_usage_hourly.bucket; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.bucket IS 'Start of the hour in UTC.';


--
-- Name: COLUMN container_usage_hourly.samples; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.samples IS 'Samples of the hour.';


--
-- Name: COLUMN container_usage_hourly.cpu_cores_avg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.cpu_cores_avg IS 'Average cores.';


--
-- Name: COLUMN container_usage_hourly.cpu_cores_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.cpu_cores_max IS 'Most cores in a sample.';


--
-- Name: COLUMN container_usage_hourly.memory_bytes_avg; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.memory_bytes_avg IS 'Average memory.';


--
-- Name: COLUMN container_usage_hourly.memory_bytes_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.memory_bytes_max IS 'Most memory in a sample.';


--
-- Name: COLUMN container_usage_hourly.network_bytes_rx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.network_bytes_rx IS 'Bytes received within the hour: sum of the counter''s increases.';


--
-- Name: COLUMN container_usage_hourly.network_bytes_tx; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.network_bytes_tx IS 'Bytes sent within the hour.';


--
-- Name: COLUMN container_usage_hourly.disk_bytes_max; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_usage_hourly.disk_bytes_max IS 'Most disk in a sample.';


--
-- Name: container_volumes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.container_volumes (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    volume_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    mount_path character varying(500) NOT NULL,
    read_only boolean DEFAULT false NOT NULL,
    sub_path character varying(500),
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.container_volumes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE container_volumes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.container_volumes IS 'Which container mounts which volume, and where.';


--
-- Name: COLUMN container_volumes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN container_volumes.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.container_id IS 'The container.';


--
-- Name: COLUMN container_volumes.volume_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.volume_id IS 'The volume.';


--
-- Name: COLUMN container_volumes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.namespace_id IS 'Namespace of both.';


--
-- Name: COLUMN container_volumes.mount_path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.mount_path IS 'Where the container mounts it.';


--
-- Name: COLUMN container_volumes.read_only; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.read_only IS 'Whether the mount is read-only.';


--
-- Name: COLUMN container_volumes.sub_path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.sub_path IS 'Folder of the volume that is mounted; null: all of it.';


--
-- Name: COLUMN container_volumes.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.container_volumes.created_at IS 'When the row was created.';


--
-- Name: container_volumes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.container_volumes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.container_volumes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: containers_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.containers ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.containers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: database_stats; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.database_stats WITH (security_invoker='true') AS
 SELECT schemaname,
    tablename,
    attname AS column_name,
    n_distinct,
    correlation
   FROM pg_stats
  WHERE (schemaname = 'public'::name)
  ORDER BY tablename, attname;


--
-- Name: VIEW database_stats; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.database_stats IS 'What the planner knows of each column; read as the owner.';


--
-- Name: device_logins; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.device_logins (
    token_hash bytea NOT NULL,
    issuer character varying(40) NOT NULL,
    sealed_code bytea NOT NULL,
    address_hash bytea NOT NULL,
    interval_seconds integer NOT NULL,
    next_poll_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_device_logins_interval_seconds CHECK (((interval_seconds >= 1) AND (interval_seconds <= 3600))),
    CONSTRAINT ck_device_logins_token_hash CHECK ((octet_length(token_hash) = 32))
);

ALTER TABLE ONLY public.device_logins FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE device_logins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.device_logins IS 'Log-ins of devices that wait for a person to agree at the issuer.';


--
-- Name: COLUMN device_logins.token_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.token_hash IS 'SHA-256 of the token that the device asks with.';


--
-- Name: COLUMN device_logins.issuer; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.issuer IS 'Name of the issuer in the settings.';


--
-- Name: COLUMN device_logins.sealed_code; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.sealed_code IS 'The code of the issuer, under a key that only that token gives.';


--
-- Name: COLUMN device_logins.address_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.address_hash IS 'Keyed hash of the address that began it; each address may have a few.';


--
-- Name: COLUMN device_logins.interval_seconds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.interval_seconds IS 'Least time between two polls, set by the issuer.';


--
-- Name: COLUMN device_logins.next_poll_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.next_poll_at IS 'Time of the next poll of the issuer.';


--
-- Name: COLUMN device_logins.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.device_logins.expires_at IS 'When the device''s code expires.';


--
-- Name: encryption_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.encryption_keys (
    key_id character varying(64) NOT NULL,
    status character varying(20) DEFAULT 'active'::character varying NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    provider character varying(20)
);

ALTER TABLE ONLY public.encryption_keys FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE encryption_keys; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.encryption_keys IS 'Identifiers of key-encryption keys, so that rotation knows what is left. Never key material.';


--
-- Name: COLUMN encryption_keys.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.encryption_keys.key_id IS 'Identifier of the key.';


--
-- Name: COLUMN encryption_keys.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.encryption_keys.status IS 'active: wraps new data keys; retiring: being replaced; retired: nothing is left under it.';


--
-- Name: COLUMN encryption_keys.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.encryption_keys.created_at IS 'When a server first used it.';


--
-- Name: COLUMN encryption_keys.retired_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.encryption_keys.retired_at IS 'When nothing was left under it.';


--
-- Name: COLUMN encryption_keys.provider; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.encryption_keys.provider IS 'Source of the key for the server that used it last; null: unknown.';


--
-- Name: environment_variables; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.environment_variables (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    container_name character varying(63),
    "position" integer DEFAULT 0 NOT NULL,
    name character varying(253) NOT NULL,
    value text,
    value_from character varying(50) DEFAULT 'literal'::character varying NOT NULL,
    source_name character varying(253),
    source_key character varying(253),
    optional boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    external boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY public.environment_variables FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE environment_variables; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.environment_variables IS 'Environment of a container; values from a source are resolved by Kubernetes, never copied.';


--
-- Name: COLUMN environment_variables.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN environment_variables.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN environment_variables.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN environment_variables.container_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.container_name IS 'The init container it belongs to; null is the main container.';


--
-- Name: COLUMN environment_variables."position"; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables."position" IS 'Order in the pod: a value may refer to variables before it.';


--
-- Name: COLUMN environment_variables.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.name IS 'Name of the variable.';


--
-- Name: COLUMN environment_variables.value; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.value IS 'Literal value, or the divisor of an amount.';


--
-- Name: COLUMN environment_variables.value_from; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.value_from IS 'Kind of source; literal: none.';


--
-- Name: COLUMN environment_variables.source_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.source_name IS 'The config map or secret, or the program whose amount it shows; null: its own.';


--
-- Name: COLUMN environment_variables.source_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.source_key IS 'Key in the config map or secret, or the path of a field reference or of an amount.';


--
-- Name: COLUMN environment_variables.optional; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.optional IS 'Whether the source may be missing.';


--
-- Name: COLUMN environment_variables.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.created_at IS 'When the row was created.';


--
-- Name: COLUMN environment_variables.external; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.environment_variables.external IS 'Whether only the cluster has the source.';


--
-- Name: environment_variables_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.environment_variables ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.environment_variables_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.events (
    revision bigint NOT NULL,
    resource_type character varying(50) NOT NULL,
    resource_id bigint NOT NULL,
    resource_uid uuid,
    namespace_id bigint,
    resource_name character varying(253) NOT NULL,
    kind character varying(10) NOT NULL,
    message bytea NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    status character varying(20),
    labels_before jsonb,
    status_before character varying(20),
    operation_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    pending_id bigint,
    mark bytea
)
PARTITION BY RANGE (revision);

ALTER TABLE ONLY public.events FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.events IS 'One row per change of a watched resource, numbered in commit order.';


--
-- Name: COLUMN events.revision; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.revision IS 'Position in commit order, without gaps.';


--
-- Name: COLUMN events.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN events.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.resource_id IS 'Id of its row.';


--
-- Name: COLUMN events.resource_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.resource_uid IS 'Its public id.';


--
-- Name: COLUMN events.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.namespace_id IS 'Namespace at the time. No foreign key: a watcher learns of deletions of what is gone.';


--
-- Name: COLUMN events.resource_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.resource_name IS 'Its name.';


--
-- Name: COLUMN events.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.kind IS 'added, modified or deleted.';


--
-- Name: COLUMN events.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.message IS 'The resource after the change, serialised once for all watchers.';


--
-- Name: COLUMN events.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.labels IS 'Its labels after the change.';


--
-- Name: COLUMN events.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.status IS 'Its status after the change.';


--
-- Name: COLUMN events.labels_before; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.labels_before IS 'With status_before: a watcher whose filter the resource leaves is told that it is deleted.';


--
-- Name: COLUMN events.status_before; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.status_before IS 'Its status before the change.';


--
-- Name: COLUMN events.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.operation_id IS 'The operation that changed it.';


--
-- Name: COLUMN events.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.created_at IS 'When the event was numbered.';


--
-- Name: COLUMN events.pending_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.pending_id IS 'The pending row it came from; a first state that showed that row skips the event.';


--
-- Name: COLUMN events.mark; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.events.mark IS 'Eight random bytes that only this event has: a token that names others is of another history.';


--
-- Name: federated_identities; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.federated_identities (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    issuer character varying(500) NOT NULL,
    subject character varying(255) NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    confirmed_at timestamp with time zone DEFAULT now() NOT NULL,
    confirmed_until timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.federated_identities FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE federated_identities; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.federated_identities IS 'People and programs that issuers vouch for, and the users that they are here.';


--
-- Name: COLUMN federated_identities.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN federated_identities.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.user_id IS 'The user that it is here.';


--
-- Name: COLUMN federated_identities.issuer; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.issuer IS 'The issuer''s address, as its tokens have it.';


--
-- Name: COLUMN federated_identities.subject; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.subject IS 'Subject at the issuer.';


--
-- Name: COLUMN federated_identities.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.created_at IS 'When the row was created.';


--
-- Name: COLUMN federated_identities.confirmed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.confirmed_at IS 'When the issuer was last asked, and vouched.';


--
-- Name: COLUMN federated_identities.confirmed_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.federated_identities.confirmed_until IS 'When the grants that its rules give end, unless it is asked again.';


--
-- Name: federated_identities_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.federated_identities ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.federated_identities_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.idempotency_keys (
    user_id bigint NOT NULL,
    request_id uuid NOT NULL,
    method character varying(200) NOT NULL,
    request_hmac bytea NOT NULL,
    response bytea,
    operation_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone DEFAULT (now() + '24:00:00'::interval) NOT NULL
);

ALTER TABLE ONLY public.idempotency_keys FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE idempotency_keys; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.idempotency_keys IS 'Answers to mutations that carried a request id, replayed to a repeated request.';


--
-- Name: COLUMN idempotency_keys.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.user_id IS 'User who called.';


--
-- Name: COLUMN idempotency_keys.request_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.request_id IS 'Id that the caller chose.';


--
-- Name: COLUMN idempotency_keys.method; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.method IS 'Method that was called.';


--
-- Name: COLUMN idempotency_keys.request_hmac; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.request_hmac IS 'Keyed hash of the request; the same id with another body is refused.';


--
-- Name: COLUMN idempotency_keys.response; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.response IS 'The serialised response without its secret fields.';


--
-- Name: COLUMN idempotency_keys.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.operation_id IS 'The operation that served it.';


--
-- Name: COLUMN idempotency_keys.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.created_at IS 'When the answer was stored.';


--
-- Name: COLUMN idempotency_keys.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.expires_at IS 'When the answer is forgotten.';


--
-- Name: leases; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.leases (
    name character varying(100) NOT NULL,
    owner character varying(100),
    epoch bigint DEFAULT 0 NOT NULL,
    expires_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.leases FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE leases; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.leases IS 'Work that one replica at a time may do: periodic work, observation of a cluster.';


--
-- Name: COLUMN leases.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.leases.name IS 'Name of the work.';


--
-- Name: COLUMN leases.owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.leases.owner IS 'Server that has the lease; null: none.';


--
-- Name: COLUMN leases.epoch; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.leases.epoch IS 'Raised by each new holder; writes name it.';


--
-- Name: COLUMN leases.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.leases.expires_at IS 'When the lease ends.';


--
-- Name: login_challenges; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.login_challenges (
    challenge_hash bytea NOT NULL,
    user_id bigint NOT NULL,
    origin_hash bytea NOT NULL,
    password_changed_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.login_challenges FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE login_challenges; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.login_challenges IS 'What right passwords were answered with where a code or a new password is to be shown, too; used once.';


--
-- Name: COLUMN login_challenges.challenge_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.challenge_hash IS 'SHA-256 of the challenge.';


--
-- Name: COLUMN login_challenges.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.user_id IS 'User whose password was right.';


--
-- Name: COLUMN login_challenges.origin_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.origin_hash IS 'Keyed hash of the address and of the device it was given to.';


--
-- Name: COLUMN login_challenges.password_changed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.password_changed_at IS 'password_changed_at of the user at that time; another one ends the challenge.';


--
-- Name: COLUMN login_challenges.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.created_at IS 'When the row was created.';


--
-- Name: COLUMN login_challenges.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_challenges.expires_at IS 'When the challenge stops working.';


--
-- Name: login_origins; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.login_origins (
    account_hash bytea NOT NULL,
    origin_hash bytea NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    logins integer DEFAULT 1 NOT NULL,
    password_changed_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_login_origins_failures CHECK ((failures >= 0)),
    CONSTRAINT ck_login_origins_logins CHECK ((logins >= 1))
);

ALTER TABLE ONLY public.login_origins FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE login_origins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.login_origins IS 'Devices and addresses that accounts have logged in from, and the guesses that failed there since.';


--
-- Name: COLUMN login_origins.account_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.account_hash IS 'Hash of the normalised user name, as in login_throttles.';


--
-- Name: COLUMN login_origins.origin_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.origin_hash IS 'Hash of a device, or keyed hash of an address.';


--
-- Name: COLUMN login_origins.failures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.failures IS 'Failed log-ins from there since the last success.';


--
-- Name: COLUMN login_origins.logins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.logins IS 'Successful log-ins from there.';


--
-- Name: COLUMN login_origins.password_changed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.password_changed_at IS 'password_changed_at of the user at the last log-in from there.';


--
-- Name: COLUMN login_origins.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_origins.updated_at IS 'When the row was last written.';


--
-- Name: login_throttles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.login_throttles (
    account_hash bytea NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    locked_until timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_login_throttles_failures CHECK ((failures >= 0))
);

ALTER TABLE ONLY public.login_throttles FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE login_throttles; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.login_throttles IS 'Failed logins by hash of the normalised name, so that unknown accounts are throttled alike.';


--
-- Name: COLUMN login_throttles.account_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_throttles.account_hash IS 'Hash of the normalised user name.';


--
-- Name: COLUMN login_throttles.failures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_throttles.failures IS 'Failed log-ins since the last success.';


--
-- Name: COLUMN login_throttles.locked_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_throttles.locked_until IS 'Until when log-ins are refused; null: they are not.';


--
-- Name: COLUMN login_throttles.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.login_throttles.updated_at IS 'When the row was last written.';


--
-- Name: mount_changes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.mount_changes (
    id bigint NOT NULL,
    volume_id bigint NOT NULL,
    namespace_id bigint NOT NULL
);

ALTER TABLE ONLY public.mount_changes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE mount_changes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.mount_changes IS 'Volumes that containers began or ceased to mount, until a server has written the event of the volume.';


--
-- Name: COLUMN mount_changes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.mount_changes.id IS 'In the order of the changes.';


--
-- Name: COLUMN mount_changes.volume_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.mount_changes.volume_id IS 'The volume of which the event is to be written.';


--
-- Name: COLUMN mount_changes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.mount_changes.namespace_id IS 'The namespace of the volume.';


--
-- Name: mount_changes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.mount_changes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.mount_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: namespaces_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.namespaces ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.namespaces_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: objects; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.objects (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(253) NOT NULL,
    namespace_id bigint NOT NULL,
    api_group character varying(253) NOT NULL,
    api_version character varying(317) NOT NULL,
    kind character varying(63) NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    document text NOT NULL,
    drift_policy character varying(10) DEFAULT 'repair'::character varying NOT NULL,
    protected boolean DEFAULT false NOT NULL,
    privileged boolean DEFAULT false NOT NULL,
    rights jsonb,
    taken_over character varying(64),
    status character varying(20) DEFAULT 'pending'::character varying NOT NULL,
    reason character varying(100),
    message text,
    health character varying(20) DEFAULT 'unknown'::character varying NOT NULL,
    addresses jsonb DEFAULT '[]'::jsonb NOT NULL,
    backends jsonb DEFAULT '[]'::jsonb NOT NULL,
    certificates jsonb DEFAULT '[]'::jsonb NOT NULL,
    observed_status text DEFAULT ''::text NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    contests jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    stale_since timestamp with time zone,
    row_version bigint DEFAULT 1 NOT NULL,
    CONSTRAINT ck_objects_addresses CHECK ((jsonb_typeof(addresses) = 'array'::text)),
    CONSTRAINT ck_objects_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_objects_backends CHECK ((jsonb_typeof(backends) = 'array'::text)),
    CONSTRAINT ck_objects_certificates CHECK ((jsonb_typeof(certificates) = 'array'::text)),
    CONSTRAINT ck_objects_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_objects_contests CHECK ((jsonb_typeof(contests) = 'array'::text)),
    CONSTRAINT ck_objects_document CHECK ((octet_length(document) <= 524288)),
    CONSTRAINT ck_objects_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_objects_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_objects_observed_status CHECK ((octet_length(observed_status) <= 32768))
);

ALTER TABLE ONLY public.objects FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE objects; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.objects IS 'Carried objects: those of kinds that have no noun of their own.';


--
-- Name: COLUMN objects.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN objects.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN objects.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.name IS 'Name of the object in its namespace, and on the cluster.';


--
-- Name: COLUMN objects.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.namespace_id IS 'Namespace of the object.';


--
-- Name: COLUMN objects.api_group; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.api_group IS 'Group of its kind; empty for the core group.';


--
-- Name: COLUMN objects.api_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.api_version IS 'Group and version, as in Kubernetes.';


--
-- Name: COLUMN objects.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.kind IS 'Kind, as in Kubernetes.';


--
-- Name: COLUMN objects.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.labels IS 'Labels, as in its document.';


--
-- Name: COLUMN objects.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.annotations IS 'Annotations, as in its document.';


--
-- Name: COLUMN objects.document; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.document IS 'The desired object as JSON text, with its name, labels and annotations.';


--
-- Name: COLUMN objects.drift_policy; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.drift_policy IS 'Reaction to changes by others.';


--
-- Name: COLUMN objects.protected; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.protected IS 'Whether only holders of object.privileged may change it.';


--
-- Name: COLUMN objects.privileged; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.privileged IS 'Whether a holder of object.privileged made or changed it last.';


--
-- Name: COLUMN objects.rights; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.rights IS 'Rights with which it was admitted; null: no caller was checked.';


--
-- Name: COLUMN objects.taken_over; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.taken_over IS 'uid of the object that was on the cluster before; null: we created it.';


--
-- Name: COLUMN objects.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.status IS 'State on the cluster, as observed.';


--
-- Name: COLUMN objects.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN objects.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN objects.health; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.health IS 'Whether it works, by what its controller reports.';


--
-- Name: COLUMN objects.addresses; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.addresses IS 'Addresses and host names on the cluster, as observed.';


--
-- Name: COLUMN objects.backends; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.backends IS 'Services that it leads to, and whether they are ready.';


--
-- Name: COLUMN objects.certificates; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.certificates IS 'Certificates that it names, as observed; no keys.';


--
-- Name: COLUMN objects.observed_status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.observed_status IS 'Status that the cluster reports, as JSON text; empty: none.';


--
-- Name: COLUMN objects.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN objects.contests; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.contests IS 'Fields that were taken back lately, with their managers and times.';


--
-- Name: COLUMN objects.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN objects.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN objects.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN objects.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.created_at IS 'When the row was created.';


--
-- Name: COLUMN objects.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN objects.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN objects.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN objects.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN objects.stale_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.stale_since IS 'Since when the observed state is old, because the cluster is unreachable.';


--
-- Name: COLUMN objects.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.objects.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: objects_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.objects ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.objects_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: oidc_logins; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.oidc_logins (
    state_hash bytea NOT NULL,
    completed_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.oidc_logins FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE oidc_logins; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.oidc_logins IS 'Log-ins at issuers that were completed, until they would have expired: each works once.';


--
-- Name: COLUMN oidc_logins.state_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_logins.state_hash IS 'SHA-256 of the log-in''s state.';


--
-- Name: COLUMN oidc_logins.completed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_logins.completed_at IS 'When it was completed.';


--
-- Name: COLUMN oidc_logins.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_logins.expires_at IS 'When it would have expired.';


--
-- Name: oidc_sessions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.oidc_sessions (
    family_id uuid NOT NULL,
    identity_id bigint NOT NULL,
    confirmed_at timestamp with time zone DEFAULT now() NOT NULL,
    asking_until timestamp with time zone
);

ALTER TABLE ONLY public.oidc_sessions FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE oidc_sessions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.oidc_sessions IS 'Sessions that an issuer is asked about when they are renewed; its refresh token is a token of user_secrets.';


--
-- Name: COLUMN oidc_sessions.family_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_sessions.family_id IS 'The session, by its family.';


--
-- Name: COLUMN oidc_sessions.identity_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_sessions.identity_id IS 'The identity that logged in.';


--
-- Name: COLUMN oidc_sessions.confirmed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_sessions.confirmed_at IS 'When the issuer was last asked, and vouched.';


--
-- Name: COLUMN oidc_sessions.asking_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.oidc_sessions.asking_until IS 'Until when nobody else asks: the issuer''s refresh token may work once.';


--
-- Name: operation_logs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.operation_logs (
    id bigint NOT NULL,
    operation_id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id bigint,
    username character varying(50),
    action character varying(50) NOT NULL,
    resource_type character varying(50) NOT NULL,
    resource_id bigint,
    resource_name character varying(253),
    namespace_id bigint,
    request_method character varying(10),
    request_path character varying(500),
    request_body jsonb,
    request_headers jsonb,
    client_ip character varying(45),
    user_agent text,
    status_code integer,
    response_body jsonb,
    duration_ms integer,
    error_code character varying(50),
    error_message text,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    completed_at timestamp with time zone,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    stream_id uuid,
    sequence bigint NOT NULL,
    record_hash bytea NOT NULL,
    mark bytea NOT NULL,
    CONSTRAINT ck_operation_logs_duration_ms CHECK ((duration_ms >= 0)),
    CONSTRAINT ck_operation_logs_mark CHECK ((octet_length(mark) = 8)),
    CONSTRAINT ck_operation_logs_record_hash CHECK ((octet_length(record_hash) = 32)),
    CONSTRAINT ck_operation_logs_request_method CHECK (((request_method)::text = ANY ((ARRAY['UNARY'::character varying, 'STREAM'::character varying])::text[]))),
    CONSTRAINT ck_operation_logs_status_code CHECK (((status_code >= 100) AND (status_code <= 599)))
)
PARTITION BY RANGE (started_at);

ALTER TABLE ONLY public.operation_logs FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE operation_logs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.operation_logs IS 'Audit log: every call of every service, in commit order.';


--
-- Name: COLUMN operation_logs.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.id IS 'Key of the row together with started_at; its order means nothing.';


--
-- Name: COLUMN operation_logs.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.operation_id IS 'The call or system operation; a stream has two records.';


--
-- Name: COLUMN operation_logs.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.user_id IS 'User who called; null: nobody or the system.';


--
-- Name: COLUMN operation_logs.username; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.username IS 'Name of that user at the time of the call.';


--
-- Name: COLUMN operation_logs.action; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.action IS 'Verb of the record, such as create or reveal.';


--
-- Name: COLUMN operation_logs.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.resource_type IS 'Noun of the record, such as container.';


--
-- Name: COLUMN operation_logs.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.resource_id IS 'The resource; null where there is none or it was not found.';


--
-- Name: COLUMN operation_logs.resource_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.resource_name IS 'Name of the resource at the time of the call.';


--
-- Name: COLUMN operation_logs.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.namespace_id IS 'Namespace of the resource; null: of the platform.';


--
-- Name: COLUMN operation_logs.request_method; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.request_method IS 'UNARY or STREAM; null for system operations.';


--
-- Name: COLUMN operation_logs.request_path; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.request_path IS 'Full name of the gRPC method.';


--
-- Name: COLUMN operation_logs.request_body; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.request_body IS 'The request without secret fields.';


--
-- Name: COLUMN operation_logs.request_headers; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.request_headers IS 'The request headers that the settings select.';


--
-- Name: COLUMN operation_logs.client_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.client_ip IS 'Address of the caller.';


--
-- Name: COLUMN operation_logs.user_agent; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.user_agent IS 'user-agent header of the caller.';


--
-- Name: COLUMN operation_logs.status_code; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.status_code IS 'HTTP mapping of the google.rpc.Code; error_code has its name.';


--
-- Name: COLUMN operation_logs.response_body; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.response_body IS 'The response without secret fields, where the method records it.';


--
-- Name: COLUMN operation_logs.duration_ms; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.duration_ms IS 'Duration of the call.';


--
-- Name: COLUMN operation_logs.error_code; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.error_code IS 'Name of the google.rpc.Code; null: success.';


--
-- Name: COLUMN operation_logs.error_message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.error_message IS 'Message of the error.';


--
-- Name: COLUMN operation_logs.started_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.started_at IS 'When the call began; the log is partitioned by it.';


--
-- Name: COLUMN operation_logs.completed_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.completed_at IS 'When the call ended; null for the first record of a stream.';


--
-- Name: COLUMN operation_logs.metadata; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.metadata IS 'Further facts, such as the grant that allowed the call.';


--
-- Name: COLUMN operation_logs.stream_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.stream_id IS 'Links the two records of a stream, opened and closed.';


--
-- Name: COLUMN operation_logs.sequence; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.sequence IS 'Position in the log, from 1, without gaps; the leaf sequence - 1 of the tree.';


--
-- Name: COLUMN operation_logs.record_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.record_hash IS 'SHA-256 of the record''s canonical JSON, computed by the application.';


--
-- Name: COLUMN operation_logs.mark; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operation_logs.mark IS 'Eight random bytes that only this record has: another mark at the same sequence is another log.';


--
-- Name: operation_logs_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.operation_logs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: operation_logs_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.operation_logs_id_seq OWNED BY public.operation_logs.id;


--
-- Name: operations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.operations (
    operation_id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id bigint,
    method character varying(200) NOT NULL,
    resource_type character varying(50) NOT NULL,
    resource_id bigint,
    namespace_id bigint,
    request_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.operations FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE operations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.operations IS 'One row for each mutation; what history refers to instead of the partitioned log.';


--
-- Name: COLUMN operations.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.operation_id IS 'The operation, as in the audit log.';


--
-- Name: COLUMN operations.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.user_id IS 'User who called; null: the system.';


--
-- Name: COLUMN operations.method; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.method IS 'Method that was called.';


--
-- Name: COLUMN operations.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN operations.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.resource_id IS 'Id of its row; null: none.';


--
-- Name: COLUMN operations.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.namespace_id IS 'Namespace of the resource; null: of the platform.';


--
-- Name: COLUMN operations.request_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.request_id IS 'Idempotency key of the call; null: none.';


--
-- Name: COLUMN operations.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.operations.created_at IS 'When the operation was written.';


--
-- Name: orphans; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.orphans (
    id bigint NOT NULL,
    cluster_name character varying(100) NOT NULL,
    object_uid character varying(64) NOT NULL,
    kind character varying(63) NOT NULL,
    kubernetes_namespace character varying(253) NOT NULL,
    name character varying(253) NOT NULL,
    state character varying(20) NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    decided_at timestamp with time zone,
    decided_by bigint
);

ALTER TABLE ONLY public.orphans FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE orphans; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.orphans IS 'Objects of ours on clusters that the database does not know, as the last sweep found them.';


--
-- Name: COLUMN orphans.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN orphans.cluster_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.cluster_name IS 'Cluster of the object.';


--
-- Name: COLUMN orphans.object_uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.object_uid IS 'The uid that Kubernetes gave the object.';


--
-- Name: COLUMN orphans.kind; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.kind IS 'Kind of the object, such as Deployment.';


--
-- Name: COLUMN orphans.kubernetes_namespace; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.kubernetes_namespace IS 'Its namespace on the cluster; empty for a namespace itself.';


--
-- Name: COLUMN orphans.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.name IS 'Name of the object.';


--
-- Name: COLUMN orphans.state; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.state IS 'undecided: the sweep deletes it unless a new history holds it back. left: the sweep never deletes it. kept and deleting: an administrator has decided so.';


--
-- Name: COLUMN orphans.first_seen_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.first_seen_at IS 'When a sweep first found it.';


--
-- Name: COLUMN orphans.decided_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.decided_at IS 'When an administrator decided; NULL before.';


--
-- Name: COLUMN orphans.decided_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.orphans.decided_by IS 'The administrator who decided.';


--
-- Name: orphans_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.orphans ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.orphans_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: pending_changes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pending_changes (
    id bigint NOT NULL,
    records public.pending_record[] NOT NULL,
    record_hashes public.pending_hash[] NOT NULL,
    events public.pending_event[] NOT NULL,
    messages bytea[] NOT NULL,
    failures smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT ck_pending_changes_messages CHECK (((cardinality(messages) = cardinality(events)) AND (array_position(messages, NULL::bytea) IS NULL))),
    CONSTRAINT ck_pending_changes_record_hashes CHECK ((cardinality(record_hashes) = cardinality(records)))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', toast_tuple_target='8000');

ALTER TABLE ONLY public.pending_changes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE pending_changes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.pending_changes IS 'What is committed and not yet numbered: one row a transaction, for milliseconds.';


--
-- Name: COLUMN pending_changes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.id IS 'Taken by the last statement of a mutation; it orders the log and the events.';


--
-- Name: COLUMN pending_changes.records; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.records IS 'Its records of the audit log.';


--
-- Name: COLUMN pending_changes.record_hashes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.record_hashes IS 'Hash of each record.';


--
-- Name: COLUMN pending_changes.events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.events IS 'Its events.';


--
-- Name: COLUMN pending_changes.messages; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.messages IS 'Message of each event.';


--
-- Name: COLUMN pending_changes.failures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.failures IS 'How often it could not be numbered alone.';


--
-- Name: COLUMN pending_changes.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_changes.created_at IS 'When the row was put.';


--
-- Name: pending_changes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.pending_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.pending_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: pending_incidents; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.pending_incidents (
    id bigint NOT NULL,
    records public.pending_record[] NOT NULL,
    record_hashes public.pending_hash[] NOT NULL,
    events public.pending_event[] NOT NULL,
    messages bytea[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    sqlstate character varying(5) NOT NULL,
    constraint_name text NOT NULL,
    incident_sequence bigint NOT NULL,
    set_aside_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY public.pending_incidents FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE pending_incidents; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.pending_incidents IS 'Changes that could not be numbered, set aside so that the others go on; each has a record in the log.';


--
-- Name: COLUMN pending_incidents.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.id IS 'Id of the pending row.';


--
-- Name: COLUMN pending_incidents.records; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.records IS 'Its records of the audit log.';


--
-- Name: COLUMN pending_incidents.record_hashes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.record_hashes IS 'Hash of each record.';


--
-- Name: COLUMN pending_incidents.events; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.events IS 'Its events.';


--
-- Name: COLUMN pending_incidents.messages; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.messages IS 'Message of each event.';


--
-- Name: COLUMN pending_incidents.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.created_at IS 'When the pending row was put.';


--
-- Name: COLUMN pending_incidents.sqlstate; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.sqlstate IS 'Error that numbering it raised.';


--
-- Name: COLUMN pending_incidents.constraint_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.constraint_name IS 'Constraint that it broke, or the table.';


--
-- Name: COLUMN pending_incidents.incident_sequence; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.incident_sequence IS 'Sequence of the record that reports it.';


--
-- Name: COLUMN pending_incidents.set_aside_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.pending_incidents.set_aside_at IS 'When it was set aside.';


--
-- Name: periodic_jobs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.periodic_jobs (
    name character varying(100) NOT NULL,
    failures bigint DEFAULT 0 NOT NULL,
    failing_since timestamp with time zone,
    last_failure_at timestamp with time zone,
    last_failure character varying(100),
    last_success_at timestamp with time zone,
    CONSTRAINT ck_periodic_jobs_failures CHECK (((failures >= 0) AND ((failures = 0) = (failing_since IS NULL))))
);

ALTER TABLE ONLY public.periodic_jobs FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE periodic_jobs; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.periodic_jobs IS 'How the runs of each periodic job ended, whichever server did them.';


--
-- Name: COLUMN periodic_jobs.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.name IS 'Name of the job.';


--
-- Name: COLUMN periodic_jobs.failures; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.failures IS 'In a row, until now.';


--
-- Name: COLUMN periodic_jobs.failing_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.failing_since IS 'Since when runs fail; null: the last one succeeded.';


--
-- Name: COLUMN periodic_jobs.last_failure_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.last_failure_at IS 'When a run last failed.';


--
-- Name: COLUMN periodic_jobs.last_failure; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.last_failure IS 'The reason of the last failure, a word.';


--
-- Name: COLUMN periodic_jobs.last_success_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.periodic_jobs.last_success_at IS 'When a run last succeeded.';


--
-- Name: port_mappings; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.port_mappings (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    name character varying(100),
    container_port integer NOT NULL,
    host_port integer,
    protocol character varying(10) DEFAULT 'TCP'::character varying NOT NULL,
    app_protocol character varying(100),
    service_type character varying(20) DEFAULT 'ClusterIP'::character varying NOT NULL,
    service_name character varying(253),
    service_port integer,
    node_port integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_port_mappings_container_port CHECK (((container_port >= 1) AND (container_port <= 65535))),
    CONSTRAINT ck_port_mappings_host_port CHECK (((host_port >= 1) AND (host_port <= 65535))),
    CONSTRAINT ck_port_mappings_node_port CHECK (((node_port >= 30000) AND (node_port <= 32767))),
    CONSTRAINT ck_port_mappings_protocol CHECK (((protocol)::text = ANY ((ARRAY['TCP'::character varying, 'UDP'::character varying])::text[]))),
    CONSTRAINT ck_port_mappings_service CHECK ((((service_type)::text = 'None'::text) OR ((service_name IS NOT NULL) AND (service_port IS NOT NULL)))),
    CONSTRAINT ck_port_mappings_service_port CHECK (((service_port >= 1) AND (service_port <= 65535)))
);

ALTER TABLE ONLY public.port_mappings FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE port_mappings; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.port_mappings IS 'Ports of a container and the Services in front of them; one port may stand behind two.';


--
-- Name: COLUMN port_mappings.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN port_mappings.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.container_id IS 'The container it belongs to.';


--
-- Name: COLUMN port_mappings.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN port_mappings.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.name IS 'Name of the port.';


--
-- Name: COLUMN port_mappings.container_port; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.container_port IS 'Port of the container.';


--
-- Name: COLUMN port_mappings.host_port; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.host_port IS 'Port of the node; null: none.';


--
-- Name: COLUMN port_mappings.protocol; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.protocol IS 'TCP or UDP.';


--
-- Name: COLUMN port_mappings.app_protocol; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.app_protocol IS 'Application protocol of the Service port.';


--
-- Name: COLUMN port_mappings.service_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.service_type IS 'None: the port is declared on the pod only, without a Service.';


--
-- Name: COLUMN port_mappings.service_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.service_name IS 'The Service; null without one.';


--
-- Name: COLUMN port_mappings.service_port; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.service_port IS 'Port of the Service.';


--
-- Name: COLUMN port_mappings.node_port; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.node_port IS 'Node port of the Service; null: the cluster chooses one where it needs one.';


--
-- Name: COLUMN port_mappings.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.port_mappings.created_at IS 'When the row was created.';


--
-- Name: port_mappings_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.port_mappings ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.port_mappings_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: quota_counters; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.quota_counters (
    namespace_id bigint NOT NULL,
    id bigint NOT NULL,
    containers bigint NOT NULL,
    cpu_millicores numeric NOT NULL,
    memory_bytes numeric NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

ALTER TABLE ONLY public.quota_counters FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE quota_counters; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.quota_counters IS 'What counts against a namespace''s quota is the sum over its rows; kept by triggers on containers.';


--
-- Name: COLUMN quota_counters.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.quota_counters.namespace_id IS 'The namespace.';


--
-- Name: COLUMN quota_counters.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.quota_counters.id IS '0: the counter; otherwise a difference that it has not taken in yet.';


--
-- Name: COLUMN quota_counters.containers; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.quota_counters.containers IS 'Number of containers.';


--
-- Name: COLUMN quota_counters.cpu_millicores; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.quota_counters.cpu_millicores IS 'Sum of their quota_cpu_millicores.';


--
-- Name: COLUMN quota_counters.memory_bytes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.quota_counters.memory_bytes IS 'Sum of their quota_memory_bytes.';


--
-- Name: quota_counters_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.quota_counters ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.quota_counters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: reconcile_work; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.reconcile_work (
    resource_type character varying(50) NOT NULL,
    resource_id bigint NOT NULL,
    cluster_name character varying(100) NOT NULL,
    namespace_id bigint,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    lease_owner character varying(100),
    lease_epoch bigint DEFAULT 0 NOT NULL,
    leased_until timestamp with time zone,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_objects jsonb,
    going boolean DEFAULT false NOT NULL,
    held boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_reconcile_work_attempts CHECK ((attempts >= 0)),
    CONSTRAINT ck_reconcile_work_lease CHECK (((lease_owner IS NULL) = (leased_until IS NULL)))
);

ALTER TABLE ONLY public.reconcile_work FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE reconcile_work; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.reconcile_work IS 'Outbox of the reconcilers: resources whose cluster state may differ from the desired one.';


--
-- Name: COLUMN reconcile_work.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN reconcile_work.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.resource_id IS 'Id of its row.';


--
-- Name: COLUMN reconcile_work.cluster_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.cluster_name IS 'Cluster of the resource.';


--
-- Name: COLUMN reconcile_work.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.namespace_id IS 'Its namespace; null: of the platform.';


--
-- Name: COLUMN reconcile_work.due_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.due_at IS 'When it is to be compared next; for leased work, when the lease ends.';


--
-- Name: COLUMN reconcile_work.attempts; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.attempts IS 'Failed attempts in a row.';


--
-- Name: COLUMN reconcile_work.lease_owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.lease_owner IS 'Server that works on it; null: none.';


--
-- Name: COLUMN reconcile_work.lease_epoch; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.lease_epoch IS 'Raised by each lease; a worker writes back under the epoch of its lease.';


--
-- Name: COLUMN reconcile_work.leased_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.leased_until IS 'When the lease ends.';


--
-- Name: COLUMN reconcile_work.last_error; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.last_error IS 'Error of the last attempt.';


--
-- Name: COLUMN reconcile_work.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.created_at IS 'When the work was first put.';


--
-- Name: COLUMN reconcile_work.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN reconcile_work.applied_objects; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.applied_objects IS 'Fingerprint of each object as it was last applied, by kind and name; null: none was noted.';


--
-- Name: COLUMN reconcile_work.going; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.going IS 'Whether the resource is being deleted: it yields to new and changed ones.';


--
-- Name: COLUMN reconcile_work.held; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.reconcile_work.held IS 'Whether the cluster is left as it is until the step of its application; a deletion does not wait.';


--
-- Name: recovery_codes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.recovery_codes (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    code_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    used_at timestamp with time zone
);

ALTER TABLE ONLY public.recovery_codes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE recovery_codes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.recovery_codes IS 'Codes that let a user in once each without the authenticator, as SHA-256 of 80 random bits.';


--
-- Name: COLUMN recovery_codes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.recovery_codes.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN recovery_codes.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.recovery_codes.user_id IS 'The user it belongs to.';


--
-- Name: COLUMN recovery_codes.code_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.recovery_codes.code_hash IS 'SHA-256 of the code.';


--
-- Name: COLUMN recovery_codes.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.recovery_codes.created_at IS 'When the row was created.';


--
-- Name: COLUMN recovery_codes.used_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.recovery_codes.used_at IS 'When it was used; null: it is left.';


--
-- Name: recovery_codes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.recovery_codes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.recovery_codes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: rendered_messages; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rendered_messages (
    resource_type character varying(50) NOT NULL,
    resource_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    row_version bigint NOT NULL,
    format integer NOT NULL,
    message bytea NOT NULL
)
WITH (fillfactor='80');

ALTER TABLE ONLY public.rendered_messages FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE rendered_messages; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.rendered_messages IS 'What reads of a resource answer, serialised: that part of its message that follows from its own row.';


--
-- Name: COLUMN rendered_messages.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN rendered_messages.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.resource_id IS 'Id of its row.';


--
-- Name: COLUMN rendered_messages.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.namespace_id IS 'Its namespace; of a namespace, itself.';


--
-- Name: COLUMN rendered_messages.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.row_version IS 'The version of the row that it was rendered from; where the row has another one, it is not shown.';


--
-- Name: COLUMN rendered_messages.format; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.format IS 'Grows with each release that renders more; one that is not the server''s own is not shown.';


--
-- Name: COLUMN rendered_messages.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.rendered_messages.message IS 'The serialised message.';


--
-- Name: request_claims; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.request_claims (
    user_id bigint NOT NULL,
    request_id uuid NOT NULL,
    owner uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.request_claims FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE request_claims; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.request_claims IS 'Requests that are being served outside a transaction, until the deadline of the call that serves them.';


--
-- Name: COLUMN request_claims.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.request_claims.user_id IS 'User who called.';


--
-- Name: COLUMN request_claims.request_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.request_claims.request_id IS 'Id that the caller chose.';


--
-- Name: COLUMN request_claims.owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.request_claims.owner IS 'The operation that serves the request.';


--
-- Name: COLUMN request_claims.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.request_claims.expires_at IS 'Deadline of the call that serves it.';


--
-- Name: revision_values; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.revision_values (
    id bigint NOT NULL,
    revision_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    secret_name character varying(253) NOT NULL,
    place character varying(400) NOT NULL,
    ciphertext bytea,
    data_key bytea,
    key_id character varying(64),
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_revision_values_sealed CHECK ((num_nulls(ciphertext, data_key, key_id) = ANY (ARRAY[0, 3])))
);

ALTER TABLE ONLY public.revision_values FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE revision_values; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.revision_values IS 'Values of secrets as revisions have them, each encrypted for its revision.';


--
-- Name: COLUMN revision_values.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN revision_values.revision_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.revision_id IS 'The revision; the row goes with it.';


--
-- Name: COLUMN revision_values.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN revision_values.secret_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.secret_name IS 'Name of the secret.';


--
-- Name: COLUMN revision_values.place; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.place IS 'What it is encrypted for: uid of the resource, revision, name.';


--
-- Name: COLUMN revision_values.ciphertext; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.ciphertext IS 'The encrypted values; null: they were purged.';


--
-- Name: COLUMN revision_values.data_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.data_key IS 'The wrapped data key; null: the values were purged.';


--
-- Name: COLUMN revision_values.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.key_id IS 'The key that wraps the data key; null: the values were purged.';


--
-- Name: COLUMN revision_values.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revision_values.created_at IS 'When it was made.';


--
-- Name: revision_values_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.revision_values ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.revision_values_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: revisions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.revisions (
    id bigint NOT NULL,
    resource_type character varying(50) NOT NULL,
    resource_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    number integer NOT NULL,
    document jsonb NOT NULL,
    origin integer,
    operation_id uuid,
    created_by bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_revisions_number CHECK ((number > 0)),
    CONSTRAINT ck_revisions_origin CHECK ((origin > 0))
);

ALTER TABLE ONLY public.revisions FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE revisions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.revisions IS 'The newest desired states of a resource, each whole, to compare and to go back to.';


--
-- Name: COLUMN revisions.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN revisions.resource_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.resource_type IS 'Type of the resource.';


--
-- Name: COLUMN revisions.resource_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.resource_id IS 'Id of its row.';


--
-- Name: COLUMN revisions.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN revisions.number; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.number IS 'Number of the revision, from 1 for each resource.';


--
-- Name: COLUMN revisions.document; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.document IS 'The desired state, as its noun stores it.';


--
-- Name: COLUMN revisions.origin; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.origin IS 'Number of the revision that it brought back; null: it is no rollback.';


--
-- Name: COLUMN revisions.operation_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.operation_id IS 'The operation that made it; null: made before revisions were kept.';


--
-- Name: COLUMN revisions.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.created_by IS 'User who made it; null: the system, or not known.';


--
-- Name: COLUMN revisions.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.revisions.created_at IS 'When it was made.';


--
-- Name: revisions_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.revisions ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.revisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: roles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.roles (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(50) NOT NULL,
    display_name character varying(100) NOT NULL,
    description text,
    is_system boolean DEFAULT false NOT NULL,
    permissions jsonb DEFAULT '[]'::jsonb NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    CONSTRAINT ck_roles_permissions CHECK ((jsonb_typeof(permissions) = 'array'::text))
);

ALTER TABLE ONLY public.roles FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE roles; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.roles IS 'Named sets of permissions; granted to users in user_roles.';


--
-- Name: COLUMN roles.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN roles.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN roles.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.name IS 'Name of the role.';


--
-- Name: COLUMN roles.display_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.display_name IS 'Name for people.';


--
-- Name: COLUMN roles.description; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.description IS 'Free text.';


--
-- Name: COLUMN roles.is_system; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.is_system IS 'Shipped with the product; cannot be changed or deleted.';


--
-- Name: COLUMN roles.permissions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.permissions IS 'Array of strings: <noun>.<verb>, <noun>.*, or *.';


--
-- Name: COLUMN roles.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN roles.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.created_at IS 'When the row was created.';


--
-- Name: COLUMN roles.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN roles.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN roles.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.roles.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: roles_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.roles ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.roles_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: schema_functions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_functions (
    name character varying(63) NOT NULL,
    checksum character varying(64) NOT NULL,
    version character varying(255) NOT NULL
);

ALTER TABLE ONLY public.schema_functions FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE schema_functions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.schema_functions IS 'The text of each function, as it was applied last.';


--
-- Name: COLUMN schema_functions.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_functions.name IS 'Name of the function and of its file.';


--
-- Name: COLUMN schema_functions.checksum; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_functions.checksum IS 'SHA-256 of its text.';


--
-- Name: COLUMN schema_functions.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_functions.version IS 'The migration that gave it this text; an older release leaves it alone.';


--
-- Name: schema_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_migrations (
    version character varying(255) NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    checksum character varying(64) NOT NULL,
    execution_time_ms integer,
    success boolean DEFAULT true NOT NULL,
    serves_from character varying(20) NOT NULL
);

ALTER TABLE ONLY public.schema_migrations FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE schema_migrations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.schema_migrations IS 'Checksum, duration and success of each migration.';


--
-- Name: COLUMN schema_migrations.version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.version IS 'Id of the migration.';


--
-- Name: COLUMN schema_migrations.applied_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.applied_at IS 'When it was applied, or failed.';


--
-- Name: COLUMN schema_migrations.checksum; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.checksum IS 'SHA-256 of its SQL and of the former texts of its functions.';


--
-- Name: COLUMN schema_migrations.execution_time_ms; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.execution_time_ms IS 'How long it took.';


--
-- Name: COLUMN schema_migrations.success; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.success IS 'False: it failed and is not applied.';


--
-- Name: COLUMN schema_migrations.serves_from; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_migrations.serves_from IS 'The oldest release that may run on the schema after it.';


--
-- Name: secrets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.secrets (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(253) NOT NULL,
    namespace_id bigint NOT NULL,
    kubernetes_name character varying(253) NOT NULL,
    type character varying(100) DEFAULT 'Opaque'::character varying NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    ciphertext bytea NOT NULL,
    data_key bytea NOT NULL,
    key_id character varying(64) NOT NULL,
    immutable boolean DEFAULT false NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    taken_over character varying(64),
    row_version bigint DEFAULT 1 NOT NULL,
    CONSTRAINT ck_secrets_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_secrets_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_secrets_data CHECK ((jsonb_typeof(data) = 'object'::text)),
    CONSTRAINT ck_secrets_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_secrets_labels CHECK ((jsonb_typeof(labels) = 'object'::text))
);

ALTER TABLE ONLY public.secrets FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE secrets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.secrets IS 'Secrets that containers of a namespace read, encrypted by the application.';


--
-- Name: COLUMN secrets.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN secrets.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN secrets.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.name IS 'Name of the secret in its namespace.';


--
-- Name: COLUMN secrets.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.namespace_id IS 'The namespace it belongs to.';


--
-- Name: COLUMN secrets.kubernetes_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.kubernetes_name IS 'Name of the object on the cluster.';


--
-- Name: COLUMN secrets.type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.type IS 'Type, as in Kubernetes.';


--
-- Name: COLUMN secrets.data; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.data IS 'Names and sizes of its keys: name -> {"size_bytes": n}. Never a value.';


--
-- Name: COLUMN secrets.ciphertext; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.ciphertext IS 'AES-256-GCM over all values; additional data binds it to table, row and namespace.';


--
-- Name: COLUMN secrets.data_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.data_key IS 'The row''s data key, wrapped by the key-encryption key that key_id names.';


--
-- Name: COLUMN secrets.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.key_id IS 'Key-encryption key that wraps data_key.';


--
-- Name: COLUMN secrets.immutable; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.immutable IS 'Whether its data can never change.';


--
-- Name: COLUMN secrets.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN secrets.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN secrets.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN secrets.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN secrets.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN secrets.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN secrets.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.created_at IS 'When the row was created.';


--
-- Name: COLUMN secrets.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN secrets.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN secrets.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN secrets.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN secrets.taken_over; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.taken_over IS 'uid of the Secret that was on the cluster before; null: we created it.';


--
-- Name: COLUMN secrets.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.secrets.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: secrets_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.secrets ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.secrets_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: service_changes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.service_changes (
    id bigint NOT NULL,
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL
);

ALTER TABLE ONLY public.service_changes FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE service_changes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.service_changes IS 'Containers whose Services changed, until a server has written the rows and events of these Services.';


--
-- Name: COLUMN service_changes.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.service_changes.id IS 'In the order of the changes.';


--
-- Name: COLUMN service_changes.container_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.service_changes.container_id IS 'The container; its row may be gone.';


--
-- Name: COLUMN service_changes.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.service_changes.namespace_id IS 'The namespace of the container.';


--
-- Name: service_changes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.service_changes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.service_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: services; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.services (
    id bigint NOT NULL,
    uid uuid DEFAULT gen_random_uuid() NOT NULL,
    name character varying(63) NOT NULL,
    namespace_id bigint NOT NULL,
    owner character varying(63),
    owner_id bigint,
    type character varying(20) DEFAULT 'ClusterIP'::character varying NOT NULL,
    spec jsonb DEFAULT '{}'::jsonb NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    annotations jsonb DEFAULT '{}'::jsonb NOT NULL,
    drift_policy character varying(10) DEFAULT 'repair'::character varying NOT NULL,
    taken_over character varying(64),
    status character varying(20) DEFAULT 'pending'::character varying NOT NULL,
    reason character varying(100),
    message text,
    addresses jsonb DEFAULT '[]'::jsonb NOT NULL,
    node_ports jsonb DEFAULT '[]'::jsonb NOT NULL,
    ready_endpoints integer DEFAULT 0 NOT NULL,
    endpoints integer DEFAULT 0 NOT NULL,
    conditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    generation bigint DEFAULT 1 NOT NULL,
    observed_generation bigint DEFAULT 0 NOT NULL,
    resource_version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by bigint,
    updated_by bigint,
    deletion_requested_at timestamp with time zone,
    stale_since timestamp with time zone,
    row_version bigint DEFAULT 1 NOT NULL,
    CONSTRAINT ck_services_addresses CHECK ((jsonb_typeof(addresses) = 'array'::text)),
    CONSTRAINT ck_services_annotations CHECK ((jsonb_typeof(annotations) = 'object'::text)),
    CONSTRAINT ck_services_conditions CHECK ((jsonb_typeof(conditions) = 'array'::text)),
    CONSTRAINT ck_services_endpoints CHECK (((ready_endpoints >= 0) AND (ready_endpoints <= endpoints))),
    CONSTRAINT ck_services_generation CHECK ((observed_generation <= generation)),
    CONSTRAINT ck_services_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT ck_services_node_ports CHECK ((jsonb_typeof(node_ports) = 'array'::text)),
    CONSTRAINT ck_services_owner CHECK (((owner IS NOT NULL) OR (owner_id IS NULL))),
    CONSTRAINT ck_services_spec CHECK ((jsonb_typeof(spec) = 'object'::text))
);

ALTER TABLE ONLY public.services FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE services; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.services IS 'Services of a namespace: stable addresses in front of pods.';


--
-- Name: COLUMN services.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN services.uid; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.uid IS 'Id of the resource in the API.';


--
-- Name: COLUMN services.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.name IS 'Name of the Service in its namespace, and on the cluster.';


--
-- Name: COLUMN services.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.namespace_id IS 'Namespace of the Service.';


--
-- Name: COLUMN services.owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.owner IS 'Name of the container whose ports make it; null: it stands by itself.';


--
-- Name: COLUMN services.owner_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.owner_id IS 'That container; null: it is gone, or there is none.';


--
-- Name: COLUMN services.type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.type IS 'Type, as in Kubernetes.';


--
-- Name: COLUMN services.spec; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.spec IS 'Desired fields without a column.';


--
-- Name: COLUMN services.labels; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.labels IS 'Labels, as in Kubernetes.';


--
-- Name: COLUMN services.annotations; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.annotations IS 'Annotations, as in Kubernetes.';


--
-- Name: COLUMN services.drift_policy; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.drift_policy IS 'Reaction to changes by others.';


--
-- Name: COLUMN services.taken_over; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.taken_over IS 'uid of the object that was on the cluster before; null: we created it.';


--
-- Name: COLUMN services.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.status IS 'State on the cluster, as observed.';


--
-- Name: COLUMN services.reason; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.reason IS 'Reason of the status, a word.';


--
-- Name: COLUMN services.message; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.message IS 'Reason of the status, in words.';


--
-- Name: COLUMN services.addresses; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.addresses IS 'Addresses and host names on the cluster, as observed.';


--
-- Name: COLUMN services.node_ports; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.node_ports IS 'Ports of the nodes in the order of its ports, as observed; 0: none.';


--
-- Name: COLUMN services.ready_endpoints; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.ready_endpoints IS 'Addresses of pods that receive traffic, as observed.';


--
-- Name: COLUMN services.endpoints; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.endpoints IS 'Addresses of all selected pods, as observed.';


--
-- Name: COLUMN services.conditions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.conditions IS 'Conditions with type, status, reason, message and time, as in Kubernetes.';


--
-- Name: COLUMN services.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.generation IS 'Raised by each change of the desired state.';


--
-- Name: COLUMN services.observed_generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.observed_generation IS 'The generation that the cluster was last brought to.';


--
-- Name: COLUMN services.resource_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.resource_version IS 'Raised by each change that users see; the etag is made from it.';


--
-- Name: COLUMN services.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.created_at IS 'When the row was created.';


--
-- Name: COLUMN services.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN services.created_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.created_by IS 'User who created it; null: the system.';


--
-- Name: COLUMN services.updated_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.updated_by IS 'User who changed it last; null: the system.';


--
-- Name: COLUMN services.deletion_requested_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.deletion_requested_at IS 'Deletion is in progress since then; null: none was requested.';


--
-- Name: COLUMN services.stale_since; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.stale_since IS 'Since when the observed state is old, because the cluster is unreachable.';


--
-- Name: COLUMN services.row_version; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.services.row_version IS 'Raised by each write of the row, by a trigger.';


--
-- Name: services_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.services ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.services_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: sessions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.sessions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    user_id bigint NOT NULL,
    family_id uuid NOT NULL,
    access_token_hash bytea NOT NULL,
    refresh_token_hash bytea NOT NULL,
    access_expires_at timestamp with time zone NOT NULL,
    refresh_expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone,
    rotated_at timestamp with time zone,
    revoked_at timestamp with time zone,
    replaced_by uuid,
    client_ip character varying(45),
    user_agent text,
    method character varying(20) DEFAULT 'password'::character varying NOT NULL,
    proved_at timestamp with time zone,
    console boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY public.sessions FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE sessions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.sessions IS 'One row per issued pair of tokens; tokens are kept as SHA-256 of 256 random bits.';


--
-- Name: COLUMN sessions.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.id IS 'Id of the session.';


--
-- Name: COLUMN sessions.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.user_id IS 'User who logged in.';


--
-- Name: COLUMN sessions.family_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.family_id IS 'All pairs that descend from one login; a replayed refresh token ends the family.';


--
-- Name: COLUMN sessions.access_token_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.access_token_hash IS 'SHA-256 of the access token.';


--
-- Name: COLUMN sessions.refresh_token_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.refresh_token_hash IS 'SHA-256 of the refresh token.';


--
-- Name: COLUMN sessions.access_expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.access_expires_at IS 'When the access token expires.';


--
-- Name: COLUMN sessions.refresh_expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.refresh_expires_at IS 'When the refresh token expires.';


--
-- Name: COLUMN sessions.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.created_at IS 'When the row was created.';


--
-- Name: COLUMN sessions.last_used_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.last_used_at IS 'When it was last used; written at intervals.';


--
-- Name: COLUMN sessions.rotated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.rotated_at IS 'When its refresh token was exchanged.';


--
-- Name: COLUMN sessions.revoked_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.revoked_at IS 'When it was revoked.';


--
-- Name: COLUMN sessions.replaced_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.replaced_by IS 'The pair that the refresh token was exchanged for; a refresh token is used once.';


--
-- Name: COLUMN sessions.client_ip; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.client_ip IS 'Address it was issued to.';


--
-- Name: COLUMN sessions.user_agent; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.user_agent IS 'user-agent header it was issued to.';


--
-- Name: COLUMN sessions.method; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.method IS 'How the user or program proved its identity.';


--
-- Name: COLUMN sessions.proved_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.proved_at IS 'When the user last proved identity by password, code or issuer; a refresh keeps it. Null: unknown.';


--
-- Name: COLUMN sessions.console; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.sessions.console IS 'Whether it is a browser''s: its access token does not rotate, and its end moves on while it is used.';


--
-- Name: stream_head; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.stream_head (
    id smallint DEFAULT 1 NOT NULL,
    history_id uuid DEFAULT gen_random_uuid() NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    oldest_revision bigint DEFAULT 0 NOT NULL,
    audit_sequence bigint DEFAULT 0 NOT NULL,
    record_mark bytea DEFAULT '\x0000000000000000'::bytea NOT NULL,
    event_mark bytea DEFAULT '\x0000000000000000'::bytea NOT NULL,
    pending_floor bigint DEFAULT 0 NOT NULL,
    floor_candidate bigint DEFAULT 0 NOT NULL,
    floor_transaction xid8,
    CONSTRAINT ck_stream_head_id CHECK ((id = 1)),
    CONSTRAINT ck_stream_head_oldest_revision CHECK ((oldest_revision <= (revision + 1)))
)
WITH (fillfactor='10', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

ALTER TABLE ONLY public.stream_head FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE stream_head; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.stream_head IS 'One row: the newest revision and the newest record. Its lock orders both.';


--
-- Name: COLUMN stream_head.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.id IS 'Always 1.';


--
-- Name: COLUMN stream_head.history_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.history_id IS 'Changes on restore and on promotion, so that old resume tokens are refused.';


--
-- Name: COLUMN stream_head.revision; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.revision IS 'Revision of the newest event.';


--
-- Name: COLUMN stream_head.oldest_revision; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.oldest_revision IS 'Watch horizon: every event from this revision on is kept.';


--
-- Name: COLUMN stream_head.audit_sequence; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.audit_sequence IS 'Sequence of the newest record of the audit log.';


--
-- Name: COLUMN stream_head.record_mark; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.record_mark IS 'The random bytes of the newest record of the audit log.';


--
-- Name: COLUMN stream_head.event_mark; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.event_mark IS 'The random bytes of the newest event.';


--
-- Name: COLUMN stream_head.pending_floor; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.pending_floor IS 'No pending id at or below it can appear any more.';


--
-- Name: COLUMN stream_head.floor_candidate; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.floor_candidate IS 'The next floor, once every transaction before floor_transaction is over.';


--
-- Name: COLUMN stream_head.floor_transaction; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.stream_head.floor_transaction IS 'Transaction of the pass that noted floor_candidate.';


--
-- Name: table_sizes; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.table_sizes WITH (security_invoker='true') AS
 SELECT n.nspname AS schemaname,
    c.relname AS tablename,
    pg_size_pretty(s.total_bytes) AS total_size,
    pg_size_pretty(s.table_bytes) AS table_size,
    pg_size_pretty((s.total_bytes - s.table_bytes)) AS index_size,
    (s.total_bytes)::bigint AS total_bytes,
    (s.table_bytes)::bigint AS table_bytes,
    ((s.total_bytes - s.table_bytes))::bigint AS index_bytes,
    (s.estimated_rows)::bigint AS estimated_rows,
    ( SELECT p.relname
           FROM (pg_inherits i
             JOIN pg_class p ON ((p.oid = i.inhparent)))
          WHERE (i.inhrelid = c.oid)) AS partition_of
   FROM ((pg_class c
     JOIN pg_namespace n ON ((n.oid = c.relnamespace)))
     CROSS JOIN LATERAL ( SELECT sum(pg_total_relation_size(t.relid)) AS total_bytes,
            sum(pg_relation_size(t.relid)) AS table_bytes,
            sum(GREATEST(leaf.reltuples, (0)::real)) FILTER (WHERE t.isleaf) AS estimated_rows
           FROM (( SELECT (c.oid)::regclass AS relid,
                    true AS isleaf
                  WHERE (c.relkind <> 'p'::"char")
                UNION ALL
                 SELECT pt.relid,
                    pt.isleaf
                   FROM pg_partition_tree((c.oid)::regclass) pt(relid, parentrelid, isleaf, level)
                  WHERE (c.relkind = 'p'::"char")) t
             JOIN pg_class leaf ON ((leaf.oid = (t.relid)::oid)))) s)
  WHERE ((n.nspname = 'public'::name) AND (c.relkind = ANY (ARRAY['r'::"char", 'p'::"char", 'm'::"char"])))
  ORDER BY s.total_bytes DESC;


--
-- Name: VIEW table_sizes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.table_sizes IS 'Sizes of tables; a partitioned table''s are those of its partitions together.';


--
-- Name: user_operation_stats; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.user_operation_stats WITH (security_invoker='true') AS
 SELECT u.id AS user_id,
    u.username,
    u.full_name,
    count(ol.id) AS total_operations,
    count(ol.id) FILTER (WHERE ((ol.status_code >= 200) AND (ol.status_code < 300))) AS successful_operations,
    count(ol.id) FILTER (WHERE ((ol.status_code >= 400) AND (NOT ((NOT ((ol.request_method)::text IS DISTINCT FROM 'STREAM'::text)) AND ((NOT ((ol.error_code)::text IS DISTINCT FROM 'CANCELLED'::text)) OR (((ol.action)::text = 'watch'::text) AND (NOT ((ol.error_code)::text IS DISTINCT FROM 'DEADLINE_EXCEEDED'::text)))))))) AS failed_operations,
    count(ol.id) FILTER (WHERE ((ol.action)::text = 'create'::text)) AS create_operations,
    count(ol.id) FILTER (WHERE ((ol.action)::text = 'start'::text)) AS start_operations,
    count(ol.id) FILTER (WHERE ((ol.action)::text = 'stop'::text)) AS stop_operations,
    count(ol.id) FILTER (WHERE ((ol.action)::text = 'delete'::text)) AS delete_operations,
    min(ol.started_at) AS first_operation_at,
    max(ol.started_at) AS last_operation_at,
    avg(ol.duration_ms) AS avg_duration_ms,
    count(ol.id) FILTER (WHERE (ol.started_at >= (now() - '30 days'::interval))) AS operations_last_30_days
   FROM (public.users u
     LEFT JOIN public.operation_logs ol ON ((ol.user_id = u.id)))
  GROUP BY u.id, u.username, u.full_name;


--
-- Name: VIEW user_operation_stats; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.user_operation_stats IS 'What each visible user did, as far as the caller may see the log.';


--
-- Name: user_roles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.user_roles (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    role_id bigint NOT NULL,
    namespace_id bigint,
    assigned_at timestamp with time zone DEFAULT now() NOT NULL,
    assigned_by bigint,
    expires_at timestamp with time zone,
    source character varying(40)
);

ALTER TABLE ONLY public.user_roles FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE user_roles; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.user_roles IS 'Grants: this user has this role in this namespace, or in every one where it is null.';


--
-- Name: COLUMN user_roles.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN user_roles.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.user_id IS 'User who has the grant.';


--
-- Name: COLUMN user_roles.role_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.role_id IS 'Role that is granted.';


--
-- Name: COLUMN user_roles.namespace_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.namespace_id IS 'Namespace it holds in; null: every one.';


--
-- Name: COLUMN user_roles.assigned_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.assigned_at IS 'When it was granted.';


--
-- Name: COLUMN user_roles.assigned_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.assigned_by IS 'User who granted it; null: the system or an issuer''s rule.';


--
-- Name: COLUMN user_roles.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.expires_at IS 'When the grant ends; null: never.';


--
-- Name: COLUMN user_roles.source; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_roles.source IS 'Issuer that gives the grant by a rule; null: a person did.';


--
-- Name: user_roles_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.user_roles ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.user_roles_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: user_secrets; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.user_secrets (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    secret_type character varying(50) NOT NULL,
    encrypted_value bytea NOT NULL,
    data_key bytea,
    key_id character varying(64) NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    name character varying(255) DEFAULT ''::character varying NOT NULL,
    CONSTRAINT ck_user_secrets_secret_type CHECK (((secret_type)::text = ANY ((ARRAY['api_key'::character varying, 'password'::character varying, 'token'::character varying, 'totp'::character varying])::text[])))
);

ALTER TABLE ONLY public.user_secrets FORCE ROW LEVEL SECURITY;


--
-- Name: TABLE user_secrets; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.user_secrets IS 'Credentials of a user for other systems, encrypted by the application.';


--
-- Name: COLUMN user_secrets.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.id IS 'Key of the row inside the database.';


--
-- Name: COLUMN user_secrets.user_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.user_id IS 'The user it belongs to.';


--
-- Name: COLUMN user_secrets.secret_type; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.secret_type IS 'Kind of secret.';


--
-- Name: COLUMN user_secrets.encrypted_value; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.encrypted_value IS 'AES-256-GCM ciphertext made by the application.';


--
-- Name: COLUMN user_secrets.data_key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.data_key IS 'Data key of the row, wrapped by the key-encryption key key_id.';


--
-- Name: COLUMN user_secrets.key_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.key_id IS 'Key-encryption key that wraps data_key.';


--
-- Name: COLUMN user_secrets.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.created_at IS 'When the row was created.';


--
-- Name: COLUMN user_secrets.updated_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.updated_at IS 'When the row was last written.';


--
-- Name: COLUMN user_secrets.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.user_secrets.name IS 'Tells several secrets of a kind apart, such as the tokens of several issuers.';


--
-- Name: user_secrets_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.user_secrets ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.user_secrets_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: users_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.users ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: volumes_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.volumes ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.volumes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: watched_rows; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.watched_rows WITH (security_invoker='true') AS
 SELECT 'config_map'::text AS resource_type,
    config_maps.id AS resource_id,
    config_maps.namespace_id,
    config_maps.row_version
   FROM public.config_maps
UNION ALL
 SELECT 'container'::text AS resource_type,
    containers.id AS resource_id,
    containers.namespace_id,
    containers.row_version
   FROM public.containers
UNION ALL
 SELECT 'namespace'::text AS resource_type,
    namespaces.id AS resource_id,
    namespaces.id AS namespace_id,
    namespaces.row_version
   FROM public.namespaces
  WHERE (namespaces.deleted_at IS NULL)
UNION ALL
 SELECT 'secret'::text AS resource_type,
    secrets.id AS resource_id,
    secrets.namespace_id,
    secrets.row_version
   FROM public.secrets
UNION ALL
 SELECT 'volume'::text AS resource_type,
    volumes.id AS resource_id,
    volumes.namespace_id,
    volumes.row_version
   FROM public.volumes
UNION ALL
 SELECT 'service'::text AS resource_type,
    services.id AS resource_id,
    services.namespace_id,
    services.row_version
   FROM public.services
UNION ALL
 SELECT 'object'::text AS resource_type,
    objects.id AS resource_id,
    objects.namespace_id,
    objects.row_version
   FROM public.objects;


--
-- Name: VIEW watched_rows; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON VIEW public.watched_rows IS 'The rows of every watched resource type, by type and id, with their namespaces and versions.';


--
-- Name: container_resource_usage id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_resource_usage ALTER COLUMN id SET DEFAULT nextval('public.container_resource_usage_id_seq'::regclass);


--
-- Name: operation_logs id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operation_logs ALTER COLUMN id SET DEFAULT nextval('public.operation_logs_id_seq'::regclass);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: containers ck_containers_status; Type: CHECK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.containers
    ADD CONSTRAINT ck_containers_status CHECK (((status)::text = ANY ((ARRAY['pending'::character varying, 'running'::character varying, 'paused'::character varying, 'stopped'::character varying, 'failed'::character varying, 'crash_loop_back_off'::character varying, 'succeeded'::character varying])::text[]))) NOT VALID;


--
-- Name: environment_variables ck_environment_variables_source; Type: CHECK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.environment_variables
    ADD CONSTRAINT ck_environment_variables_source CHECK (
CASE value_from
    WHEN 'literal'::text THEN ((source_name IS NULL) AND (source_key IS NULL))
    WHEN 'field_ref'::text THEN ((value IS NULL) AND (source_name IS NULL) AND (source_key IS NOT NULL))
    WHEN 'resource_field_ref'::text THEN (source_key IS NOT NULL)
    ELSE ((value IS NULL) AND (source_name IS NOT NULL) AND (source_key IS NOT NULL))
END) NOT VALID;


--
-- Name: environment_variables ck_environment_variables_value_from; Type: CHECK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.environment_variables
    ADD CONSTRAINT ck_environment_variables_value_from CHECK (((value_from)::text = ANY ((ARRAY['literal'::character varying, 'config_map'::character varying, 'secret'::character varying, 'field_ref'::character varying, 'resource_field_ref'::character varying])::text[]))) NOT VALID;


--
-- Name: volumes ck_volumes_access_mode; Type: CHECK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.volumes
    ADD CONSTRAINT ck_volumes_access_mode CHECK (((access_mode)::text = ANY ((ARRAY['ReadWriteOnce'::character varying, 'ReadOnlyMany'::character varying, 'ReadWriteMany'::character varying, 'ReadWriteOncePod'::character varying])::text[]))) NOT VALID;


--
-- Name: volumes ck_volumes_owner; Type: CHECK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.volumes
    ADD CONSTRAINT ck_volumes_owner CHECK (((owner IS NOT NULL) OR (owner_id IS NULL))) NOT VALID;


--
-- Name: api_keys pk_api_keys; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT pk_api_keys PRIMARY KEY (id);


--
-- Name: application_changes pk_application_changes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_changes
    ADD CONSTRAINT pk_application_changes PRIMARY KEY (id);


--
-- Name: application_documents pk_application_documents; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_documents
    ADD CONSTRAINT pk_application_documents PRIMARY KEY (id);


--
-- Name: application_members pk_application_members; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_members
    ADD CONSTRAINT pk_application_members PRIMARY KEY (id);


--
-- Name: applications pk_applications; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT pk_applications PRIMARY KEY (id);


--
-- Name: audit_seals pk_audit_seals; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_seals
    ADD CONSTRAINT pk_audit_seals PRIMARY KEY (size);


--
-- Name: audit_sinks pk_audit_sinks; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_sinks
    ADD CONSTRAINT pk_audit_sinks PRIMARY KEY (id);


--
-- Name: audit_tiles pk_audit_tiles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_tiles
    ADD CONSTRAINT pk_audit_tiles PRIMARY KEY (level, "position");


--
-- Name: audit_tree pk_audit_tree; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_tree
    ADD CONSTRAINT pk_audit_tree PRIMARY KEY (id);


--
-- Name: claim_changes pk_claim_changes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.claim_changes
    ADD CONSTRAINT pk_claim_changes PRIMARY KEY (id);


--
-- Name: clusters pk_clusters; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT pk_clusters PRIMARY KEY (id);


--
-- Name: config_maps pk_config_maps; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT pk_config_maps PRIMARY KEY (id);


--
-- Name: container_images pk_container_images; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_images
    ADD CONSTRAINT pk_container_images PRIMARY KEY (id);


--
-- Name: container_pods pk_container_pods; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_pods
    ADD CONSTRAINT pk_container_pods PRIMARY KEY (id);


--
-- Name: container_resource_usage pk_container_resource_usage; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_resource_usage
    ADD CONSTRAINT pk_container_resource_usage PRIMARY KEY (id, "timestamp");


--
-- Name: container_runs pk_container_runs; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_runs
    ADD CONSTRAINT pk_container_runs PRIMARY KEY (id);


--
-- Name: container_status_history pk_container_status_history; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_status_history
    ADD CONSTRAINT pk_container_status_history PRIMARY KEY (id);


--
-- Name: container_usage_daily pk_container_usage_daily; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_daily
    ADD CONSTRAINT pk_container_usage_daily PRIMARY KEY (container_id, bucket);


--
-- Name: container_usage_days pk_container_usage_days; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_days
    ADD CONSTRAINT pk_container_usage_days PRIMARY KEY (container_id, day);


--
-- Name: container_usage_hourly pk_container_usage_hourly; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_hourly
    ADD CONSTRAINT pk_container_usage_hourly PRIMARY KEY (container_id, bucket);


--
-- Name: container_volumes pk_container_volumes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_volumes
    ADD CONSTRAINT pk_container_volumes PRIMARY KEY (id);


--
-- Name: containers pk_containers; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT pk_containers PRIMARY KEY (id);


--
-- Name: device_logins pk_device_logins; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.device_logins
    ADD CONSTRAINT pk_device_logins PRIMARY KEY (token_hash);


--
-- Name: encryption_keys pk_encryption_keys; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.encryption_keys
    ADD CONSTRAINT pk_encryption_keys PRIMARY KEY (key_id);


--
-- Name: environment_variables pk_environment_variables; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT pk_environment_variables PRIMARY KEY (id);


--
-- Name: events pk_events; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (revision);


--
-- Name: federated_identities pk_federated_identities; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.federated_identities
    ADD CONSTRAINT pk_federated_identities PRIMARY KEY (id);


--
-- Name: idempotency_keys pk_idempotency_keys; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT pk_idempotency_keys PRIMARY KEY (user_id, request_id);


--
-- Name: leases pk_leases; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT pk_leases PRIMARY KEY (name);


--
-- Name: login_challenges pk_login_challenges; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.login_challenges
    ADD CONSTRAINT pk_login_challenges PRIMARY KEY (challenge_hash);


--
-- Name: login_origins pk_login_origins; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.login_origins
    ADD CONSTRAINT pk_login_origins PRIMARY KEY (account_hash, origin_hash);


--
-- Name: login_throttles pk_login_throttles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.login_throttles
    ADD CONSTRAINT pk_login_throttles PRIMARY KEY (account_hash);


--
-- Name: mount_changes pk_mount_changes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.mount_changes
    ADD CONSTRAINT pk_mount_changes PRIMARY KEY (id);


--
-- Name: namespaces pk_namespaces; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT pk_namespaces PRIMARY KEY (id);


--
-- Name: objects pk_objects; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT pk_objects PRIMARY KEY (id);


--
-- Name: oidc_logins pk_oidc_logins; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.oidc_logins
    ADD CONSTRAINT pk_oidc_logins PRIMARY KEY (state_hash);


--
-- Name: oidc_sessions pk_oidc_sessions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.oidc_sessions
    ADD CONSTRAINT pk_oidc_sessions PRIMARY KEY (family_id);


--
-- Name: operation_logs pk_operation_logs; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operation_logs
    ADD CONSTRAINT pk_operation_logs PRIMARY KEY (id, started_at);


--
-- Name: operations pk_operations; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operations
    ADD CONSTRAINT pk_operations PRIMARY KEY (operation_id);


--
-- Name: orphans pk_orphans; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orphans
    ADD CONSTRAINT pk_orphans PRIMARY KEY (id);


--
-- Name: pending_changes pk_pending_changes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pending_changes
    ADD CONSTRAINT pk_pending_changes PRIMARY KEY (id);


--
-- Name: pending_incidents pk_pending_incidents; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.pending_incidents
    ADD CONSTRAINT pk_pending_incidents PRIMARY KEY (id);


--
-- Name: periodic_jobs pk_periodic_jobs; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.periodic_jobs
    ADD CONSTRAINT pk_periodic_jobs PRIMARY KEY (name);


--
-- Name: port_mappings pk_port_mappings; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.port_mappings
    ADD CONSTRAINT pk_port_mappings PRIMARY KEY (id);


--
-- Name: program_images pk_program_images; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.program_images
    ADD CONSTRAINT pk_program_images PRIMARY KEY (container_id, program);


--
-- Name: quota_counters pk_quota_counters; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.quota_counters
    ADD CONSTRAINT pk_quota_counters PRIMARY KEY (namespace_id, id);


--
-- Name: reconcile_work pk_reconcile_work; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reconcile_work
    ADD CONSTRAINT pk_reconcile_work PRIMARY KEY (resource_type, resource_id);


--
-- Name: recovery_codes pk_recovery_codes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT pk_recovery_codes PRIMARY KEY (id);


--
-- Name: rendered_messages pk_rendered_messages; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rendered_messages
    ADD CONSTRAINT pk_rendered_messages PRIMARY KEY (resource_type, resource_id);


--
-- Name: request_claims pk_request_claims; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.request_claims
    ADD CONSTRAINT pk_request_claims PRIMARY KEY (user_id, request_id);


--
-- Name: revision_values pk_revision_values; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision_values
    ADD CONSTRAINT pk_revision_values PRIMARY KEY (id);


--
-- Name: revisions pk_revisions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revisions
    ADD CONSTRAINT pk_revisions PRIMARY KEY (id);


--
-- Name: roles pk_roles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT pk_roles PRIMARY KEY (id);


--
-- Name: schema_functions pk_schema_functions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_functions
    ADD CONSTRAINT pk_schema_functions PRIMARY KEY (name);


--
-- Name: schema_migrations pk_schema_migrations; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT pk_schema_migrations PRIMARY KEY (version);


--
-- Name: secrets pk_secrets; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT pk_secrets PRIMARY KEY (id);


--
-- Name: service_changes pk_service_changes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.service_changes
    ADD CONSTRAINT pk_service_changes PRIMARY KEY (id);


--
-- Name: services pk_services; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT pk_services PRIMARY KEY (id);


--
-- Name: sessions pk_sessions; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT pk_sessions PRIMARY KEY (id);


--
-- Name: stream_head pk_stream_head; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stream_head
    ADD CONSTRAINT pk_stream_head PRIMARY KEY (id);


--
-- Name: user_roles pk_user_roles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT pk_user_roles PRIMARY KEY (id);


--
-- Name: user_secrets pk_user_secrets; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_secrets
    ADD CONSTRAINT pk_user_secrets PRIMARY KEY (id);


--
-- Name: users pk_users; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT pk_users PRIMARY KEY (id);


--
-- Name: volumes pk_volumes; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT pk_volumes PRIMARY KEY (id);


--
-- Name: api_keys uq_api_keys_key_hash; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT uq_api_keys_key_hash UNIQUE (key_hash);


--
-- Name: application_documents uq_application_documents_digest; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_documents
    ADD CONSTRAINT uq_application_documents_digest UNIQUE (application_id, digest);


--
-- Name: application_members uq_application_members_object; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_members
    ADD CONSTRAINT uq_application_members_object UNIQUE (namespace_id, resource_type, api_group, object_kind, name);


--
-- Name: applications uq_applications_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT uq_applications_name UNIQUE (namespace_id, name);


--
-- Name: applications uq_applications_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT uq_applications_uid UNIQUE (uid);


--
-- Name: audit_sinks uq_audit_sinks_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_sinks
    ADD CONSTRAINT uq_audit_sinks_name UNIQUE (name);


--
-- Name: audit_sinks uq_audit_sinks_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_sinks
    ADD CONSTRAINT uq_audit_sinks_uid UNIQUE (uid);


--
-- Name: clusters uq_clusters_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT uq_clusters_name UNIQUE (name);


--
-- Name: clusters uq_clusters_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT uq_clusters_uid UNIQUE (uid);


--
-- Name: config_maps uq_config_maps_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT uq_config_maps_name UNIQUE (namespace_id, name);


--
-- Name: config_maps uq_config_maps_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT uq_config_maps_uid UNIQUE (uid);


--
-- Name: container_images uq_container_images_reference; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_images
    ADD CONSTRAINT uq_container_images_reference UNIQUE NULLS NOT DISTINCT (repository, name, tag, digest);


--
-- Name: container_pods uq_container_pods_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_pods
    ADD CONSTRAINT uq_container_pods_uid UNIQUE (container_id, uid);


--
-- Name: container_runs uq_container_runs_number; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_runs
    ADD CONSTRAINT uq_container_runs_number UNIQUE (container_id, number);


--
-- Name: container_volumes uq_container_volumes_mount; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_volumes
    ADD CONSTRAINT uq_container_volumes_mount UNIQUE (container_id, volume_id, mount_path);


--
-- Name: containers uq_containers_id_namespace; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT uq_containers_id_namespace UNIQUE (id, namespace_id);


--
-- Name: containers uq_containers_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT uq_containers_name UNIQUE (namespace_id, name);


--
-- Name: containers uq_containers_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT uq_containers_uid UNIQUE (uid);


--
-- Name: environment_variables uq_environment_variables_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT uq_environment_variables_name UNIQUE NULLS NOT DISTINCT (container_id, container_name, name);


--
-- Name: federated_identities uq_federated_identities_subject; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.federated_identities
    ADD CONSTRAINT uq_federated_identities_subject UNIQUE (issuer, subject);


--
-- Name: namespaces uq_namespaces_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT uq_namespaces_uid UNIQUE (uid);


--
-- Name: objects uq_objects_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT uq_objects_name UNIQUE (namespace_id, api_group, kind, name);


--
-- Name: objects uq_objects_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT uq_objects_uid UNIQUE (uid);


--
-- Name: operation_logs uq_operation_logs_sequence; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operation_logs
    ADD CONSTRAINT uq_operation_logs_sequence UNIQUE (sequence, started_at);


--
-- Name: orphans uq_orphans_object; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orphans
    ADD CONSTRAINT uq_orphans_object UNIQUE (cluster_name, object_uid);


--
-- Name: port_mappings uq_port_mappings_service; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.port_mappings
    ADD CONSTRAINT uq_port_mappings_service UNIQUE (container_id, service_name, service_port, protocol);


--
-- Name: recovery_codes uq_recovery_codes_code; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT uq_recovery_codes_code UNIQUE (user_id, code_hash);


--
-- Name: revision_values uq_revision_values_secret; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision_values
    ADD CONSTRAINT uq_revision_values_secret UNIQUE (revision_id, secret_name);


--
-- Name: revisions uq_revisions_number; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revisions
    ADD CONSTRAINT uq_revisions_number UNIQUE (resource_type, resource_id, number);


--
-- Name: roles uq_roles_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT uq_roles_name UNIQUE (name);


--
-- Name: roles uq_roles_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT uq_roles_uid UNIQUE (uid);


--
-- Name: secrets uq_secrets_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT uq_secrets_name UNIQUE (namespace_id, name);


--
-- Name: secrets uq_secrets_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT uq_secrets_uid UNIQUE (uid);


--
-- Name: services uq_services_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT uq_services_name UNIQUE (namespace_id, name);


--
-- Name: services uq_services_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT uq_services_uid UNIQUE (uid);


--
-- Name: sessions uq_sessions_access_token_hash; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT uq_sessions_access_token_hash UNIQUE (access_token_hash);


--
-- Name: sessions uq_sessions_refresh_token_hash; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT uq_sessions_refresh_token_hash UNIQUE (refresh_token_hash);


--
-- Name: user_roles uq_user_roles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT uq_user_roles UNIQUE NULLS NOT DISTINCT (user_id, role_id, namespace_id);


--
-- Name: users uq_users_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT uq_users_uid UNIQUE (uid);


--
-- Name: volumes uq_volumes_id_namespace; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT uq_volumes_id_namespace UNIQUE (id, namespace_id);


--
-- Name: volumes uq_volumes_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT uq_volumes_name UNIQUE (namespace_id, name);


--
-- Name: volumes uq_volumes_uid; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT uq_volumes_uid UNIQUE (uid);


--
-- Name: idx_api_keys_account; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_api_keys_account ON public.api_keys USING btree (user_id, account_namespace_id);


--
-- Name: idx_api_keys_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_api_keys_created_by ON public.api_keys USING btree (created_by);


--
-- Name: idx_api_keys_dead_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_api_keys_dead_at ON public.api_keys USING btree (LEAST(expires_at, revoked_at));


--
-- Name: idx_application_documents_namespace; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_application_documents_namespace ON public.application_documents USING btree (namespace_id);


--
-- Name: idx_application_members_application; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_application_members_application ON public.application_members USING btree (application_id);


--
-- Name: idx_applications_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_applications_created_by ON public.applications USING btree (created_by);


--
-- Name: idx_applications_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_applications_labels ON public.applications USING gin (labels);


--
-- Name: idx_applications_look_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_applications_look_at ON public.applications USING btree (look_at) WHERE (look_at IS NOT NULL);


--
-- Name: idx_applications_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_applications_name ON public.applications USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_applications_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_applications_updated_by ON public.applications USING btree (updated_by);


--
-- Name: idx_audit_sinks_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_audit_sinks_created_by ON public.audit_sinks USING btree (created_by);


--
-- Name: idx_audit_sinks_key_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_audit_sinks_key_id ON public.audit_sinks USING btree (key_id);


--
-- Name: idx_claim_changes_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_claim_changes_container ON public.claim_changes USING btree (container_id);


--
-- Name: idx_claim_changes_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_claim_changes_namespace_id ON public.claim_changes USING btree (namespace_id);


--
-- Name: idx_clusters_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_clusters_created_by ON public.clusters USING btree (created_by);


--
-- Name: idx_clusters_key_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_clusters_key_id ON public.clusters USING btree (key_id);


--
-- Name: idx_clusters_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_clusters_status ON public.clusters USING btree (status);


--
-- Name: idx_clusters_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_clusters_updated_by ON public.clusters USING btree (updated_by);


--
-- Name: idx_config_maps_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_config_maps_created_by ON public.config_maps USING btree (created_by);


--
-- Name: idx_config_maps_data; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_config_maps_data ON public.config_maps USING gin (data);


--
-- Name: idx_config_maps_k8s_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_config_maps_k8s_name ON public.config_maps USING btree (kubernetes_name);


--
-- Name: idx_config_maps_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_config_maps_name ON public.config_maps USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_config_maps_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_config_maps_updated_by ON public.config_maps USING btree (updated_by);


--
-- Name: idx_container_images_name_tag; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_images_name_tag ON public.container_images USING btree (name, tag);


--
-- Name: idx_container_images_repository; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_images_repository ON public.container_images USING btree (repository);


--
-- Name: idx_container_images_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_images_status ON public.container_images USING btree (status);


--
-- Name: idx_container_pods_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_pods_container ON public.container_pods USING btree (container_id, namespace_id);


--
-- Name: idx_container_pods_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_pods_namespace_id ON public.container_pods USING btree (namespace_id);


--
-- Name: idx_container_resource_usage_container_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_resource_usage_container_id ON ONLY public.container_resource_usage USING btree (container_id, namespace_id);


--
-- Name: idx_container_resource_usage_cpu_usage; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_resource_usage_cpu_usage ON ONLY public.container_resource_usage USING btree (cpu_usage_percent);


--
-- Name: idx_container_resource_usage_memory_usage; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_resource_usage_memory_usage ON ONLY public.container_resource_usage USING btree (memory_usage_percent);


--
-- Name: idx_container_resource_usage_timestamp; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_resource_usage_timestamp ON ONLY public.container_resource_usage USING btree ("timestamp");


--
-- Name: idx_container_runs_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_runs_container ON public.container_runs USING btree (container_id, namespace_id);


--
-- Name: idx_container_runs_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_runs_namespace_id ON public.container_runs USING btree (namespace_id);


--
-- Name: idx_container_status_history_changed_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_changed_at ON public.container_status_history USING btree (changed_at);


--
-- Name: idx_container_status_history_container_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_container_id ON public.container_status_history USING btree (container_id, namespace_id);


--
-- Name: idx_container_status_history_current_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_current_status ON public.container_status_history USING btree (current_status);


--
-- Name: idx_container_status_history_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_namespace_id ON public.container_status_history USING btree (namespace_id);


--
-- Name: idx_container_status_history_operation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_operation_id ON public.container_status_history USING btree (operation_id);


--
-- Name: idx_container_status_history_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_status_history_user_id ON public.container_status_history USING btree (user_id);


--
-- Name: idx_container_usage_daily_bucket; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_daily_bucket ON public.container_usage_daily USING btree (bucket);


--
-- Name: idx_container_usage_daily_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_daily_container ON public.container_usage_daily USING btree (container_id, namespace_id);


--
-- Name: idx_container_usage_daily_namespace_bucket; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_daily_namespace_bucket ON public.container_usage_daily USING btree (namespace_id, bucket);


--
-- Name: idx_container_usage_days_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_days_container ON public.container_usage_days USING btree (container_id, namespace_id);


--
-- Name: idx_container_usage_days_format; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_days_format ON public.container_usage_days USING btree (format, day, container_id);


--
-- Name: idx_container_usage_days_namespace; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_days_namespace ON public.container_usage_days USING btree (namespace_id);


--
-- Name: idx_container_usage_hourly_bucket; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_hourly_bucket ON public.container_usage_hourly USING btree (bucket);


--
-- Name: idx_container_usage_hourly_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_hourly_container ON public.container_usage_hourly USING btree (container_id, namespace_id);


--
-- Name: idx_container_usage_hourly_namespace_bucket; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_usage_hourly_namespace_bucket ON public.container_usage_hourly USING btree (namespace_id, bucket);


--
-- Name: idx_container_volumes_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_volumes_container ON public.container_volumes USING btree (container_id, namespace_id);


--
-- Name: idx_container_volumes_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_volumes_namespace_id ON public.container_volumes USING btree (namespace_id);


--
-- Name: idx_container_volumes_volume_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_container_volumes_volume_id ON public.container_volumes USING btree (volume_id, namespace_id);


--
-- Name: idx_containers_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_created_at ON public.containers USING btree (created_at, id) INCLUDE (namespace_id);


--
-- Name: idx_containers_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_created_by ON public.containers USING btree (created_by);


--
-- Name: idx_containers_image_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_image_id ON public.containers USING btree (image_id);


--
-- Name: idx_containers_k8s_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_k8s_name ON public.containers USING btree (kubernetes_name);


--
-- Name: idx_containers_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_labels ON public.containers USING gin (labels);


--
-- Name: idx_containers_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_name ON public.containers USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_containers_namespace_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_namespace_status ON public.containers USING btree (namespace_id, status);


--
-- Name: idx_containers_pod_ip; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_pod_ip ON public.containers USING btree (pod_ip);


--
-- Name: idx_containers_pod_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_pod_name ON public.containers USING btree (pod_name);


--
-- Name: idx_containers_running; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_running ON public.containers USING btree (namespace_id) WHERE ((status)::text = 'running'::text);


--
-- Name: idx_containers_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_status ON public.containers USING btree (status, id) INCLUDE (namespace_id);


--
-- Name: idx_containers_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_containers_updated_by ON public.containers USING btree (updated_by);


--
-- Name: idx_device_logins_address_hash; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_device_logins_address_hash ON public.device_logins USING btree (address_hash, expires_at);


--
-- Name: idx_device_logins_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_device_logins_expires_at ON public.device_logins USING btree (expires_at);


--
-- Name: idx_env_vars_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_env_vars_name ON public.environment_variables USING btree (name);


--
-- Name: idx_environment_variables_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_environment_variables_container ON public.environment_variables USING btree (container_id, namespace_id);


--
-- Name: idx_environment_variables_source; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_environment_variables_source ON public.environment_variables USING btree (namespace_id, source_name);


--
-- Name: idx_events_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_created_at ON ONLY public.events USING brin (created_at);


--
-- Name: idx_events_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_namespace_id ON ONLY public.events USING btree (namespace_id, revision);


--
-- Name: idx_events_resource; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_events_resource ON ONLY public.events USING btree (resource_type, resource_id, revision);


--
-- Name: idx_federated_identities_confirmed_until; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_federated_identities_confirmed_until ON public.federated_identities USING btree (confirmed_until);


--
-- Name: idx_federated_identities_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_federated_identities_user_id ON public.federated_identities USING btree (user_id);


--
-- Name: idx_idempotency_keys_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_idempotency_keys_expires_at ON public.idempotency_keys USING btree (expires_at);


--
-- Name: idx_login_challenges_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_login_challenges_expires_at ON public.login_challenges USING btree (expires_at);


--
-- Name: idx_login_challenges_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_login_challenges_user_id ON public.login_challenges USING btree (user_id);


--
-- Name: idx_login_origins_updated_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_login_origins_updated_at ON public.login_origins USING btree (updated_at);


--
-- Name: idx_login_throttles_updated_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_login_throttles_updated_at ON public.login_throttles USING btree (updated_at);


--
-- Name: idx_mount_changes_volume_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_mount_changes_volume_id ON public.mount_changes USING btree (volume_id, namespace_id);


--
-- Name: idx_namespaces_cluster; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_cluster ON public.namespaces USING btree (cluster_name);


--
-- Name: idx_namespaces_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_created_by ON public.namespaces USING btree (created_by);


--
-- Name: idx_namespaces_foreign; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_foreign ON public.namespaces USING btree (name) WHERE ((deleted_at IS NULL) AND ((conditions @> '[{"type": "Applied", "reason": "NameTaken", "status": "False"}]'::jsonb) OR (conditions @> '[{"type": "Applied", "reason": "LabelLost", "status": "False"}]'::jsonb)));


--
-- Name: idx_namespaces_k8s_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_k8s_name ON public.namespaces USING btree (kubernetes_name);


--
-- Name: idx_namespaces_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_labels ON public.namespaces USING gin (labels);


--
-- Name: idx_namespaces_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_status ON public.namespaces USING btree (status);


--
-- Name: idx_namespaces_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_namespaces_updated_by ON public.namespaces USING btree (updated_by);


--
-- Name: idx_objects_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_created_by ON public.objects USING btree (created_by);


--
-- Name: idx_objects_kind; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_kind ON public.objects USING btree (kind, id) INCLUDE (namespace_id);


--
-- Name: idx_objects_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_labels ON public.objects USING gin (labels);


--
-- Name: idx_objects_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_name ON public.objects USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_objects_namespace; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_namespace ON public.objects USING btree (namespace_id, name, id);


--
-- Name: idx_objects_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_status ON public.objects USING btree (status);


--
-- Name: idx_objects_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_objects_updated_by ON public.objects USING btree (updated_by);


--
-- Name: idx_oidc_logins_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_oidc_logins_expires_at ON public.oidc_logins USING btree (expires_at);


--
-- Name: idx_oidc_sessions_identity_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_oidc_sessions_identity_id ON public.oidc_sessions USING btree (identity_id);


--
-- Name: idx_operation_logs_action; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_action ON ONLY public.operation_logs USING btree (action);


--
-- Name: idx_operation_logs_failed; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_failed ON ONLY public.operation_logs USING btree (user_id, started_at) WHERE (status_code >= 400);


--
-- Name: idx_operation_logs_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_namespace_id ON ONLY public.operation_logs USING btree (namespace_id);


--
-- Name: idx_operation_logs_operation_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_operation_id ON ONLY public.operation_logs USING btree (operation_id);


--
-- Name: idx_operation_logs_resource_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_resource_id ON ONLY public.operation_logs USING btree (resource_id);


--
-- Name: idx_operation_logs_resource_type; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_resource_type ON ONLY public.operation_logs USING btree (resource_type);


--
-- Name: idx_operation_logs_started_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_started_at ON ONLY public.operation_logs USING btree (started_at);


--
-- Name: idx_operation_logs_status_code; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_status_code ON ONLY public.operation_logs USING btree (status_code);


--
-- Name: idx_operation_logs_user_action_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_user_action_time ON ONLY public.operation_logs USING btree (user_id, action, started_at DESC);


--
-- Name: idx_operation_logs_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operation_logs_user_id ON ONLY public.operation_logs USING btree (user_id);


--
-- Name: idx_operations_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operations_created_at ON public.operations USING btree (created_at);


--
-- Name: idx_operations_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operations_namespace_id ON public.operations USING btree (namespace_id);


--
-- Name: idx_operations_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_operations_user_id ON public.operations USING btree (user_id);


--
-- Name: idx_orphans_decided_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_orphans_decided_by ON public.orphans USING btree (decided_by);


--
-- Name: idx_orphans_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_orphans_name ON public.orphans USING btree (cluster_name, kubernetes_namespace, name, id);


--
-- Name: idx_port_mappings_container_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_port_mappings_container_id ON public.port_mappings USING btree (container_id, namespace_id);


--
-- Name: idx_port_mappings_container_port; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_port_mappings_container_port ON public.port_mappings USING btree (container_id, container_port, protocol);


--
-- Name: idx_port_mappings_host_port; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_port_mappings_host_port ON public.port_mappings USING btree (host_port);


--
-- Name: idx_port_mappings_namespace_service; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_port_mappings_namespace_service ON public.port_mappings USING btree (namespace_id, service_name);


--
-- Name: idx_port_mappings_service_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_port_mappings_service_name ON public.port_mappings USING btree (service_name);


--
-- Name: idx_program_images_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_program_images_container ON public.program_images USING btree (container_id, namespace_id);


--
-- Name: idx_program_images_image_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_program_images_image_id ON public.program_images USING btree (image_id);


--
-- Name: idx_program_images_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_program_images_namespace_id ON public.program_images USING btree (namespace_id);


--
-- Name: idx_reconcile_work_due; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_reconcile_work_due ON public.reconcile_work USING btree (cluster_name, due_at);


--
-- Name: idx_reconcile_work_share; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_reconcile_work_share ON public.reconcile_work USING btree (namespace_id, going, due_at);


--
-- Name: idx_request_claims_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_request_claims_expires_at ON public.request_claims USING btree (expires_at);


--
-- Name: idx_resource_usage_container_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_resource_usage_container_time ON ONLY public.container_resource_usage USING btree (container_id, "timestamp" DESC);


--
-- Name: idx_revision_values_secret; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_revision_values_secret ON public.revision_values USING btree (namespace_id, secret_name);


--
-- Name: idx_revisions_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_revisions_created_by ON public.revisions USING btree (created_by);


--
-- Name: idx_revisions_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_revisions_namespace_id ON public.revisions USING btree (namespace_id);


--
-- Name: idx_roles_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_roles_created_by ON public.roles USING btree (created_by);


--
-- Name: idx_roles_permissions; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_roles_permissions ON public.roles USING gin (permissions);


--
-- Name: idx_roles_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_roles_updated_by ON public.roles USING btree (updated_by);


--
-- Name: idx_secrets_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_secrets_created_by ON public.secrets USING btree (created_by);


--
-- Name: idx_secrets_k8s_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_secrets_k8s_name ON public.secrets USING btree (kubernetes_name);


--
-- Name: idx_secrets_key_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_secrets_key_id ON public.secrets USING btree (key_id);


--
-- Name: idx_secrets_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_secrets_name ON public.secrets USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_secrets_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_secrets_updated_by ON public.secrets USING btree (updated_by);


--
-- Name: idx_services_container; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_container ON public.services USING btree (namespace_id, (((spec -> 'containers'::text) ->> 0))) WHERE (spec ? 'containers'::text);


--
-- Name: idx_services_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_created_by ON public.services USING btree (created_by);


--
-- Name: idx_services_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_labels ON public.services USING gin (labels);


--
-- Name: idx_services_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_name ON public.services USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_services_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_owner ON public.services USING btree (owner_id, namespace_id);


--
-- Name: idx_services_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_status ON public.services USING btree (status);


--
-- Name: idx_services_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_updated_by ON public.services USING btree (updated_by);


--
-- Name: idx_services_without_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_services_without_owner ON public.services USING btree (id) WHERE ((owner IS NOT NULL) AND (owner_id IS NULL));


--
-- Name: idx_sessions_family_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_sessions_family_id ON public.sessions USING btree (family_id);


--
-- Name: idx_sessions_refresh_expires_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_sessions_refresh_expires_at ON public.sessions USING btree (refresh_expires_at);


--
-- Name: idx_sessions_replaced_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_sessions_replaced_by ON public.sessions USING btree (replaced_by);


--
-- Name: idx_sessions_user_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_sessions_user_id ON public.sessions USING btree (user_id);


--
-- Name: idx_user_roles_assigned_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_user_roles_assigned_by ON public.user_roles USING btree (assigned_by);


--
-- Name: idx_user_roles_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_user_roles_namespace_id ON public.user_roles USING btree (namespace_id);


--
-- Name: idx_user_roles_role_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_user_roles_role_id ON public.user_roles USING btree (role_id);


--
-- Name: idx_user_secrets_key_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_user_secrets_key_id ON public.user_secrets USING btree (key_id);


--
-- Name: idx_users_active; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_active ON public.users USING btree (id, last_login_at) WHERE ((status)::text = 'active'::text);


--
-- Name: idx_users_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_created_at ON public.users USING btree (created_at);


--
-- Name: idx_users_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_created_by ON public.users USING btree (created_by);


--
-- Name: idx_users_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_namespace_id ON public.users USING btree (namespace_id);


--
-- Name: idx_users_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_status ON public.users USING btree (status);


--
-- Name: idx_users_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_users_updated_by ON public.users USING btree (updated_by);


--
-- Name: idx_volumes_created_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_created_by ON public.volumes USING btree (created_by);


--
-- Name: idx_volumes_k8s_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_k8s_name ON public.volumes USING btree (kubernetes_name);


--
-- Name: idx_volumes_labels; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_labels ON public.volumes USING gin (labels);


--
-- Name: idx_volumes_name; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_name ON public.volumes USING btree (name, id) INCLUDE (namespace_id);


--
-- Name: idx_volumes_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_owner ON public.volumes USING btree (owner_id, namespace_id);


--
-- Name: idx_volumes_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_status ON public.volumes USING btree (status);


--
-- Name: idx_volumes_type; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_type ON public.volumes USING btree (type);


--
-- Name: idx_volumes_type_status; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_type_status ON public.volumes USING btree (type, status);


--
-- Name: idx_volumes_updated_by; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_updated_by ON public.volumes USING btree (updated_by);


--
-- Name: idx_volumes_without_owner; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idx_volumes_without_owner ON public.volumes USING btree (id) WHERE ((owner IS NOT NULL) AND (owner_id IS NULL));


--
-- Name: uq_api_keys_uid; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_api_keys_uid ON public.api_keys USING btree (uid);


--
-- Name: uq_api_keys_user_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_api_keys_user_name ON public.api_keys USING btree (user_id, name) WHERE ((revoked_at IS NULL) AND (rotated_at IS NULL));


--
-- Name: uq_audit_sinks_file; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_audit_sinks_file ON public.audit_sinks USING btree (address) WHERE ((kind)::text = 'file'::text);


--
-- Name: uq_container_summary_namespace_id; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_container_summary_namespace_id ON public.container_summary USING btree (namespace_id);


--
-- Name: uq_namespaces_cluster_kubernetes_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_namespaces_cluster_kubernetes_name ON public.namespaces USING btree (cluster_name, kubernetes_name) WHERE (deleted_at IS NULL);


--
-- Name: uq_namespaces_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_namespaces_name ON public.namespaces USING btree (name) WHERE (deleted_at IS NULL);


--
-- Name: uq_port_mappings_without_service; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_port_mappings_without_service ON public.port_mappings USING btree (container_id, container_port, protocol) WHERE (service_name IS NULL);


--
-- Name: uq_user_secrets_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_user_secrets_name ON public.user_secrets USING btree (user_id, secret_type, name);


--
-- Name: uq_users_bootstrap; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_users_bootstrap ON public.users USING btree (is_bootstrap) WHERE is_bootstrap;


--
-- Name: uq_users_email; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_users_email ON public.users USING btree (email_normalized) WHERE (deleted_at IS NULL);


--
-- Name: uq_users_id_namespace; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_users_id_namespace ON public.users USING btree (id, namespace_id);


--
-- Name: uq_users_username; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX uq_users_username ON public.users USING btree (username_normalized) WHERE (deleted_at IS NULL);


--
-- Name: namespaces check_allowed_hosts; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER check_allowed_hosts BEFORE INSERT OR UPDATE OF allowed_hosts ON public.namespaces FOR EACH ROW WHEN ((new.allowed_hosts <> '{}'::text[])) EXECUTE FUNCTION public.check_allowed_hosts();


--
-- Name: containers count_container_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER count_container_delete AFTER DELETE ON public.containers REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.count_container_delete();


--
-- Name: containers count_container_insert; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER count_container_insert AFTER INSERT ON public.containers FOR EACH ROW WHEN ((new.deletion_requested_at IS NULL)) EXECUTE FUNCTION public.count_container_insert();


--
-- Name: containers count_container_update; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER count_container_update AFTER UPDATE OF namespace_id, quota_cpu_millicores, quota_memory_bytes, deletion_requested_at ON public.containers FOR EACH ROW WHEN (((old.namespace_id IS DISTINCT FROM new.namespace_id) OR (old.quota_cpu_millicores IS DISTINCT FROM new.quota_cpu_millicores) OR (old.quota_memory_bytes IS DISTINCT FROM new.quota_memory_bytes) OR ((old.deletion_requested_at IS NULL) IS DISTINCT FROM (new.deletion_requested_at IS NULL)))) EXECUTE FUNCTION public.count_container_update();


--
-- Name: config_maps forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.config_maps REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('config_map');


--
-- Name: containers forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.containers REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('container');


--
-- Name: namespaces forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.namespaces REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('namespace');


--
-- Name: objects forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.objects REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('object');


--
-- Name: secrets forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.secrets REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('secret');


--
-- Name: services forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.services REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('service');


--
-- Name: volumes forget_rendered_messages; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_rendered_messages AFTER DELETE ON public.volumes REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_rendered_messages('volume');


--
-- Name: applications forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.applications REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('application');


--
-- Name: config_maps forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.config_maps REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('config_map');


--
-- Name: containers forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.containers REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('container');


--
-- Name: objects forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.objects REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('object');


--
-- Name: secrets forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.secrets REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('secret');


--
-- Name: services forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.services REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('service');


--
-- Name: volumes forget_revisions; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER forget_revisions AFTER DELETE ON public.volumes REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.forget_revisions('volume');


--
-- Name: containers keep_changed_program_images; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER keep_changed_program_images AFTER UPDATE OF spec ON public.containers FOR EACH ROW WHEN ((((old.spec -> 'sidecars'::text) IS DISTINCT FROM (new.spec -> 'sidecars'::text)) OR ((old.spec -> 'init_containers'::text) IS DISTINCT FROM (new.spec -> 'init_containers'::text)))) EXECUTE FUNCTION public.keep_program_images();


--
-- Name: containers keep_program_images; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER keep_program_images AFTER INSERT ON public.containers FOR EACH ROW WHEN ((new.spec ?| ARRAY['sidecars'::text, 'init_containers'::text])) EXECUTE FUNCTION public.keep_program_images();


--
-- Name: namespaces keep_quota_counter; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER keep_quota_counter AFTER INSERT OR DELETE ON public.namespaces FOR EACH ROW EXECUTE FUNCTION public.keep_quota_counter();


--
-- Name: container_usage_hourly mark_usage_days_deleted; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER mark_usage_days_deleted AFTER DELETE ON public.container_usage_hourly REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.mark_usage_days();


--
-- Name: container_usage_hourly mark_usage_days_inserted; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER mark_usage_days_inserted AFTER INSERT ON public.container_usage_hourly REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.mark_usage_days();


--
-- Name: container_usage_hourly mark_usage_days_updated; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER mark_usage_days_updated AFTER UPDATE ON public.container_usage_hourly REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.mark_usage_days();


--
-- Name: config_maps note_first_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_first_revision AFTER INSERT ON public.config_maps FOR EACH ROW WHEN ((new.deletion_requested_at IS NULL)) EXECUTE FUNCTION public.note_revision('config_map', 'r.data, r.binary_data, r.immutable, r.labels, r.annotations');


--
-- Name: objects note_first_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_first_revision AFTER INSERT ON public.objects FOR EACH ROW WHEN ((new.deletion_requested_at IS NULL)) EXECUTE FUNCTION public.note_revision('object', 'r.api_version, r.document, r.drift_policy, r.protected');


--
-- Name: secrets note_first_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_first_revision AFTER INSERT ON public.secrets FOR EACH ROW WHEN ((new.deletion_requested_at IS NULL)) EXECUTE FUNCTION public.note_revision('secret', 'r.type, r.data AS sizes, r.immutable, r.labels, r.annotations, encode(sha256(r.ciphertext), ''hex'') AS ciphertext_digest');


--
-- Name: services note_first_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_first_revision AFTER INSERT ON public.services FOR EACH ROW WHEN (((new.owner IS NULL) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('service', 'r.type, r.spec - ''rights'' AS spec, r.labels, r.annotations, r.drift_policy');


--
-- Name: volumes note_first_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_first_revision AFTER INSERT ON public.volumes FOR EACH ROW WHEN (((new.owner IS NULL) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('volume', 'r.type, r.storage_class, r.size, r.access_mode, r.mount_path, r.host_path, r.source_name, r.spec - ''ends_with_claim'' AS spec, r.labels, r.annotations');


--
-- Name: user_roles note_given_up_grant; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_given_up_grant AFTER DELETE ON public.user_roles FOR EACH ROW WHEN (((old.namespace_id IS NOT NULL) AND (old.user_id = public.app_user_id()))) EXECUTE FUNCTION public.note_given_up_grant();


--
-- Name: config_maps note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.config_maps FOR EACH ROW WHEN (((old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('config_map');


--
-- Name: containers note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.containers FOR EACH ROW WHEN ((((old.status)::text IS DISTINCT FROM (new.status)::text) OR ((old.reason)::text IS DISTINCT FROM (new.reason)::text) OR (old.message IS DISTINCT FROM new.message) OR (old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('container');


--
-- Name: objects note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.objects FOR EACH ROW WHEN ((((old.status)::text IS DISTINCT FROM (new.status)::text) OR ((old.reason)::text IS DISTINCT FROM (new.reason)::text) OR (old.message IS DISTINCT FROM new.message) OR ((old.health)::text IS DISTINCT FROM (new.health)::text) OR (old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('object');


--
-- Name: secrets note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.secrets FOR EACH ROW WHEN (((old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('secret');


--
-- Name: services note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.services FOR EACH ROW WHEN ((((old.status)::text IS DISTINCT FROM (new.status)::text) OR ((old.reason)::text IS DISTINCT FROM (new.reason)::text) OR (old.message IS DISTINCT FROM new.message) OR (old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('service');


--
-- Name: volumes note_member_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_change AFTER UPDATE ON public.volumes FOR EACH ROW WHEN ((((old.status)::text IS DISTINCT FROM (new.status)::text) OR ((old.reason)::text IS DISTINCT FROM (new.reason)::text) OR (old.message IS DISTINCT FROM new.message) OR (old.conditions IS DISTINCT FROM new.conditions) OR (old.generation IS DISTINCT FROM new.generation) OR (old.observed_generation IS DISTINCT FROM new.observed_generation) OR (old.deletion_requested_at IS DISTINCT FROM new.deletion_requested_at))) EXECUTE FUNCTION public.note_member_change('volume');


--
-- Name: config_maps note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.config_maps FOR EACH ROW EXECUTE FUNCTION public.note_member_change('config_map');


--
-- Name: containers note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.containers FOR EACH ROW EXECUTE FUNCTION public.note_member_change('container');


--
-- Name: objects note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.objects FOR EACH ROW EXECUTE FUNCTION public.note_member_change('object');


--
-- Name: secrets note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.secrets FOR EACH ROW EXECUTE FUNCTION public.note_member_change('secret');


--
-- Name: services note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.services FOR EACH ROW EXECUTE FUNCTION public.note_member_change('service');


--
-- Name: volumes note_member_deletion; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_member_deletion AFTER DELETE ON public.volumes FOR EACH ROW EXECUTE FUNCTION public.note_member_change('volume');


--
-- Name: config_maps note_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_revision AFTER UPDATE OF generation ON public.config_maps FOR EACH ROW WHEN (((old.generation IS DISTINCT FROM new.generation) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('config_map', 'r.data, r.binary_data, r.immutable, r.labels, r.annotations');


--
-- Name: objects note_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_revision AFTER UPDATE OF generation ON public.objects FOR EACH ROW WHEN (((old.generation IS DISTINCT FROM new.generation) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('object', 'r.api_version, r.document, r.drift_policy, r.protected');


--
-- Name: secrets note_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_revision AFTER UPDATE OF generation ON public.secrets FOR EACH ROW WHEN (((old.generation IS DISTINCT FROM new.generation) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('secret', 'r.type, r.data AS sizes, r.immutable, r.labels, r.annotations, encode(sha256(r.ciphertext), ''hex'') AS ciphertext_digest');


--
-- Name: services note_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_revision AFTER UPDATE OF generation ON public.services FOR EACH ROW WHEN (((old.generation IS DISTINCT FROM new.generation) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('service', 'r.type, r.spec - ''rights'' AS spec, r.labels, r.annotations, r.drift_policy');


--
-- Name: volumes note_revision; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER note_revision AFTER UPDATE OF generation ON public.volumes FOR EACH ROW WHEN (((old.generation IS DISTINCT FROM new.generation) AND (new.deletion_requested_at IS NULL))) EXECUTE FUNCTION public.note_revision('volume', 'r.type, r.storage_class, r.size, r.access_mode, r.mount_path, r.host_path, r.source_name, r.spec - ''ends_with_claim'' AS spec, r.labels, r.annotations');


--
-- Name: clusters put_cluster_event; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_cluster_event AFTER INSERT ON public.clusters DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.put_cluster_event();


--
-- Name: clusters put_cluster_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_cluster_event_of_change AFTER UPDATE ON public.clusters DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((((((((((((((((((((old.name)::text IS DISTINCT FROM (new.name)::text) OR ((old.api_server)::text IS DISTINCT FROM (new.api_server)::text)) OR ((old.display_name)::text IS DISTINCT FROM (new.display_name)::text)) OR (old.labels IS DISTINCT FROM new.labels)) OR ((old.status)::text IS DISTINCT FROM (new.status)::text)) OR ((old.reason)::text IS DISTINCT FROM (new.reason)::text)) OR (old.message IS DISTINCT FROM new.message)) OR ((old.version)::text IS DISTINCT FROM (new.version)::text)) OR (old.stale_since IS DISTINCT FROM new.stale_since)) OR (old.credentials_expires_at IS DISTINCT FROM new.credentials_expires_at)) OR (old.resource_version IS DISTINCT FROM new.resource_version)) OR (old.created_at IS DISTINCT FROM new.created_at)) OR (old.deleted_at IS DISTINCT FROM new.deleted_at)) OR (old.orphans_decided_in IS DISTINCT FROM new.orphans_decided_in)) OR (old.object_kinds IS DISTINCT FROM new.object_kinds)) OR (old.shared_gateways IS DISTINCT FROM new.shared_gateways)) OR (old.forbid_blocking_budgets IS DISTINCT FROM new.forbid_blocking_budgets)) AND ((old.deleted_at IS NULL) OR (new.deleted_at IS NULL)))) EXECUTE FUNCTION public.put_cluster_event();


--
-- Name: user_roles put_grant_event; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_grant_event AFTER INSERT OR DELETE ON public.user_roles DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.put_grant_event();


--
-- Name: user_roles put_grant_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_grant_event_of_change AFTER UPDATE ON public.user_roles DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((((old.expires_at IS DISTINCT FROM new.expires_at) OR (old.assigned_at IS DISTINCT FROM new.assigned_at)) OR (old.assigned_by IS DISTINCT FROM new.assigned_by)) OR ((old.source)::text IS DISTINCT FROM (new.source)::text))) EXECUTE FUNCTION public.put_grant_event();


--
-- Name: container_images put_image_event; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_image_event AFTER DELETE ON public.container_images DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.put_image_event();


--
-- Name: container_images put_image_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_image_event_of_change AFTER UPDATE ON public.container_images DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((((((((((old.repository)::text IS DISTINCT FROM (new.repository)::text) OR ((old.name)::text IS DISTINCT FROM (new.name)::text)) OR ((old.tag)::text IS DISTINCT FROM (new.tag)::text)) OR ((old.digest)::text IS DISTINCT FROM (new.digest)::text)) OR (old.size_bytes IS DISTINCT FROM new.size_bytes)) OR ((old.architecture)::text IS DISTINCT FROM (new.architecture)::text)) OR ((old.os)::text IS DISTINCT FROM (new.os)::text)) OR ((old.status)::text IS DISTINCT FROM (new.status)::text))) EXECUTE FUNCTION public.put_image_event();


--
-- Name: program_images put_image_use_event; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_image_use_event AFTER INSERT OR DELETE ON public.program_images DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.put_image_use_event();


--
-- Name: containers put_image_use_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_image_use_event_of_change AFTER UPDATE ON public.containers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.image_id IS DISTINCT FROM new.image_id)) EXECUTE FUNCTION public.put_image_use_event();


--
-- Name: program_images put_image_use_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_image_use_event_of_change AFTER UPDATE ON public.program_images DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.image_id IS DISTINCT FROM new.image_id)) EXECUTE FUNCTION public.put_image_use_event();


--
-- Name: users put_user_event; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_user_event AFTER INSERT ON public.users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((new.kind)::text = 'person'::text)) EXECUTE FUNCTION public.put_user_event();


--
-- Name: users put_user_event_of_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE CONSTRAINT TRIGGER put_user_event_of_change AFTER UPDATE ON public.users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((((((((((((old.username)::text IS DISTINCT FROM (new.username)::text) OR ((old.email)::text IS DISTINCT FROM (new.email)::text)) OR ((old.full_name)::text IS DISTINCT FROM (new.full_name)::text)) OR ((old.avatar_url)::text IS DISTINCT FROM (new.avatar_url)::text)) OR ((old.status)::text IS DISTINCT FROM (new.status)::text)) OR (old.last_login_at IS DISTINCT FROM new.last_login_at)) OR (old.totp_since IS DISTINCT FROM new.totp_since)) OR (old.resource_version IS DISTINCT FROM new.resource_version)) OR (old.updated_at IS DISTINCT FROM new.updated_at)) OR (old.deleted_at IS DISTINCT FROM new.deleted_at)) AND ((new.kind)::text = 'person'::text) AND (old.deleted_at IS NULL))) EXECUTE FUNCTION public.put_user_event();


--
-- Name: applications raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.applications FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: config_maps raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.config_maps FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: containers raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.containers FOR EACH ROW WHEN (((old.image_id = new.image_id) OR (old.updated_at IS DISTINCT FROM new.updated_at))) EXECUTE FUNCTION public.raise_row_version();


--
-- Name: namespaces raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.namespaces FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: objects raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.objects FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: secrets raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.secrets FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: services raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.services FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: volumes raise_row_version; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER raise_row_version BEFORE UPDATE ON public.volumes FOR EACH ROW EXECUTE FUNCTION public.raise_row_version();


--
-- Name: containers wake_services; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER wake_services AFTER INSERT ON public.containers FOR EACH ROW EXECUTE FUNCTION public.wake_services();


--
-- Name: api_keys fk_api_keys_account; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT fk_api_keys_account FOREIGN KEY (user_id, account_namespace_id) REFERENCES public.users(id, namespace_id);


--
-- Name: api_keys fk_api_keys_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT fk_api_keys_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: api_keys fk_api_keys_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT fk_api_keys_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: application_documents fk_application_documents_application; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_documents
    ADD CONSTRAINT fk_application_documents_application FOREIGN KEY (application_id) REFERENCES public.applications(id) ON DELETE CASCADE;


--
-- Name: application_documents fk_application_documents_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_documents
    ADD CONSTRAINT fk_application_documents_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: application_members fk_application_members_application; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_members
    ADD CONSTRAINT fk_application_members_application FOREIGN KEY (application_id) REFERENCES public.applications(id) ON DELETE CASCADE;


--
-- Name: application_members fk_application_members_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.application_members
    ADD CONSTRAINT fk_application_members_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: applications fk_applications_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT fk_applications_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: applications fk_applications_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT fk_applications_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: applications fk_applications_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applications
    ADD CONSTRAINT fk_applications_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: audit_sinks fk_audit_sinks_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_sinks
    ADD CONSTRAINT fk_audit_sinks_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: audit_sinks fk_audit_sinks_key_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_sinks
    ADD CONSTRAINT fk_audit_sinks_key_id FOREIGN KEY (key_id) REFERENCES public.encryption_keys(key_id);


--
-- Name: clusters fk_clusters_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT fk_clusters_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: clusters fk_clusters_key_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT fk_clusters_key_id FOREIGN KEY (key_id) REFERENCES public.encryption_keys(key_id);


--
-- Name: clusters fk_clusters_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.clusters
    ADD CONSTRAINT fk_clusters_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: config_maps fk_config_maps_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT fk_config_maps_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: config_maps fk_config_maps_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT fk_config_maps_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: config_maps fk_config_maps_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.config_maps
    ADD CONSTRAINT fk_config_maps_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: container_pods fk_container_pods_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_pods
    ADD CONSTRAINT fk_container_pods_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_resource_usage fk_container_resource_usage_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.container_resource_usage
    ADD CONSTRAINT fk_container_resource_usage_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_runs fk_container_runs_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_runs
    ADD CONSTRAINT fk_container_runs_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_status_history fk_container_status_history_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_status_history
    ADD CONSTRAINT fk_container_status_history_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_status_history fk_container_status_history_operation; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_status_history
    ADD CONSTRAINT fk_container_status_history_operation FOREIGN KEY (operation_id) REFERENCES public.operations(operation_id) ON DELETE SET NULL;


--
-- Name: container_status_history fk_container_status_history_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_status_history
    ADD CONSTRAINT fk_container_status_history_user FOREIGN KEY (user_id) REFERENCES public.users(id);


--
-- Name: container_usage_daily fk_container_usage_daily_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_daily
    ADD CONSTRAINT fk_container_usage_daily_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_usage_days fk_container_usage_days_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_days
    ADD CONSTRAINT fk_container_usage_days_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_usage_hourly fk_container_usage_hourly_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_usage_hourly
    ADD CONSTRAINT fk_container_usage_hourly_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_volumes fk_container_volumes_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_volumes
    ADD CONSTRAINT fk_container_volumes_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: container_volumes fk_container_volumes_volume; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.container_volumes
    ADD CONSTRAINT fk_container_volumes_volume FOREIGN KEY (volume_id, namespace_id) REFERENCES public.volumes(id, namespace_id) ON DELETE CASCADE;


--
-- Name: containers fk_containers_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT fk_containers_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: containers fk_containers_image; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT fk_containers_image FOREIGN KEY (image_id) REFERENCES public.container_images(id);


--
-- Name: containers fk_containers_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT fk_containers_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: containers fk_containers_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.containers
    ADD CONSTRAINT fk_containers_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: environment_variables fk_environment_variables_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.environment_variables
    ADD CONSTRAINT fk_environment_variables_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: federated_identities fk_federated_identities_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.federated_identities
    ADD CONSTRAINT fk_federated_identities_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: idempotency_keys fk_idempotency_keys_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT fk_idempotency_keys_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: login_challenges fk_login_challenges_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.login_challenges
    ADD CONSTRAINT fk_login_challenges_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: mount_changes fk_mount_changes_volume; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.mount_changes
    ADD CONSTRAINT fk_mount_changes_volume FOREIGN KEY (volume_id, namespace_id) REFERENCES public.volumes(id, namespace_id) ON DELETE CASCADE;


--
-- Name: namespaces fk_namespaces_cluster_name; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT fk_namespaces_cluster_name FOREIGN KEY (cluster_name) REFERENCES public.clusters(name) ON UPDATE CASCADE;


--
-- Name: namespaces fk_namespaces_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT fk_namespaces_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: namespaces fk_namespaces_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT fk_namespaces_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: objects fk_objects_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT fk_objects_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: objects fk_objects_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT fk_objects_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: objects fk_objects_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT fk_objects_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: oidc_sessions fk_oidc_sessions_identity; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.oidc_sessions
    ADD CONSTRAINT fk_oidc_sessions_identity FOREIGN KEY (identity_id) REFERENCES public.federated_identities(id) ON DELETE CASCADE;


--
-- Name: operation_logs fk_operation_logs_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.operation_logs
    ADD CONSTRAINT fk_operation_logs_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: operation_logs fk_operation_logs_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE public.operation_logs
    ADD CONSTRAINT fk_operation_logs_user FOREIGN KEY (user_id) REFERENCES public.users(id);


--
-- Name: operations fk_operations_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operations
    ADD CONSTRAINT fk_operations_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: operations fk_operations_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.operations
    ADD CONSTRAINT fk_operations_user FOREIGN KEY (user_id) REFERENCES public.users(id);


--
-- Name: orphans fk_orphans_cluster_name; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orphans
    ADD CONSTRAINT fk_orphans_cluster_name FOREIGN KEY (cluster_name) REFERENCES public.clusters(name) ON DELETE CASCADE;


--
-- Name: orphans fk_orphans_decided_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orphans
    ADD CONSTRAINT fk_orphans_decided_by FOREIGN KEY (decided_by) REFERENCES public.users(id);


--
-- Name: port_mappings fk_port_mappings_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.port_mappings
    ADD CONSTRAINT fk_port_mappings_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: program_images fk_program_images_container; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.program_images
    ADD CONSTRAINT fk_program_images_container FOREIGN KEY (container_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE CASCADE;


--
-- Name: program_images fk_program_images_image; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.program_images
    ADD CONSTRAINT fk_program_images_image FOREIGN KEY (image_id) REFERENCES public.container_images(id);


--
-- Name: reconcile_work fk_reconcile_work_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.reconcile_work
    ADD CONSTRAINT fk_reconcile_work_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id) ON DELETE CASCADE;


--
-- Name: recovery_codes fk_recovery_codes_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.recovery_codes
    ADD CONSTRAINT fk_recovery_codes_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: revision_values fk_revision_values_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision_values
    ADD CONSTRAINT fk_revision_values_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: revision_values fk_revision_values_revision; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revision_values
    ADD CONSTRAINT fk_revision_values_revision FOREIGN KEY (revision_id) REFERENCES public.revisions(id) ON DELETE CASCADE;


--
-- Name: revisions fk_revisions_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revisions
    ADD CONSTRAINT fk_revisions_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: revisions fk_revisions_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.revisions
    ADD CONSTRAINT fk_revisions_user FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: roles fk_roles_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT fk_roles_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: roles fk_roles_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT fk_roles_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: secrets fk_secrets_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT fk_secrets_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: secrets fk_secrets_key_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT fk_secrets_key_id FOREIGN KEY (key_id) REFERENCES public.encryption_keys(key_id);


--
-- Name: secrets fk_secrets_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT fk_secrets_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: secrets fk_secrets_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.secrets
    ADD CONSTRAINT fk_secrets_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: services fk_services_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT fk_services_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: services fk_services_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT fk_services_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: services fk_services_owner; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT fk_services_owner FOREIGN KEY (owner_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE SET NULL (owner_id);


--
-- Name: services fk_services_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.services
    ADD CONSTRAINT fk_services_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: sessions fk_sessions_replaced_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT fk_sessions_replaced_by FOREIGN KEY (replaced_by) REFERENCES public.sessions(id) ON DELETE SET NULL;


--
-- Name: sessions fk_sessions_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT fk_sessions_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: user_roles fk_user_roles_assigned_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT fk_user_roles_assigned_by FOREIGN KEY (assigned_by) REFERENCES public.users(id);


--
-- Name: user_roles fk_user_roles_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT fk_user_roles_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id) ON DELETE CASCADE;


--
-- Name: user_roles fk_user_roles_role; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT fk_user_roles_role FOREIGN KEY (role_id) REFERENCES public.roles(id) ON DELETE CASCADE;


--
-- Name: user_roles fk_user_roles_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_roles
    ADD CONSTRAINT fk_user_roles_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: user_secrets fk_user_secrets_key_id; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_secrets
    ADD CONSTRAINT fk_user_secrets_key_id FOREIGN KEY (key_id) REFERENCES public.encryption_keys(key_id);


--
-- Name: user_secrets fk_user_secrets_user; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_secrets
    ADD CONSTRAINT fk_user_secrets_user FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;


--
-- Name: users fk_users_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT fk_users_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: users fk_users_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT fk_users_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: users fk_users_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT fk_users_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: volumes fk_volumes_created_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT fk_volumes_created_by FOREIGN KEY (created_by) REFERENCES public.users(id);


--
-- Name: volumes fk_volumes_namespace; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT fk_volumes_namespace FOREIGN KEY (namespace_id) REFERENCES public.namespaces(id);


--
-- Name: volumes fk_volumes_owner; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT fk_volumes_owner FOREIGN KEY (owner_id, namespace_id) REFERENCES public.containers(id, namespace_id) ON DELETE SET NULL (owner_id) NOT VALID;


--
-- Name: volumes fk_volumes_updated_by; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT fk_volumes_updated_by FOREIGN KEY (updated_by) REFERENCES public.users(id);


--
-- Name: alembic_version; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.alembic_version ENABLE ROW LEVEL SECURITY;

--
-- Name: alembic_version alembic_version_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY alembic_version_system_policy ON public.alembic_version FOR SELECT TO pilothouse_system USING (true);


--
-- Name: api_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: api_keys api_keys_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY api_keys_access_policy ON public.api_keys TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (account_namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (account_namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: api_keys api_keys_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY api_keys_system_policy ON public.api_keys TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: application_changes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.application_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: application_changes application_changes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_changes_access_policy ON public.application_changes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: application_changes application_changes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_changes_system_policy ON public.application_changes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: application_documents; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.application_documents ENABLE ROW LEVEL SECURITY;

--
-- Name: application_documents application_documents_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_documents_access_policy ON public.application_documents TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: application_documents application_documents_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_documents_system_policy ON public.application_documents TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: application_members; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.application_members ENABLE ROW LEVEL SECURITY;

--
-- Name: application_members application_members_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_members_access_policy ON public.application_members TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: application_members application_members_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY application_members_system_policy ON public.application_members TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: applications; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.applications ENABLE ROW LEVEL SECURITY;

--
-- Name: applications applications_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY applications_access_policy ON public.applications TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: applications applications_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY applications_system_policy ON public.applications TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: audit_seals; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.audit_seals ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_seals audit_seals_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_seals_system_policy ON public.audit_seals TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: audit_seals audit_seals_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_seals_visible_policy ON public.audit_seals FOR SELECT TO pilothouse_app USING (true);


--
-- Name: audit_sinks; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.audit_sinks ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_sinks audit_sinks_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_sinks_access_policy ON public.audit_sinks TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all)) WITH CHECK (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: audit_sinks audit_sinks_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_sinks_system_policy ON public.audit_sinks TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: audit_tiles; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.audit_tiles ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_tiles audit_tiles_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_tiles_system_policy ON public.audit_tiles TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: audit_tiles audit_tiles_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_tiles_visible_policy ON public.audit_tiles FOR SELECT TO pilothouse_app USING (true);


--
-- Name: audit_tree; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.audit_tree ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_tree audit_tree_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_tree_system_policy ON public.audit_tree TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: audit_tree audit_tree_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY audit_tree_visible_policy ON public.audit_tree FOR SELECT TO pilothouse_app USING (true);


--
-- Name: claim_changes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.claim_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: claim_changes claim_changes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY claim_changes_access_policy ON public.claim_changes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: claim_changes claim_changes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY claim_changes_system_policy ON public.claim_changes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: clusters; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.clusters ENABLE ROW LEVEL SECURITY;

--
-- Name: clusters clusters_delete_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY clusters_delete_policy ON public.clusters FOR DELETE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: clusters clusters_insert_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY clusters_insert_policy ON public.clusters FOR INSERT TO pilothouse_app WITH CHECK (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: clusters clusters_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY clusters_system_policy ON public.clusters TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: clusters clusters_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY clusters_update_policy ON public.clusters FOR UPDATE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: clusters clusters_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY clusters_visible_policy ON public.clusters FOR SELECT TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (EXISTS ( SELECT
   FROM public.namespaces n
  WHERE ((n.cluster_name)::text = (clusters.name)::text)))));


--
-- Name: config_maps; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.config_maps ENABLE ROW LEVEL SECURITY;

--
-- Name: config_maps config_maps_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY config_maps_access_policy ON public.config_maps TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: config_maps config_maps_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY config_maps_system_policy ON public.config_maps TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: containers container_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_access_policy ON public.containers TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_images; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_images ENABLE ROW LEVEL SECURITY;

--
-- Name: container_images container_images_delete_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_images_delete_policy ON public.container_images FOR DELETE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: container_images container_images_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_images_system_policy ON public.container_images TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_images container_images_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_images_update_policy ON public.container_images FOR UPDATE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: container_images container_images_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_images_visible_policy ON public.container_images FOR SELECT TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (EXISTS ( SELECT
   FROM public.containers c
  WHERE (c.image_id = container_images.id))) OR (EXISTS ( SELECT
   FROM public.program_images p
  WHERE (p.image_id = container_images.id)))));


--
-- Name: container_pods; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_pods ENABLE ROW LEVEL SECURITY;

--
-- Name: container_pods container_pods_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_pods_access_policy ON public.container_pods TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_pods container_pods_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_pods_system_policy ON public.container_pods TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_resource_usage; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_resource_usage ENABLE ROW LEVEL SECURITY;

--
-- Name: container_resource_usage container_resource_usage_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_resource_usage_access_policy ON public.container_resource_usage TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_resource_usage container_resource_usage_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_resource_usage_system_policy ON public.container_resource_usage TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_runs; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_runs ENABLE ROW LEVEL SECURITY;

--
-- Name: container_runs container_runs_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_runs_access_policy ON public.container_runs TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_runs container_runs_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_runs_system_policy ON public.container_runs TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_status_history; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_status_history ENABLE ROW LEVEL SECURITY;

--
-- Name: container_status_history container_status_history_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_status_history_access_policy ON public.container_status_history TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_status_history container_status_history_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_status_history_system_policy ON public.container_status_history TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_usage_daily; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_usage_daily ENABLE ROW LEVEL SECURITY;

--
-- Name: container_usage_daily container_usage_daily_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_daily_access_policy ON public.container_usage_daily TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_usage_daily container_usage_daily_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_daily_system_policy ON public.container_usage_daily TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_usage_days; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_usage_days ENABLE ROW LEVEL SECURITY;

--
-- Name: container_usage_days container_usage_days_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_days_access_policy ON public.container_usage_days TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_usage_days container_usage_days_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_days_system_policy ON public.container_usage_days TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_usage_hourly; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_usage_hourly ENABLE ROW LEVEL SECURITY;

--
-- Name: container_usage_hourly container_usage_hourly_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_hourly_access_policy ON public.container_usage_hourly TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_usage_hourly container_usage_hourly_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_usage_hourly_system_policy ON public.container_usage_hourly TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: container_volumes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.container_volumes ENABLE ROW LEVEL SECURITY;

--
-- Name: container_volumes container_volumes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_volumes_access_policy ON public.container_volumes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: container_volumes container_volumes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY container_volumes_system_policy ON public.container_volumes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: containers; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.containers ENABLE ROW LEVEL SECURITY;

--
-- Name: containers containers_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY containers_system_policy ON public.containers TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: device_logins; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.device_logins ENABLE ROW LEVEL SECURITY;

--
-- Name: device_logins device_logins_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY device_logins_system_policy ON public.device_logins TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: encryption_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.encryption_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: encryption_keys encryption_keys_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY encryption_keys_system_policy ON public.encryption_keys TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: encryption_keys encryption_keys_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY encryption_keys_visible_policy ON public.encryption_keys FOR SELECT TO pilothouse_app USING (true);


--
-- Name: environment_variables; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.environment_variables ENABLE ROW LEVEL SECURITY;

--
-- Name: environment_variables environment_variables_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY environment_variables_access_policy ON public.environment_variables TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: environment_variables environment_variables_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY environment_variables_system_policy ON public.environment_variables TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: events; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;

--
-- Name: events events_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY events_access_policy ON public.events TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: events events_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY events_system_policy ON public.events TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: federated_identities; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.federated_identities ENABLE ROW LEVEL SECURITY;

--
-- Name: federated_identities federated_identities_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY federated_identities_system_policy ON public.federated_identities TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: idempotency_keys; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.idempotency_keys ENABLE ROW LEVEL SECURITY;

--
-- Name: idempotency_keys idempotency_keys_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY idempotency_keys_access_policy ON public.idempotency_keys TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all))) WITH CHECK (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all)));


--
-- Name: idempotency_keys idempotency_keys_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY idempotency_keys_system_policy ON public.idempotency_keys TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: leases; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.leases ENABLE ROW LEVEL SECURITY;

--
-- Name: leases leases_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY leases_system_policy ON public.leases TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: login_challenges; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.login_challenges ENABLE ROW LEVEL SECURITY;

--
-- Name: login_challenges login_challenges_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY login_challenges_system_policy ON public.login_challenges TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: login_origins; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.login_origins ENABLE ROW LEVEL SECURITY;

--
-- Name: login_origins login_origins_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY login_origins_system_policy ON public.login_origins TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: login_throttles; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.login_throttles ENABLE ROW LEVEL SECURITY;

--
-- Name: login_throttles login_throttles_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY login_throttles_system_policy ON public.login_throttles TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: mount_changes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.mount_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: mount_changes mount_changes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY mount_changes_access_policy ON public.mount_changes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: mount_changes mount_changes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY mount_changes_system_policy ON public.mount_changes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: namespaces; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.namespaces ENABLE ROW LEVEL SECURITY;

--
-- Name: namespaces namespaces_insert_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY namespaces_insert_policy ON public.namespaces FOR INSERT TO pilothouse_app WITH CHECK (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: namespaces namespaces_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY namespaces_system_policy ON public.namespaces TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: namespaces namespaces_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY namespaces_update_policy ON public.namespaces FOR UPDATE TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: namespaces namespaces_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY namespaces_visible_policy ON public.namespaces FOR SELECT TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: objects; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.objects ENABLE ROW LEVEL SECURITY;

--
-- Name: objects objects_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY objects_access_policy ON public.objects TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: objects objects_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY objects_system_policy ON public.objects TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: oidc_logins; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.oidc_logins ENABLE ROW LEVEL SECURITY;

--
-- Name: oidc_logins oidc_logins_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY oidc_logins_system_policy ON public.oidc_logins TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: oidc_sessions; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.oidc_sessions ENABLE ROW LEVEL SECURITY;

--
-- Name: oidc_sessions oidc_sessions_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY oidc_sessions_system_policy ON public.oidc_sessions TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: operation_logs operation_log_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY operation_log_policy ON public.operation_logs FOR SELECT TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: operation_logs; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.operation_logs ENABLE ROW LEVEL SECURITY;

--
-- Name: operation_logs operation_logs_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY operation_logs_system_policy ON public.operation_logs TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: operations; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.operations ENABLE ROW LEVEL SECURITY;

--
-- Name: operations operations_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY operations_access_policy ON public.operations TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: operations operations_own_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY operations_own_policy ON public.operations TO pilothouse_app USING ((user_id = ( SELECT public.app_user_id() AS app_user_id))) WITH CHECK ((user_id = ( SELECT public.app_user_id() AS app_user_id)));


--
-- Name: operations operations_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY operations_system_policy ON public.operations TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: orphans; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.orphans ENABLE ROW LEVEL SECURITY;

--
-- Name: orphans orphans_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY orphans_access_policy ON public.orphans TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all)) WITH CHECK (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: orphans orphans_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY orphans_system_policy ON public.orphans TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: pending_changes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.pending_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: pending_changes pending_changes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY pending_changes_system_policy ON public.pending_changes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: pending_incidents; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.pending_incidents ENABLE ROW LEVEL SECURITY;

--
-- Name: pending_incidents pending_incidents_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY pending_incidents_system_policy ON public.pending_incidents TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: periodic_jobs; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.periodic_jobs ENABLE ROW LEVEL SECURITY;

--
-- Name: periodic_jobs periodic_jobs_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY periodic_jobs_system_policy ON public.periodic_jobs TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: port_mappings; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.port_mappings ENABLE ROW LEVEL SECURITY;

--
-- Name: port_mappings port_mappings_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY port_mappings_access_policy ON public.port_mappings TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: port_mappings port_mappings_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY port_mappings_system_policy ON public.port_mappings TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: program_images; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.program_images ENABLE ROW LEVEL SECURITY;

--
-- Name: program_images program_images_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY program_images_access_policy ON public.program_images TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: program_images program_images_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY program_images_system_policy ON public.program_images TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: quota_counters; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.quota_counters ENABLE ROW LEVEL SECURITY;

--
-- Name: quota_counters quota_counters_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY quota_counters_access_policy ON public.quota_counters FOR SELECT TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: quota_counters quota_counters_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY quota_counters_system_policy ON public.quota_counters TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: reconcile_work; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.reconcile_work ENABLE ROW LEVEL SECURITY;

--
-- Name: reconcile_work reconcile_work_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY reconcile_work_access_policy ON public.reconcile_work TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: reconcile_work reconcile_work_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY reconcile_work_system_policy ON public.reconcile_work TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: recovery_codes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.recovery_codes ENABLE ROW LEVEL SECURITY;

--
-- Name: recovery_codes recovery_codes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY recovery_codes_system_policy ON public.recovery_codes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: rendered_messages; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.rendered_messages ENABLE ROW LEVEL SECURITY;

--
-- Name: rendered_messages rendered_messages_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY rendered_messages_access_policy ON public.rendered_messages TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: rendered_messages rendered_messages_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY rendered_messages_system_policy ON public.rendered_messages TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: request_claims; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.request_claims ENABLE ROW LEVEL SECURITY;

--
-- Name: request_claims request_claims_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY request_claims_access_policy ON public.request_claims TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all))) WITH CHECK (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all)));


--
-- Name: request_claims request_claims_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY request_claims_system_policy ON public.request_claims TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: revision_values; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.revision_values ENABLE ROW LEVEL SECURITY;

--
-- Name: revision_values revision_values_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY revision_values_access_policy ON public.revision_values TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: revision_values revision_values_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY revision_values_system_policy ON public.revision_values TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: revisions; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.revisions ENABLE ROW LEVEL SECURITY;

--
-- Name: revisions revisions_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY revisions_access_policy ON public.revisions TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: revisions revisions_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY revisions_system_policy ON public.revisions TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: roles; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.roles ENABLE ROW LEVEL SECURITY;

--
-- Name: roles roles_delete_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY roles_delete_policy ON public.roles FOR DELETE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: roles roles_insert_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY roles_insert_policy ON public.roles FOR INSERT TO pilothouse_app WITH CHECK (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: roles roles_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY roles_system_policy ON public.roles TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: roles roles_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY roles_update_policy ON public.roles FOR UPDATE TO pilothouse_app USING (( SELECT public.app_sees_all() AS app_sees_all));


--
-- Name: roles roles_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY roles_visible_policy ON public.roles FOR SELECT TO pilothouse_app USING (true);


--
-- Name: schema_functions; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.schema_functions ENABLE ROW LEVEL SECURITY;

--
-- Name: schema_functions schema_functions_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY schema_functions_system_policy ON public.schema_functions FOR SELECT TO pilothouse_system USING (true);


--
-- Name: schema_migrations; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.schema_migrations ENABLE ROW LEVEL SECURITY;

--
-- Name: schema_migrations schema_migrations_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY schema_migrations_system_policy ON public.schema_migrations FOR SELECT TO pilothouse_system USING (true);


--
-- Name: secrets; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.secrets ENABLE ROW LEVEL SECURITY;

--
-- Name: secrets secrets_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY secrets_access_policy ON public.secrets TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: secrets secrets_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY secrets_system_policy ON public.secrets TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: service_changes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.service_changes ENABLE ROW LEVEL SECURITY;

--
-- Name: service_changes service_changes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY service_changes_access_policy ON public.service_changes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: service_changes service_changes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY service_changes_system_policy ON public.service_changes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: services; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.services ENABLE ROW LEVEL SECURITY;

--
-- Name: services services_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY services_access_policy ON public.services TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: services services_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY services_system_policy ON public.services TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: sessions; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.sessions ENABLE ROW LEVEL SECURITY;

--
-- Name: sessions sessions_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY sessions_access_policy ON public.sessions TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all))) WITH CHECK (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all)));


--
-- Name: sessions sessions_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY sessions_system_policy ON public.sessions TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: stream_head; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.stream_head ENABLE ROW LEVEL SECURITY;

--
-- Name: stream_head stream_head_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY stream_head_system_policy ON public.stream_head TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: stream_head stream_head_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY stream_head_visible_policy ON public.stream_head FOR SELECT TO pilothouse_app USING (true);


--
-- Name: user_roles; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.user_roles ENABLE ROW LEVEL SECURITY;

--
-- Name: user_roles user_roles_delete_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_roles_delete_policy ON public.user_roles FOR DELETE TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: user_roles user_roles_insert_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_roles_insert_policy ON public.user_roles FOR INSERT TO pilothouse_app WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: user_roles user_roles_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_roles_system_policy ON public.user_roles TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: user_roles user_roles_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_roles_update_policy ON public.user_roles FOR UPDATE TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: user_roles user_roles_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_roles_visible_policy ON public.user_roles FOR SELECT TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: user_secrets; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.user_secrets ENABLE ROW LEVEL SECURITY;

--
-- Name: user_secrets user_secrets_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_secrets_access_policy ON public.user_secrets TO pilothouse_app USING (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all))) WITH CHECK (((user_id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all)));


--
-- Name: user_secrets user_secrets_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY user_secrets_system_policy ON public.user_secrets TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: users; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;

--
-- Name: users users_insert_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY users_insert_policy ON public.users FOR INSERT TO pilothouse_app WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (((kind)::text = 'service_account'::text) AND (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))));


--
-- Name: users users_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY users_system_policy ON public.users TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: users users_update_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY users_update_policy ON public.users FOR UPDATE TO pilothouse_app USING (((id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (((kind)::text = 'service_account'::text) AND (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))));


--
-- Name: users users_visible_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY users_visible_policy ON public.users FOR SELECT TO pilothouse_app USING (((id = ( SELECT public.app_user_id() AS app_user_id)) OR ( SELECT public.app_sees_all() AS app_sees_all) OR (id = ANY (( SELECT public.app_peer_ids() AS app_peer_ids)::bigint[])) OR (((kind)::text = 'service_account'::text) AND (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))));


--
-- Name: volumes; Type: ROW SECURITY; Schema: public; Owner: -
--

ALTER TABLE public.volumes ENABLE ROW LEVEL SECURITY;

--
-- Name: volumes volumes_access_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY volumes_access_policy ON public.volumes TO pilothouse_app USING ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[])))) WITH CHECK ((( SELECT public.app_sees_all() AS app_sees_all) OR (namespace_id = ANY (( SELECT public.app_namespace_ids() AS app_namespace_ids)::bigint[]))));


--
-- Name: volumes volumes_system_policy; Type: POLICY; Schema: public; Owner: -
--

CREATE POLICY volumes_system_policy ON public.volumes TO pilothouse_system USING (true) WITH CHECK (true);


--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: -
--

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO pilothouse_owner;
GRANT USAGE ON SCHEMA public TO pilothouse_app;
GRANT USAGE ON SCHEMA public TO pilothouse_system;
GRANT USAGE ON SCHEMA public TO pilothouse_maintenance;


--
-- Name: FUNCTION admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone) TO pilothouse_app;
GRANT ALL ON FUNCTION public.admit_container(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_services text[], p_config_maps text[], p_secrets text[], p_volumes text[], OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT name_taken text, OUT services text, OUT config_maps text[], OUT secrets text, OUT volumes text, OUT container_id bigint, OUT moment timestamp with time zone) TO pilothouse_system;


--
-- Name: FUNCTION admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone) TO pilothouse_app;
GRANT ALL ON FUNCTION public.admit_container_change(p_user_id bigint, p_request_id uuid, p_namespace text, p_name text, p_lock boolean, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea, OUT namespace_id bigint, OUT namespace_uid uuid, OUT cluster_name text, OUT kubernetes_name text, OUT status text, OUT deletion_requested_at timestamp with time zone, OUT quota text, OUT used_containers bigint, OUT used_cpu numeric, OUT used_memory numeric, OUT namespace_version bigint, OUT container text, OUT moment timestamp with time zone) TO pilothouse_system;


--
-- Name: FUNCTION allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]) TO pilothouse_app;
GRANT ALL ON FUNCTION public.allowed_external_sources(p_user_id bigint, p_namespace text, OUT external_sources text[]) TO pilothouse_system;


--
-- Name: FUNCTION app_reach(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_reach() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_reach() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_reach() TO pilothouse_system;


--
-- Name: FUNCTION app_known_reach(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_known_reach() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_known_reach() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_known_reach() TO pilothouse_system;


--
-- Name: FUNCTION app_namespace_ids(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_namespace_ids() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_namespace_ids() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_namespace_ids() TO pilothouse_system;


--
-- Name: FUNCTION app_password_hash(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_password_hash() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_password_hash() TO pilothouse_app;


--
-- Name: FUNCTION app_peer_ids(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_peer_ids() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_peer_ids() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_peer_ids() TO pilothouse_system;


--
-- Name: FUNCTION app_reach_in(p_namespace_id bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_reach_in(p_namespace_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_reach_in(p_namespace_id bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_reach_in(p_namespace_id bigint) TO pilothouse_system;


--
-- Name: FUNCTION app_sees_all(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_sees_all() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_sees_all() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_sees_all() TO pilothouse_system;


--
-- Name: FUNCTION app_user_id(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.app_user_id() FROM PUBLIC;
GRANT ALL ON FUNCTION public.app_user_id() TO pilothouse_app;
GRANT ALL ON FUNCTION public.app_user_id() TO pilothouse_system;


--
-- Name: FUNCTION begin_new_history(p_reason text, p_seen text, p_expected uuid, p_tampering boolean); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.begin_new_history(p_reason text, p_seen text, p_expected uuid, p_tampering boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION public.begin_new_history(p_reason text, p_seen text, p_expected uuid, p_tampering boolean) TO pilothouse_system;


--
-- Name: FUNCTION begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION public.begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea) TO pilothouse_app;
GRANT ALL ON FUNCTION public.begin_request(p_user_id bigint, p_request_id uuid, OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea) TO pilothouse_system;


--
-- Name: FUNCTION change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.change_container(p_user_id bigint, p_container jsonb, p_parts jsonb, p_history jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) TO pilothouse_app;


--
-- Name: FUNCTION check_allowed_hosts(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.check_allowed_hosts() FROM PUBLIC;


--
-- Name: FUNCTION check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.check_appended_changes(p_audit jsonb, p_events jsonb, p_operation jsonb, p_idempotency jsonb) FROM PUBLIC;


--
-- Name: FUNCTION count_container_delete(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.count_container_delete() FROM PUBLIC;


--
-- Name: FUNCTION count_container_insert(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.count_container_insert() FROM PUBLIC;


--
-- Name: FUNCTION count_container_update(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.count_container_update() FROM PUBLIC;


--
-- Name: FUNCTION count_services(p_namespace_id bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.count_services(p_namespace_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.count_services(p_namespace_id bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.count_services(p_namespace_id bigint) TO pilothouse_system;


--
-- Name: FUNCTION count_storage(p_namespace_id bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.count_storage(p_namespace_id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.count_storage(p_namespace_id bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.count_storage(p_namespace_id bigint) TO pilothouse_system;


--
-- Name: FUNCTION create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.create_container(p_user_id bigint, p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb, OUT next_id bigint, OUT moment timestamp with time zone) TO pilothouse_app;


--
-- Name: FUNCTION create_daily_partitions(table_name text, start_date date, days integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.create_daily_partitions(table_name text, start_date date, days integer) FROM PUBLIC;


--
-- Name: FUNCTION create_monthly_partitions(table_name text, start_date date, months integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.create_monthly_partitions(table_name text, start_date date, months integer) FROM PUBLIC;


--
-- Name: FUNCTION create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.create_partition(table_name text, wanted_name text, lower_bound text, upper_bound text) FROM PUBLIC;


--
-- Name: FUNCTION create_revision_partitions(table_name text, start_revision bigint, partitions integer, partition_size bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.create_revision_partitions(table_name text, start_revision bigint, partitions integer, partition_size bigint) FROM PUBLIC;


--
-- Name: FUNCTION current_history(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.current_history() FROM PUBLIC;
GRANT ALL ON FUNCTION public.current_history() TO pilothouse_app;
GRANT ALL ON FUNCTION public.current_history() TO pilothouse_system;


--
-- Name: FUNCTION detached_partitions(table_name text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.detached_partitions(table_name text) FROM PUBLIC;


--
-- Name: FUNCTION drop_old_partitions(table_name text, retention_months integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.drop_old_partitions(table_name text, retention_months integer) FROM PUBLIC;


--
-- Name: FUNCTION event_mark(p_revision bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.event_mark(p_revision bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.event_mark(p_revision bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.event_mark(p_revision bigint) TO pilothouse_system;


--
-- Name: FUNCTION fold_quota_changes(p_namespace_id bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.fold_quota_changes(p_namespace_id bigint) FROM PUBLIC;


--
-- Name: FUNCTION forget_rendered_messages(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.forget_rendered_messages() FROM PUBLIC;


--
-- Name: FUNCTION forget_revisions(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.forget_revisions() FROM PUBLIC;


--
-- Name: FUNCTION hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]) TO pilothouse_app;
GRANT ALL ON FUNCTION public.hosts_of_namespace(p_user_id bigint, p_namespace text, OUT allowed_hosts text[]) TO pilothouse_system;


--
-- Name: FUNCTION hosts_overlap(p_first text, p_second text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.hosts_overlap(p_first text, p_second text) FROM PUBLIC;


--
-- Name: FUNCTION keep_program_images(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.keep_program_images() FROM PUBLIC;


--
-- Name: FUNCTION keep_quota_counter(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.keep_quota_counter() FROM PUBLIC;


--
-- Name: FUNCTION keep_rendered_message(p_event jsonb, p_message bytea); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.keep_rendered_message(p_event jsonb, p_message bytea) FROM PUBLIC;


--
-- Name: FUNCTION keep_rendered_messages(p_events jsonb, p_messages bytea[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.keep_rendered_messages(p_events jsonb, p_messages bytea[]) FROM PUBLIC;


--
-- Name: FUNCTION lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.lease_work(p_owner text, p_lease_seconds double precision, p_most integer, p_clusters text[], p_free integer[], p_busy bigint[], p_held integer[]) TO pilothouse_system;


--
-- Name: FUNCTION lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.lock_facts(p_namespace_id bigint, p_container_id bigint, p_cpu bigint, p_memory bigint, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT cluster text) TO pilothouse_system;


--
-- Name: FUNCTION mark_usage_days(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.mark_usage_days() FROM PUBLIC;


--
-- Name: FUNCTION missing_claims(p_namespace_id bigint, p_claims jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.missing_claims(p_namespace_id bigint, p_claims jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.missing_claims(p_namespace_id bigint, p_claims jsonb) TO pilothouse_app;
GRANT ALL ON FUNCTION public.missing_claims(p_namespace_id bigint, p_claims jsonb) TO pilothouse_system;


--
-- Name: FUNCTION note_given_up_grant(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.note_given_up_grant() FROM PUBLIC;


--
-- Name: FUNCTION note_member_change(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.note_member_change() FROM PUBLIC;


--
-- Name: FUNCTION note_revision(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.note_revision() FROM PUBLIC;


--
-- Name: FUNCTION number_pending(p_ids bigint[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.number_pending(p_ids bigint[]) FROM PUBLIC;


--
-- Name: FUNCTION number_visible(p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.number_visible(p_limit integer, OUT numbered bigint[], OUT revision_before bigint, OUT aside integer, OUT more boolean) FROM PUBLIC;


--
-- Name: FUNCTION old_partitions(table_name text, before timestamp with time zone); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.old_partitions(table_name text, before timestamp with time zone) FROM PUBLIC;


--
-- Name: FUNCTION partition_bounds(table_name text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.partition_bounds(table_name text) FROM PUBLIC;


--
-- Name: FUNCTION pending_event_ids(p_most integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.pending_event_ids(p_most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.pending_event_ids(p_most integer) TO pilothouse_app;
GRANT ALL ON FUNCTION public.pending_event_ids(p_most integer) TO pilothouse_system;


--
-- Name: FUNCTION put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) TO pilothouse_app;
GRANT ALL ON FUNCTION public.put_changes(p_audit jsonb, p_hashes bytea[], p_events jsonb, p_messages bytea[], p_operation jsonb, p_idempotency jsonb) TO pilothouse_system;


--
-- Name: FUNCTION put_cluster_event(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_cluster_event() FROM PUBLIC;


--
-- Name: FUNCTION put_grant_event(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_grant_event() FROM PUBLIC;


--
-- Name: FUNCTION put_image_event(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_image_event() FROM PUBLIC;


--
-- Name: FUNCTION put_image_use_event(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_image_use_event() FROM PUBLIC;


--
-- Name: FUNCTION put_row_event(p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_row_event(p_type text, p_id bigint, p_namespace_ids bigint[], p_name text, p_kind text, p_labels jsonb) FROM PUBLIC;


--
-- Name: FUNCTION put_user_event(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.put_user_event() FROM PUBLIC;


--
-- Name: FUNCTION quantity_bytes(p_quantity text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.quantity_bytes(p_quantity text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.quantity_bytes(p_quantity text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.quantity_bytes(p_quantity text) TO pilothouse_system;


--
-- Name: FUNCTION raise_floor(p_took_all boolean, p_oldest_running xid8); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.raise_floor(p_took_all boolean, p_oldest_running xid8) FROM PUBLIC;


--
-- Name: FUNCTION raise_row_version(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.raise_row_version() FROM PUBLIC;


--
-- Name: FUNCTION reachable_container_summary(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.reachable_container_summary() FROM PUBLIC;
GRANT ALL ON FUNCTION public.reachable_container_summary() TO pilothouse_app;


--
-- Name: FUNCTION read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_config_map(p_user_id bigint, p_namespace text, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_container(p_user_id bigint, p_namespace text, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION read_namespace(p_user_id bigint, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_namespace(p_user_id bigint, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_namespace(p_user_id bigint, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer) TO pilothouse_app;
GRANT ALL ON FUNCTION public.read_revision(p_user_id bigint, p_type text, p_id bigint, p_number integer) TO pilothouse_system;


--
-- Name: FUNCTION read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_secret(p_user_id bigint, p_namespace text, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_service(p_user_id bigint, p_namespace text, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.read_volume(p_user_id bigint, p_namespace text, p_name text, p_format integer) TO pilothouse_app;


--
-- Name: FUNCTION record_mark(p_sequence bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.record_mark(p_sequence bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.record_mark(p_sequence bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.record_mark(p_sequence bigint) TO pilothouse_system;


--
-- Name: FUNCTION refresh_container_summary(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.refresh_container_summary() FROM PUBLIC;


--
-- Name: FUNCTION refuse_outdated(p_what text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.refuse_outdated(p_what text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.refuse_outdated(p_what text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.refuse_outdated(p_what text) TO pilothouse_system;


--
-- Name: FUNCTION register_image(p_repository text, p_name text, p_tag text, p_digest text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.register_image(p_repository text, p_name text, p_tag text, p_digest text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.register_image(p_repository text, p_name text, p_tag text, p_digest text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.register_image(p_repository text, p_name text, p_tag text, p_digest text) TO pilothouse_system;


--
-- Name: FUNCTION release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.release_work(p_types text[], p_ids bigint[], p_epochs bigint[], p_owners text[], p_seconds double precision[], p_attempts integer[], p_errors text[], p_objects text[]) TO pilothouse_system;


--
-- Name: FUNCTION sequence_changes(p_limit integer); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.sequence_changes(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.sequence_changes(p_limit integer) TO pilothouse_system;


--
-- Name: FUNCTION service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint) TO pilothouse_app;
GRANT ALL ON FUNCTION public.service_limits(p_user_id bigint, p_namespace text, OUT service_types text[], OUT most bigint, OUT used bigint) TO pilothouse_system;


--
-- Name: FUNCTION set_aside(p_id bigint, p_sqlstate text, p_constraint text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.set_aside(p_id bigint, p_sqlstate text, p_constraint text) FROM PUBLIC;


--
-- Name: FUNCTION storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.storage_limits(p_user_id bigint, p_namespace text, p_container_id bigint, p_claims jsonb, OUT most text, OUT used numeric, OUT asked numeric, OUT taken text) TO pilothouse_system;


--
-- Name: FUNCTION taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]) TO pilothouse_app;
GRANT ALL ON FUNCTION public.taken_hosts(p_cluster text, p_namespace_id bigint, p_hosts text[]) TO pilothouse_system;


--
-- Name: FUNCTION update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone) TO pilothouse_app;
GRANT ALL ON FUNCTION public.update_container(p_container jsonb, p_parts jsonb, p_history jsonb, p_operation jsonb, p_mounted text[], p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb, OUT new_row_version bigint, OUT new_resource_version bigint, OUT moment timestamp with time zone) TO pilothouse_system;


--
-- Name: FUNCTION usage_rolled_until(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.usage_rolled_until() FROM PUBLIC;
GRANT ALL ON FUNCTION public.usage_rolled_until() TO pilothouse_app;
GRANT ALL ON FUNCTION public.usage_rolled_until() TO pilothouse_system;


--
-- Name: FUNCTION version_of_cluster(p_user_id bigint, p_namespace text, OUT version text); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.version_of_cluster(p_user_id bigint, p_namespace text, OUT version text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.version_of_cluster(p_user_id bigint, p_namespace text, OUT version text) TO pilothouse_app;
GRANT ALL ON FUNCTION public.version_of_cluster(p_user_id bigint, p_namespace text, OUT version text) TO pilothouse_system;


--
-- Name: TABLE volumes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.volumes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.volumes TO pilothouse_system;


--
-- Name: FUNCTION volume_definition(p_volume public.volumes); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.volume_definition(p_volume public.volumes) FROM PUBLIC;
GRANT ALL ON FUNCTION public.volume_definition(p_volume public.volumes) TO pilothouse_app;
GRANT ALL ON FUNCTION public.volume_definition(p_volume public.volumes) TO pilothouse_system;


--
-- Name: FUNCTION wake_services(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.wake_services() FROM PUBLIC;


--
-- Name: FUNCTION work_is_due(); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.work_is_due() FROM PUBLIC;
GRANT ALL ON FUNCTION public.work_is_due() TO pilothouse_system;


--
-- Name: FUNCTION write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.write_applied(p_ids bigint[], p_row_versions bigint[], p_owners text[], p_epochs bigint[], p_seconds double precision[], p_rows jsonb, p_history jsonb, p_events jsonb, p_messages bytea[], p_objects text[]) TO pilothouse_system;


--
-- Name: FUNCTION write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb) TO pilothouse_app;
GRANT ALL ON FUNCTION public.write_container(p_container jsonb, p_env jsonb, p_ports jsonb, p_mounts jsonb, p_operation jsonb, p_namespace_version bigint, p_limits numeric[], p_services text[], p_config_maps text[], p_secrets text[], p_volumes jsonb) TO pilothouse_system;


--
-- Name: FUNCTION write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb) TO pilothouse_app;
GRANT ALL ON FUNCTION public.write_container_parts(p_container_id bigint, p_namespace_id bigint, p_env jsonb, p_ports jsonb, p_mounts jsonb) TO pilothouse_system;


--
-- Name: FUNCTION write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.write_observed(p_ids bigint[], p_rows jsonb, p_history jsonb) TO pilothouse_system;


--
-- Name: FUNCTION write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_program_images(p_container_id bigint, p_namespace_id bigint, p_spec jsonb) FROM PUBLIC;


--
-- Name: FUNCTION write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb); Type: ACL; Schema: public; Owner: -
--

REVOKE ALL ON FUNCTION public.write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb) TO pilothouse_app;
GRANT ALL ON FUNCTION public.write_revision(p_type text, p_id bigint, p_namespace_id bigint, p_revision jsonb) TO pilothouse_system;


--
-- Name: TABLE alembic_version; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.alembic_version TO pilothouse_system;


--
-- Name: TABLE api_keys; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_keys TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.api_keys TO pilothouse_system;


--
-- Name: TABLE application_changes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.application_changes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.application_changes TO pilothouse_system;


--
-- Name: TABLE application_documents; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.application_documents TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.application_documents TO pilothouse_system;


--
-- Name: TABLE application_members; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.application_members TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.application_members TO pilothouse_system;


--
-- Name: TABLE applications; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.applications TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.applications TO pilothouse_system;


--
-- Name: TABLE audit_seals; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.audit_seals TO pilothouse_app;
GRANT SELECT,INSERT ON TABLE public.audit_seals TO pilothouse_system;


--
-- Name: COLUMN audit_seals.note; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(note) ON TABLE public.audit_seals TO pilothouse_system;


--
-- Name: TABLE audit_sinks; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE ON TABLE public.audit_sinks TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.audit_sinks TO pilothouse_system;


--
-- Name: COLUMN audit_sinks.secrets; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(secrets) ON TABLE public.audit_sinks TO pilothouse_app;


--
-- Name: COLUMN audit_sinks.data_key; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(data_key) ON TABLE public.audit_sinks TO pilothouse_app;


--
-- Name: COLUMN audit_sinks.key_id; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(key_id) ON TABLE public.audit_sinks TO pilothouse_app;


--
-- Name: TABLE audit_tiles; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.audit_tiles TO pilothouse_app;
GRANT SELECT,INSERT ON TABLE public.audit_tiles TO pilothouse_system;


--
-- Name: TABLE audit_tree; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.audit_tree TO pilothouse_app;
GRANT SELECT ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.origin; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(origin) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.history_id; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(history_id) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.size; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(size) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.edge; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(edge) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.origins; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(origins) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.stopped_history; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(stopped_history) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: COLUMN audit_tree.stopped_reason; Type: ACL; Schema: public; Owner: -
--

GRANT UPDATE(stopped_reason) ON TABLE public.audit_tree TO pilothouse_system;


--
-- Name: TABLE claim_changes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE ON TABLE public.claim_changes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.claim_changes TO pilothouse_system;


--
-- Name: TABLE clusters; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.clusters TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.clusters TO pilothouse_system;


--
-- Name: TABLE config_maps; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.config_maps TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.config_maps TO pilothouse_system;


--
-- Name: TABLE container_images; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,DELETE,UPDATE ON TABLE public.container_images TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_images TO pilothouse_system;


--
-- Name: TABLE container_resource_usage; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.container_resource_usage TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_resource_usage TO pilothouse_system;


--
-- Name: TABLE containers; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.containers TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.containers TO pilothouse_system;


--
-- Name: TABLE namespaces; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.namespaces TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.namespaces TO pilothouse_system;


--
-- Name: TABLE users; Type: ACL; Schema: public; Owner: -
--

GRANT INSERT,UPDATE ON TABLE public.users TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.users TO pilothouse_system;


--
-- Name: COLUMN users.id; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(id) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.uid; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(uid) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.username; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(username) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.username_normalized; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(username_normalized) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.email; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(email) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.email_normalized; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(email_normalized) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.full_name; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(full_name) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.avatar_url; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(avatar_url) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.status; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(status) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.last_login_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(last_login_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.password_changed_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(password_changed_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.is_bootstrap; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(is_bootstrap) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.resource_version; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(resource_version) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.created_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(created_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.updated_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(updated_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.created_by; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(created_by) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.updated_by; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(updated_by) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.deleted_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(deleted_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.kind; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(kind) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.namespace_id; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(namespace_id) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.totp_since; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(totp_since) ON TABLE public.users TO pilothouse_app;


--
-- Name: COLUMN users.password_expires_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(password_expires_at) ON TABLE public.users TO pilothouse_app;


--
-- Name: TABLE container_details; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.container_details TO pilothouse_app;
GRANT SELECT ON TABLE public.container_details TO pilothouse_system;


--
-- Name: TABLE container_pods; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_pods TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_pods TO pilothouse_system;


--
-- Name: SEQUENCE container_resource_usage_id_seq; Type: ACL; Schema: public; Owner: -
--

GRANT USAGE ON SEQUENCE public.container_resource_usage_id_seq TO pilothouse_app;
GRANT USAGE ON SEQUENCE public.container_resource_usage_id_seq TO pilothouse_system;


--
-- Name: TABLE container_runs; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.container_runs TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_runs TO pilothouse_system;


--
-- Name: TABLE container_status_history; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.container_status_history TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_status_history TO pilothouse_system;


--
-- Name: TABLE program_images; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.program_images TO pilothouse_app;
GRANT SELECT,UPDATE ON TABLE public.program_images TO pilothouse_system;


--
-- Name: TABLE container_summary; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.container_summary TO pilothouse_system;


--
-- Name: TABLE container_usage_daily; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.container_usage_daily TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_usage_daily TO pilothouse_system;


--
-- Name: TABLE container_usage_days; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.container_usage_days TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_usage_days TO pilothouse_system;


--
-- Name: TABLE container_usage_hourly; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.container_usage_hourly TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_usage_hourly TO pilothouse_system;


--
-- Name: TABLE container_volumes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_volumes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.container_volumes TO pilothouse_system;


--
-- Name: SEQUENCE containers_id_seq; Type: ACL; Schema: public; Owner: -
--

GRANT USAGE ON SEQUENCE public.containers_id_seq TO pilothouse_app;
GRANT USAGE ON SEQUENCE public.containers_id_seq TO pilothouse_system;


--
-- Name: TABLE database_stats; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.database_stats TO pilothouse_maintenance;


--
-- Name: TABLE device_logins; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.device_logins TO pilothouse_system;


--
-- Name: TABLE encryption_keys; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.encryption_keys TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.encryption_keys TO pilothouse_system;


--
-- Name: TABLE environment_variables; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.environment_variables TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.environment_variables TO pilothouse_system;


--
-- Name: TABLE events; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.events TO pilothouse_app;
GRANT SELECT ON TABLE public.events TO pilothouse_system;


--
-- Name: TABLE federated_identities; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.federated_identities TO pilothouse_system;


--
-- Name: TABLE idempotency_keys; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.idempotency_keys TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency_keys TO pilothouse_system;


--
-- Name: TABLE leases; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.leases TO pilothouse_system;


--
-- Name: TABLE login_challenges; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.login_challenges TO pilothouse_system;


--
-- Name: TABLE login_origins; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.login_origins TO pilothouse_system;


--
-- Name: TABLE login_throttles; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.login_throttles TO pilothouse_system;


--
-- Name: TABLE mount_changes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.mount_changes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.mount_changes TO pilothouse_system;


--
-- Name: TABLE objects; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.objects TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.objects TO pilothouse_system;


--
-- Name: TABLE oidc_logins; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.oidc_logins TO pilothouse_system;


--
-- Name: TABLE oidc_sessions; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.oidc_sessions TO pilothouse_system;


--
-- Name: TABLE operation_logs; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.operation_logs TO pilothouse_app;
GRANT SELECT ON TABLE public.operation_logs TO pilothouse_system;


--
-- Name: TABLE operations; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.operations TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.operations TO pilothouse_system;


--
-- Name: TABLE orphans; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,DELETE,UPDATE ON TABLE public.orphans TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.orphans TO pilothouse_system;


--
-- Name: COLUMN pending_changes.id; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(id) ON TABLE public.pending_changes TO pilothouse_system;


--
-- Name: COLUMN pending_changes.created_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(created_at) ON TABLE public.pending_changes TO pilothouse_system;


--
-- Name: COLUMN pending_incidents.id; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(id) ON TABLE public.pending_incidents TO pilothouse_system;


--
-- Name: COLUMN pending_incidents.sqlstate; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(sqlstate) ON TABLE public.pending_incidents TO pilothouse_system;


--
-- Name: COLUMN pending_incidents.set_aside_at; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT(set_aside_at) ON TABLE public.pending_incidents TO pilothouse_system;


--
-- Name: TABLE periodic_jobs; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.periodic_jobs TO pilothouse_system;


--
-- Name: TABLE port_mappings; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.port_mappings TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.port_mappings TO pilothouse_system;


--
-- Name: TABLE quota_counters; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.quota_counters TO pilothouse_app;
GRANT SELECT ON TABLE public.quota_counters TO pilothouse_system;


--
-- Name: TABLE reconcile_work; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.reconcile_work TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.reconcile_work TO pilothouse_system;


--
-- Name: TABLE recovery_codes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.recovery_codes TO pilothouse_system;


--
-- Name: TABLE rendered_messages; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.rendered_messages TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.rendered_messages TO pilothouse_system;


--
-- Name: TABLE request_claims; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.request_claims TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.request_claims TO pilothouse_system;


--
-- Name: TABLE revision_values; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.revision_values TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.revision_values TO pilothouse_system;


--
-- Name: TABLE revisions; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE ON TABLE public.revisions TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.revisions TO pilothouse_system;


--
-- Name: TABLE roles; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.roles TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.roles TO pilothouse_system;


--
-- Name: TABLE schema_functions; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.schema_functions TO pilothouse_system;


--
-- Name: TABLE schema_migrations; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.schema_migrations TO pilothouse_system;


--
-- Name: TABLE secrets; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.secrets TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.secrets TO pilothouse_system;


--
-- Name: TABLE service_changes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT ON TABLE public.service_changes TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.service_changes TO pilothouse_system;


--
-- Name: TABLE services; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.services TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.services TO pilothouse_system;


--
-- Name: TABLE sessions; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.sessions TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.sessions TO pilothouse_system;


--
-- Name: TABLE stream_head; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.stream_head TO pilothouse_app;
GRANT SELECT ON TABLE public.stream_head TO pilothouse_system;


--
-- Name: TABLE table_sizes; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.table_sizes TO pilothouse_maintenance;


--
-- Name: TABLE user_operation_stats; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.user_operation_stats TO pilothouse_app;
GRANT SELECT ON TABLE public.user_operation_stats TO pilothouse_system;


--
-- Name: TABLE user_roles; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.user_roles TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.user_roles TO pilothouse_system;


--
-- Name: TABLE user_secrets; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.user_secrets TO pilothouse_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.user_secrets TO pilothouse_system;


--
-- Name: TABLE watched_rows; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.watched_rows TO pilothouse_system;


--
-- PostgreSQL database dump complete
--

\unrestrict pilothouse

