-- What is needed to recompute checksums from what is stored, and to learn tables from what arrives.

-- Of the operation, as the service sent it.
ALTER TABLE kairos_oplog ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE kairos_oplog SET checksum = kairos_put_checksum(row_type, row_id, data);

-- Sum over the operations that are not stored any more: those replaced by later ones, and all but PUTs.
ALTER TABLE kairos_bucket ADD COLUMN retired_checksum INTEGER NOT NULL DEFAULT 0;
UPDATE kairos_bucket SET retired_checksum = 4294967295 &
    (checksum - (SELECT coalesce(sum(o.checksum), 0) FROM kairos_oplog o WHERE o.bucket = kairos_bucket.id));

-- What the service announced with the last published checkpoint; NULL before the first.
ALTER TABLE kairos_bucket ADD COLUMN announced_checksum INTEGER;
UPDATE kairos_bucket SET announced_checksum = checksum WHERE count_since_last = 0;

-- Columns of tables whose schema was learned, in the order in which they were first seen.
CREATE TABLE kairos_column (
    row_type TEXT NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (row_type, name)
) WITHOUT ROWID;
