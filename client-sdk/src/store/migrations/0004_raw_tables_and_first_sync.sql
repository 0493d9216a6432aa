-- Tables of the app's own design have no view and no table of JSON rows.
ALTER TABLE kairos_table ADD COLUMN is_raw INTEGER NOT NULL DEFAULT 0;

-- Not `OR IGNORE`: what a statement of the app says of conflicts, such as an upsert, goes for its triggers, too.
DROP TRIGGER kairos_crud_queued;
CREATE TRIGGER kairos_crud_queued AFTER INSERT ON kairos_crud BEGIN
    INSERT INTO kairos_touched_row (row_type, row_id) SELECT NEW.row_type, NEW.row_id WHERE NOT EXISTS
        (SELECT 1 FROM kairos_touched_row WHERE row_type = NEW.row_type AND row_id = NEW.row_id);
    UPDATE kairos_gate SET target = 9223372036854775807 WHERE target IS NOT 9223372036854775807;
END;

-- A checkpoint with the subscription's rows was visible.
ALTER TABLE kairos_subscription ADD COLUMN is_synced INTEGER NOT NULL DEFAULT 0;
