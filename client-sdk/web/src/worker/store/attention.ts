// Local writes that the service did not take, until the app has shown them.

import type { RejectedWrite, Value } from '../../api.ts';
import type { Database } from '../database.ts';

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

function optional<Name extends string, T>(name: Name, value: Value | undefined, read: (text: string) => T): { [N in Name]?: T } {
  return (typeof value === 'string' ? { [name]: read(value) } : {}) as { [N in Name]?: T };
}
