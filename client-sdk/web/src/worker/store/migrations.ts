// The client's own tables, version by version: the very files of `client-sdk/src/store`, so that a database is the same
// everywhere.

import { KairosError } from '../../api.ts';
import type { Database } from '../database.ts';
import init from '../../../../src/store/migrations/0001_init.sql';
import verification from '../../../../src/store/migrations/0002_verification.sql';
import appSide from '../../../../src/store/migrations/0003_app_side.sql';
import firstSync from '../../../../src/store/migrations/0004_raw_tables_and_first_sync.sql';

const MIGRATIONS = [init, verification, appSide, firstSync];

/** Marks a database as ours (`KAIR`), so that another app's file is not taken for one. */
const APPLICATION_ID = 0x4b414952;

/** Brings a database to the current version; within a transaction, so that a crash leaves the old one. */
export async function migrate(db: Database): Promise<void> {
  const number = async (sql: string): Promise<number> => Number((await db.row(sql))?.[0]);
  const isEmpty = (await number('SELECT count(*) FROM sqlite_schema')) === 0;
  if (!isEmpty && (await number('PRAGMA application_id')) !== APPLICATION_ID) {
    throw new KairosError('CLIENT-0103', 'this SQLite file was not made by the Kairos client; choose another name');
  }
  const version = isEmpty ? 0 : await number('PRAGMA user_version');
  if (version > MIGRATIONS.length) {
    const known = `version ${version}, but this client knows only up to ${MIGRATIONS.length}`;
    throw new KairosError('CLIENT-0104', `this database has ${known}; update the app`);
  }
  for (const sql of MIGRATIONS.slice(version)) await db.batch(sql);
  await db.batch(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length};`);
}
