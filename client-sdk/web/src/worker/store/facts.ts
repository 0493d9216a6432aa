// Sizes, for a report. Without a value: names of buckets may hold ids of users, so they are only counted.

import type { Diagnostics } from '../../api.ts';
import type { Database } from '../database.ts';
import { dataTable, names } from './views.ts';

export type Facts = Pick<Diagnostics, 'sqliteVersion' | 'rejected' | 'tables' | 'bucketCount' | 'operationCount' | 'databaseBytes'>;

export async function factsAbout(db: Database): Promise<Facts> {
  const count = async (sql: string): Promise<number> => Number((await db.row(sql))?.[0]);
  const tables: Facts['tables'] = [];
  for (const name of await names(db, 'SELECT name FROM kairos_table ORDER BY name')) {
    tables.push({ name, rows: await count(`SELECT count(*) FROM ${dataTable(name)}`) });
  }
  const rejected = await db.rows("SELECT coalesce(code, ''), count(*) FROM kairos_rejected_write GROUP BY 1 ORDER BY 1");
  return {
    sqliteVersion: String((await db.row('SELECT sqlite_version()'))?.[0]),
    rejected: rejected.map(([code, writes]) => ({ code: String(code), count: Number(writes) })),
    tables,
    bucketCount: await count('SELECT count(*) FROM kairos_bucket'),
    operationCount: await count('SELECT count(*) FROM kairos_oplog'),
    databaseBytes: await count('SELECT page_count * page_size FROM pragma_page_count, pragma_page_size'),
  };
}
