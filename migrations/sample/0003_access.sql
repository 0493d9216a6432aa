-- What is synced, and what uploads may write. After row-level security, so that no table is ever open without it.

-- Whom a household has is the administrator's business: read by devices, never written.
SELECT kairos.publish_table('households');
SELECT kairos.publish_table('household_members');

-- A profile can be made and changed; deleting an account is no upload.
SELECT kairos.publish_table('users', 'INSERT, UPDATE');

SELECT kairos.publish_table('habits', 'INSERT, UPDATE, DELETE');
SELECT kairos.publish_table('completions', 'INSERT, UPDATE, DELETE');
SELECT kairos.publish_table('routines', 'INSERT, UPDATE, DELETE');
SELECT kairos.publish_table('routine_habits', 'INSERT, UPDATE, DELETE');
SELECT kairos.publish_table('recovery_sessions', 'INSERT, UPDATE, DELETE');
