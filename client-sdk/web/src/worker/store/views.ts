// The app's tables: views over JSON rows, with triggers that capture writes.
//
// A row is one JSON object as the service sent it, so a publish copies text, and a schema change only makes the views anew.
// Columns the app does not declare survive its updates.

import type { Table } from '../../schema.ts';
import type { Database } from '../database.ts';

/** Where the rows of a table are: `kairos_data__<table>`. */
const DATA_PREFIX = 'kairos_data__';

/** Makes the views and triggers. Tables that were not declared before get their rows at the next publish. */
export async function installViews(db: Database, tables: readonly Table[]): Promise<void> {
  const definitions = tables.map(definitionOf).join('');
  const installed = await db.row("SELECT value FROM kairos_kv WHERE key = 'schema'");
  if (installed?.[0] === definitions) return;
  const before = await names(db, 'SELECT name FROM kairos_table WHERE NOT local_only');
  const localBefore = await names(db, 'SELECT name FROM kairos_table WHERE local_only');
  await dropViews(db);
  await db.batch(definitions);
  for (const table of tables) {
    await db.run('INSERT INTO kairos_table (name, local_only) VALUES (?1, ?2)', [table.name, table.localOnly]);
    if (table.localOnly || before.includes(table.name)) continue;
    await touchRows(db, table.name);
    if (localBefore.includes(table.name)) await queueRows(db, table.name);
  }
  await db.run("INSERT OR REPLACE INTO kairos_kv (key, value) VALUES ('schema', ?1)", [definitions]);
}

/** The app's table whose rows are in this one of SQLite. */
export function appTable(sqliteTable: string): string | null {
  return sqliteTable.startsWith(DATA_PREFIX) ? sqliteTable.slice(DATA_PREFIX.length) : null;
}

/** The quoted name of the table that has the rows of `table`. */
export const dataTable = (table: string): string => identifier(DATA_PREFIX + table);

export async function names(db: Database, sql: string): Promise<string[]> {
  return (await db.rows(sql)).map(([name]) => String(name));
}

/** Drops the views, and with them their triggers, and the indexes. The rows stay. */
async function dropViews(db: Database): Promise<void> {
  for (const view of await names(db, 'DELETE FROM kairos_table RETURNING name')) {
    await db.batch(`DROP VIEW ${identifier(view)}`);
  }
  const indexes = "SELECT name FROM sqlite_schema WHERE type = 'index' AND substr(name, 1, 14) = 'kairos_index__'";
  for (const index of await names(db, indexes)) await db.batch(`DROP INDEX ${identifier(index)}`);
}

/** While a table was not declared nothing was published to it, so all of its rows are to be looked at. */
async function touchRows(db: Database, table: string): Promise<void> {
  await db.run(
    'INSERT OR IGNORE INTO kairos_touched_row SELECT row_type, row_id FROM kairos_oplog WHERE row_type = ?1',
    [table],
  );
  await db.run(`INSERT OR IGNORE INTO kairos_touched_row SELECT ?1, id FROM ${dataTable(table)}`, [table]);
}

/** What was on this device alone is now to be everywhere: its rows are uploaded as if they were written now. */
async function queueRows(db: Database, table: string): Promise<void> {
  await db.run(
    `INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data)
     SELECT (SELECT coalesce(max(tx_id), 0) + 1 FROM kairos_crud), 'PUT', ?1, id, data FROM ${dataTable(table)} ORDER BY id`,
    [table],
  );
}

/** All SQL that makes a table. Also what tells whether the installed schema is the declared one. */
export function definitionOf(table: Table): string {
  const view = identifier(table.name);
  const data = dataTable(table.name);
  const columns = table.columns.map((column) => `, ${expressionOf(table, column.name)} AS ${identifier(column.name)}`);
  const indexes = table.indexes.map((index, number) => indexSql(table, index, number));
  const made = `CREATE TABLE IF NOT EXISTS ${data} (id TEXT PRIMARY KEY NOT NULL, data TEXT NOT NULL);
CREATE VIEW ${view} AS SELECT id${columns.join('')} FROM ${data};
${indexes.join('')}`;
  return made + (table.insertOnly ? insertOnlyTriggers(table) : triggers(table));
}

