ALTER PUBLICATION kairos_sync DROP TABLE
    users, households, household_members, habits, completions, routines, routine_habits, recovery_sessions;
REVOKE ALL ON
    users, households, household_members, habits, completions, routines, routine_habits, recovery_sessions
    FROM kairos_write, kairos_replication;
