// The household's tables on this device, and what the mirror reads and writes.

import { type Kairos, Schema } from '../../src/index.ts';
import { plusDays } from './day.ts';
import { DAYS_SHOWN, type Rows } from './household.ts';

/** As `deploy/rules` and the sample app have them; only what is used. */
export const SCHEMA = new Schema({
  users: { display_name: 'text' },
  habits: {
    user_id: 'text',
    name: 'text',
    icon: 'text',
    color: 'text',
    schedule: 'text',
    target_per_day: 'integer',
    position: 'integer',
    archived: 'integer',
  },
  completions: {
    columns: { habit_id: 'text', completed_on: 'text', completed_at: 'text', amount: 'text' },
    indexes: [['completed_on'], ['habit_id']],
  },
  routines: { user_id: 'text', name: 'text', starts_at: 'text', archived: 'integer' },
  routine_habits: { columns: { routine_id: 'text', habit_id: 'text', position: 'integer' }, indexes: [['routine_id']] },
  recovery_sessions: { habit_id: 'text', started_at: 'text', ended_at: 'text' },
});

const QUERIES: Record<keyof Rows, string> = {
  users: 'SELECT id, display_name FROM users ORDER BY id',
  habits: `SELECT id, user_id, name, icon, color, schedule, target_per_day, coalesce(archived, 0) AS archived FROM habits
    ORDER BY user_id, position, name`,
  done: `SELECT habit_id, completed_on AS day, sum(CAST(coalesce(amount, 1) AS REAL)) AS amount FROM completions
    WHERE completed_on > ? GROUP BY habit_id, completed_on`,
  routines: `SELECT r.id, r.user_id, r.name, r.starts_at, (
      SELECT group_concat(trim(coalesce(h.icon, '') || ' ' || h.name), ', ') FROM routine_habits rh
      JOIN habits h ON h.id = rh.habit_id AND NOT coalesce(h.archived, 0) WHERE rh.routine_id = r.id) AS habits
    FROM routines r WHERE r.starts_at IS NOT NULL AND NOT coalesce(r.archived, 0) ORDER BY r.starts_at`,
  pauses: `SELECT habit_id, substr(started_at, 1, 10) AS from_day, substr(ended_at, 1, 10) AS to_day FROM recovery_sessions`,
};

/** Several changes within this time are drawn once. */
const THROTTLE_MS = 150;

/** Calls `listener` with all rows once each query has answered, and whenever one is answered anew. Returns what ends that. */
export function watchRows(kairos: Kairos, today: string, listener: (rows: Rows) => void): () => void {
  const known: Partial<Record<keyof Rows, unknown[]>> = {};
  const watch = (name: keyof Rows): (() => void) => {
    const parameters = name === 'done' ? [plusDays(today, -DAYS_SHOWN)] : [];
    const take = (rows: unknown[]): void => {
      known[name] = rows;
      if (Object.keys(known).length === Object.keys(QUERIES).length) listener(known as unknown as Rows);
    };
    return kairos.live(QUERIES[name], parameters, take, { throttleMs: THROTTLE_MS });
  };
  const ends = (Object.keys(QUERIES) as (keyof Rows)[]).map(watch);
  return () => ends.forEach((end) => end());
}

/** Notes that a habit was done once more. */
export async function complete(kairos: Kairos, habitId: string, today: string, now: Date): Promise<void> {
  const sql = `INSERT INTO completions (id, habit_id, completed_on, completed_at, amount) VALUES (uuid(), ?, ?, ?, '1.00')`;
  await kairos.execute(sql, [habitId, today, now.toISOString()]);
}

/** Takes back what was noted last. */
export async function takeBack(kairos: Kairos, habitId: string, today: string): Promise<void> {
  const sql = `DELETE FROM completions WHERE id = (
    SELECT id FROM completions WHERE habit_id = ? AND completed_on = ? ORDER BY completed_at DESC LIMIT 1)`;
  await kairos.execute(sql, [habitId, today]);
}
