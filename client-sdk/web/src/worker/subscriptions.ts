// Who holds which stream: parts of tabs, each under an id of its own, so that a call that is repeated counts once.

import type { Holding } from '../messages.ts';
import type { Completion } from './core.ts';
import type { Store } from './store/store.ts';
import {
  holdStream,
  isSynced,
  noteSynced,
  parametersText,
  releaseStream,
  type StreamSubscription,
  type Wanted,
} from './store/subscriptions.ts';

export class Subscriptions {
  readonly #store: Store;
  readonly #held = new Map<string, Wanted>();
  /** Who waits for rows of a stream. */
  readonly #waiting = new Set<() => void>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** True where the service does not know of it yet. */
  hold({ holder, stream, parameters, priority, ttlSeconds }: Holding): Promise<boolean> {
    const wanted = { stream, parameters: parametersText(parameters) };
    this.#held.set(holder, wanted);
    return this.#store.write((db) => holdStream(db, wanted, priority, ttlSeconds));
  }

  async release(holder: string): Promise<void> {
    const wanted = this.#held.get(holder);
    if (!wanted) return;
    this.#held.delete(holder);
    const isHeld = [...this.#held.values()].some((other) => isSame(other, wanted));
    if (!isHeld) await this.#store.write((db) => releaseStream(db, wanted));
  }

  /** Fulfilled when its rows are visible, also where there are none. */
  async firstSync(stream: string, parameters: unknown): Promise<void> {
    const wanted = { stream, parameters: parametersText(parameters) };
    for (;;) {
      let wake = (): void => {};
      const noted = new Promise<void>((resolve) => (wake = resolve));
      this.#waiting.add(wake);
      if (await this.#store.read((db) => isSynced(db, wanted))) return void this.#waiting.delete(wake);
      await noted;
    }
  }

  /** The rows of these are visible. */
  async noteSynced(subscriptions: readonly StreamSubscription[]): Promise<void> {
    if (subscriptions.length === 0) return;
    await this.#store.write((db) => noteSynced(db, subscriptions));
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}

/**
 * Whether all rows of a subscription, by its place in the request, are visible with this. One without buckets waits for the whole
 * checkpoint: until then, the service may name some.
 */
export function isShownBy({ target, scope }: Completion, index: number): boolean {
  if (scope === 'full') return true;
  const isOf = ({ subscriptions = [] }: { subscriptions?: object[] }): boolean =>
    subscriptions.some((reason) => 'sub' in reason && reason.sub === index);
  const priorities = Object.values(target.buckets).filter(isOf).map(({ priority }) => priority);
  return priorities.length > 0 && Math.max(...priorities) <= scope.up_to;
}

const isSame = (one: Wanted, other: Wanted): boolean => one.stream === other.stream && one.parameters === other.parameters;
