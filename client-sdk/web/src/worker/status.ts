// What the app shows about the sync.

import type { Status, SyncState } from '../api.ts';
import { messageOf, problemOf } from '../problem.ts';
import type { LocalState } from './store/crud.ts';

/** What is known, before it is put into one word. */
export interface Facts {
  /** The connector has a server and credentials. */
  configured: boolean;
  /** A stream is open. */
  connected: boolean;
  /** The latest checkpoint of the stream is visible. */
  current: boolean;
  progress: { done: number; total: number };
  local: LocalState;
  /** Code of why there is no stream. */
  streamFailure: string | null;
  /** Code of why the last upload failed. */
  uploadFailure: string | null;
}

/** Nothing is connected. */
export function factsOf(local: LocalState, configured: boolean): Facts {
  const progress = { done: 0, total: 0 };
  return { configured, connected: false, current: false, progress, local, streamFailure: null, uploadFailure: null };
}

export function statusOf(facts: Facts): Status {
  const { local, progress, connected } = facts;
  const state = stateOf(facts);
  const code = facts.streamFailure ?? facts.uploadFailure;
  return {
    state,
    label: labelOf(state, local.pending),
    pending: local.pending,
    rejected: local.rejected,
    hasSynced: local.lastSyncedAt !== null,
    ...(code !== null && { code, message: messageOf(code) }),
    ...(local.lastSyncedAt !== null && { lastSyncedAt: new Date(local.lastSyncedAt * 1000) }),
    ...(connected && progress.total > 0 && { progress: { downloaded: progress.done, total: progress.total } }),
  };
}

function stateOf({ configured, connected, current, local, streamFailure, uploadFailure }: Facts): SyncState {
  if (!configured) return 'not_configured';
  const failure = streamFailure ?? uploadFailure;
  if (failure !== null && problemOf(failure) !== 'unreachable') return 'error';
  if (connected && current && local.pending === 0 && !local.awaiting) return 'synced';
  if (connected) return 'syncing';
  return local.pending > 0 ? 'pending' : 'offline';
}

/** The text of the status indicator. */
function labelOf(state: SyncState, pending: number): string {
  const labels: Record<SyncState, string> = {
    synced: 'Synced',
    syncing: 'Syncing...',
    pending: `${pending} pending`,
    offline: 'Offline',
    error: 'Sync error',
    not_configured: 'Not synced',
  };
  return labels[state];
}

/** Where facts are noted; tells who listens when the status changed by it. */
export class StatusBoard {
  #facts: Facts;
  #shown = '';
  readonly #listener: (status: Status) => void;

  constructor(facts: Facts, listener: (status: Status) => void) {
    this.#facts = facts;
    this.#listener = listener;
    this.note({});
  }

  get facts(): Facts {
    return this.#facts;
  }

  get status(): Status {
    return statusOf(this.#facts);
  }

  note(changed: Partial<Facts>): void {
    this.#facts = { ...this.#facts, ...changed };
    const status = this.status;
    const shown = JSON.stringify(status);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#listener(status);
  }
}
