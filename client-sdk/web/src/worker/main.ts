// The worker of the tab that leads: the database, and the sync.

import { type Credentials, KairosError, type Status } from '../api.ts';
import type { Announcement, Call, Calls, Failure, FromWorker, Opening, Outcome, ToWorker } from '../messages.ts';
import { Core } from './core.ts';
import { Engine } from './engine.ts';
import type { AskApp } from './session.ts';
import { openDatabase } from './storage.ts';
import { forgetRejected, rejectedWrites, resolveRejected } from './store/attention.ts';
import { Store } from './store/store.ts';
import { verify } from './store/verify.ts';

/** Each method gives what {@link Calls} promises, later. */
type Methods = { [Name in keyof Calls]: (...args: Parameters<Calls[Name]>) => Promise<ReturnType<Calls[Name]>> };

const host = self as unknown as {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  close(): void;
};

const announce = (announcement: Announcement): void => host.postMessage({ announce: announcement });

/** Questions to the app that are not answered yet. */
const asked = new Map<number, (outcome: Outcome) => void>();
let questions = 0;

const askApp: AskApp = (reason) =>
  new Promise((resolve, reject) => {
    questions += 1;
    asked.set(questions, (outcome) => {
      if ('ok' in outcome) resolve(outcome.ok as Credentials | null);
      else reject(new KairosError(outcome.error.code, outcome.error.message));
    });
    host.postMessage({ ask: questions, reason });
  });

async function loadCore(assets: string): Promise<Core> {
  const response = await fetch(new URL('core.wasm', assets));
  if (!response.ok) throw new Error(`no core.wasm at ${assets}`);
  const { instance } = await WebAssembly.instantiate(await response.arrayBuffer(), {});
  return new Core(instance);
}

async function open({ name, tables, storage, assets, parameters, appMetadata }: Opening): Promise<Opened> {
  const [core, files] = await Promise.all([loadCore(assets), openDatabase(name, storage, assets)]);
  const { sqlite, db, isKept, release } = files;
  const store = await Store.open({
    sqlite,
    db,
    tables,
    putChecksum: (table, id, data) => core.putChecksum(table, id, data),
    onChange: (changed) => announce({ changed }),
  });
  const clientId = await store.clientId();
  const onStatus = (status: Status): void => announce({ status });
  return { engine: new Engine({ core, store, clientId, parameters, appMetadata, askApp, onStatus }), isKept, release };
}

interface Opened {
  engine: Engine;
  /** The database is in files. */
  isKept: boolean;
  release(): Promise<void>;
}

let opened: Promise<Opened> | null = null;

async function engine(): Promise<Engine> {
  if (!opened) throw new Error('the worker is not open');
  return (await opened).engine;
}

const methods: Methods = {
  async open(opening) {
    opened ??= open(opening);
    return (await engine()).board.status;
  },
  async query(sql, parameters) {
    return (await engine()).store.query(sql, parameters);
  },
  async tables(sql) {
    return (await engine()).store.tablesOf(sql);
  },
  async write(request, statements) {
    const running = await engine();
    const changes = await running.store.execute(request, statements);
    running.noteWritten();
    return changes;
  },
  async connect() {
    announce({ wanted: true });
    await (await engine()).connect();
  },
  async disconnect() {
    announce({ wanted: false });
    await (await engine()).disconnect();
  },
  async syncNow() {
    (await engine()).syncNow();
  },
  async rejectedWrites() {
    return (await engine()).store.read(rejectedWrites);
  },
  async dismissRejectedWrite(id) {
    const running = await engine();
    await running.store.write((db) => forgetRejected(db, id));
    running.noteWritten();
  },
  async resolveRejectedWrite(id, choice, merged) {
    const running = await engine();
    const isResolved = await running.store.write((db) => resolveRejected(db, id, choice, merged));
    running.noteWritten();
    return isResolved;
  },
  async hold(holding) {
    await (await engine()).hold(holding);
  },
  async release(holder) {
    await (await engine()).subscriptions.release(holder);
  },
  async firstSync(stream, streamParameters) {
    await (await engine()).subscriptions.firstSync(stream, streamParameters);
  },
  async verify() {
    return (await engine()).store.read(verify);
  },
  async repair() {
    return (await engine()).repair();
  },
  async diagnostics() {
    const facts = await (await engine()).diagnostics();
    return { clientVersion: VERSION, storage: (await opened)?.isKept ? 'opfs' : 'memory', ...facts };
  },
  async signOut(keepData, deleteUnsent) {
    await (await engine()).signOut(keepData, deleteUnsent);
    announce({ wanted: false });
  },
  async close() {
    const { engine, release } = (await opened) ?? {};
    await engine?.disconnect();
    await engine?.store.close();
    await release?.();
  },
};

async function answer({ id, method, args }: Call): Promise<void> {
  const call = methods[method] as (...args: unknown[]) => Promise<unknown>;
  const outcome: Outcome = await call(...args).then(
    (ok) => ({ ok }),
    (error: unknown) => ({ error: failureOf(error) }),
  );
  host.postMessage({ answer: id, outcome });
}

function failureOf(error: unknown): Failure {
  if (error instanceof KairosError) return { code: error.code, message: error.message };
  return { code: 'CLIENT-0101', message: `the database cannot be used (${String(error)})` };
}

host.onmessage = ({ data }) => {
  if ('call' in data) {
    void answer(data.call);
  } else {
    asked.get(data.credentials)?.(data.outcome);
    asked.delete(data.credentials);
  }
};
