DROP FUNCTION IF EXISTS kairos.publish_table(regclass, text);
DROP PUBLICATION IF EXISTS kairos_sync;
