// One tab leads and has the worker; the others' calls go to it over a channel. Who leads is who holds a lock that all tabs of
// a database ask for; when the tab goes, in whatever way, the next one has it.
//
// A call may be made twice where the leader goes before it answers. Reads do not mind, and the worker knows repeated writes
// by their ids.

import { KairosError, type Status } from './api.ts';
import { LeaderWorker, type LeaderWorkerOptions } from './leader-worker.ts';
import type { Announcement, BetweenTabs, Call, Calls, Failure, Method, Opening, Outcome } from './messages.ts';
import { randomId } from './random-id.ts';

interface Waiting {
  call: Call;
  /** Whom it was sent to. */
  sentTo: string | null;
  settle: (outcome: Outcome) => void;
}

export interface HubOptions extends Omit<LeaderWorkerOptions, 'assets'> {
  opening: Opening;
  /** The sync is to go on, as far as this tab knows. */
  isWanted: () => boolean;
  /** Another tab leads than before, or this one does. `wanted` is what it knows. */
  onLeader: (status: Status, wanted: boolean) => void;
}

const CLOSED: Failure = { code: 'CLIENT-0116', message: 'the database was closed; open it again' };

export class Hub {
  readonly #id = randomId();
  readonly #options: HubOptions;
  readonly #channel: BroadcastChannel;
  readonly #waiting = new Map<string, Waiting>();
  /** Ends the wait for the lock, or gives it back. */
  readonly #closed = new AbortController();
  #leader: string | null = null;
  #worker: LeaderWorker | null = null;
  /** Why nothing works any more. */
  #failure: Failure | null = null;
  #leading: Promise<void> = Promise.resolve();

  constructor(options: HubOptions) {
    this.#options = options;
    const name = `kairos-sync:${options.opening.name}`;
    // A page that came over plain HTTP has no locks: each of its tabs is alone.
    const hasLocks = 'locks' in navigator;
    this.#channel = new BroadcastChannel(hasLocks ? name : `${name}:${this.#id}`);
    this.#channel.onmessage = ({ data }: MessageEvent<BetweenTabs>) => this.#receive(data);
    this.#send({ hello: true });
    this.#leading = hasLocks ? this.#whenFree(name) : this.#lead();
  }

  /** Asks the worker of whoever leads. */
  async call<Name extends Method>(method: Name, ...args: Parameters<Calls[Name]>): Promise<ReturnType<Calls[Name]>> {
    const call = { id: randomId(), method, args };
    const outcome = await new Promise<Outcome>((settle) => {
      if (this.#failure) return settle({ error: this.#failure });
      this.#waiting.set(call.id, { call, sentTo: null, settle });
      this.#forward();
    });
    if ('ok' in outcome) return outcome.ok as ReturnType<Calls[Name]>;
    throw new KairosError(outcome.error.code, outcome.error.message);
  }

  /** Ends this tab's part. */
  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    await worker?.call({ id: randomId(), method: 'close', args: [] });
    worker?.end();
    this.#end(CLOSED);
    await this.#leading;
  }

  #end(failure: Failure): void {
    this.#failure ??= failure;
    this.#closed.abort();
    this.#channel.close();
    for (const { settle } of this.#waiting.values()) settle({ error: failure });
    this.#waiting.clear();
  }

  /** Leads as soon as nobody else does. */
  async #whenFree(name: string): Promise<void> {
    // Fails only when this tab is closed before its turn.
    await navigator.locks.request(name, { signal: this.#closed.signal }, () => this.#lead()).catch(() => {});
  }

  /** Until this tab is closed. */
  async #lead(): Promise<void> {
    try {
      await this.#leadWith();
    } catch (error) {
      this.#end({ code: 'CLIENT-0101', message: `the worker of the database cannot be started (${String(error)})` });
    }
  }

  async #leadWith(): Promise<void> {
    const { opening, connector, onAnnouncement, onLeader } = this.#options;
    const tell = (announcement: Announcement): void => {
      onAnnouncement(announcement);
      if (this.#worker === worker) this.#send({ announce: announcement });
    };
    const worker = new LeaderWorker({ assets: opening.assets, connector, onAnnouncement: tell });
    const outcome = await worker.call({ id: randomId(), method: 'open', args: [opening] });
    if ('error' in outcome || this.#closed.signal.aborted) {
      worker.end();
      return this.#end('error' in outcome ? outcome.error : CLOSED);
    }
    const status = outcome.ok as Status;
    this.#worker = worker;
    this.#leader = this.#id;
    this.#send({ leader: this.#id, status, wanted: this.#options.isWanted() });
    onLeader(status, false);
    this.#forward();
    await new Promise<void>((resolve) => this.#closed.signal.addEventListener('abort', () => resolve()));
  }

  #receive(message: BetweenTabs): void {
    if ('hello' in message) {
      if (this.#worker) void this.#introduce(this.#worker);
    } else if ('leader' in message) {
      const isNew = this.#leader !== message.leader;
      this.#leader = message.leader;
      if (isNew) this.#options.onLeader(message.status, message.wanted);
      this.#forward();
    } else if ('announce' in message) {
      this.#options.onAnnouncement(message.announce);
    } else if (message.to !== this.#id) {
      return;
    } else if ('call' in message) {
      void this.#serve(message.from, message.call);
    } else {
      this.#settle(message.answer, message.outcome);
    }
  }

  async #introduce(worker: LeaderWorker): Promise<void> {
    const outcome = await worker.call({ id: randomId(), method: 'open', args: [this.#options.opening] });
    if ('error' in outcome || this.#worker !== worker) return;
    this.#send({ leader: this.#id, status: outcome.ok as Status, wanted: this.#options.isWanted() });
  }

  async #serve(from: string, call: Call): Promise<void> {
    const worker = this.#worker;
    if (!worker) return; // whoever leads next is asked again
    const outcome = await worker.call(call);
    const isClosing = this.#worker !== worker;
    if ('ok' in outcome || !isClosing) this.#send({ to: from, answer: call.id, outcome });
  }

  /** Sends what waits to whoever leads, once to each. */
  #forward(): void {
    const leader = this.#leader;
    if (leader === null) return;
    for (const waiting of this.#waiting.values()) {
      if (waiting.sentTo === leader) continue;
      waiting.sentTo = leader;
      const { call } = waiting;
      if (leader !== this.#id) this.#send({ to: leader, from: this.#id, call });
      else void this.#worker?.call(call).then((outcome) => this.#settle(call.id, outcome));
    }
  }

  #settle(id: string, outcome: Outcome): void {
    this.#waiting.get(id)?.settle(outcome);
    this.#waiting.delete(id);
  }

  /** Nobody listens to a tab that was closed. */
  #send(message: BetweenTabs): void {
    if (!this.#closed.signal.aborted) this.#channel.postMessage(message);
  }
}
