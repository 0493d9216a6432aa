// What an app sees of this package.

import type { Schema } from './schema.ts';

/** A value of a column. Integers that a number cannot hold exactly are `bigint`. */
export type Value = string | number | bigint | null | Uint8Array;

/** A row of a query, by column. */
export type Row = Record<string, Value>;

/** What proves who the user is, and to whom. */
export interface Credentials {
  /** Address of the service, for example `https://kairos.home.local`. */
  endpoint: string;
  /** A token the service accepts. */
  token: string;
  /** Where the token does not say itself when it ends. */
  expiresAt?: Date;
}

/** Why credentials are asked for: there are none yet, those in use are about to end, or the service does not take them. */
export type CredentialsReason = 'start' | 'expiring' | 'refused';

/**
 * The app's side of the sync. `null` while there is no server or nobody is signed in. Calls never overlap; each has a
 * minute. Where the promise is rejected, the client tries again later; throw a {@link SignInAgain} when that is useless.
 */
export type Connector = (reason: CredentialsReason) => Promise<Credentials | null>;

/** The sync in one word. */
export type SyncState = 'synced' | 'syncing' | 'pending' | 'offline' | 'error' | 'not_configured';

/** What the app shows about the sync. */
export interface Status {
  state: SyncState;
  /** The text of the status indicator. Apps that speak another language translate the state instead. */
  label: string;
  /** Local writes waiting for their upload. */
  pending: number;
  /** Local writes the service did not take, until the app dismisses them; see {@link Kairos.rejectedWrites}. */
  rejected: number;
  /** What to tell the user about the last failure, until something works again. Also while `offline`. */
  message?: string;
  /** Stable code of the last failure. */
  code?: string;
  /** When a whole checkpoint became visible for the last time. */
  lastSyncedAt?: Date;
  /** The app saw a whole checkpoint once. */
  hasSynced: boolean;
  /** Operations of the download under way, if there is one. */
  progress?: { downloaded: number; total: number };
}

/** Where the database is. */
export type Storage = 'auto' | 'opfs' | 'memory';

export interface OpenOptions {
  /** One database for each name; all tabs that open it share it. See {@link databaseName}. */
  name: string;
  schema: Schema;
  connector: Connector;
  /** `auto`, the default: on disk where the browser can, else in memory. */
  storage?: Storage;
  /** Where the files beside this module are served, if elsewhere: base URL of `worker.js`, `sqlite.js` and both `.wasm`. */
  assets?: string;
  /** Client parameters for the sync rules: not authenticated. */
  parameters?: Record<string, unknown>;
  /** For the service's logs. */
  appMetadata?: Record<string, string>;
}

/** A local write the service did not take. The row goes back to what the service has. */
export interface RejectedWrite {
  id: number;
  op: 'PUT' | 'PATCH' | 'DELETE';
  table: string;
  rowId: string;
  /** `conflict` where others changed the row. */
  outcome: 'refused' | 'conflict';
  /** The values before the write, of tables that track them. */
  base?: Record<string, unknown>;
  /** The values written. */
  data?: Record<string, unknown>;
  /** What others made of the row, where the service said so. */
  theirs?: Record<string, unknown>;
  /** Stable code of the reason. */
  code?: string;
  /** The reason, for people. */
  message?: string;
  rejectedAt: Date;
}

/** Who is right about a write that was not taken: the user, others, or a bit of both. */
export type Choice = 'mine' | 'theirs' | 'merged';

export interface SubscriptionOptions {
  /** How long it stays wanted after it was given up, in seconds. Default a day: who comes back soon finds the rows there. */
  ttlSeconds?: number;
  /** Another priority than the stream's. */
  priority?: 0 | 1 | 2 | 3;
}

/** A stream that is wanted, until it is given up or its tab is closed; then its time runs. */
export interface Subscription {
  /** Fulfilled when its rows are visible for the first time since it is wanted, also where there are none. Waits without end. */
  waitForFirstSync(): Promise<void>;
  /** Its rows go with the first stream that is opened when its time is over. */
  unsubscribe(): Promise<void>;
}

export interface BucketVerification {
  name: string;
  /** Operations of it that are stored: the latest of each row. */
  stored: number;
  /** It adds up to what the service announced. */
  isOk: boolean;
}

export interface TableVerification {
  name: string;
  /** Rows that are missing, too many, or have another content. Those that wait for their upload are left out. */
  rowsDiffering: number;
}

/** What recomputing everything found. */
export interface Verification {
  isOk: boolean;
  buckets: BucketVerification[];
  /** Synced tables. */
  tables: TableVerification[];
}

