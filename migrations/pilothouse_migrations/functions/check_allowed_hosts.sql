-- A check before the write could not see a write that commits at the same time; see taken_hosts.
CREATE OR REPLACE FUNCTION check_allowed_hosts()
    RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF public.taken_hosts(NEW.cluster_name, NEW.id, NEW.allowed_hosts) <> '{}' THEN
        RAISE EXCEPTION 'hosts overlap those of another namespace'
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'ex_namespaces_allowed_hosts';
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION check_allowed_hosts IS 'Refuses hosts that overlap those of another namespace of the cluster.';
