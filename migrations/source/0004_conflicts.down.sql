DROP TABLE IF EXISTS kairos.conflict_preferences;
DROP TABLE IF EXISTS kairos.conflicts;
