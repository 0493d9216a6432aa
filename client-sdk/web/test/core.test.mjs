// The state machine in WebAssembly: what it was made of, and syncs that took place, told again.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Core } from '../src/worker/core.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));

async function load() {
  const { instance } = await WebAssembly.instantiate(await readFile(join(root, 'client-sdk/web/core.wasm')), {});
  return new Core(instance);
}

test('core.wasm was built from the sources that are here', async () => {
  const noted = (await readFile(join(root, 'client-sdk/web/core.sources'), 'utf8')).trim().split('\n');
  const changed = [];
  for (const line of noted) {
    const [sum, file] = line.split(/ +/);
    const content = await readFile(join(root, file)).catch(() => '');
    if (createHash('sha256').update(content).digest('hex') !== sum) changed.push(file);
  }
  const files = new Set(noted.map((line) => line.split(/ +/)[1]));
  for (const folder of ['client-sdk/core/src', 'client-sdk/web/core/src']) {
    const sources = (await readdir(join(root, folder), { recursive: true })).filter((name) => name.endsWith('.rs'));
    const missing = sources.filter((name) => !name.endsWith('_tests.rs') && !files.has(join(folder, name)));
    changed.push(...missing.map((name) => join(folder, name)));
  }
  assert.deepEqual(changed, [], 'build core.wasm anew: client-sdk/web/core/build.sh');
});

// Lines are told as the bytes they came as, everything else as events.
const tell = (core, { line, ...event }, whole) => {
  if (typeof whole === 'string') return core.event(whole);
  return line ? core.line(new TextEncoder().encode(JSON.stringify(line))) : core.event(event);
};

test('recorded syncs have the same instructions as in the Rust client', async () => {
  const folder = process.env.KAIROS_TRACES ?? join(root, 'client-sdk/core/traces');
  const core = await load();
  let told = 0;
  for (const file of await readdir(folder)) {
    const steps = JSON.parse(await readFile(join(folder, file), 'utf8'));
    for (const [number, { template, event, instructions }] of steps.entries()) {
      if (template) {
        core.start(template);
        continue;
      }
      const answer = tell(core, event, event);
      assert.deepEqual(answer.instructions, instructions, `step ${number} of ${file}`);
      told += 1;
    }
  }
  assert.ok(told > 30, `only ${told} steps were told`);
});

test('what cannot be read is an error that does not quote it', async () => {
  const core = await load();
  core.start({ client_id: 'c1' });
  core.event({ start: [] });
  for (const text of ['{"token_expires_in":"secret"}', '{"secret":1,"more":2}', '<html>secret</html>', '\xff']) {
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    assert.throws(() => core.line(bytes), (error) => error.code === 'CLIENT-0205' && !error.message.includes('secret'));
  }
  assert.deepEqual(core.line(new TextEncoder().encode('{"weather":{}}')).instructions, [], 'a kind of a later version');
  assert.deepEqual(core.line(new TextEncoder().encode('{"token_expires_in":10}')).instructions, ['upload', 'prefetch_credentials']);
});

test('checksums are those of the protocol', async () => {
  const core = await load();
  assert.equal(core.putChecksum('test', 'a', '{"id":"a","description":"Test 1"}'), 2_582_164_875);
  assert.equal(core.putChecksum('lists', 'l1', '{"id":"l1","name":"Groceries"}'), 455_782_866);
});

test('a large line leaves the module as it was', async () => {
  const core = await load();
  core.start({});
  core.event({ start: [] });
  const buckets = [{ bucket: 'a', checksum: 0, count: 1 }];
  const line = (content) => core.line(new TextEncoder().encode(JSON.stringify(content)));
  line({ checkpoint: { last_op_id: '9', buckets } });
  const operation = { op_id: '1', op: 'PUT', object_type: 't', object_id: '1', checksum: 5, data: 'x'.repeat(8 << 20) };
  const { instructions } = line({ data: { bucket: 'a', after: '0', next_after: '1', data: [operation] } });
  assert.equal(instructions[0].store.apply_data.data[0].data.length, 8 << 20);
  assert.deepEqual(line({ checkpoint_complete: { last_op_id: '9' } }).instructions[0].store.complete.scope, 'full');
});
