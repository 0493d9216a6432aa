// A query that is run again whenever one of the tables it reads has changed.

import { type LiveOptions, KairosError, type Row, type Value } from './api.ts';

/** Between two runs of a query, unless it is said otherwise: a screen shows no more. */
const THROTTLE_MS = 30;

/** What a query needs of the database. */
export interface QuerySource {
  query(): Promise<Row[]>;
  tables(): Promise<string[]>;
}

export class LiveQuery {
  readonly #source: QuerySource;
  readonly #listener: (rows: Row[]) => void;
  readonly #options: LiveOptions;
  /** What it reads; everything, until that is known. */
  #tables: readonly string[] | null = null;
  #shown: Row[] | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isRunning = false;
  /** Something changed since the run that is under way began. */
  #isStale = false;
  #earliest = 0;
  #isOver = false;

  constructor(source: QuerySource, listener: (rows: Row[]) => void, options: LiveOptions) {
    this.#source = source;
    this.#listener = listener;
    this.#options = options;
    this.refresh();
  }

  /** Rows of these tables changed. */
  changed(tables: readonly string[]): void {
    if (this.#tables === null || tables.some((table) => this.#tables?.includes(table))) this.refresh();
  }

  /** Runs it again, as soon as it may. */
  refresh(): void {
    this.#isStale = true;
    if (this.#isOver || this.#isRunning || this.#timer !== null) return;
    this.#timer = setTimeout(() => void this.#run(), Math.max(0, this.#earliest - performance.now()));
  }

  end(): void {
    this.#isOver = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#timer = null;
    this.#isRunning = true;
    this.#isStale = false;
    try {
      this.#tables ??= await this.#source.tables();
      const rows = await this.#source.query();
      this.#earliest = performance.now() + (this.#options.throttleMs ?? THROTTLE_MS);
      if (!this.#isOver && !(this.#shown && isSame(this.#shown, rows))) {
        this.#shown = rows;
        this.#listener(rows);
      }
    } catch (error) {
      this.#report(error);
    } finally {
      this.#isRunning = false;
      if (this.#isStale) this.refresh();
    }
  }

  /** The database's own errors are for the app; what its listener throws is nobody's but the app's. */
  #report(error: unknown): void {
    if (this.#isOver) return;
    if (error instanceof KairosError && this.#options.onError) this.#options.onError(error);
    else reportError(error);
  }
}

function isSame(before: readonly Row[], after: readonly Row[]): boolean {
  return before.length === after.length && before.every((row, index) => isSameRow(row, after[index] ?? {}));
}

function isSameRow(before: Row, after: Row): boolean {
  return Object.entries(before).every(([column, value]) => isSameValue(value, after[column]));
}

function isSameValue(one: Value, other: Value | undefined): boolean {
  if (one instanceof Uint8Array && other instanceof Uint8Array) {
    return one.length === other.length && one.every((byte, index) => byte === other[index]);
  }
  return one === other;
}
