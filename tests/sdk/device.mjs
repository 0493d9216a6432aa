// What a test asks of the official client, in Node.js and in a browser alike: commands and answers, one JSON object each.
//
// A command is {"id": 7, "device": "phone", "do": "query", …}, its answer {"id": 7, "ok": …} or {"id": 7, "error": "…"}.
// A device is a database of its own; commands run side by side. The test decides what is right; nothing is checked here.

import { LineStream } from './line-stream.mjs';

// Tables as {"habits": {"name": "text", "streak": "integer"}, …}; with "$trackPrevious": true among the columns uploads
// say what the device saw before.
function schemaOf({ column, Schema, Table }, tables) {
  const mapValues = (object, to) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, to(value)]));
  const tableOf = ({ $trackPrevious: trackPrevious = false, $localOnly: localOnly = false, ...types }) =>
    new Table(mapValues(types, (type) => column[type]), { trackPrevious, localOnly });
  return new Schema(mapValues(tables, tableOf));
}

// As an app's own connector would be written: tokens from outside, whole transactions to the write API.
class Connector {
  // Each token is handed out once, the last one again and again.
  constructor({ endpoint, tokens }) {
    this.endpoint = endpoint;
    this.tokens = tokens;
    this.fetchCount = 0;
    this.uploads = [];
    this.refuses = false;
  }

  get token() {
    return this.tokens[Math.min(Math.max(this.fetchCount, 1), this.tokens.length) - 1];
  }

  async fetchCredentials() {
    this.fetchCount += 1;
    return { endpoint: this.endpoint, token: this.token };
  }

  async uploadData(database) {
    if (this.refuses) throw new Error('the app does not upload now');
    const transaction = await database.getNextCrudTransaction();
    if (!transaction) return;
    const response = await fetch(`${this.endpoint}/api/data`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Token ${this.token}` },
      body: JSON.stringify({ client_id: await database.getClientId(), batch: transaction.crud }),
    });
    if (!response.ok) throw new Error(`upload refused: ${response.status} ${await response.text()}`);
    this.uploads.push(...(await response.json()).data.results);
    await transaction.complete();
  }
}

class Device {
  subscriptions = new Map();
  // What was true at some time since the first connection, in order and without repetitions.
  history = [];
  logged = [];

  constructor(sdk, openDatabase, { tables, ...options }) {
    // What an app would be told: the levels below, 20 and 10, are for those who write the SDK.
    const log = ({ level, message, error }) => level >= 30 && this.logged.push(`${message} ${error ?? ''}`);
    this.db = openDatabase({ schema: schemaOf(sdk, tables), logger: { log }, ...options });
    this.db.registerListener({ statusChanged: () => this.remember() });
  }

  remember() {
    const { lastSyncedAt, ...lasting } = this.status();
    const entry = JSON.stringify(lasting);
    if (this.history.at(-1) !== entry) this.history.push(entry);
  }

  status() {
    const status = this.db.currentStatus;
    const flow = status.dataFlowStatus;
    return {
      connected: status.connected,
      hasSynced: status.hasSynced ?? false,
      lastSyncedAt: status.lastSyncedAt ?? null,
      priorities: [0, 1, 2, 3].map((priority) => status.statusForPriority(priority)?.hasSynced ?? false),
      downloadError: flow?.downloadError ? String(flow.downloadError) : null,
      uploadError: flow?.uploadError ? String(flow.uploadError) : null,
    };
  }
}

const commands = {
  async open(device, options) {
    await device.db.init();
    return (await device.db.get('SELECT powersync_rs_version() AS version')).version;
  },
  // `options` are those of the SDK.
  async connect(device, { endpoint, tokens, options = {} }) {
    device.connector = new Connector({ endpoint, tokens });
    await device.db.connect(device.connector, { crudUploadThrottleMs: 20, retryDelayMs: 200, ...options });
    return device.status();
  },
  async synced(device, { seconds }) {
    await device.db.waitForFirstSync({ signal: AbortSignal.timeout(seconds * 1000) });
    return device.status();
  },
  // Subscriptions last until `unsubscribe`, and for their time to live after it.
  async subscribe(device, { stream, parameters, ttl, priority, seconds }) {
    const subscription = await device.db.syncStream(stream, parameters).subscribe({ ttl, priority });
    device.subscriptions.set(JSON.stringify([stream, parameters]), subscription);
    await subscription.waitForFirstSync(AbortSignal.timeout(seconds * 1000));
    const status = device.db.currentStatus.forStream(subscription);
    return { hasSynced: status?.subscription.hasSynced ?? false, priority: status?.priority ?? null };
  },
  async unsubscribe(device, { stream, parameters }) {
    device.subscriptions.get(JSON.stringify([stream, parameters])).unsubscribe();
  },
  async disconnect(device) {
    await device.db.disconnect();
    return device.status();
  },
  async execute(device, { sql, parameters = [] }) {
    return (await device.db.execute(sql, parameters)).rowsAffected;
  },
  // Statements of one transaction, each [sql, parameters].
  async transaction(device, { statements }) {
    await device.db.writeTransaction(async (tx) => {
      for (const [sql, parameters] of statements) await tx.execute(sql, parameters);
    });
  },
  async query(device, { sql, parameters = [] }) {
    return device.db.getAll(sql, parameters);
  },
  async status(device) {
    return device.status();
  },
  async history(device) {
    return device.history.map((entry) => JSON.parse(entry));
  },
  async logged(device) {
    return device.logged;
  },
  // From now on the app uploads nothing, or does again.
  async refuse_uploads(device, { refuses }) {
    device.connector.refuses = refuses;
  },
  async uploads(device) {
    return device.connector.uploads;
  },
  async fetches(device) {
    return device.connector.fetchCount;
  },
  // A stream of the service, read without the SDK. Gives its encoding, which in a browser no page can read.
  async follow(device, options) {
    await device.stream?.close();
    device.stream = await LineStream.open(options);
    return device.stream.encoding;
  },
  // Its next line.
  async line(device) {
    return device.stream.next();
  },
  async close(device) {
    await device.db.close();
  },
};

// Answers commands with a package of the SDK; `openDatabase` is given {"schema", "logger"} and what else `open` was.
export function answerWith(sdk, openDatabase) {
  const devices = new Map();
  return async ({ id, device: name, do: command, ...options }) => {
    try {
      if (command === 'open') devices.set(name, new Device(sdk, openDatabase, options));
      return { id, ok: (await commands[command](devices.get(name), options)) ?? null };
    } catch (error) {
      return { id, error: `${error?.message ?? error}` };
    }
  };
}
