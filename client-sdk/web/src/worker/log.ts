// What happened in the sync, for a report: what and when, without a value.

import type { Diagnostics } from '../api.ts';

/** So many are kept. */
const EVENTS_MAX = 256;

export class Log {
  readonly #events: Diagnostics['log'] = [];
  /** Since the database was opened. */
  readonly statistics: Diagnostics['statistics'] = { streams: 0, bytesReceived: 0, operations: 0, checkpoints: 0, writesUploaded: 0 };

  get events(): Diagnostics['log'] {
    return [...this.#events];
  }

  /** What happened, with the code of an error. */
  note(event: string): void {
    if (this.#events.length === EVENTS_MAX) this.#events.shift();
    this.#events.push({ at: new Date(), event });
  }
}
