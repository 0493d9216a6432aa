DROP TABLE IF EXISTS
    recovery_sessions, routine_habits, routines, completions, habits, household_members, households, users;
