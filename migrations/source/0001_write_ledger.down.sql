DROP TABLE IF EXISTS kairos.write_ledger;
DROP FUNCTION IF EXISTS kairos.current_user_id();
