// Builds `dist`: the library, its worker, and beside them the two WebAssembly modules the worker loads.

import { build } from 'esbuild';
import { copyFile, mkdir, readFile, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

await rm(here('dist'), { recursive: true, force: true });
await mkdir(here('dist'));
const { version } = JSON.parse(await readFile(here('package.json'), 'utf8'));
const shared = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  sourcemap: true,
  logLevel: 'warning',
  loader: { '.sql': 'text' },
  define: { VERSION: JSON.stringify(version) },
};
await build({ ...shared, entryPoints: [here('src/index.ts')], outfile: here('dist/index.js') });
// SQLite comes as a module of its own, so that what is ours can be weighed.
await build({ ...shared, entryPoints: [here('src/worker/main.ts')], outfile: here('dist/worker.js') });
await build({ ...shared, entryPoints: [here('src/worker/sqlite.js')], outfile: here('dist/sqlite.js'), sourcemap: false });
await copyFile(here('node_modules/@journeyapps/wa-sqlite/LICENSE'), here('dist/sqlite.LICENSE'));
await copyFile(here('../../LICENSE'), here('dist/LICENSE'));
await copyFile(here('core.wasm'), here('dist/core.wasm'));
await copyFile(here('node_modules/@journeyapps/wa-sqlite/dist/wa-sqlite.wasm'), here('dist/wa-sqlite.wasm'));
