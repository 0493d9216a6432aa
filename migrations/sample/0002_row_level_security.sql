-- What a user may see and change, whatever the layers above believe. An upload runs as `kairos_write`, which these
-- policies bind. Where the sync rules read, they do not hold: replication reads everything, and the rules decide.

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE households ENABLE ROW LEVEL SECURITY;
ALTER TABLE household_members ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS own_profile ON users;
CREATE POLICY own_profile ON users USING (id = kairos.current_user_id());

DROP POLICY IF EXISTS own_membership ON household_members;
CREATE POLICY own_membership ON household_members FOR SELECT USING (user_id = kairos.current_user_id());

DROP POLICY IF EXISTS own_household ON households;
CREATE POLICY own_household ON households FOR SELECT
    USING (id IN (SELECT household_id FROM household_members WHERE user_id = kairos.current_user_id()));

-- The user's own data binds the owner of the tables too: FORCE.
ALTER TABLE habits ENABLE ROW LEVEL SECURITY;
ALTER TABLE habits FORCE ROW LEVEL SECURITY;
ALTER TABLE completions ENABLE ROW LEVEL SECURITY;
ALTER TABLE completions FORCE ROW LEVEL SECURITY;
ALTER TABLE routines ENABLE ROW LEVEL SECURITY;
ALTER TABLE routines FORCE ROW LEVEL SECURITY;
ALTER TABLE routine_habits ENABLE ROW LEVEL SECURITY;
ALTER TABLE routine_habits FORCE ROW LEVEL SECURITY;
ALTER TABLE recovery_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE recovery_sessions FORCE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS own_habits ON habits;
CREATE POLICY own_habits ON habits USING (user_id = kairos.current_user_id());

DROP POLICY IF EXISTS own_routines ON routines;
CREATE POLICY own_routines ON routines USING (user_id = kairos.current_user_id());

DROP POLICY IF EXISTS own_completions ON completions;
CREATE POLICY own_completions ON completions
    USING (EXISTS (SELECT FROM habits h WHERE h.id = habit_id AND h.user_id = kairos.current_user_id()));

DROP POLICY IF EXISTS own_recovery_sessions ON recovery_sessions;
CREATE POLICY own_recovery_sessions ON recovery_sessions
    USING (EXISTS (SELECT FROM habits h WHERE h.id = habit_id AND h.user_id = kairos.current_user_id()));

-- Both ends: a routine must not point at somebody else's habit.
DROP POLICY IF EXISTS own_routine_habits ON routine_habits;
CREATE POLICY own_routine_habits ON routine_habits
    USING (
        EXISTS (SELECT FROM routines r WHERE r.id = routine_id AND r.user_id = kairos.current_user_id())
        AND EXISTS (SELECT FROM habits h WHERE h.id = habit_id AND h.user_id = kairos.current_user_id())
    );
