// The parts that need no browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { databaseName } from '../src/database-name.ts';
import { columnsText } from '../src/columns.ts';
import { Schema } from '../src/schema.ts';
import { Backoff } from '../src/worker/backoff.ts';
import { Bell } from '../src/worker/bell.ts';
import { realOf } from '../src/worker/functions.ts';
import { LineBuffer } from '../src/worker/lines.ts';
import { Mailbox } from '../src/worker/mailbox.ts';
import { factsOf, statusOf } from '../src/worker/status.ts';
import { isShownBy } from '../src/worker/subscriptions.ts';
import { readToken, replaceIn } from '../src/worker/token.ts';
import { retryAfter } from '../src/worker/transport.ts';

const bytes = (text) => new TextEncoder().encode(text);

function linesOf(chunks, bytesMax = 100) {
  const buffer = new LineBuffer(bytesMax);
  const lines = [];
  for (const chunk of chunks) {
    buffer.push(bytes(chunk));
    for (let line = buffer.next(); line; line = buffer.next()) lines.push(new TextDecoder().decode(line));
  }
  return lines;
}

test('lines do not depend on how bytes arrive', () => {
  const text = 'ab\n\nc\nüx\nnot whole';
  for (let size = 1; size < text.length; size += 1) {
    const chunks = text.match(new RegExp(`[^]{1,${size}}`, 'g'));
    assert.deepEqual(linesOf(chunks), ['ab', '', 'c', 'üx']);
  }
});

test('a line above the limit is refused before it is whole', () => {
  assert.deepEqual(linesOf(['1234\n'], 4), ['1234']);
  for (const chunks of [['12345\n'], ['123', '45']]) assert.throws(() => linesOf(chunks, 4), { code: 'CLIENT-0206' });
});

test('the limit of waits doubles up to the cap and starts again', () => {
  const backoff = new Backoff(1000, 60_000);
  const waits = Array.from({ length: 8 }, () => backoff.fail(1));
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
  assert.equal(backoff.fail(0.5), 30_000);
  backoff.reset();
  assert.equal(backoff.fail(1), 1000);
});

test('a bell remembers what rang, and wakes for its reasons alone', async () => {
  const bell = new Bell();
  bell.ring('written');
  assert.equal(await bell.wait(['online'], 1), null);
  assert.equal(await bell.wait(['online', 'written']), 'written');
  const woken = bell.wait(['online']);
  bell.ring('written');
  bell.ring('online');
  assert.equal(await woken, 'online');
  assert.equal(await bell.wait(['written'], 1), 'written');
  assert.equal(await bell.wait(['written', 'online'], 1), null);
});

test('a mailbox keeps the order', async () => {
  const mailbox = new Mailbox();
  mailbox.push(1);
  const first = mailbox.next();
  mailbox.push(2);
  assert.deepEqual([await first, await mailbox.next()], [1, 2]);
  const later = mailbox.next();
  mailbox.push(3);
  assert.equal(await later, 3);
});

const token = (payload) => `e30.${Buffer.from(payload).toString('base64url')}.signature`;

test('a token is replaced at three quarters of its life', () => {
  const wait = (payload, now, expiresAt) => replaceIn(readToken(token(payload)), expiresAt, now * 1000);
  assert.equal(wait('{"iat":1000,"exp":1400}', 1000), 300_000);
  assert.equal(wait('{"iat":1000,"exp":1400}', 1200), 100_000);
  assert.equal(wait('{"exp":1400}', 1000), 300_000, 'of what is left of it');
  assert.equal(wait('{"iat":1000,"exp":1400}', 1300), null, 'late already');
  assert.equal(wait('{}', 1000, new Date(1_400_000)), 300_000, 'where the app says it');
  for (const odd of ['{}', '{"exp":"soon"}', '{"exp":-1e300,"iat":1e300}', '{"exp":1e300}', 'null']) {
    assert.equal(wait(odd, 1000), null, odd);
  }
});

test('what is no JWT says nothing', () => {
  for (const odd of ['', 'opaque', 'a.b.c', 'a.!!.c']) assert.deepEqual(readToken(odd), {}, odd);
  assert.equal(readToken(token('{"sub":"änn"}')).sub, 'änn');
});

test('real numbers stay real', () => {
  assert.deepEqual([1, -0, 1.5, 1e20, 1e21, 1e-7].map(realOf), ['1.0', '0.0', '1.5', '100000000000000000000.0', '1e+21', '1e-7']);
});

const local = (pending, awaiting) => ({ pending, rejected: 0, awaiting, lastSyncedAt: 1000 });
const synced = { ...factsOf(local(0, false), true), connected: true, current: true };
const stateOf = (changed) => statusOf({ ...synced, ...changed }).state;

