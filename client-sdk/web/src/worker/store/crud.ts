// Local writes on their way up, and the gate they keep closed.

import type { Value } from '../../api.ts';
import type { Database } from '../database.ts';
import { recordRejected, type OperationResult } from './attention.ts';

/** The gate's target while local writes are not uploaded. */
const NOT_UPLOADED = 2n ** 63n - 1n;

/** Entries of one upload. Whole local transactions are sent together as far as they fit. */
const ENTRIES_MAX = 500;
/** Characters of row data of one upload, unless a single entry has more. */
const CHARS_MAX = 512 * 1024;

/** The oldest writes of the queue. */
export interface UploadSlice {
  /** What to send: JSON, made of the texts in the queue, so that no number loses a digit. */
  body: string;
  count: number;
  /** Id of the last entry in it. */
  lastId: Value;
}

/** What the status depends on. */
export interface LocalState {
  /** Local writes in the queue. */
  pending: number;
  /** Local writes that were not taken and not dismissed. */
  rejected: number;
  /** Uploaded writes were not seen coming back yet. */
  awaiting: boolean;
  /** When the app last saw a whole checkpoint, in seconds. */
  lastSyncedAt: number | null;
}

export async function localState(db: Database): Promise<LocalState> {
  const row = await db.row(`SELECT (SELECT count(*) FROM kairos_crud), (SELECT count(*) FROM kairos_rejected_write),
      target IS NOT NULL, (SELECT value FROM kairos_kv WHERE key = 'last_synced_at') FROM kairos_gate`);
  const [pending, rejected, awaiting, lastSyncedAt] = row ?? [];
  return {
    pending: Number(pending),
    rejected: Number(rejected),
    awaiting: awaiting === 1,
    lastSyncedAt: typeof lastSyncedAt === 'number' ? lastSyncedAt : null,
  };
}

/** Nothing waits for upload, and the checkpoint contains what was uploaded. */
export async function mayPublish(db: Database, seen: string | null | undefined): Promise<boolean> {
  const sql = 'SELECT target IS NULL OR (target <= ?1 AND NOT EXISTS (SELECT 1 FROM kairos_crud)) FROM kairos_gate';
  // Ids start at 1, and no id is as large as that of writes not uploaded.
  return (await db.row(sql, [withinGate(BigInt(seen ?? 0))]))?.[0] === 1;
}

/** The app sees what it wrote come back: nothing is awaited any more. */
export async function openGate(db: Database): Promise<void> {
  await db.run('UPDATE kairos_gate SET target = NULL WHERE target IS NOT NULL');
}

/** The oldest local writes: whole transactions as far as they fit, part of one only where it alone is too large. */
export async function nextUpload(db: Database, clientId: string): Promise<UploadSlice | null> {
  const sql = 'SELECT id, tx_id, op, row_type, row_id, data, old FROM kairos_crud ORDER BY id LIMIT ?1';
  const rows = await db.rows(sql, [ENTRIES_MAX + 1]);
  const length = (value: Value | undefined): number => (typeof value === 'string' ? value.length : 0);
  let [chars, count] = [0, 0];
  for (const row of rows) {
    chars += length(row[5]) + length(row[6]);
    if (count > 0 && (chars > CHARS_MAX || count === ENTRIES_MAX)) break;
    count += 1;
  }
  const transactionOf = (index: number): Value | undefined => rows[index]?.[1];
  if (count < rows.length && transactionOf(count) === transactionOf(count - 1)) {
    // The last transaction is not complete: it is left for the next upload, unless there is nothing else.
    const whole = rows.findIndex((row) => row[1] === transactionOf(count));
    if (whole > 0) count = whole;
  }
  const entries = rows.slice(0, count);
  const last = entries.at(-1);
  if (!last) return null;
  const body = `{"client_id":${JSON.stringify(clientId)},"batch":[${entries.map(entryOf).join(',')}]}`;
  return { body, count, lastId: last[0] ?? null };
}

function entryOf([id, transaction, op, table, rowId, data, old]: Value[]): string {
  const fields = { op, table, id: rowId, op_id: String(id), tx_id: String(transaction) };
  const objects = `${data ? `,"data":${data as string}` : ''}${old ? `,"old":${old as string}` : ''}`;
  return `${JSON.stringify(fields).slice(0, -1)}${objects}}`;
}

/**
 * The service has answered for all writes up to `lastId`: they leave the queue, and refused ones are recorded. With the write
 * checkpoint of the upload, the gate waits for that from now on, if nothing else was written meanwhile.
 */
export async function acknowledge(
  db: Database,
  lastId: Value,
  results: readonly OperationResult[],
  writeCheckpoint: string | undefined,
): Promise<void> {
  await recordRejected(db, lastId, results);
  await db.run('DELETE FROM kairos_crud WHERE id <= ?1', [lastId]);
  if (writeCheckpoint !== undefined) await awaitWriteCheckpoint(db, writeCheckpoint);
}

/**
 * Everything queued is uploaded, and `id` was given out afterwards: checkpoints that contain it may be published. Does nothing
 * while writes are queued; only the upload loop takes writes out of the queue, so none was missed.
 */
export async function awaitWriteCheckpoint(db: Database, id: string): Promise<void> {
  await db.run(
    'UPDATE kairos_gate SET target = ?1 WHERE target IS NOT NULL AND NOT EXISTS (SELECT 1 FROM kairos_crud)',
    [withinGate(BigInt(id))],
  );
}

/** Everything is uploaded, but no write checkpoint to wait for is known. */
export async function lacksWriteCheckpoint(db: Database): Promise<boolean> {
  return (await db.row('SELECT target IS ?1 FROM kairos_gate', [NOT_UPLOADED]))?.[0] === 1;
}

const withinGate = (id: bigint): bigint => (id < NOT_UPLOADED ? id : NOT_UPLOADED - 1n);
