-- Takes every right in this database away. The roles themselves belong to the server and may serve other databases;
-- `DROP ROLE kairos_service, kairos_write, kairos_replication` ends them.
DROP OWNED BY kairos_service, kairos_write, kairos_replication;
