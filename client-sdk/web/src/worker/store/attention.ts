// Local writes that the service did not take, until the app has decided about them.

import { type Choice, KairosError, type RejectedWrite, type Value } from '../../api.ts';
import type { Database } from '../database.ts';
import { dataTable } from './views.ts';

/** The service's answer to one write. */
export interface OperationResult {
  op_id?: string;
  outcome: 'applied' | 'merged' | 'conflict' | 'duplicate' | 'refused';
  row?: Record<string, unknown>;
  code?: string;
  message?: string;
}

/** Keeps what the service did not take of the writes up to `lastId`, which are still queued. */
export async function recordRejected(db: Database, lastId: Value, results: readonly OperationResult[]): Promise<void> {
  for (const { op_id: id, outcome, row, code, message } of results) {
    if ((outcome !== 'conflict' && outcome !== 'refused') || !/^\d+$/.test(id ?? '')) continue;
    await db.run(
      `INSERT INTO kairos_rejected_write (op, row_type, row_id, data, base, outcome, theirs, code, message, rejected_at)
       SELECT op, row_type, row_id, data, old, ?3, ?4, ?5, ?6, unixepoch() FROM kairos_crud WHERE id = ?1 AND id <= ?2`,
      [BigInt(id ?? 0), lastId, outcome, row ? JSON.stringify(row) : null, code, message],
    );
  }
}

/** All of them, oldest first. */
export async function rejectedWrites(db: Database): Promise<RejectedWrite[]> {
  const rows = await db.objects('SELECT * FROM kairos_rejected_write ORDER BY id');
  return rows.map((row) => ({
    id: Number(row.id),
    op: row.op as RejectedWrite['op'],
    table: String(row.row_type),
    rowId: String(row.row_id),
    outcome: row.outcome as RejectedWrite['outcome'],
    rejectedAt: new Date(Number(row.rejected_at) * 1000),
    ...optional('base', row.base, JSON.parse),
    ...optional('data', row.data, JSON.parse),
    ...optional('theirs', row.theirs, JSON.parse),
    ...optional('code', row.code, String),
    ...optional('message', row.message, String),
  }));
}

/** Takes one off the list. */
export async function forgetRejected(db: Database, id: number): Promise<void> {
  await db.run('DELETE FROM kairos_rejected_write WHERE id = ?1', [id]);
}

/** Ends one: with what the service has, or by a new write of somebody who knows what others made of the row. */
export async function resolveRejected(db: Database, id: number, choice: Choice, merged: string | null): Promise<boolean> {
  const sql = 'SELECT op, row_type, row_id, data, base, theirs FROM kairos_rejected_write WHERE id = ?1';
  const write = await db.row(sql, [id]);
  if (!write) return false;
  const [op, table, rowId, data, base, theirs] = write.map((value) => (typeof value === 'string' ? value : null));
  const wanted = choice === 'merged' && merged !== null ? { op: 'PATCH', data: merged } : { op: op ?? '', data: data ?? '{}' };
  if (choice !== 'theirs') await writeAgain(db, { ...wanted, table: table ?? '', rowId: rowId ?? '', base, theirs });
  await forgetRejected(db, id);
  return true;
}

/** Texts of JSON, so that no number loses a digit. */
interface Rewrite {
  op: string;
  table: string;
  rowId: string;
  data: string;
  base: string | null | undefined;
  theirs: string | null | undefined;
}

async function writeAgain(db: Database, { op, table, rowId, data, base, theirs }: Rewrite): Promise<void> {
  if (!(await db.row('SELECT 1 FROM kairos_table WHERE name = ?1 AND NOT local_only', [table]))) {
    throw new KairosError('CLIENT-0108', `table \`${table}\` is not declared any more; dismiss the write, or declare the table`);
  }
  const rows = dataTable(table);
  const isThere = (await db.row(`SELECT 1 FROM ${rows} WHERE id = ?1`, [rowId])) !== undefined;
  const queue = async (kind: string, columns: string | null): Promise<void> => {
    const old = isThere ? (theirs ?? base ?? null) : null;
    await db.run(
      'INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data, old) VALUES (kairos_tx_id(), ?1, ?2, ?3, ?4, ?5)',
      [kind, table, rowId, columns, old],
    );
  };
  if (op === 'DELETE') {
    await db.run(`DELETE FROM ${rows} WHERE id = ?1`, [rowId]);
    return queue(op, null);
  }
  if (isThere) {
    await db.run(`UPDATE ${rows} SET data = json_patch(data, ?2) WHERE id = ?1`, [rowId, data]);
    return queue(op, data);
  }
  // The row is gone; whoever keeps a change to it wants it back, as far as it is known.
  const whole = await db.row("SELECT json_patch(json_patch('{}', ?1), ?2)", [base ?? '{}', data]);
  await db.run(`INSERT INTO ${rows} (id, data) VALUES (?1, ?2)`, [rowId, whole?.[0]]);
  return queue('PUT', String(whole?.[0]));
}

function optional<Name extends string, T>(name: Name, value: Value | undefined, read: (text: string) => T): { [N in Name]?: T } {
  return (typeof value === 'string' ? { [name]: read(value) } : {}) as { [N in Name]?: T };
}
