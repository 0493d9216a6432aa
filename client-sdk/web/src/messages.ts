// What a tab and the worker of the leading tab say to each other, and tabs among themselves.

import type { Choice, CredentialsReason, Diagnostics, RejectedWrite, Status, Storage, Value, Verification } from './api.ts';
import type { Table } from './schema.ts';

/** What the worker is started with. */
export interface Opening {
  name: string;
  tables: readonly Table[];
  storage: Storage;
  assets: string;
  parameters: Record<string, unknown>;
  appMetadata: Record<string, string>;
}

/** A stream that some part of a tab wants. */
export interface Holding {
  /** Which part. */
  holder: string;
  stream: string;
  parameters: Record<string, unknown> | null;
  priority: number | null;
  ttlSeconds: number;
}

/** What can be asked of the worker, with arguments and answer. */
export interface Calls {
  open(opening: Opening): Status;
  query(sql: string, parameters: readonly unknown[]): Record<string, Value>[];
  tables(sql: string): string[];
  /** How many rows it changed. Repeated with the same `request`, it is done once. */
  write(request: string, statements: { sql: string; parameters: readonly unknown[] }[]): number;
  connect(): void;
  disconnect(): void;
  syncNow(): void;
  rejectedWrites(): RejectedWrite[];
  dismissRejectedWrite(id: number): void;
  /** `merged` is a JSON object. */
  resolveRejectedWrite(id: number, choice: Choice, merged: string | null): boolean;
  hold(holding: Holding): void;
  release(holder: string): void;
  firstSync(stream: string, parameters: Record<string, unknown> | null): void;
  verify(): Verification;
  repair(): Verification;
  diagnostics(): Diagnostics;
  signOut(keepData: boolean, deleteUnsent: boolean): void;
  close(): void;
}

export type Method = keyof Calls;

/** An error on its way between contexts. */
export interface Failure {
  code: string;
  message: string;
}

export type Outcome = { ok: unknown } | { error: Failure };

export interface Call {
  id: string;
  method: Method;
  args: unknown[];
}

/** What all tabs are told. */
export type Announcement =
  | { status: Status }
  /** Rows of these tables changed. */
  | { changed: string[] }
  /** Whether the sync is to go on, whoever leads. */
  | { wanted: boolean };

export type ToWorker = { call: Call } | { credentials: number; outcome: Outcome };

export type FromWorker =
  | { answer: string; outcome: Outcome }
  | { announce: Announcement }
  | { ask: number; reason: CredentialsReason };

/** Between tabs. */
export type BetweenTabs =
  /** A tab looks for the one that leads. */
  | { hello: true }
  | { leader: string; status: Status; wanted: boolean }
  | { to: string; from: string; call: Call }
  | { to: string; answer: string; outcome: Outcome }
  | { announce: Announcement };
