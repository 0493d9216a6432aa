// Makes a completed checkpoint visible, whole or not at all.

import type { Value } from '../../api.ts';
import type { BucketAim, Completion } from '../core.ts';
import type { Database } from '../database.ts';
import { mayPublish, openGate } from './crud.ts';
import { deleteBuckets } from './oplog.ts';
import { dataTable, names } from './views.ts';

/** What became of a completed checkpoint; of damaged buckets, which are dropped while the others are kept, the names. */
export type Outcome = 'published' | 'withheld' | { damaged: string[] };

/** Operations of complete buckets that the app does not see yet. `?1` is the largest priority number in scope. */
const NEW = `kairos_bucket b CROSS JOIN kairos_oplog o ON o.bucket = b.id AND o.op_id > b.last_applied_op_id
    WHERE b.priority <= ?1`;

/**
 * Those of a table, `?2`, that decide what their row is: no operation with a higher id is visible or complete. `?3` spares rows
 * written locally.
 */
const NEW_ROWS = `SELECT o.row_id, o.data FROM ${NEW} AND o.row_type = ?2
      AND NOT EXISTS (
        SELECT 1 FROM kairos_oplog p CROSS JOIN kairos_bucket q ON q.id = p.bucket
        WHERE p.row_id = o.row_id AND p.row_type = o.row_type AND p.op_id > o.op_id
          AND (q.priority <= ?1 OR p.op_id <= q.last_applied_op_id))
      AND NOT (?3 AND EXISTS (
        SELECT 1 FROM kairos_touched_row t WHERE t.row_type = o.row_type AND t.row_id = o.row_id))`;

/** Rows written locally or removed from a bucket, with what the service has of them now. */
const TOUCHED_ROWS = `SELECT t.row_type, t.row_id, (
        SELECT o.data FROM kairos_oplog o WHERE o.row_id = t.row_id AND o.row_type = t.row_type
        ORDER BY o.op_id DESC LIMIT 1)
    FROM kairos_touched_row t`;

/** Larger than every priority. */
const ALL_PRIORITIES = 255;

interface Bucket {
  id: Value;
  checksum: number;
  priority: number;
  count: number;
  announced: number | null;
}

/** Validates the checkpoint and publishes it, if local writes allow. */
export async function complete(db: Database, { target, scope }: Completion): Promise<Outcome> {
  const priority = scope === 'full' ? ALL_PRIORITIES : scope.up_to;
  const known = await buckets(db);
  const aims = Object.values(target.buckets);
  // A bucket that is not in the store has no operations, and adds up to zero.
  const isDamaged = (aim: BucketAim): boolean =>
    aim.priority <= priority && (known.get(aim.bucket)?.checksum ?? 0) !== aim.checksum;
  const damaged = aims.filter(isDamaged).map((aim) => aim.bucket);
  if (damaged.length > 0) {
    await deleteBuckets(db, damaged);
    return { damaged };
  }
  // Priority 0 reaches the app even while local writes wait for their upload.
  if (priority > 0 && !(await mayPublish(db, target.write_checkpoint))) return 'withheld';
  await updatePriorities(db, known, aims);
  const tables = new Set(await names(db, 'SELECT name FROM kairos_table WHERE NOT local_only'));
  await publishNewRows(db, tables, priority);
  await db.run(
    `UPDATE kairos_bucket SET last_applied_op_id = last_op_id WHERE priority <= ?1 AND last_applied_op_id <> last_op_id`,
    [priority],
  );
  // After a part only: what the service has of a touched row may be in a bucket that is not complete.
  if (scope === 'full') {
    await publishTouchedRows(db, tables);
    await noteAnnounced(db, known, aims);
    await openGate(db);
    await db.run("INSERT OR REPLACE INTO kairos_kv (key, value) VALUES ('last_synced_at', unixepoch())");
  }
  return 'published';
}

async function buckets(db: Database): Promise<Map<string, Bucket>> {
  const sql = 'SELECT name, id, checksum, priority, count_at_last, announced_checksum FROM kairos_bucket';
  const bucket = ([name, id, checksum, priority, count, announced]: Value[]): [string, Bucket] => {
    const numbers = { checksum: Number(checksum), priority: Number(priority), count: Number(count) };
    return [String(name), { id: id ?? null, ...numbers, announced: announced === null ? null : Number(announced) }];
  };
  return new Map((await db.rows(sql)).map(bucket));
}

/** Of all buckets: one that moved to a later priority must not be published with an earlier one. */
async function updatePriorities(db: Database, known: Map<string, Bucket>, aims: BucketAim[]): Promise<void> {
  for (const aim of aims) {
    const bucket = known.get(aim.bucket);
    if (!bucket || bucket.priority === aim.priority) continue;
    await db.run('UPDATE kairos_bucket SET priority = ?2 WHERE id = ?1', [bucket.id, aim.priority]);
  }
}

/** Also of buckets without operations, so that they are known. */
async function noteAnnounced(db: Database, known: Map<string, Bucket>, aims: BucketAim[]): Promise<void> {
  await db.run('UPDATE kairos_bucket SET count_since_last = 0 WHERE count_since_last <> 0');
  for (const aim of aims) {
    const bucket = known.get(aim.bucket);
    if (bucket?.count === aim.count && bucket.announced === aim.checksum) continue;
    await db.run(
      `INSERT INTO kairos_bucket (name, priority, count_at_last, announced_checksum) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT (name) DO UPDATE
       SET count_at_last = excluded.count_at_last, announced_checksum = excluded.announced_checksum`,
      [aim.bucket, aim.priority, aim.count, aim.checksum],
    );
  }
}

/** Rows of tables that are not declared are passed over. */
async function publishNewRows(db: Database, tables: Set<string>, priority: number): Promise<void> {
  for (const [table] of await db.rows(`SELECT DISTINCT o.row_type FROM ${NEW}`, [priority])) {
    if (!tables.has(String(table))) continue;
    await db.run(putSql(String(table), NEW_ROWS), [priority, table, priority === 0]);
  }
}

async function publishTouchedRows(db: Database, tables: Set<string>): Promise<void> {
  await db.each(TOUCHED_ROWS, [], async ([table, id, data]) => {
    if (!tables.has(String(table))) return;
    if (data === null) await db.run(`DELETE FROM ${dataTable(String(table))} WHERE id = ?1`, [id]);
    else await db.run(putSql(String(table), 'SELECT ?1, ?2'), [id, data]);
  });
  await db.run('DELETE FROM kairos_touched_row');
}

/** Writes rows of a table, ids and data, that are others than before. */
const putSql = (table: string, rows: string): string => `INSERT INTO ${dataTable(table)} (id, data)
    SELECT * FROM (${rows}) WHERE true
    ON CONFLICT (id) DO UPDATE SET data = excluded.data WHERE data IS NOT excluded.data`;
