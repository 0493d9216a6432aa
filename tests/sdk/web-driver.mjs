// The official client in a browser, driven by a test: one command per line on stdin, one answer per line on stdout.
//
// A device is a tab of one browser that was never used before. Its page comes from an origin of its own, not the service's.
// Commands of the browser are below, all others are for the page.

import { build } from 'esbuild';
import { access, constants, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { delimiter, dirname, join, normalize } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
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

// The page, and beside it the SDK's worker with what it loads.
async function servePage() {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('web-page.mjs', import.meta.url))],
    bundle: true,
    format: 'esm',
    write: false,
    logLevel: 'error',
  });
  const workerFolder = dirname(fileURLToPath(import.meta.resolve('@powersync/web/bundled_worker')));
  const javascript = { 'content-type': 'text/javascript' };
  const server = createServer(async ({ url }, response) => {
    if (url === '/') {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><script type=module src=page.js></script>');
    } else if (url === '/page.js') {
      response.writeHead(200, javascript).end(outputFiles[0].contents);
    } else {
      const content = await readFile(join(workerFolder, normalize(url))).catch(() => null);
      const headers = url.endsWith('.wasm') ? { 'content-type': 'application/wasm' } : javascript;
      response.writeHead(content ? 200 : 404, headers).end(content);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

// Where the browser keeps its data is known with the first device.
let browser;
async function browserIn(folder) {
  browser ??= findBrowser().then(async (executablePath) => {
    const options = { executablePath, headless: true, chromiumSandbox: false, args: FLAGS };
    return { origin: await servePage(), context: await chromium.launchPersistentContext(join(folder, 'browser'), options) };
  });
  return browser;
}

const pages = new Map();

async function load(page, origin) {
  await page.goto(origin);
  await page.waitForFunction(() => window.answer);
}

// One for each page: settings of several would stand beside each other.
const sessions = new Map();
async function sessionOf(page) {
  if (!sessions.has(page)) {
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    sessions.set(page, session);
  }
  return sessions.get(page);
}

const ask = (page, command) => page.evaluate((given) => window.answer(given), command);

const commands = {
  async open({ device, folder, ...options }) {
    const { origin, context } = await browserIn(folder);
    const page = pages.get(device) ?? (await context.newPage());
    pages.set(device, page);
    await load(page, origin);
    return ask(page, { device, ...options });
  },
  // Answers with the encoding that the browser was sent.
  async follow({ device, encoding, ...options }) {
    const page = pages.get(device);
    const session = await sessionOf(page);
    await session.send('Network.setExtraHTTPHeaders', { headers: { 'Accept-Encoding': encoding } });
    const response = page.waitForResponse((each) => each.url().endsWith('/sync/stream') && each.request().method() === 'POST');
    const answer = await ask(page, { device, encoding, ...options });
    return { ...answer, ok: await (await response).headerValue('content-encoding') };
  },
  // Closes the tab without a word to its page.
  async close_tab({ id, device }) {
    await pages.get(device).close();
    pages.delete(device);
    return { id, ok: null };
  },
  // The browser ends with its last device, so that nothing is written to its folder any more.
  async close(command) {
    const answer = await ask(pages.get(command.device), command);
    pages.delete(command.device);
    if (pages.size === 0) await (await browser).context.close();
    return answer;
  },
};

async function answer(command) {
  try {
    return await (commands[command.do]?.(command) ?? ask(pages.get(command.device), command));
  } catch (error) {
    return { id: command.id, error: `${error?.message ?? error}` };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  answer(JSON.parse(line)).then((given) => process.stdout.write(`${JSON.stringify(given)}\n`));
}
process.exit(0);
