-- What else is known of writes that were not taken, under which ids writes are queued, and which streams are wanted.

ALTER TABLE kairos_rejected_write ADD COLUMN outcome TEXT NOT NULL DEFAULT 'refused';
-- What the app saw, and what others made of the row.
ALTER TABLE kairos_rejected_write ADD COLUMN base TEXT;
ALTER TABLE kairos_rejected_write ADD COLUMN theirs TEXT;

-- Ids this database had before it was copied. What was queued by then is uploaded under the id of its time: the other
-- copy uploads it as well, and the service takes it once.
CREATE TABLE kairos_former_client (
    -- The last entry of the queue that is of this id.
    last_crud_id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL
);

-- Streams the app asked for by itself.
CREATE TABLE kairos_subscription (
    stream TEXT NOT NULL,
    -- JSON; null without any.
    parameters TEXT NOT NULL,
    priority INTEGER,
    -- Seconds it stays wanted after it was last held.
    ttl INTEGER NOT NULL,
    holders INTEGER NOT NULL,
    -- NULL while it is held.
    expires_at INTEGER,
    PRIMARY KEY (stream, parameters)
) WITHOUT ROWID;
