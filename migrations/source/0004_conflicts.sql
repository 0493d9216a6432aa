-- What devices sent and rows did not get, what rows lost by it, and how users want conflicts to end.

-- One row per write that was refused, that waits for a person, of which a strategy took less than was sent, or that went
-- over what its device did not know. It is inserted in the transaction of the upload, so it is there if and only if the answer was given.
-- Published, so that it reaches the user's devices as any other table does: by a rule on `user_id`.
CREATE TABLE IF NOT EXISTS kairos.conflicts (
    id uuid PRIMARY KEY,
    user_id text NOT NULL,
    -- The device's database, and the write's place in its queue, where it said so.
    client_id text,
    op_id text,
    op text NOT NULL CHECK (op IN ('PUT', 'PATCH', 'DELETE')),
    table_name text NOT NULL,
    row_id text,
    outcome text NOT NULL CHECK (outcome IN ('refused', 'conflict', 'merged', 'applied')),
    code text,
    message text,
    -- The row as the device saw it, as the device wants it, and as others made it: columns and values, as far as known.
    -- `json`, not `jsonb`: whatever a device sent can be kept, characters included that Postgres has not in text.
    base json,
    mine json,
    theirs json,
    -- `open` asks for a person, `settled` was decided by a strategy, `resolved` by a person.
    status text NOT NULL CHECK (status IN ('open', 'settled', 'resolved')),
    resolution text CHECK (resolution IN ('mine', 'theirs', 'merged')),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    -- Of `base`, `mine` and `theirs`: a user's share is bounded without reading them.
    value_bytes bigint NOT NULL
);

-- By hash: a user's id may be longer than a B-tree takes.
CREATE INDEX IF NOT EXISTS conflicts_user_id ON kairos.conflicts USING hash (user_id);
-- History is pruned in this order.
CREATE INDEX IF NOT EXISTS conflicts_recorded_at ON kairos.conflicts (recorded_at) WHERE status <> 'open';

COMMENT ON TABLE kairos.conflicts IS 'Writes of devices that were not taken as sent: refusals and conflicts, open and decided.';

-- What a user wants done with conflicts of a table whose rule leaves them to people.
CREATE TABLE IF NOT EXISTS kairos.conflict_preferences (
    -- Hashed, as an index has no room for users of any length.
    user_key bytea NOT NULL CHECK (octet_length(user_key) = 32),
    table_name text NOT NULL,
    strategy text NOT NULL CHECK (strategy IN ('client_wins', 'server_wins', 'merge_fields')),
    chosen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_key, table_name)
);

COMMENT ON TABLE kairos.conflict_preferences IS 'Strategies that users chose for tables with `conflict: manual`.';

GRANT SELECT, INSERT, UPDATE, DELETE ON kairos.conflicts, kairos.conflict_preferences TO kairos_service;
GRANT USAGE ON SCHEMA kairos TO kairos_replication;
DO $$
BEGIN
    -- Whoever dropped the publication publishes what they want by themselves.
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = 'kairos_sync' AND NOT puballtables) THEN
        PERFORM kairos.publish_table('kairos.conflicts');
    ELSE
        GRANT SELECT ON kairos.conflicts TO kairos_replication;
    END IF;
END $$;
