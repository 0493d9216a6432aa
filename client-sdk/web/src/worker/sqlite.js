// SQLite compiled to WebAssembly, and where it keeps its files. Bundled apart from the worker.

import { SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE } from '@journeyapps/wa-sqlite';
import { AccessHandlePoolVFS } from '@journeyapps/wa-sqlite/src/examples/AccessHandlePoolVFS.js';

export { Factory } from '@journeyapps/wa-sqlite';
export { default as load } from '@journeyapps/wa-sqlite/dist/wa-sqlite.mjs';

// Browsers throw where there is no room. An exception must not pass through SQLite: it would forget what it was doing.
class Files extends AccessHandlePoolVFS {
  jWrite(...call) {
    return orElse(SQLITE_FULL, () => super.jWrite(...call));
  }

  jTruncate(...call) {
    return orElse(SQLITE_IOERR_TRUNCATE, () => super.jTruncate(...call));
  }

  jSync(...call) {
    return orElse(SQLITE_IOERR_FSYNC, () => super.jSync(...call));
  }
}

function orElse(code, act) {
  try {
    return act();
  } catch {
    return code;
  }
}

export async function openFiles(folder, module) {
  const files = new Files(folder, module);
  await files.isReady();
  return files;
}
