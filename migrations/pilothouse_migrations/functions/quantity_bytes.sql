-- Whole units of a Kubernetes quantity in normal form, rounded up: bytes, where it is storage. values/quantity.py reads
-- quantities; this is for sums in SQL.
CREATE OR REPLACE FUNCTION quantity_bytes(p_quantity text)
    RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN p_quantity ~ '[eE][0-9]+$' THEN ceil(p_quantity::numeric)
        ELSE ceil(substring(p_quantity FROM '^[0-9.]+')::numeric
            * CASE substring(p_quantity FROM '[A-Za-z]+$')
                WHEN 'n' THEN 0.000000001 WHEN 'u' THEN 0.000001 WHEN 'm' THEN 0.001
                WHEN 'k' THEN 1000 WHEN 'M' THEN 1000000 WHEN 'G' THEN 1000000000 WHEN 'T' THEN 1000000000000
                WHEN 'P' THEN 1000000000000000 WHEN 'E' THEN 1000000000000000000
                WHEN 'Ki' THEN 1024 WHEN 'Mi' THEN 1048576 WHEN 'Gi' THEN 1073741824 WHEN 'Ti' THEN 1099511627776
                WHEN 'Pi' THEN 1125899906842624 WHEN 'Ei' THEN 1152921504606846976
                ELSE 1 END)
        END;

COMMENT ON FUNCTION quantity_bytes IS 'Whole units of a Kubernetes quantity, rounded up.';
GRANT EXECUTE ON FUNCTION quantity_bytes TO pilothouse_app, pilothouse_system;
