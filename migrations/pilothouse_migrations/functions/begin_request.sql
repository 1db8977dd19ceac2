-- The first statement of a message by which a mutation reads: sets the caller, computes its reach once, and looks for
-- the answer to a replay of the request (p_request_id; null: none).
--
-- The lock of the request is free, or held by the transaction that serves it: this does not wait.
CREATE OR REPLACE FUNCTION begin_request(
    p_user_id bigint, p_request_id uuid,
    OUT ours boolean, OUT method text, OUT request_hmac bytea, OUT response bytea)
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
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

COMMENT ON FUNCTION begin_request IS
    'Sets the caller, and finds the stored answer of a request and whether it is this transaction''s to serve.';
GRANT EXECUTE ON FUNCTION begin_request TO pilothouse_app, pilothouse_system;
