-- The publication the service reads. It starts empty: only tables that were published on purpose leave the database.

DO $$
BEGIN
    CREATE PUBLICATION kairos_sync;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;

-- Publishes a table, and lets uploads write to it with the privileges given, for example
--     SELECT kairos.publish_table('todos', 'INSERT, UPDATE, DELETE');
-- Enable row-level security on a table before opening it to uploads.
CREATE OR REPLACE FUNCTION kairos.publish_table(target regclass, writes text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE p.pubname = 'kairos_sync' AND r.prrelid = target
    ) THEN
        EXECUTE format('ALTER PUBLICATION kairos_sync ADD TABLE %s', target);
    END IF;
    EXECUTE format('GRANT SELECT ON %s TO kairos_replication', target);
    IF writes IS NOT NULL THEN
        -- SELECT as well: the row as it is decides whether a write is allowed.
        EXECUTE format('GRANT SELECT, %s ON %s TO kairos_write', writes, target);
    END IF;
END $$;

-- It runs with the rights of its caller, so it gives away nothing the caller could not; still, uploads need it not.
REVOKE EXECUTE ON FUNCTION kairos.publish_table(regclass, text) FROM PUBLIC;
