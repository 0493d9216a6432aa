// One connection to SQLite, and the order in which it is used.

import { KairosError, type Value } from '../api.ts';
import type { SQLite } from './sqlite.js';

/** Prepared statements that are kept: a few per table, and the app's own. */
const STATEMENTS_MAX = 256;

const ROW = 100; // SQLITE_ROW

/** How durable a transaction is when its promise is fulfilled: it survives a power cut, or the end of the browser. */
export type Durability = 'synced' | 'written';

export class Database {
  readonly #sqlite: SQLite;
  readonly #db: number;
  /** By their text; the least recently used first. */
  readonly #statements = new Map<string, number>();
  /** Whose rows are being read. */
  readonly #busy = new Set<number>();
  /** The last use of the connection that was asked for. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(sqlite: SQLite, db: number) {
    this.#sqlite = sqlite;
    this.#db = db;
  }

  static async open(sqlite: SQLite, file: string, vfs?: string): Promise<Database> {
    const db = await sqlite.open_v2(file, undefined, vfs).catch(refuse);
    return new Database(sqlite, db);
  }

  get handle(): number {
    return this.#db;
  }

  /** Runs `work` when whoever asked before is done. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Runs `work` in one transaction: all of it happens or nothing. Only within {@link exclusive}. */
  async transaction<T>(durability: Durability, work: () => Promise<T>): Promise<T> {
    await this.run(`PRAGMA synchronous = ${durability === 'synced' ? 'full' : 'normal'}`);
    await this.run('BEGIN IMMEDIATE');
    try {
      const result = await work();
      await this.run('COMMIT');
      return result;
    } catch (error) {
      // Some errors have ended the transaction already.
      if (this.#sqlite.get_autocommit(this.#db) === 0) await this.run('ROLLBACK');
      throw error;
    }
  }

  /** Several statements without parameters. */
  async batch(sql: string): Promise<void> {
    await this.#sqlite.exec(this.#db, sql).catch(refuse);
  }

  /** Runs a statement; how many rows it wrote itself, those of triggers not counted. */
  async run(sql: string, parameters: readonly unknown[] = []): Promise<number> {
    await this.each(sql, parameters, () => {});
    return this.#sqlite.changes(this.#db);
  }

  /** Rows as arrays. */
  async rows(sql: string, parameters: readonly unknown[] = []): Promise<Value[][]> {
    const rows: Value[][] = [];
    await this.each(sql, parameters, (row) => void rows.push(row));
    return rows;
  }

  /** The first row. */
  async row(sql: string, parameters: readonly unknown[] = []): Promise<Value[] | undefined> {
    return (await this.rows(sql, parameters))[0];
  }

  /** Rows by column. */
  async objects(sql: string, parameters: readonly unknown[] = []): Promise<Record<string, Value>[]> {
    const rows: Record<string, Value>[] = [];
    let names: string[] = [];
    await this.each(sql, parameters, (row, statement) => {
      if (rows.length === 0) names = this.#sqlite.column_names(statement);
      rows.push(Object.fromEntries(row.map((value, index) => [names[index] ?? '', value])));
    });
    return rows;
  }

  /** Calls `take` with each row, one after the other. */
  async each(
    sql: string,
    parameters: readonly unknown[],
    take: (row: Value[], statement: number) => void | Promise<void>,
  ): Promise<void> {
    const statement = await this.#prepare(sql);
    this.#busy.add(statement);
    try {
      this.#bind(statement, parameters);
      while ((await this.#sqlite.step(statement)) === ROW) {
        const taken = take(this.#sqlite.row(statement), statement);
        if (taken) await taken;
      }
    } catch (error) {
      refuse(error);
    } finally {
      // What is wrong was said by the step.
      await this.#sqlite.reset(statement).catch(() => {});
      this.#sqlite.clear_bindings(statement);
      this.#busy.delete(statement);
    }
  }

  /** Compiles a statement and forgets it. */
  async compile(sql: string): Promise<void> {
    await this.#sqlite.finalize(await this.#compile(sql));
  }

  async close(): Promise<void> {
    for (const statement of this.#statements.values()) await this.#sqlite.finalize(statement);
    this.#statements.clear();
    await this.#sqlite.close(this.#db);
  }

  async #prepare(sql: string): Promise<number> {
    const known = this.#statements.get(sql);
    const statement = known ?? (await this.#compile(sql));
    this.#statements.delete(sql);
    this.#statements.set(sql, statement);
    if (this.#statements.size > STATEMENTS_MAX) await this.#forgetOldest(statement);
    return statement;
  }

  async #forgetOldest(kept: number): Promise<void> {
    for (const [sql, statement] of this.#statements) {
      if (statement === kept || this.#busy.has(statement)) continue;
      this.#statements.delete(sql);
      await this.#sqlite.finalize(statement);
      return;
    }
  }

  async #compile(sql: string): Promise<number> {
    const statements: number[] = [];
    try {
      for await (const statement of this.#sqlite.statements(this.#db, sql, { unscoped: true })) statements.push(statement);
    } catch (error) {
      for (const statement of statements) await this.#sqlite.finalize(statement);
      refuse(error);
    }
    const [statement, ...others] = statements;
    if (statement === undefined || others.length > 0) {
      for (const each of statements) await this.#sqlite.finalize(each);
      throw new KairosError('CLIENT-0101', 'SQLite: expected one statement; use `transaction` for several');
    }
    return statement;
  }

  #bind(statement: number, parameters: readonly unknown[]): void {
    const expected = this.#sqlite.bind_parameter_count(statement);
    if (expected !== parameters.length) {
      throw new KairosError('CLIENT-0101', `SQLite: the statement takes ${expected} parameters, not ${parameters.length}`);
    }
    parameters.forEach((value, index) => this.#bindOne(statement, index + 1, value));
  }

  #bindOne(statement: number, index: number, value: unknown): void {
    if (value === null || value === undefined) this.#sqlite.bind_null(statement, index);
    else if (typeof value === 'string') this.#sqlite.bind_text(statement, index, value);
    else if (typeof value === 'boolean') this.#sqlite.bind_int64(statement, index, value ? 1n : 0n);
    else if (typeof value === 'bigint' && BigInt.asIntN(64, value) === value) this.#sqlite.bind_int64(statement, index, value);
    // A whole number is an integer, however large: SQLite makes a real of it where a column is one.
    else if (Number.isSafeInteger(value)) this.#sqlite.bind_int64(statement, index, BigInt(value as number));
    else if (typeof value === 'number') this.#sqlite.bind_double(statement, index, value);
    else if (value instanceof Uint8Array) this.#sqlite.bind_blob(statement, index, value);
    else throw new KairosError('CLIENT-0101', `SQLite: parameter ${index} is no text, number of 64 bits, BLOB or null`);
  }
}

/** What SQLite says, with the code of the client. */
function refuse(error: unknown): never {
  if (error instanceof KairosError) throw error;
  throw new KairosError('CLIENT-0101', `SQLite: ${error instanceof Error ? error.message : String(error)}`);
}
