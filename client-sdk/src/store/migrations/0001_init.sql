-- The client's own tables. The app's tables are views beside them (see views.rs).

-- Small things: client_id, schema, last_synced_at.
CREATE TABLE kairos_kv (
    key TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- The tables the app declared.
CREATE TABLE kairos_table (
    name TEXT PRIMARY KEY,
    local_only INTEGER NOT NULL
) WITHOUT ROWID;

-- One row per bucket the client has.
CREATE TABLE kairos_bucket (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    priority INTEGER NOT NULL DEFAULT 3,
    -- The service continues after this operation.
    last_op_id INTEGER NOT NULL DEFAULT 0,
    -- Operations up to here are visible to the app.
    last_applied_op_id INTEGER NOT NULL DEFAULT 0,
    -- Wrapping 32-bit sum over all operations received.
    checksum INTEGER NOT NULL DEFAULT 0,
    count_at_last INTEGER NOT NULL DEFAULT 0,
    count_since_last INTEGER NOT NULL DEFAULT 0
);

-- The current PUT per bucket and key; a key is (row_type, row_id, subkey).
-- In the order of arrival, so that a download appends; the index finds the rows of all buckets.
CREATE TABLE kairos_oplog (
    bucket INTEGER NOT NULL,
    op_id INTEGER NOT NULL,
    row_type TEXT NOT NULL,
    row_id TEXT NOT NULL,
    subkey TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (bucket, op_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX kairos_oplog_key ON kairos_oplog (row_id, row_type, subkey, bucket);

-- Rows to look at again when the next checkpoint is published: written locally, or removed from a bucket.
CREATE TABLE kairos_touched_row (
    row_type TEXT NOT NULL,
    row_id TEXT NOT NULL,
    PRIMARY KEY (row_type, row_id)
) WITHOUT ROWID;

-- Local writes waiting for their upload. Ids are never used twice: with the client id they make a repeated upload harmless.
CREATE TABLE kairos_crud (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tx_id INTEGER NOT NULL,
    op TEXT NOT NULL,
    row_type TEXT NOT NULL,
    row_id TEXT NOT NULL,
    data TEXT,
    old TEXT
);
CREATE INDEX kairos_crud_row ON kairos_crud (row_type, row_id);

-- Which checkpoints may be published. `target` is NULL when nothing is awaited, the largest integer while local writes
-- are not uploaded, else the write checkpoint to wait for.
CREATE TABLE kairos_gate (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    target INTEGER
);
INSERT INTO kairos_gate (id, target) VALUES (1, NULL);

-- A queued write closes the gate and marks its row, whatever trigger queued it.
CREATE TRIGGER kairos_crud_queued AFTER INSERT ON kairos_crud BEGIN
    INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) VALUES (NEW.row_type, NEW.row_id);
    UPDATE kairos_gate SET target = 9223372036854775807 WHERE target IS NOT 9223372036854775807;
END;

-- Local writes the service refused, for the app to show. The rows themselves go back to what the service has.
CREATE TABLE kairos_rejected_write (
    id INTEGER PRIMARY KEY,
    op TEXT NOT NULL,
    row_type TEXT NOT NULL,
    row_id TEXT NOT NULL,
    data TEXT,
    code TEXT,
    message TEXT,
    rejected_at INTEGER NOT NULL
);

INSERT INTO kairos_kv (key, value) VALUES ('client_id', uuid());