function triggers(table: Table): string {
  const data = dataTable(table.name);
  const changes = changesSql(table, 'OLD', 'NEW');
  return `${trigger(table, 'INSERT')}
    ${idMustBeText(table)}
    ${valuesMustFit(table)}
    INSERT INTO ${data} (id, data) VALUES (NEW.id, ${rowSql(table, 'NEW')});
    ${queueSql(table, 'PUT', 'NEW', rowSql(table, 'NEW'), 'NULL')}
END;
${trigger(table, 'UPDATE')}
    ${idMustStay(table)}
    ${valuesMustFit(table)}
    UPDATE ${data} SET data = json_patch(data, ${changes}) WHERE id = OLD.id AND ${changes} IS NOT NULL;
    ${queueSql(table, 'PATCH', 'NEW', changes, wholeRowSql(table))}
END;
${trigger(table, 'DELETE')}
    DELETE FROM ${data} WHERE id = OLD.id;
    ${queueSql(table, 'DELETE', 'OLD', 'NULL', wholeRowSql(table))}
END;
`;
}

/** New rows go to the queue alone. */
function insertOnlyTriggers(table: Table): string {
  const refusal = `SELECT RAISE(ABORT, ${literal(`${table.name} takes new rows only`)});`;
  return `${trigger(table, 'INSERT')}
    ${idMustBeText(table)}
    ${valuesMustFit(table)}
    INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data)
    VALUES (kairos_tx_id(), 'PUT', ${literal(table.name)}, NEW.id, ${rowSql(table, 'NEW')});
END;
${trigger(table, 'UPDATE')} ${refusal} END;
${trigger(table, 'DELETE')} ${refusal} END;
`;
}

function trigger(table: Table, event: 'INSERT' | 'UPDATE' | 'DELETE'): string {
  const name = identifier(`kairos_${event.toLowerCase()}__${table.name}`);
  return `CREATE TRIGGER ${name} INSTEAD OF ${event} ON ${identifier(table.name)} BEGIN`;
}

const idMustBeText = ({ name }: Table): string =>
  refuseWhere(`${name}.id must be a text that is not empty, for example uuid()`, "typeof(NEW.id) <> 'text' OR NEW.id = ''");

const idMustStay = ({ name }: Table): string =>
  refuseWhere(`${name}.id cannot change; delete the row and insert another`, 'NEW.id IS NOT OLD.id');

/** JSON has neither BLOBs nor infinite numbers. */
function valuesMustFit({ name, columns }: Table): string {
  if (columns.length === 0) return '';
  const values = columns.map((column) => `NEW.${identifier(column.name)}`);
  const blob = `'blob' IN (${values.map((value) => `typeof(${value})`).join(', ')})`;
  const infinite = `9e999 IN (${values.join(', ')}) OR -9e999 IN (${values.join(', ')})`;
  return `${refuseWhere(`a column of ${name} cannot hold a BLOB; store it as base64 or hex text`, blob)}
    ${refuseWhere(`a column of ${name} cannot hold an infinite number`, infinite)}`;
}

const refuseWhere = (message: string, condition: string): string =>
  `SELECT RAISE(ABORT, ${literal(message)}) WHERE ${condition};`;

/** Queues a write, unless the statement before did nothing (`OR IGNORE`, no difference, no such row). */
function queueSql(table: Table, op: string, row: string, data: string, old: string): string {
  if (table.localOnly) return '';
  return `INSERT INTO kairos_crud (tx_id, op, row_type, row_id, data, old)
    SELECT kairos_tx_id(), '${op}', ${literal(table.name)}, ${row}.id, ${data}, ${table.trackPrevious ? old : 'NULL'} WHERE changes() > 0;`;
}

const rowSql = (table: Table, row: string): string => `kairos_row(${columnsSql(table, row)})`;

/** What was there before a write, whole: some conflict strategies look at columns that the write leaves alone. */
const wholeRowSql = (table: Table): string => `kairos_whole_row(${columnsSql(table, 'OLD')})`;

const columnsSql = ({ columns }: Table, row: string): string =>
  columns.map(({ name }) => `${literal(name)}, ${row}.${identifier(name)}`).join(', ');

function changesSql(table: Table, from: string, to: string): string {
  const triple = (name: string): string => `${literal(name)}, ${from}.${identifier(name)}, ${to}.${identifier(name)}`;
  return `kairos_changes(${table.columns.map(({ name }) => triple(name)).join(', ')})`;
}

/** The view's column. An index uses the very same expression, so that SQLite recognises it. */
function expressionOf(table: Table, name: string): string {
  const column = table.columns.find((each) => each.name.toLowerCase() === name.toLowerCase());
  if (!column) return 'id';
  return `CAST(json_extract(data, ${literal(`$."${column.name}"`)}) AS ${column.kind.toUpperCase()})`;
}

function indexSql(table: Table, columns: string[], number: number): string {
  const name = identifier(`kairos_index__${table.name}_${number}`);
  return `CREATE INDEX ${name} ON ${dataTable(table.name)} (${columns.map((each) => expressionOf(table, each)).join(', ')});\n`;
}

const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`;

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
