// Whose data this is.

import type { Database } from '../database.ts';
import { dataTable, names } from './views.ts';

/** Notes the user at the first sync; says later whether it is the same one. */
export async function belongsTo(db: Database, user: string): Promise<boolean> {
  const owner = await db.row("SELECT value FROM kairos_kv WHERE key = 'user'");
  if (owner) return owner[0] === user;
  await db.run("INSERT INTO kairos_kv (key, value) VALUES ('user', ?1)", [user]);
  return true;
}

/** Takes all rows, queued writes and whatever else is of the user out of the database; what it is keeps it as new. */
export async function clearAccount(db: Database): Promise<void> {
  for (const table of await names(db, 'SELECT name FROM kairos_table')) {
    // With a condition, each row is reported, so that live queries see them go.
    await db.run(`DELETE FROM ${dataTable(table)} WHERE id IS NOT NULL`);
  }
  await db.batch(`DELETE FROM kairos_crud;
      DELETE FROM kairos_rejected_write;
      DELETE FROM kairos_oplog;
      DELETE FROM kairos_bucket;
      DELETE FROM kairos_touched_row;
      DELETE FROM kairos_kv WHERE key IN ('user', 'last_synced_at');
      UPDATE kairos_gate SET target = NULL;`);
}
