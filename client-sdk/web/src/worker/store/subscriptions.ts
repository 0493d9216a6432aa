// Streams the app asked for, and until when it wants them. As `client-sdk/src/store/subscriptions.rs`; who holds one is known
// to the worker alone.

import type { Database } from '../database.ts';

/** A stream with its parameters, as JSON with sorted names, so that the same parameters are the same subscription. */
export interface Wanted {
  stream: string;
  parameters: string;
}

/** Asks for a stream until it is released, and for `ttl` seconds after that. True where the service does not know of it yet. */
export async function holdStream(db: Database, { stream, parameters }: Wanted, priority: number | null, ttl: number): Promise<boolean> {
  const isWanted = await db.row(
    `SELECT 1 FROM kairos_subscription WHERE stream = ?1 AND parameters = ?2 AND priority IS ?3
     AND (expires_at IS NULL OR expires_at > unixepoch())`,
    [stream, parameters, priority],
  );
  await db.run(
    `INSERT INTO kairos_subscription (stream, parameters, priority, ttl, holders, expires_at) VALUES (?1, ?2, ?3, ?4, 1, NULL)
     ON CONFLICT (stream, parameters) DO UPDATE
     SET priority = excluded.priority, ttl = max(ttl, excluded.ttl), holders = 1, expires_at = NULL`,
    [stream, parameters, priority, ttl],
  );
  return isWanted === undefined;
}

/** Nobody holds it any more: its time runs. */
export async function releaseStream(db: Database, { stream, parameters }: Wanted): Promise<void> {
  await db.run(
    'UPDATE kairos_subscription SET holders = 0, expires_at = unixepoch() + ttl WHERE stream = ?1 AND parameters = ?2',
    [stream, parameters],
  );
}

/** Nobody holds anything when a worker starts: what was held before is wanted for its time from now on. */
export async function resumeStreams(db: Database): Promise<void> {
  await db.run('UPDATE kairos_subscription SET holders = 0, expires_at = unixepoch() + ttl WHERE expires_at IS NULL');
}

/** A subscription as a request has it. */
export interface StreamSubscription {
  stream: string;
  parameters: unknown;
  override_priority: number | null;
}

/** Those wanted now, in the order of their names. Forgets the others. */
export async function wantedStreams(db: Database): Promise<StreamSubscription[]> {
  await db.run('DELETE FROM kairos_subscription WHERE expires_at <= unixepoch()');
  const rows = await db.rows('SELECT stream, parameters, priority FROM kairos_subscription ORDER BY stream, parameters');
  return rows.map(([stream, parameters, priority]) => ({
    stream: String(stream),
    parameters: JSON.parse(String(parameters)) as unknown,
    override_priority: typeof priority === 'number' ? priority : null,
  }));
}

/** A checkpoint with the rows of these is visible. */
export async function noteSynced(db: Database, subscriptions: readonly StreamSubscription[]): Promise<void> {
  for (const { stream, parameters } of subscriptions) {
    await db.run(
      'UPDATE kairos_subscription SET is_synced = 1 WHERE stream = ?1 AND parameters = ?2 AND NOT is_synced',
      [stream, parametersText(parameters)],
    );
  }
}

/** Whether a checkpoint with its rows was visible since it is wanted. */
export async function isSynced(db: Database, { stream, parameters }: Wanted): Promise<boolean> {
  const sql = 'SELECT 1 FROM kairos_subscription WHERE stream = ?1 AND parameters = ?2 AND is_synced';
  return (await db.row(sql, [stream, parameters])) !== undefined;
}

export function parametersText(parameters: unknown): string {
  if (typeof parameters !== 'object' || parameters === null) return 'null';
  return JSON.stringify(Object.fromEntries(Object.entries(parameters).sort(([one], [other]) => (one < other ? -1 : 1))));
}
