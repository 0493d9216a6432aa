// Does what is stored still add up? As `client-sdk/src/store/verify.rs`: a bucket adds up to the checksums of its operations,
// of which those that were replaced are no longer stored; their sum is kept beside it.

import type { BucketVerification, TableVerification, Verification } from '../../api.ts';
import type { Database } from '../database.ts';
import { add, deleteBuckets } from './oplog.ts';
import { dataTable, names } from './views.ts';

/** Recomputes all buckets and compares all tables. */
export async function verify(db: Database): Promise<Verification> {
  const [buckets, tables] = [await verifyBuckets(db), await verifyTables(db)];
  return { isOk: buckets.every(({ isOk }) => isOk) && tables.every(({ rowsDiffering }) => rowsDiffering === 0), buckets, tables };
}

/** Drops what does not verify, so that it is downloaded and published again. */
export async function repair(db: Database): Promise<Verification> {
  const found = await verify(db);
  await deleteBuckets(db, found.buckets.filter(({ isOk }) => !isOk).map(({ name }) => name));
  for (const { name, rowsDiffering } of found.tables) {
    if (rowsDiffering === 0) continue;
    await db.run(`INSERT OR IGNORE INTO kairos_touched_row SELECT ?1, id FROM (${differingRows(name)})`, [name]);
  }
  return found;
}

async function verifyBuckets(db: Database): Promise<BucketVerification[]> {
  const sql = `SELECT b.name, CASE WHEN b.count_since_last = 0 THEN coalesce(b.announced_checksum, b.checksum) ELSE b.checksum END,
      b.retired_checksum, count(o.row_id), coalesce(sum(kairos_put_checksum(o.row_type, o.row_id, o.data)) % 4294967296, 0)
    FROM kairos_bucket b LEFT JOIN kairos_oplog o ON o.bucket = b.id GROUP BY b.id ORDER BY b.name`;
  return (await db.rows(sql)).map(([name, expected, retired, stored, content]) => ({
    name: String(name),
    stored: Number(stored),
    isOk: Number(expected) === add(Number(retired), Number(content)),
  }));
}

async function verifyTables(db: Database): Promise<TableVerification[]> {
  const found: TableVerification[] = [];
  for (const name of await names(db, 'SELECT name FROM kairos_table WHERE NOT local_only ORDER BY name')) {
    const row = await db.row(`SELECT count(*) FROM (${differingRows(name)})`, [name]);
    found.push({ name, rowsDiffering: Number(row?.[0]) });
  }
  return found;
}

/**
 * A query for the ids of rows of the table `?1` that are not what the latest operation says. What is not published yet cannot be
 * compared: rows with later operations, and those to be looked at with the next checkpoint.
 */
function differingRows(table: string): string {
  const data = dataTable(table);
  return `SELECT id FROM (
      SELECT d.id, d.data FROM ${data} d
      UNION ALL
      SELECT DISTINCT o.row_id, NULL FROM kairos_oplog o
      WHERE o.row_type = ?1 AND NOT EXISTS (SELECT 1 FROM ${data} d WHERE d.id = o.row_id)
    ) AS shown
    WHERE data IS NOT (SELECT o.data FROM kairos_oplog o WHERE o.row_id = shown.id AND o.row_type = ?1 ORDER BY o.op_id DESC LIMIT 1)
      AND NOT EXISTS (SELECT 1 FROM kairos_touched_row t WHERE t.row_type = ?1 AND t.row_id = shown.id)
      AND NOT EXISTS (SELECT 1 FROM kairos_oplog o JOIN kairos_bucket b ON b.id = o.bucket
                      WHERE o.row_id = shown.id AND o.row_type = ?1 AND o.op_id > b.last_applied_op_id)`;
}
