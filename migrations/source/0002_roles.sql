-- Three roles, each with what its work needs and no more. None has a password here: whoever deploys sets those.
-- Roles belong to the whole server, so another database, or another migration at this moment, may have made them.

DO $$
BEGIN
    -- Reads the published tables: a snapshot by COPY and the WAL. Row-level security is for users, not for the copy.
    CREATE ROLE kairos_replication LOGIN REPLICATION BYPASSRLS;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;

DO $$
BEGIN
    -- What an upload runs as. Owns nothing and has no BYPASSRLS, so row-level security holds.
    CREATE ROLE kairos_write NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;

DO $$
BEGIN
    -- What the service logs in as. NOINHERIT: it touches the app's tables only after SET ROLE, never by accident.
    CREATE ROLE kairos_service LOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;

DO $$
BEGIN
    GRANT kairos_write TO kairos_service;
EXCEPTION WHEN unique_violation THEN
    NULL;
END $$;

GRANT USAGE ON SCHEMA kairos TO kairos_service, kairos_write;
GRANT SELECT, INSERT, DELETE ON kairos.write_ledger TO kairos_service;

-- Tables made later by the role that migrates can be published without another grant.
GRANT USAGE ON SCHEMA public TO kairos_replication, kairos_write;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO kairos_replication;
