// An app in a page of a browser, as a test wants it: `answer` takes a command and gives its answer. Nothing is checked here.

import { open, Schema, SignInAgain, testConnection } from '../../client-sdk/web/dist/index.js';

let kairos;
// Tokens are handed out one after the other, the last one for ever; none where nobody is signed in.
let server = { endpoint: null, tokens: [], signInAgain: false };
// Why the app was asked for credentials, and what was true since the page was loaded, without repetitions.
const asked = [];
const history = [];
const live = new Map();
const subscriptions = new Map();

async function connector(reason) {
  asked.push(reason);
  if (server.signInAgain) throw new SignInAgain();
  if (server.endpoint === null) return null;
  const token = server.tokens.length > 1 ? server.tokens.shift() : server.tokens[0];
  return { endpoint: server.endpoint, token };
}

const commands = {
  async open({ file, tables, storage, given }) {
    if (given) server = given;
    kairos = await open({ name: file, schema: new Schema(tables), connector, storage, assets: '/' });
    kairos.onStatus((status) => history.push({ ...status, at: performance.now() }));
  },
  async server(given) {
    server = { ...server, ...given };
  },
  async connect() {
    kairos.connect();
  },
  async disconnect() {
    await kairos.disconnect();
  },
  async sync_now() {
    await kairos.syncNow();
  },
  async status() {
    return kairos.status;
  },
  async history() {
    return history;
  },
  async asked() {
    return asked;
  },
  async query({ sql, parameters }) {
    return kairos.query(sql, parameters);
  },
  async execute({ sql, parameters }) {
    return (await kairos.execute(sql, parameters)).changes;
  },
  async transaction({ statements }) {
    await kairos.transaction(statements);
  },
  async refused({ sql, parameters }) {
    const error = await kairos.execute(sql, parameters).then(() => null, (error) => error);
    return error && { code: error.code, message: error.message };
  },
  // Rows of a live query, each time they came.
  async live({ sql }) {
    const seen = { runs: [], firstAt: null };
    const started = performance.now();
    const end = kairos.live(sql, [], (rows) => {
      if (rows.length > 0) seen.firstAt ??= performance.now() - started;
      seen.runs.push(rows);
    });
    live.set(sql, { seen, end });
  },
  async seen({ sql }) {
    return live.get(sql).seen;
  },
  async end_live({ sql }) {
    live.get(sql).end();
  },
  async rejected() {
    return kairos.rejectedWrites();
  },
  async dismiss({ write }) {
    await kairos.dismissRejectedWrite(write);
  },
  async resolve({ write, choice, merged }) {
    return kairos.resolveRejectedWrite(write, choice, merged);
  },
  // Kept under a name of the test's.
  async subscribe({ as, stream, parameters, options }) {
    subscriptions.set(as, await kairos.subscribe(stream, parameters, options));
  },
  async first_sync({ as }) {
    await subscriptions.get(as).waitForFirstSync();
  },
  async unsubscribe({ as }) {
    await subscriptions.get(as).unsubscribe();
  },
  async verify() {
    return kairos.verify();
  },
  async repair() {
    return kairos.repair();
  },
  async diagnostics() {
    return kairos.diagnostics();
  },
  async sign_out({ keepData, deleteUnsent }) {
    await kairos.signOut({ keepData, deleteUnsent });
  },
  async test_connection({ endpoint }) {
    return testConnection(endpoint);
  },
  async close() {
    await kairos.close();
  },
};

window.answer = async ({ id, do: name, ...command }) => {
  try {
    return { id, ok: (await commands[name](command)) ?? null };
  } catch (error) {
    return { id, error: `${error?.code} ${error?.message ?? error}` };
  }
};
