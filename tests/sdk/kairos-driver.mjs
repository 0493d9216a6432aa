// The client for browsers, `client-sdk/web`, driven by a test as `web-driver.mjs` drives the official one.

import { fileURLToPath } from 'node:url';
import { Browser } from './browser.mjs';
import { answerCommands } from './commands.mjs';

const browser = new Browser({
  page: 'kairos-page.mjs',
  folder: fileURLToPath(new URL('../../client-sdk/web/dist', import.meta.url)),
});

const commands = {
  async open({ device, folder, host, ...options }) {
    await browser.load(device, folder, host);
    return browser.ask(device, options);
  },
  async close_tab({ id, device }) {
    await browser.closeTab(device);
    return { id, ok: null };
  },
  async quota({ id, device, bytes }) {
    await browser.setQuota(device, bytes);
    return { id, ok: null };
  },
  async crash({ id }) {
    await browser.crash();
    return { id, ok: null };
  },
  async close(command) {
    const answer = await browser.ask(command.device, command);
    await browser.forget(command.device);
    return answer;
  },
};

await answerCommands((command) => commands[command.do]?.(command) ?? browser.ask(command.device, command));