test('synced means uploaded, acknowledged and current', () => {
  assert.equal(stateOf({}), 'synced');
  assert.equal(stateOf({ local: local(1, true) }), 'syncing');
  assert.equal(stateOf({ local: local(0, true) }), 'syncing');
  assert.equal(stateOf({ current: false }), 'syncing');
});

test('without a connection queued writes are counted', () => {
  const offline = { connected: false, streamFailure: 'CLIENT-0201' };
  assert.equal(stateOf(offline), 'offline');
  const status = statusOf({ ...synced, ...offline, local: local(3, true) });
  assert.deepEqual([status.state, status.label], ['pending', '3 pending']);
  assert.equal(status.message, "Can't reach server. Working offline.");
});

test('what the user must solve is an error', () => {
  const messages = {
    'CLIENT-0202': 'Please sign in again',
    'CLIENT-0203': 'Server not found at this address',
    'CLIENT-0204': 'Sync temporarily unavailable',
    'CLIENT-0101': "Can't write to this device's storage",
    'CLIENT-0303': "This device has another account's data",
  };
  for (const [code, message] of Object.entries(messages)) {
    const status = statusOf({ ...synced, connected: false, streamFailure: code });
    assert.deepEqual([status.state, status.label, status.code, status.message], ['error', 'Sync error', code, message]);
  }
  assert.equal(stateOf({ configured: false, streamFailure: 'CLIENT-0202' }), 'not_configured');
});

test('a schema that cannot be used is refused with the name', () => {
  const faults = [
    [{ kairos_x: {} }, 'kairos_x'],
    [{ '': {} }, 'empty'],
    [{ t: { 'a"': 'text' } }, 'a"'],
    [{ t: { ID: 'text' } }, 'ID'],
    [{ t: { a: 'date' } }, '`text`'],
    [{ t: {}, T: {} }, 'twice'],
    [{ t: { columns: { a: 'text' }, indexes: [['b']] } }, '`b`'],
    [{ t: { columns: { a: 'text' }, indexes: [[]] } }, 'no columns'],
    [{ t: { columns: {}, localOnly: true, insertOnly: true } }, 'nowhere'],
    [{ t: Object.fromEntries(Array.from({ length: 301 }, (_, n) => [`c${n}`, 'text'])) }, '300'],
  ];
  for (const [tables, part] of faults) {
    assert.throws(() => new Schema(tables), (error) => error.code === 'CLIENT-0102' && error.message.includes(part));
  }
  assert.equal(new Schema({ t: { columns: 'text' } }).tables[0].columns[0].name, 'columns', 'a column of that name');
});

test('the name of a database is another for each user and server', () => {
  const name = databaseName('https://a/', 'ann');
  assert.equal(name, databaseName('https://a', 'ann'));
  assert.equal(new Set([name, databaseName('https://a', 'bob'), databaseName('https://b', 'ann')]).size, 3);
  assert.ok(!name.includes('ann'));
});

test('a service says in seconds or with a date when it wants to be asked again', () => {
  const now = Date.parse('2026-03-04T10:00:00Z');
  assert.equal(retryAfter('7', now), 7000);
  assert.equal(retryAfter('Wed, 04 Mar 2026 10:00:09 GMT', now), 9000);
  assert.equal(retryAfter('Wed, 04 Mar 2026 09:00:00 GMT', now), 0);
  assert.equal(retryAfter('86400', now), 600_000, 'no service takes a client away for a day');
  for (const header of [null, '', 'soon', '-']) assert.equal(retryAfter(header, now), null);
});

test('columns that are merged keep their digits', () => {
  assert.equal(columnsText({ big: 2n ** 63n - 1n, on: true, name: 'a "b"', none: null, half: 0.5 }), '{"big":9223372036854775807,"on":1,"name":"a \\"b\\"","none":null,"half":0.5}');
  for (const value of [new Uint8Array(1), Infinity, NaN]) assert.throws(() => columnsText({ value }), { code: 'CLIENT-0101' });
});

test('a subscription is shown with the last of its own buckets', () => {
  const bucket = (priority, ...subscriptions) => ({ bucket: 'b', checksum: 0, count: 0, priority, subscriptions });
  const target = { buckets: { a: bucket(0, { sub: 0 }), b: bucket(2, { sub: 0 }, { default: 1 }), c: bucket(1, { sub: 1 }) } };
  const shown = (scope) => [0, 1, 2].map((index) => isShownBy({ target, scope }, index));
  assert.deepEqual(shown({ up_to: 0 }), [false, false, false]);
  assert.deepEqual(shown({ up_to: 1 }), [false, true, false]);
  assert.deepEqual(shown({ up_to: 2 }), [true, true, false], 'one without buckets waits for the whole');
  assert.deepEqual(shown('full'), [true, true, true]);
});
