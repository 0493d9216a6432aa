// The official client, driven by a test: one JSON command per line on stdin, one JSON answer per line on stdout.
//
// Commands: {"do": "open" | "connect" | "disconnect" | "execute" | "query" | "synced" | "subscribe" | "status" | "close", …}.
// An answer is {"ok": …} or {"error": "…"}. The test decides what is right; nothing is checked here.

import { createInterface } from 'node:readline';
import { column, PowerSyncDatabase, Schema, Table } from '@powersync/node';

// Standard output is for answers alone; what the SDK logs goes to standard error.
for (const level of ['log', 'info', 'debug', 'trace']) console[level] = console.error;

let db;
let connector;
const subscriptions = [];

// Tables as {"habits": {"name": "text", "streak": "integer"}, …}.
function schemaOf(tables) {
  const mapValues = (object, to) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, to(value)]));
  return new Schema(mapValues(tables, (types) => new Table(mapValues(types, (type) => column[type]))));
}

// As an app's own connector would be written: a token from outside, whole transactions to the write API.
class Connector {
  constructor({ endpoint, token }) {
    this.endpoint = endpoint;
    this.token = token;
    this.uploads = [];
  }

  async fetchCredentials() {
    return { endpoint: this.endpoint, token: this.token };
  }

  async uploadData(database) {
    const transaction = await database.getNextCrudTransaction();
    if (!transaction) return;
    const response = await fetch(`${this.endpoint}/api/sync/data`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Token ${this.token}` },
      body: JSON.stringify({ client_id: await database.getClientId(), batch: transaction.crud }),
    });
    if (!response.ok) throw new Error(`upload refused: ${response.status} ${await response.text()}`);
    this.uploads.push(...(await response.json()).data.results);
    await transaction.complete();
  }
}

const status = () => ({
  connected: db.currentStatus.connected,
  hasSynced: db.currentStatus.hasSynced ?? false,
  lastSyncedAt: db.currentStatus.lastSyncedAt ?? null,
  error: String(db.currentStatus.dataFlowStatus?.downloadError ?? db.currentStatus.dataFlowStatus?.uploadError ?? ''),
});

const commands = {
  async open({ folder, file, tables }) {
    db = new PowerSyncDatabase({
      schema: schemaOf(tables),
      database: { dbFilename: file, dbLocation: folder, implementation: { type: 'node:sqlite' } },
    });
    await db.init();
    return (await db.get('SELECT powersync_rs_version() AS version')).version;
  },
  async connect(credentials) {
    connector = new Connector(credentials);
    await db.connect(connector, { crudUploadThrottleMs: 20, retryDelayMs: 200 });
    return status();
  },
  async synced({ seconds }) {
    await db.waitForFirstSync({ signal: AbortSignal.timeout(seconds * 1000) });
    return status();
  },
  // Subscriptions last as long as this process keeps them.
  async subscribe({ stream, parameters, seconds }) {
    const subscription = await db.syncStream(stream, parameters).subscribe();
    subscriptions.push(subscription);
    await subscription.waitForFirstSync(AbortSignal.timeout(seconds * 1000));
    return { hasSynced: db.currentStatus.forStream(subscription)?.subscription.hasSynced ?? false };
  },
  async disconnect() {
    await db.disconnect();
    return status();
  },
  async execute({ sql, parameters = [] }) {
    return (await db.execute(sql, parameters)).rowsAffected;
  },
  async query({ sql, parameters = [] }) {
    return db.getAll(sql, parameters);
  },
  async status() {
    return status();
  },
  async uploads() {
    return connector.uploads;
  },
  async close() {
    await db.close();
    return null;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { do: name, ...options } = JSON.parse(line);
    answer = { ok: (await commands[name](options)) ?? null };
  } catch (error) {
    answer = { error: `${error?.message ?? error}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
