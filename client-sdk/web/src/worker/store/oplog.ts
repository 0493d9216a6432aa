// Keeps what the service sends, bucket by bucket.

import type { Value } from '../../api.ts';
import type { BucketData, BucketState, Operation } from '../core.ts';
import type { Database } from '../database.ts';

const PUT = `INSERT INTO kairos_oplog (bucket, op_id, row_type, row_id, subkey, data, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING`;
/** Many at once, as they come in a first sync: `?2` is a JSON array of arrays. */
const PUT_ALL = `INSERT INTO kairos_oplog (bucket, op_id, row_type, row_id, subkey, data, checksum)
    SELECT ?1, CAST(value ->> 0 AS INTEGER), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
    FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING`;
const REPLACED = `DELETE FROM kairos_oplog
    WHERE (bucket = ?1 AND op_id = ?2) OR (row_id = ?3 AND row_type = ?4 AND subkey = ?5 AND bucket = ?1)
    RETURNING checksum`;
const REMOVE = `DELETE FROM kairos_oplog
    WHERE row_id = ?3 AND row_type = ?4 AND subkey = ?5 AND bucket = ?1 AND op_id < ?2 RETURNING checksum`;
const TOUCH = 'INSERT OR IGNORE INTO kairos_touched_row (row_type, row_id) VALUES (?1, ?2)';

/** Sums of 32 bits. */
export const add = (one: number, other: number): number => (one + other) >>> 0;

export async function bucketStates(db: Database): Promise<BucketState[]> {
  const sql = 'SELECT name, last_op_id, count_at_last, count_since_last FROM kairos_bucket ORDER BY name';
  return (await db.rows(sql)).map(([name, lastOpId, countAtLast, countSinceLast]) => ({
    name: String(name),
    last_op_id: String(lastOpId),
    count_at_last: Number(countAtLast),
    count_since_last: Number(countSinceLast),
  }));
}

/** Keeps the operations of one line. Nothing becomes visible. */
export async function applyData(db: Database, line: BucketData): Promise<void> {
  const last = line.data.at(-1);
  if (!last) return;
  const bucket = await bucketOf(db, line.bucket);
  // Of all that were received, and of those that are not stored any more.
  let { received, retired } = bucket;
  const isWhole = await putAll(db, bucket.id, line.data);
  for (const operation of line.data) {
    if (operation.op === 'CLEAR') {
      await clearBucket(db, bucket.id);
      received = 0;
      retired = 0;
    }
    if (operation.op === 'PUT') {
      if (!isWhole) retired = add(retired, await put(db, bucket.id, operation));
    } else {
      retired = add(retired, operation.checksum);
      if (operation.op === 'REMOVE') retired = add(retired, await remove(db, bucket.id, operation));
    }
    received = add(received, operation.checksum);
  }
  await db.run(
    `UPDATE kairos_bucket SET last_op_id = ?2, checksum = ?3, retired_checksum = ?4,
     count_since_last = count_since_last + ?5 WHERE id = ?1`,
    [bucket.id, BigInt(last.op_id), received, retired, line.data.length],
  );
}

/** Drops buckets. Their rows are looked at again with the next publish, and stay visible until then. */
export async function deleteBuckets(db: Database, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const row = await db.row('DELETE FROM kairos_bucket WHERE name = ?1 RETURNING id', [name]);
    if (row) await clearBucket(db, row[0] ?? null);
  }
}

/** Stores operations that are all PUTs and replace nothing; otherwise does nothing and says so. */
async function putAll(db: Database, bucket: Value, operations: readonly Operation[]): Promise<boolean> {
  if (operations.length === 1 || operations.some(({ op }) => op !== 'PUT')) return false;
  const puts = operations.map((each) => [each.op_id, ...keyOf(each), each.data, each.checksum]);
  await db.run('SAVEPOINT put_all');
  const isWhole = (await db.run(PUT_ALL, [bucket, JSON.stringify(puts)])) === puts.length;
  if (!isWhole) await db.run('ROLLBACK TO put_all');
  await db.run('RELEASE put_all');
  return isWhole;
}

/** Stores a PUT; gives the checksums of what it replaced. Most replace nothing, so the insert is tried first. */
async function put(db: Database, bucket: Value, operation: Operation): Promise<number> {
  const [rowType, rowId, subkey] = keyOf(operation);
  const values = [bucket, BigInt(operation.op_id), rowType, rowId, subkey, operation.data ?? '', operation.checksum];
  if ((await db.run(PUT, values)) > 0) return 0;
  const replaced = await take(db, REPLACED, bucket, operation);
  await db.run(PUT, values);
  return replaced ?? 0;
}

async function remove(db: Database, bucket: Value, operation: Operation): Promise<number> {
  const removed = await take(db, REMOVE, bucket, operation);
  if (removed === null) return 0;
  const [rowType, rowId] = keyOf(operation);
  await db.run(TOUCH, [rowType, rowId]);
  return removed;
}

/** Runs a DELETE of operations with the place of this one; the sum of their checksums, if there are any. */
async function take(db: Database, sql: string, bucket: Value, operation: Operation): Promise<number | null> {
  const [rowType, rowId, subkey] = keyOf(operation);
  const taken = await db.rows(sql, [bucket, BigInt(operation.op_id), rowId, rowType, subkey]);
  return taken.length === 0 ? null : taken.reduce((sum, [checksum]) => add(sum, Number(checksum)), 0);
}

async function clearBucket(db: Database, bucket: Value): Promise<void> {
  await db.run(
    'INSERT OR IGNORE INTO kairos_touched_row SELECT row_type, row_id FROM kairos_oplog WHERE bucket = ?1',
    [bucket],
  );
  await db.run('DELETE FROM kairos_oplog WHERE bucket = ?1', [bucket]);
}

async function bucketOf(db: Database, name: string): Promise<{ id: Value; received: number; retired: number }> {
  const row = await db.row(
    `INSERT INTO kairos_bucket (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name
     RETURNING id, checksum, retired_checksum`,
    [name],
  );
  return { id: row?.[0] ?? null, received: Number(row?.[1]), retired: Number(row?.[2]) };
}

/** What identifies a row within its bucket. The machine has checked that table and id are there. */
function keyOf(operation: Operation): [string, string, string] {
  return [operation.object_type ?? '', operation.object_id ?? '', operation.subkey ?? ''];
}
