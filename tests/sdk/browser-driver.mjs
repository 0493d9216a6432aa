// Pages in a browser as people use them, driven by a test.
//
// A device is a tab. What a tab logs as an error, and what it asks of other origins, is remembered for the test.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { launch } from './chromium.mjs';
import { answerCommands } from './commands.mjs';

const PATIENCE_MS = 30_000;

let context;
async function contextIn(folder) {
  context ??= launch(folder, { serviceWorkers: 'allow' });
  return context;
}

const tabs = new Map();

class Tab {
  errors = [];

  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(PATIENCE_MS);
    page.on('console', (message) => message.type() === 'error' && this.errors.push(message.text()));
    page.on('pageerror', (error) => this.errors.push(`${error}`));
  }
}

// A control by what it is called, or anything by a selector.
const find = (page, { label, button, selector }) => {
  if (label) return page.getByLabel(label, { exact: true });
  if (button) return page.getByRole('button', { name: button, exact: true });
  return page.locator(selector).first();
};

const commands = {
  async open({ device, folder, width = 1280, height = 800, scheme = 'light' }) {
    const page = await (await contextIn(folder)).newPage();
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    tabs.set(device, new Tab(page));
  },
  async go({ url }, { page }) {
    await page.goto(url);
  },
  async reload(_, { page }) {
    await page.reload();
  },
  async size({ width, height }, { page }) {
    await page.setViewportSize({ width, height });
  },
  async scheme({ scheme }, { page }) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
  },
  async fill({ value, ...what }, { page }) {
    await find(page, what).fill(value);
  },
  async click(what, { page }) {
    await find(page, what).click();
  },
  // What a click saves, as text.
  async download(what, { page }) {
    const [saved] = await Promise.all([page.waitForEvent('download'), find(page, what).click()]);
    return readFile(await saved.path(), 'utf8');
  },
  async press({ key }, { page }) {
    await page.keyboard.press(key);
  },
  // Waits until something visible has these words.
  async shows({ words, selector = 'body' }, { page }) {
    const holds = ([selector, words]) => [...document.querySelectorAll(selector)].some((found) => found.checkVisibility() && found.innerText.includes(words));
    try {
      await page.waitForFunction(holds, [selector, words], { polling: 50 });
    } catch {
      throw new Error(`no ${JSON.stringify(words)} in ${selector}; the page has: ${await page.innerText('body')}`);
    }
  },
  // Waits until nothing that is visible has them.
  async hides({ words, selector = 'body' }, { page }) {
    const holds = ([selector, words]) => ![...document.querySelectorAll(selector)].some((found) => found.checkVisibility() && found.innerText.includes(words));
    await page.waitForFunction(holds, [selector, words], { polling: 50 });
  },
  async text({ selector }, { page }) {
    return page.innerText(selector);
  },
  async texts({ selector }, { page }) {
    return page.locator(selector).allInnerTexts();
  },
  async evaluate({ script }, { page }) {
    return page.evaluate(script);
  },
  async offline({ offline }, { page }) {
    await page.context().setOffline(offline);
  },
  // What axe finds, each as its rule and the places.
  async axe(_, { page }) {
    await page.evaluate(await readFile(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8'));
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, any }) => `${html} ${any.map((each) => each.message).join(', ')}`).join('; ')}`);
  },
  // Widths at which the page would have to be scrolled sideways, with what sticks out.
  async overflows({ widths, height = 800 }, { page }) {
    const found = [];
    const before = page.viewportSize();
    for (const width of widths) {
      await page.setViewportSize({ width, height });
      const outside = await page.evaluate(() => {
        const { scrollWidth, clientWidth } = document.documentElement;
        if (scrollWidth <= clientWidth) return null;
        const out = [...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > clientWidth + 1);
        return out.slice(0, 3).map((each) => each.outerHTML.slice(0, 120));
      });
      if (outside) found.push(`${width}: ${outside.join(' ')}`);
    }
    await page.setViewportSize(before);
    return found;
  },
  async screenshot({ file, whole = true }, { page }) {
    await page.screenshot({ path: file, fullPage: whole });
  },
  async errors(_, tab) {
    return tab.errors.splice(0);
  },
  async close_tab({ device }, { page }) {
    await page.close();
    tabs.delete(device);
  },
  // The browser ends, so that nothing is written to its folder any more.
  async end() {
    await (await context).close();
  },
};

await answerCommands(async (command) => {
  const ok = await commands[command.do](command, tabs.get(command.device));
  return { id: command.id, ok: ok ?? null };
});
