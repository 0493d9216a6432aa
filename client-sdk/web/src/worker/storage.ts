// Where SQLite keeps its file: in the browser's private file system, or in memory where there is none.

import { KairosError, type Storage } from '../api.ts';
import { Database } from './database.ts';
import type { SQLite } from './sqlite.js';

/** A tab that ends gives its files back a moment after its lock. */
const FILES_WAIT_MS = 10_000;
const FILES_RETRY_MS = 50;

export interface OpenedDatabase {
  sqlite: SQLite;
  db: Database;
  /** It is in files. */
  isKept: boolean;
  /** Gives the files back. */
  release(): Promise<void>;
}

/** Opens the database of this name. `assets` is the address of the folder with `sqlite.js` and its `.wasm`. */
export async function openDatabase(name: string, storage: Storage, assets: string): Promise<OpenedDatabase> {
  const { Factory, load, openFiles } = (await import(
    /* @vite-ignore */ new URL('sqlite.js', assets).href
  )) as typeof import('./sqlite.js');
  const module = await load({ locateFile: (file) => new URL(file, assets).href });
  const sqlite = Factory(module);
  if (storage === 'memory' || !(await hasFiles())) {
    if (storage === 'opfs') {
      throw new KairosError('CLIENT-0115', 'this browser keeps no files for this page; serve it over HTTPS, or use `auto`');
    }
    return { sqlite, db: await Database.open(sqlite, ':memory:'), isKept: false, release: async () => {} };
  }
  const path = ['kairos-sync', encodeURIComponent(name)];
  await whenFree(path);
  const files = await openFiles(path.join('/'), module);
  sqlite.vfs_register(files);
  return { sqlite, db: await Database.open(sqlite, 'kairos.db', files.name), isKept: true, release: async () => files.close() };
}

/** Files with synchronous access are there: only where the page came over HTTPS or from this machine, not in every browser. */
async function hasFiles(): Promise<boolean> {
  const isThere = typeof FileSystemFileHandle !== 'undefined' && 'createSyncAccessHandle' in FileSystemFileHandle.prototype;
  return isThere && (await navigator.storage.getDirectory().then(() => true, () => false));
}

/** Waits until all files of the folder can be opened. */
async function whenFree(path: readonly string[]): Promise<void> {
  let folder = await navigator.storage.getDirectory();
  for (const part of path) folder = await folder.getDirectoryHandle(part, { create: true });
  const deadline = Date.now() + FILES_WAIT_MS;
  for await (const file of folder.values()) {
    while (file.kind === 'file' && !(await isFree(file as FileSystemFileHandle))) {
      if (Date.now() > deadline) throw new KairosError('CLIENT-0101', 'SQLite: another page has the files of the database');
      await new Promise((resolve) => setTimeout(resolve, FILES_RETRY_MS));
    }
  }
}

async function isFree(file: FileSystemFileHandle): Promise<boolean> {
  return file.createSyncAccessHandle().then((handle) => (handle.close(), true), () => false);
}
