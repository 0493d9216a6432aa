// What the download and the upload loop share, and their beginning and end.

import { type Diagnostics, KairosError, type Status, type Verification } from '../api.ts';
import type { Holding } from '../messages.ts';
import { Backoff } from './backoff.ts';
import { Bell } from './bell.ts';
import type { Core } from './core.ts';
import { runDownload } from './download.ts';
import { Log } from './log.ts';
import { type AskApp, Session } from './session.ts';
import { factsOf, StatusBoard } from './status.ts';
import { belongsTo, clearAccount } from './store/account.ts';
import { type LocalState, localState } from './store/crud.ts';
import { factsAbout } from './store/facts.ts';
import type { Store } from './store/store.ts';
import { repair } from './store/verify.ts';
import { Subscriptions } from './subscriptions.ts';
import { Busy } from './transport.ts';
import { runUploads, type UploadReason } from './upload.ts';

const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 60_000;

export interface EngineOptions {
  core: Core;
  store: Store;
  clientId: string;
  parameters: Record<string, unknown>;
  appMetadata: Record<string, string>;
  askApp: AskApp;
  onStatus: (status: Status) => void;
}

export class Engine {
  readonly core: Core;
  readonly store: Store;
  readonly clientId: string;
  readonly session: Session;
  readonly board: StatusBoard;
  /** What all sync requests have in common. */
  readonly template: Record<string, unknown>;
  /** The app does not want to wait for the next attempt. */
  readonly retry = new Bell<'retry' | 'over'>();
  readonly log = new Log();
  readonly subscriptions: Subscriptions;
  readonly uploads = new Bell<UploadReason>();
  /** The queue is empty and the store knows the write checkpoint. */
  onDrained: (() => void) | null = null;
  /** Other streams are wanted. */
  onResubscribe: (() => void) | null = null;
  #stop: AbortController | null = null;
  #loops: Promise<unknown> = Promise.resolve();

  constructor({ core, store, clientId, parameters, appMetadata, askApp, onStatus }: EngineOptions) {
    this.core = core;
    this.store = store;
    this.clientId = clientId;
    this.subscriptions = new Subscriptions(store);
    this.session = new Session(askApp, (user) => store.write((db) => belongsTo(db, user)));
    this.board = new StatusBoard(factsOf(store.local, false), onStatus);
    const flags = { include_checksum: true, raw_data: true, binary_data: false };
    this.template = { ...flags, client_id: clientId, parameters, app_metadata: appMetadata };
  }

  backoff(): Backoff {
    return new Backoff(RETRY_BASE_MS, RETRY_CAP_MS);
  }

  /** Starts the loops, or tries again at once where they run. */
  async connect(): Promise<void> {
    if (this.#stop) return this.syncNow();
    const stop = new AbortController();
    this.#stop = stop;
    const before = this.#loops;
    this.board.note({ configured: true });
    this.#loops = before.then(() => {
      this.retry.forget('over');
      this.uploads.forget('over');
      return Promise.all([runDownload(this, stop.signal), runUploads(this, stop.signal)]);
    });
  }

  /** Ends the loops; nothing of them happens afterwards. */
  async disconnect(): Promise<void> {
    this.#stop?.abort();
    this.#stop = null;
    this.session.cancel();
    // Who waits finds that it is over.
    this.retry.ring('over');
    this.uploads.ring('over');
    await this.#loops;
    if (!this.#stop) this.board.note(factsOf(this.store.local, this.board.facts.configured));
  }

  syncNow(): void {
    this.retry.ring('retry');
    this.uploads.ring('online');
  }

  /** Some part of the app wants a stream. */
  async hold(holding: Holding): Promise<void> {
    if (await this.subscriptions.hold(holding)) this.onResubscribe?.();
  }

  /** Drops what does not add up; the next stream downloads it again. */
  async repair(): Promise<Verification> {
    const wasRunning = this.#stop !== null;
    await this.disconnect();
    try {
      return await this.store.write(repair);
    } finally {
      if (wasRunning) await this.connect();
    }
  }

  async diagnostics(): Promise<Omit<Diagnostics, 'clientVersion' | 'storage'>> {
    const { state, code, pending, lastSyncedAt } = this.board.status;
    return {
      ...(await this.store.read(factsAbout)),
      state,
      ...(code !== undefined && { code }),
      connected: this.board.facts.connected,
      pending,
      ...(lastSyncedAt && { lastSyncedAt }),
      statistics: { ...this.log.statistics },
      log: this.log.events,
    };
  }

  async signOut(keepData: boolean, deleteUnsent: boolean): Promise<void> {
    if (!keepData && !deleteUnsent) refuseUnsent(this.store.local);
    const wasRunning = this.#stop !== null;
    await this.disconnect();
    try {
      if (!keepData) await this.#clear(deleteUnsent);
    } catch (error) {
      if (wasRunning) await this.connect();
      throw error;
    }
    this.session.forget();
    this.board.note(factsOf(this.store.local, false));
  }

  #clear(deleteUnsent: boolean): Promise<void> {
    return this.store.write(async (db) => {
      // Something may have been written meanwhile.
      if (!deleteUnsent) refuseUnsent(await localState(db));
      await clearAccount(db);
    });
  }

  /** The app wrote something, or an answer to it came. */
  noteWritten(): void {
    this.board.note({ local: this.store.local });
    if (this.store.local.pending > 0) this.uploads.ring('written');
  }
}

function refuseUnsent({ pending }: LocalState): void {
  if (pending === 0) return;
  const choices = 'sync first, keep the data, or delete those too';
  throw new KairosError('CLIENT-0112', `${pending} local writes are not uploaded yet: ${choices}`);
}

/** What went wrong, and when the service wants to be asked again, if it said so. */
export interface Failed {
  code: string;
  retryAfterMs: number | null;
}

export const failedBy = (error: unknown): Failed => ({
  code: codeOf(error),
  retryAfterMs: error instanceof Busy ? error.retryAfterMs : null,
});

/** The code of an error; of those that nobody foresaw, that of a broken protocol. */
const codeOf = (error: unknown): string => (error instanceof KairosError ? error.code : 'CLIENT-0301');
