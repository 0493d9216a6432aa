// A Chromium that was never used before.

import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // A host that is no `localhost` to the browser.
  '--host-resolver-rules=MAP plain.test 127.0.0.1',
];

async function findBrowser() {
  const folders = process.env.PATH.split(delimiter);
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    for (const folder of folders) {
      const file = join(folder, name);
      if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
    }
  }
  throw new Error('no Chromium in PATH: run `./kairos test`, or install it');
}

// Keeps its data in `folder`.
export async function launch(folder, options = {}) {
  const executablePath = await findBrowser();
  const settings = { executablePath, headless: true, chromiumSandbox: false, args: FLAGS, ...options };
  return chromium.launchPersistentContext(join(folder, 'browser'), settings);
}
