// The local SQLite database: what the app sees, what was received, what waits for upload. The tables, and what happens to
// them, are those of `client-sdk/src/store`.
//
// Down: data lines go to `kairos_oplog` as they arrive (oplog); a completed checkpoint is validated and published to the app's
// tables (publish, views). Up: the app writes to views, whose triggers change the row and queue the write (crud) in the same
// transaction.
//
// Invariants:
// - One connection, used by one after the other, so a publish and a local write never interleave.
// - A checkpoint whose checksums do not match is never published.
// - Nothing is published over local writes which are queued or whose write checkpoint was not seen yet; priority 0 is, but
//   leaves the rows alone that were written locally.
// - A local write is on disk before its promise is fulfilled. Downloads are not synced: what a power cut takes is downloaded
//   again.

import type { Value } from '../../api.ts';
import type { Table } from '../../schema.ts';
import type { BucketState, StoreStep } from '../core.ts';
import { Database, type Durability } from '../database.ts';
import { registerFunctions } from '../functions.ts';
import type { SQLite } from '../sqlite.js';
import { localState, type LocalState } from './crud.ts';
import { migrate } from './migrations.ts';
import { applyData, bucketStates, deleteBuckets } from './oplog.ts';
import { complete, type Outcome } from './publish.ts';
import { resumeStreams } from './subscriptions.ts';
import { appTable, installViews } from './views.ts';
import { changesOf, createWritten, noteWritten } from './written.ts';

const READ = 20; // SQLITE_READ, an action of the authorizer
const OK = 0;

export interface StoreOptions {
  sqlite: SQLite;
  db: Database;
  tables: readonly Table[];
  putChecksum: (table: string, id: string, data: string) => number;
  /** Told which of the app's tables a transaction changed. */
  onChange: (tables: string[]) => void;
}

export class Store {
  readonly #db: Database;
  readonly #onChange: (tables: string[]) => void;
  /** As of the last commit. */
  local: LocalState = { pending: 0, rejected: 0, awaiting: false, lastSyncedAt: null };
  #transactionId = 0;
  /** Rows written since the transaction began: of the app's tables, by table, and queued ones. */
  #written = new Map<string, number>();
  #queued = 0;
  /** The app's tables that the statement being compiled reads. */
  #read: Set<string> | null = null;

  private constructor({ db, onChange }: StoreOptions) {
    this.#db = db;
    this.#onChange = onChange;
  }

  /** Makes the client's own tables and those of the app. */
  static async open(options: StoreOptions): Promise<Store> {
    const { sqlite, db, tables, putChecksum } = options;
    const store = new Store(options);
    registerFunctions(sqlite, db.handle, { transactionId: () => store.#transactionId, putChecksum });
    await db.exclusive(async () => {
      // Before anything is read: nobody else has the file, and the file system has no shared memory for the log.
      await db.rows('PRAGMA locking_mode = exclusive');
      await db.rows('PRAGMA journal_mode = wal');
      // The triggers' own effects must not depend on what an app sets.
      await db.batch('PRAGMA recursive_triggers = off; PRAGMA cache_size = -8192;');
      await db.transaction('synced', async () => {
        await migrate(db);
        await createWritten(db);
        await installViews(db, tables);
        await resumeStreams(db);
        const [last] = (await db.row('SELECT coalesce(max(tx_id), 0) FROM kairos_crud')) ?? [];
        store.#transactionId = Number(last);
        store.local = await localState(db);
      });
    });
    store.#watch(sqlite);
    return store;
  }

  async clientId(): Promise<string> {
    const row = await this.#db.exclusive(() => this.#db.row("SELECT value FROM kairos_kv WHERE key = 'client_id'"));
    return String(row?.[0]);
  }

  /** Reads the last committed state. */
  read<T>(work: (db: Database) => Promise<T>): Promise<T> {
    return this.#db.exclusive(() => work(this.#db));
  }

  /** Rows of a query of the app, which cannot write. */
  query(sql: string, parameters: readonly unknown[]): Promise<Record<string, Value>[]> {
    return this.read(async (db) => {
      await db.run('PRAGMA query_only = on');
      try {
        return await db.objects(sql, parameters);
      } finally {
        await db.run('PRAGMA query_only = off');
      }
    });
  }

  /** The app's tables that a query reads, as SQLite itself says when it compiles the query. */
  tablesOf(sql: string): Promise<string[]> {
    return this.read(async (db) => {
      const read = new Set<string>();
      this.#read = read;
      try {
        await db.compile(sql);
      } finally {
        this.#read = null;
      }
      return [...read];
    });
  }

  /** Runs `work` in one transaction, on disk when the promise is fulfilled. All of it happens or nothing. */
  write<T>(work: (db: Database) => Promise<T>): Promise<T> {
    return this.#transact('synced', work);
  }

  /** Statements of the app. Asked once more with the same `request`, it only says what they changed. */
  execute(request: string, statements: readonly { sql: string; parameters: readonly unknown[] }[]): Promise<number> {
    return this.write(async (db) => {
      const before = await changesOf(db, request);
      if (before !== null) return before;
      for (const { sql, parameters } of statements) await db.run(sql, parameters);
      const rows = [...this.#written.values()].reduce((sum, count) => sum + count, 0);
      const changes = rows || this.#queued; // new rows of insert-only tables are in the queue alone
      await noteWritten(db, request, changes);
      return changes;
    });
  }

  /** Performs steps of the sync in one transaction, and says what became of a completion among them. */
  perform(steps: readonly StoreStep[]): Promise<Outcome | null> {
    return this.#transact('written', async (db) => {
      let outcome: Outcome | null = null;
      for (const step of steps) {
        if ('delete_buckets' in step) await deleteBuckets(db, step.delete_buckets);
        else if ('apply_data' in step) await applyData(db, step.apply_data);
        else outcome = await complete(db, step.complete);
      }
      return outcome;
    });
  }

  /** The buckets and positions for the next request. */
  bucketStates(): Promise<BucketState[]> {
    return this.read(bucketStates);
  }

  async close(): Promise<void> {
    await this.#db.exclusive(() => this.#db.close());
  }

  async #transact<T>(durability: Durability, work: (db: Database) => Promise<T>): Promise<T> {
    const [result, local, changed] = await this.#db.exclusive(async () => {
      this.#written.clear();
      this.#queued = 0;
      this.#transactionId += 1;
      const done = await this.#db.transaction(durability, async () => {
        const result = await work(this.#db);
        return [result, await localState(this.#db)] as const;
      });
      return [done[0], done[1], [...this.#written.keys()]] as [T, LocalState, string[]];
    });
    this.local = local;
    if (changed.length > 0) this.#onChange(changed);
    return result;
  }

  #watch(sqlite: SQLite): void {
    sqlite.update_hook(this.#db.handle, (_kind, _database, table) => {
      const name = appTable(table);
      if (name !== null) this.#written.set(name, (this.#written.get(name) ?? 0) + 1);
      else if (table === 'kairos_crud') this.#queued += 1;
    });
    const note = (_data: number, action: number, table: string): number => {
      const name = action === READ && this.#read ? appTable(table) : null;
      if (name !== null) this.#read?.add(name);
      return OK;
    };
    sqlite.set_authorizer(this.#db.handle, note, 0);
  }
}
