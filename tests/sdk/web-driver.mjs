// The official client in a browser, driven by a test.
//
// A device is a tab of one browser that was never used before. Its page comes from an origin of its own, not the service's.
// Commands of the browser are below, all others are for the page.

import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Browser } from './browser.mjs';
import { answerCommands } from './commands.mjs';

// Beside the page is the SDK's worker with what it loads.
const folder = dirname(fileURLToPath(import.meta.resolve('@powersync/web/bundled_worker')));
const browser = new Browser({ page: 'web-page.mjs', folder });

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

const commands = {
  async open({ device, folder, ...options }) {
    await browser.load(device, folder);
    return browser.ask(device, { device, ...options });
  },
  // Answers with the encoding that the browser was sent.
  async follow({ device, encoding, ...options }) {
    const page = browser.page(device);
    const session = await sessionOf(page);
    await session.send('Network.setExtraHTTPHeaders', { headers: { 'Accept-Encoding': encoding } });
    const response = page.waitForResponse((each) => each.url().endsWith('/sync/stream') && each.request().method() === 'POST');
    const answer = await browser.ask(device, { device, encoding, ...options });
    return { ...answer, ok: await (await response).headerValue('content-encoding') };
  },
  async close_tab({ id, device }) {
    await browser.closeTab(device);
    return { id, ok: null };
  },
  async close(command) {
    const answer = await browser.ask(command.device, command);
    await browser.forget(command.device);
    return answer;
  },
};

await answerCommands((command) => commands[command.do]?.(command) ?? browser.ask(command.device, command));
