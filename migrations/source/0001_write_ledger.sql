-- What the service keeps in the source database: who is writing, and which writes were already answered.

CREATE SCHEMA IF NOT EXISTS kairos;

-- The user a write is for, as the service proved it. NULL outside an upload, so that policies then match no row.
-- A session that once set the claims reads '' afterwards, hence nullif.
CREATE OR REPLACE FUNCTION kairos.current_user_id() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;

COMMENT ON FUNCTION kairos.current_user_id() IS 'User of the current upload; for row-level security policies.';

-- One row per answered write. It is inserted in the transaction of the write itself, so a write is remembered if and
-- only if it took effect (or was refused for good).
CREATE TABLE IF NOT EXISTS kairos.write_ledger (
    -- SHA-256 over user, client, op id and content: short and safe to index whatever devices send, and it names nobody.
    key bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    outcome text NOT NULL,
    code text,
    message text,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

-- Old rows are pruned in this order.
CREATE INDEX IF NOT EXISTS write_ledger_recorded_at ON kairos.write_ledger (recorded_at);

COMMENT ON TABLE kairos.write_ledger IS 'Answers to uploaded writes, so that a repeated upload has one effect and one answer.';
