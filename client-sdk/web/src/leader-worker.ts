// A tab's own worker, while the tab leads.

import { type Connector, KairosError } from './api.ts';
import type { Announcement, Call, FromWorker, Outcome, ToWorker } from './messages.ts';

export interface LeaderWorkerOptions {
  assets: string;
  connector: Connector;
  onAnnouncement: (announcement: Announcement) => void;
}

export class LeaderWorker {
  readonly #worker: Worker;
  readonly #connector: Connector;
  readonly #onAnnouncement: (announcement: Announcement) => void;
  readonly #waiting = new Map<string, (outcome: Outcome) => void>();

  constructor({ assets, connector, onAnnouncement }: LeaderWorkerOptions) {
    this.#connector = connector;
    this.#onAnnouncement = onAnnouncement;
    this.#worker = new Worker(new URL('worker.js', assets), { type: 'module', name: 'kairos-sync' });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#receive(data);
    this.#worker.onerror = ({ message }) => this.#fail(message);
  }

  /** What became of a call. Never rejected. */
  call(call: Call): Promise<Outcome> {
    return new Promise((resolve) => {
      this.#waiting.set(call.id, resolve);
      try {
        this.#send({ call });
      } catch (error) {
        this.#answer(call.id, { error: { code: 'CLIENT-0101', message: `SQLite: ${String(error)}` } });
      }
    });
  }

  end(): void {
    this.#worker.terminate();
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if ('announce' in message) this.#onAnnouncement(message.announce);
    else if ('answer' in message) this.#answer(message.answer, message.outcome);
    else void this.#ask(message);
  }

  #answer(id: string, outcome: Outcome): void {
    this.#waiting.get(id)?.(outcome);
    this.#waiting.delete(id);
  }

  async #ask({ ask, reason }: Extract<FromWorker, { ask: number }>): Promise<void> {
    const outcome: Outcome = await Promise.resolve()
      .then(() => this.#connector(reason))
      .then(
        (ok) => ({ ok }),
        (error: unknown) => ({ error: connectorFailure(error) }),
      );
    this.#send({ credentials: ask, outcome });
  }

  /** The worker could not be loaded, or broke. */
  #fail(message: string | undefined): void {
    const error = { code: 'CLIENT-0101', message: `the worker of the database failed (${message ?? 'it cannot be loaded'})` };
    for (const id of [...this.#waiting.keys()]) this.#answer(id, { error });
  }
}

/** Who gives out tokens cannot be reached, unless the app says that it is up to the user. */
function connectorFailure(error: unknown): { code: string; message: string } {
  if (error instanceof KairosError) return { code: error.code, message: error.message };
  return { code: 'CLIENT-0201', message: 'the app has no credentials now' };
}
