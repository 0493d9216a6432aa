// Which writes of tabs were made. A tab whose leader went away before it answered asks the next one again: what was written
// is not written twice.

import type { Database } from '../database.ts';

/** So many are remembered. No tab waits for more answers. */
const REMEMBERED = 1000;

export async function createWritten(db: Database): Promise<void> {
  await db.batch(
    'CREATE TABLE IF NOT EXISTS kairos_written (id INTEGER PRIMARY KEY, request TEXT NOT NULL UNIQUE, changes INTEGER NOT NULL)',
  );
}

/** What a write changed, if it was made already. */
export async function changesOf(db: Database, request: string): Promise<number | null> {
  const row = await db.row('SELECT changes FROM kairos_written WHERE request = ?1', [request]);
  return row ? Number(row[0]) : null;
}

export async function noteWritten(db: Database, request: string, changes: number): Promise<void> {
  await db.run('INSERT INTO kairos_written (request, changes) VALUES (?1, ?2)', [request, changes]);
  await db.run('DELETE FROM kairos_written WHERE id <= last_insert_rowid() - ?1', [REMEMBERED]);
}
