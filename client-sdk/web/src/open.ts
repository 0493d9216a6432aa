// A tab's view of the database.

import {
  type Choice,
  type Diagnostics,
  type Kairos,
  KairosError,
  type LiveOptions,
  type OpenOptions,
  type RejectedWrite,
  type Row,
  type SignOutOptions,
  type Statement,
  type Status,
  type Subscription,
  type SubscriptionOptions,
  type Value,
  type Verification,
} from './api.ts';
import { columnsText } from './columns.ts';
import { Hub } from './hub.ts';
import { LiveQuery } from './live-query.ts';
import type { Announcement, Holding } from './messages.ts';
import { randomId } from './random-id.ts';

/** Opens or creates the database; fulfilled when it can be used. */
export async function open(options: OpenOptions): Promise<Kairos> {
  const tab = new Tab(options);
  await tab.ready();
  return tab;
}

/** Values that SQLite takes, and that can be sent to another tab. */
function checked(parameters: readonly unknown[]): readonly unknown[] {
  const isValue = (value: unknown): boolean =>
    value === null ||
    value instanceof Uint8Array ||
    ['string', 'number', 'bigint', 'boolean', 'undefined'].includes(typeof value);
  const odd = parameters.findIndex((value) => !isValue(value));
  if (odd < 0) return parameters;
  throw new KairosError('CLIENT-0101', `SQLite: parameter ${odd + 1} is no text, number, BLOB or null`);
}

const DAY_SECONDS = 86_400;

/** Until a tab that leads has spoken. */
const UNKNOWN: Status = { state: 'not_configured', label: 'Not synced', pending: 0, rejected: 0, hasSynced: false };

class Tab implements Kairos {
  readonly #hub: Hub;
  readonly #statusListeners = new Set<(status: Status) => void>();
  readonly #queries = new Set<LiveQuery>();
  /** Streams that this tab wants, by holder. */
  readonly #held = new Map<string, Holding>();
  #status = UNKNOWN;
  /** The sync is to go on, whoever leads. */
  #isWanted = false;
  /** A page that is left for good gives up its streams, as far as it still can. */
  readonly #leave = ({ persisted }: PageTransitionEvent): void => void (persisted || this.#releaseAll());
  readonly #tryAgain = (): void => void (this.#isWanted && this.connect());