/** What helps whoever looks into a sync that does not work, without a value of a row, a user or a token in it. */
export interface Diagnostics {
  clientVersion: string;
  sqliteVersion: string;
  /** Where the database is. */
  storage: 'opfs' | 'memory';
  state: SyncState;
  /** Of the last failure, until something works again. */
  code?: string;
  connected: boolean;
  pending: number;
  /** Local writes that the service did not take, by code. */
  rejected: { code: string; count: number }[];
  lastSyncedAt?: Date;
  /** Since a tab opened the database as the one that leads. */
  statistics: { streams: number; bytesReceived: number; operations: number; checkpoints: number; writesUploaded: number };
  tables: { name: string; rows: number }[];
  bucketCount: number;
  operationCount: number;
  databaseBytes: number;
  /** What happened last, oldest first. */
  log: { at: Date; event: string }[];
}

export interface Statement {
  sql: string;
  parameters?: readonly unknown[];
}

export interface LiveOptions {
  /** Between two runs of the query, at least. Default 30. */
  throttleMs?: number;
  /** Told when SQLite refuses the query. Without it, the error is reported as uncaught. */
  onError?: (error: KairosError) => void;
}

export interface SignOutOptions {
  /** Otherwise all rows are deleted, unless writes wait for their upload: then nothing happens (CLIENT-0112). */
  keepData: boolean;
  /** Also deletes what waits for its upload. */
  deleteUnsent?: boolean;
}

/** A local SQLite database that syncs. */
export interface Kairos {
  readonly status: Status;
  /** Calls `listener` now and whenever the status changes; returns what ends that. */
  onStatus(listener: (status: Status) => void): () => void;
  /** Reads the last committed state. */
  query<T = Row>(sql: string, parameters?: readonly unknown[]): Promise<T[]>;
  /** Runs one statement; on disk when the promise is fulfilled. `changes` counts written rows. */
  execute(sql: string, parameters?: readonly unknown[]): Promise<{ changes: number }>;
  /** Runs all of the statements, or none. They are uploaded as one transaction. */
  transaction(statements: readonly Statement[]): Promise<void>;
  /** Calls `listener` with the rows of the query, now and whenever they are others; returns what ends that. */
  live<T = Row>(sql: string, parameters: readonly unknown[], listener: (rows: T[]) => void, options?: LiveOptions): () => void;
  /** Starts the sync, of all tabs. */
  connect(): void;
  /** Ends the sync, of all tabs. Local writes go on, and are queued. */
  disconnect(): Promise<void>;
  /** Tries again at once, not after the wait, unless the service said when. */
  syncNow(): Promise<void>;
  rejectedWrites(): Promise<RejectedWrite[]>;
  /** Takes one off the list, once the app has shown it. */
  dismissRejectedWrite(id: number): Promise<void>;
  /**
   * Ends one as its user chose. `theirs` leaves the row as the service has it. `mine` writes the same again, and `merged` these
   * columns, as a new local write of somebody who knows what others made of the row; a row that is gone comes back. False where
   * it is not on the list any more.
   */
  resolveRejectedWrite(id: number, choice: Choice, merged?: Record<string, Value | boolean>): Promise<boolean>;
  /** Asks for a stream besides those that everybody gets. It stays wanted when the app is started again within its time. */
  subscribe(stream: string, parameters?: Record<string, unknown> | null, options?: SubscriptionOptions): Promise<Subscription>;
  /** Recomputes everything that is stored. Reads all of it once. */
  verify(): Promise<Verification>;
  /** As {@link verify}, and drops what differs: it is downloaded again, and rows change with the next checkpoint. */
  repair(): Promise<Verification>;
  /** What to attach to a report. */
  diagnostics(): Promise<Diagnostics>;
  /** Ends the sync, of all tabs, and forgets the credentials. */
  signOut(options: SignOutOptions): Promise<void>;
  /** Ends this tab's part. Others go on. */
  close(): Promise<void>;
}

/** Why a call failed. Failures of the sync are not here but in the {@link Status}: the app works on without it. */
export class KairosError extends Error {
  /** Stable across releases; listed in `docs/errors.md`. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'KairosError';
    this.code = code;
  }
}

/** For a {@link Connector} to throw when new credentials need the user. */
export class SignInAgain extends KairosError {
  constructor(message = 'the server does not accept the token; sign in again') {
    super('CLIENT-0202', message);
    this.name = 'SignInAgain';
  }
}

/** What {@link testConnection} found. */
export type ConnectionTest = { ok: true; version?: string } | { ok: false; code: string; message: string };
