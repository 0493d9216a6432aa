// SQLite compiled to WebAssembly, and where it keeps its files. Bundled apart from the worker.

export { Factory } from '@journeyapps/wa-sqlite';
export { default as load } from '@journeyapps/wa-sqlite/dist/wa-sqlite.mjs';
export { AccessHandlePoolVFS } from '@journeyapps/wa-sqlite/src/examples/AccessHandlePoolVFS.js';
