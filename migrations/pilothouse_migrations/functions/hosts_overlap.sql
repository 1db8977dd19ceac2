-- `*.x` covers every host below x, in any number of labels, and not x itself: so two patterns overlap only if one covers
-- the other. The server's `values.hosts.overlap` decides the same, and a test compares the two.
CREATE OR REPLACE FUNCTION hosts_overlap(p_first text, p_second text)
    RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p_first = p_second
        OR (starts_with(p_first, '*.') AND right(p_second, length(p_first) - 1) = substr(p_first, 2))
        OR (starts_with(p_second, '*.') AND right(p_first, length(p_second) - 1) = substr(p_second, 2))
$$;

COMMENT ON FUNCTION hosts_overlap IS 'Whether some host is covered by both patterns, which are in normal form.';
