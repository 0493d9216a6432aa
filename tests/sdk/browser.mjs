// A browser that was never used before, with pages of an origin of its own: `serve` answers what they load.

import { build } from 'esbuild';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from './chromium.mjs';

// The page made of a module beside this one, and all files of a folder. Gives the port.
async function serve({ page, folder }) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(page, import.meta.url))],
    bundle: true,
    format: 'esm',
    write: false,
    logLevel: 'error',
  });
  const javascript = { 'content-type': 'text/javascript' };
  const server = createServer(async ({ url }, response) => {
    if (url === '/') {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><script type=module src=page.js></script>');
    } else if (url === '/page.js') {
      response.writeHead(200, javascript).end(outputFiles[0].contents);
    } else {
      const content = await readFile(join(folder, normalize(url))).catch(() => null);
      const headers = url.endsWith('.wasm') ? { 'content-type': 'application/wasm' } : javascript;
      response.writeHead(content ? 200 : 404, headers).end(content);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server.address().port;
}

export class Browser {
  #content;
  #pages = new Map();
  #context;
  #port;

  // `page` is a module beside this one that sets `window.answer`; `folder` has what it loads.
  constructor(content) {
    this.#content = content;
  }

  // Where the browser keeps its data is known with the first page. After a crash it comes up again with what is there.
  #start(folder) {
    this.#port ??= serve(this.#content);
    this.#context ??= launch(folder);
    return Promise.all([this.#context, this.#port]);
  }

  page(name) {
    return this.#pages.get(name);
  }

  // A tab of this name, loaded anew where it is open already.
  async load(name, folder, host = '127.0.0.1') {
    const [context, port] = await this.#start(folder);
    const page = this.#pages.get(name) ?? (await context.newPage());
    this.#pages.set(name, page);
    await page.goto(`http://${host}:${port}`);
    await page.waitForFunction(() => window.answer);
  }

  ask(name, command) {
    return this.#pages.get(name).evaluate((given) => window.answer(given), command);
  }

  // Closes a tab without a word to its page.
  async closeTab(name) {
    await this.#pages.get(name).close();
    this.#pages.delete(name);
  }

  // How much room the page's files have; `undefined` is as much as there is.
  async setQuota(name, bytes) {
    const page = this.#pages.get(name);
    const session = await page.context().newCDPSession(page);
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(page.url()).origin, quotaSize: bytes });
  }

  // The browser is gone at once, with all its tabs.
  async crash() {
    const context = await this.#context;
    const gone = new Promise((resolve) => context.once('close', resolve));
    const session = await context.browser().newBrowserCDPSession();
    await Promise.all([gone, session.send('Browser.crash').catch(() => {})]);
    this.#context = undefined;
    this.#pages.clear();
  }

  // The browser ends with its last tab that is forgotten, so that nothing is written to its folder any more.
  async forget(name) {
    this.#pages.delete(name);
    if (this.#pages.size === 0) await (await this.#context).close();
  }
}
