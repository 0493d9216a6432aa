-- Rows that are in their tables before the checkpoint that shows them (see staging.rs).

-- How many rows wait there unseen; NULL where the view shows all rows that the table has.
ALTER TABLE kairos_table ADD COLUMN staged_rows INTEGER;

-- Operations have arrived that the next checkpoint has to bring to their tables.
ALTER TABLE kairos_bucket ADD COLUMN has_unstaged INTEGER NOT NULL DEFAULT 0;
UPDATE kairos_bucket SET has_unstaged = 1 WHERE last_op_id > last_applied_op_id;

-- Up to which priority a checkpoint has been visible whole, at least once.
INSERT INTO kairos_kv (key, value) SELECT 'first_synced_priority', 255 FROM kairos_kv WHERE key = 'last_synced_at';

-- The app wrote it; the others were noted by the sync.
ALTER TABLE kairos_touched_row ADD COLUMN is_local INTEGER NOT NULL DEFAULT 0;
UPDATE kairos_touched_row SET is_local = 1;

DROP TRIGGER kairos_crud_queued;
CREATE TRIGGER kairos_crud_queued AFTER INSERT ON kairos_crud BEGIN
    UPDATE kairos_touched_row SET is_local = 1 WHERE row_type = NEW.row_type AND row_id = NEW.row_id;
    INSERT INTO kairos_touched_row (row_type, row_id, is_local) SELECT NEW.row_type, NEW.row_id, 1 WHERE NOT EXISTS
        (SELECT 1 FROM kairos_touched_row WHERE row_type = NEW.row_type AND row_id = NEW.row_id);
    UPDATE kairos_gate SET target = 9223372036854775807 WHERE target IS NOT 9223372036854775807;
END;