  constructor({ name, schema, connector, storage, assets, parameters, appMetadata }: OpenOptions) {
    this.#hub = new Hub({
      opening: {
        name,
        tables: schema.tables,
        storage: storage ?? 'auto',
        assets: new URL('./', new URL(assets ?? import.meta.url, location.href)).href,
        // As they are sent.
        parameters: JSON.parse(JSON.stringify(parameters ?? {})) as Record<string, unknown>,
        appMetadata: { ...appMetadata },
      },
      connector,
      onAnnouncement: (announcement) => this.#hear(announcement),
      isWanted: () => this.#isWanted,
      onLeader: (status, wanted) => this.#follow(status, wanted),
    });
    addEventListener('online', this.#tryAgain);
    addEventListener('pagehide', this.#leave);
  }

  /** The first answer of whoever leads. */
  async ready(): Promise<void> {
    await this.#hub.call('query', 'SELECT 1', []);
  }

  get status(): Status {
    return this.#status;
  }

  onStatus(listener: (status: Status) => void): () => void {
    this.#statusListeners.add(listener);
    listener(this.#status);
    return () => this.#statusListeners.delete(listener);
  }

  async query<T = Row>(sql: string, parameters: readonly unknown[] = []): Promise<T[]> {
    return (await this.#hub.call('query', sql, checked(parameters))) as T[];
  }

  async execute(sql: string, parameters: readonly unknown[] = []): Promise<{ changes: number }> {
    return { changes: await this.#hub.call('write', randomId(), [{ sql, parameters: checked(parameters) }]) };
  }

  async transaction(statements: readonly Statement[]): Promise<void> {
    const whole = statements.map(({ sql, parameters = [] }) => ({ sql, parameters: checked(parameters) }));
    await this.#hub.call('write', randomId(), whole);
  }

  live<T = Row>(
    sql: string,
    parameters: readonly unknown[],
    listener: (rows: T[]) => void,
    options: LiveOptions = {},
  ): () => void {
    const source = { query: () => this.query(sql, parameters), tables: () => this.#hub.call('tables', sql) };
    const query = new LiveQuery(source, (rows) => listener(rows as T[]), options);
    this.#queries.add(query);
    return () => {
      query.end();
      this.#queries.delete(query);
    };
  }

  connect(): void {
    this.#isWanted = true;
    // It fails only when the database is closed, which ends the sync anyway.
    this.#hub.call('connect').catch(() => {});
  }

  disconnect(): Promise<void> {
    this.#isWanted = false;
    return this.#hub.call('disconnect');
  }

  syncNow(): Promise<void> {
    return this.#hub.call('syncNow');
  }

  rejectedWrites(): Promise<RejectedWrite[]> {
    return this.#hub.call('rejectedWrites');
  }

  dismissRejectedWrite(id: number): Promise<void> {
    return this.#hub.call('dismissRejectedWrite', id);
  }

  resolveRejectedWrite(id: number, choice: Choice, merged?: Record<string, Value | boolean>): Promise<boolean> {
    return this.#hub.call('resolveRejectedWrite', id, choice, merged ? columnsText(merged) : null);
  }

  async subscribe(
    stream: string,
    parameters: Record<string, unknown> | null = null,
    { ttlSeconds = DAY_SECONDS, priority }: SubscriptionOptions = {},
  ): Promise<Subscription> {
    // As they are sent.
    const plain = JSON.parse(JSON.stringify(parameters)) as Record<string, unknown> | null;
    const holder = randomId();
    const holding = { holder, stream, parameters: plain, priority: priority ?? null, ttlSeconds: Math.max(0, Math.floor(ttlSeconds)) };
    this.#held.set(holder, holding);
    await this.#hub.call('hold', holding);
    return {
      waitForFirstSync: () => this.#hub.call('firstSync', stream, plain),
      unsubscribe: () => this.#release(holder),
    };
  }

  verify(): Promise<Verification> {
    return this.#hub.call('verify');
  }

  repair(): Promise<Verification> {
    return this.#hub.call('repair');
  }

  diagnostics(): Promise<Diagnostics> {
    return this.#hub.call('diagnostics');
  }

  async signOut({ keepData, deleteUnsent = false }: SignOutOptions): Promise<void> {
    await this.#hub.call('signOut', keepData, deleteUnsent);
    this.#isWanted = false;
  }

  async close(): Promise<void> {
    for (const query of this.#queries) query.end();
    this.#queries.clear();
    this.#statusListeners.clear();
    removeEventListener('online', this.#tryAgain);
    removeEventListener('pagehide', this.#leave);
    await this.#releaseAll();
    await this.#hub.close();
  }

  async #release(holder: string): Promise<void> {
    if (this.#held.delete(holder)) await this.#hub.call('release', holder);
  }

  async #releaseAll(): Promise<void> {
    // It fails only when the database is closed; then its worker holds nothing any more.
    await Promise.all([...this.#held.keys()].map((holder) => this.#release(holder).catch(() => {})));
  }

  #hear(announcement: Announcement): void {
    if ('status' in announcement) this.#show(announcement.status);
    else if ('wanted' in announcement) this.#isWanted = announcement.wanted;
    else for (const query of this.#queries) query.changed(announcement.changed);
  }

  /** Announcements may have been missed between two that lead. */
  #follow(status: Status, wanted: boolean): void {
    this.#show(status);
    if (this.#isWanted && !wanted) this.connect();
    this.#isWanted ||= wanted;
    for (const query of this.#queries) query.refresh();
    for (const holding of this.#held.values()) this.#hub.call('hold', holding).catch(() => {});
  }

  #show(status: Status): void {
    this.#status = status;
    for (const listener of this.#statusListeners) listener(status);
  }
}
