// The official client in Node.js, driven by a test.
//
// Usage: node driver.mjs [package of the SDK]

import { Worker } from 'node:worker_threads';
import { answerCommands } from './commands.mjs';
import { answerWith } from './device.mjs';

const sdk = await import(process.argv[2] ?? '@powersync/node');

const older = process.argv[2] !== undefined;
const openWorker = (_, options) => new Worker(new URL('javascript-worker.mjs', import.meta.url), options);
const sqlite = older ? { implementation: { type: 'better-sqlite3' }, openWorker } : { implementation: { type: 'node:sqlite' } };

// Standard output is for answers alone; what the SDK logs goes to standard error.
for (const level of ['log', 'info', 'debug', 'trace']) console[level] = console.error;

const answer = answerWith(sdk, ({ schema, logger, folder, file, headers = {} }) => {
  const fetchWith = (resource, init) => fetch(resource, { ...init, headers: { ...init.headers, ...headers } });
  return new sdk.PowerSyncDatabase({
    schema,
    database: { dbFilename: file, dbLocation: folder, readWorkerCount: 1, ...sqlite },
    ...(older ? {} : { logger }),
    ...(Object.keys(headers).length > 0 ? { remoteOptions: { customFetch: fetchWith } } : {}),
  });
});

await answerCommands(answer);
