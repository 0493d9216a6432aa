//! What each device of the household must hold, in SQL on Postgres, written by hand beside the rules.

use crate::demo::oracle::TableCheck;

/// The tables of a user's device. Timestamps with time zone reach devices in UTC with a `Z`, booleans as 0 and 1.
pub const USER_TABLES: [TableCheck; 5] = [
    TableCheck {
        table: "habits",
        device_sql: "SELECT id, user_id, name, description, icon, color, schedule, target_per_day, position, archived, \
                     created_at, updated_at FROM habits",
        source_sql: "SELECT id, user_id, name, description, icon, color, schedule::text, target_per_day::text, \
                     position::text, archived::int::text, (created_at AT TIME ZONE 'UTC')::text || 'Z', \
                     (updated_at AT TIME ZONE 'UTC')::text || 'Z' FROM habits WHERE user_id = $1",
    },
    TableCheck {
        table: "completions",
        device_sql: "SELECT id, habit_id, completed_on, completed_at, amount, note, created_at FROM completions",
        source_sql: "SELECT c.id, c.habit_id, c.completed_on::text, (c.completed_at AT TIME ZONE 'UTC')::text || 'Z', \
                     c.amount::text, c.note, (c.created_at AT TIME ZONE 'UTC')::text || 'Z' \
                     FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = $1",
    },
    TableCheck {
        table: "routines",
        device_sql: "SELECT id, user_id, name, starts_at, archived, created_at, updated_at FROM routines",
        source_sql: "SELECT id, user_id, name, starts_at::text, archived::int::text, \
                     (created_at AT TIME ZONE 'UTC')::text || 'Z', (updated_at AT TIME ZONE 'UTC')::text || 'Z' \
                     FROM routines WHERE user_id = $1",
    },
    TableCheck {
        table: "routine_habits",
        device_sql: "SELECT id, routine_id, habit_id, position FROM routine_habits",
        source_sql: "SELECT rh.id, rh.routine_id, rh.habit_id, rh.position::text \
                     FROM routine_habits rh JOIN routines r ON r.id = rh.routine_id WHERE r.user_id = $1",
    },
    TableCheck {
        table: "recovery_sessions",
        device_sql: "SELECT id, habit_id, reason, started_at, ended_at, created_at FROM recovery_sessions",
        source_sql: "SELECT s.id, s.habit_id, s.reason, (s.started_at AT TIME ZONE 'UTC')::text || 'Z', \
                     (s.ended_at AT TIME ZONE 'UTC')::text || 'Z', (s.created_at AT TIME ZONE 'UTC')::text || 'Z' \
                     FROM recovery_sessions s JOIN habits h ON h.id = s.habit_id WHERE h.user_id = $1",
    },
];
