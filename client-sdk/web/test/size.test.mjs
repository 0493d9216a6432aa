// What an app's users download, without SQLite.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

const BYTES_MAX = 100_000;
const SQLITE = ['sqlite.js', 'wa-sqlite.wasm'];

test('the package is small', async () => {
  const folder = new URL('../dist/', import.meta.url);
  const files = (await readdir(folder)).filter((name) => /\.(js|wasm)$/.test(name) && !SQLITE.includes(name));
  assert.deepEqual(files.sort(), ['core.wasm', 'index.js', 'worker.js'], 'npm run build');
  const sizes = await Promise.all(files.map(async (name) => gzipSync(await readFile(new URL(name, folder))).length));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`gzipped: ${files.map((name, index) => `${name} ${sizes[index]}`).join(', ')}; together ${total} bytes`);
  assert.ok(total < BYTES_MAX, `${total} bytes`);
});
