// Builds the mirror into the folder that the service embeds, or into another one: `node build.mjs [FOLDER]`.
//
// The build is the same for the same sources; it is committed, so that the service is built without Node.js.

import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = process.argv[2] ?? here('../../../service/src/api/pages/mirror');
const assets = join(folder, 'build');

await rm(folder, { recursive: true, force: true });
await mkdir(assets, { recursive: true });

const shared = { bundle: true, format: 'esm', target: 'es2022', minify: true, logLevel: 'warning', legalComments: 'none' };
const { version } = JSON.parse(await readFile(here('../package.json'), 'utf8'));
const library = { ...shared, loader: { '.sql': 'text' }, define: { VERSION: JSON.stringify(version) } };
await build({ ...library, entryPoints: [here('src/app.ts')], outfile: join(assets, 'app.js') });
await build({ ...library, entryPoints: [here('../src/worker/main.ts')], outfile: join(assets, 'worker.js') });
await build({ ...shared, entryPoints: [here('../src/worker/sqlite.js')], outfile: join(assets, 'sqlite.js') });
await build({ ...shared, entryPoints: [here('page.css')], outfile: join(assets, 'page.css') });
await copyFile(here('../core.wasm'), join(assets, 'core.wasm'));
await copyFile(here('../node_modules/@journeyapps/wa-sqlite/dist/wa-sqlite.wasm'), join(assets, 'wa-sqlite.wasm'));

const names = ['app.js', 'page.css', 'worker.js', 'sqlite.js', 'core.wasm', 'wa-sqlite.wasm'];
const contents = await Promise.all(names.map((name) => readFile(join(assets, name))));
const page = await readFile(here('page.html'), 'utf8');
const hash = createHash('sha256');
for (const content of [...contents, page]) hash.update(content);
const id = hash.digest('hex').slice(0, 16);

await writeFile(join(folder, 'page.html'), page.replaceAll('BUILD/', `${id}/`));
await writeFile(join(folder, 'build.txt'), id);
const others = ['icon.svg', 'mirror.webmanifest'];
await Promise.all(others.map((name) => copyFile(here(name), join(folder, name))));
// Its copies must have its licence with them.
await copyFile(here('../node_modules/@journeyapps/wa-sqlite/LICENSE'), join(folder, 'wa-sqlite-license.txt'));
const files = [...names.map((name) => `./${id}/${name}`), ...others.map((name) => `./${name}`)];
const define = { BUILD: JSON.stringify(id), FILES: JSON.stringify(files) };
await build({ ...shared, entryPoints: [here('src/sw.ts')], outfile: join(folder, 'sw.js'), define });

const size = (content) => [content.length, gzipSync(content, { level: 9 }).length];
const sizes = names.map((name, index) => [name, ...size(contents[index])]);
for (const [name, whole, compressed] of sizes) console.log(`${name}: ${whole} bytes, ${compressed} compressed`);
