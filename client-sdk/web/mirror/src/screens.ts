// The screens beside the mirror itself: where the server is, who signs in, how the sync is.

import { type Status, testConnection } from '../../src/index.ts';
import { SignInFailed, accountOf, signIn } from './account.ts';
import { byId, element, say, show } from './dom.ts';
import { lastSync } from './indicator.ts';
import { type Account, change, load, ownServer } from './settings.ts';

export type Screen = 'mirror' | 'server' | 'sign-in' | 'settings';

const SCREENS: readonly Screen[] = ['mirror', 'server', 'sign-in', 'settings'];

export interface ScreenActions {
  onSignedIn: (account: Account) => Promise<void>;
  onSignOut: (keepData: boolean) => Promise<void>;
  onSyncNow: () => Promise<void>;
  /** What helps whoever looks into a problem, without a value. */
  onReport: () => Promise<string>;
  /** The server, or what the screen is for, is another. */
  onChange: () => void;
  /** Writes that wait for their upload. */
  pending: () => number;
}

const value = (id: string): string => byId<HTMLInputElement>(id).value.trim();

export class Screens {
  readonly #actions: ScreenActions;
  #current: Screen = 'mirror';

  constructor(actions: ScreenActions) {
    this.#actions = actions;
    this.#listen();
  }

  open(screen: Screen): void {
    this.#current = screen;
    for (const each of SCREENS) byId(`screen-${each}`).hidden = each !== screen;
    if (screen === 'server') this.#openServer();
    if (screen === 'sign-in') this.#openSignIn();
    if (screen === 'settings') this.#openSettings();
    byId(`screen-${screen}`).querySelector<HTMLElement>('h1')?.focus();
  }

  /** What the settings screen says of the sync. */
  showStatus(status: Status): void {
    if (this.#current !== 'settings') return;
    say(byId('last-sync'), lastSync(status, new Date()));
    say(byId('settings-message'), status.message ? `${status.message} (${status.code})` : '');
  }

  #listen(): void {
    for (const link of document.querySelectorAll<HTMLElement>('[data-open]')) {
      link.addEventListener('click', () => this.open(link.dataset.open as Screen));
    }
    document.addEventListener('keydown', ({ key }) => {
      if (key === 'Escape' && this.#current !== 'mirror' && load().account) this.open('mirror');
    });
    byId('test-connection').addEventListener('click', () => void this.#test());
    byId('server-url').addEventListener('input', () => this.#forgetTest());
    byId('server-form').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#continue();
    });
    byId('sign-in-form').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#signIn(() => signIn(value('pocketbase-url'), value('email'), byId<HTMLInputElement>('password').value));
    });
    byId('token-form').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#signIn(async () => accountOf(value('token')));
    });
    byId('sync-now').addEventListener('click', () => void this.#actions.onSyncNow());
    byId('report').addEventListener('click', () => void this.#actions.onReport().then(save));
    byId('sign-out').addEventListener('click', () => this.#askToLeave());
    byId('leave').addEventListener('close', () => this.#left(byId<HTMLDialogElement>('leave').returnValue));
    byId('read-only').addEventListener('change', ({ target }) => {
      change({ readOnly: (target as HTMLInputElement).checked });
      this.#actions.onChange();
    });
  }

  #openServer(): void {
    byId<HTMLInputElement>('server-url').value ||= load().server ?? ownServer();
    this.#forgetTest();
  }

  #forgetTest(): void {
    show(byId('server-result'));
  }

  async #test(): Promise<boolean> {
    const button = byId<HTMLButtonElement>('test-connection');
    const place = byId('server-result');
    button.disabled = true;
    show(place, element('p', {}, 'Asking…'));
    const tested = await testConnection(value('server-url'));
    button.disabled = false;
    show(place, tested.ok ? element('p', { class: 'good' }, '✓ Server reachable') : element('p', { class: 'bad' }, `✗ ${tested.message}`));
    return tested.ok;
  }

  async #continue(): Promise<void> {
    if (!(await this.#test())) return byId('server-url').focus();
    change({ server: value('server-url').replace(/\/+$/, '') });
    this.#actions.onChange();
    this.open('sign-in');
  }

  #openSignIn(): void {
    const { server, pocketbase } = load();
    if (!server) return this.open('server');
    byId<HTMLInputElement>('pocketbase-url').value ||= pocketbase ?? new URL(server).origin;
    say(byId('sign-in-server'), server.replace(/^https?:\/\//, ''));
    show(byId('sign-in-problem'));
  }

  async #signIn(proof: () => Promise<Account>): Promise<void> {
    const problem = byId('sign-in-problem');
    show(problem);
    try {
      const account = await proof();
      change({ account, ...(account.isRenewed && { pocketbase: value('pocketbase-url') }) });
      for (const id of ['password', 'token']) byId<HTMLInputElement>(id).value = '';
      await this.#actions.onSignedIn(account);
      this.open('mirror');
    } catch (error) {
      if (!(error instanceof SignInFailed)) throw error;
      show(problem, element('p', { class: 'bad' }, error.message));
    }
  }

  #openSettings(): void {
    const { server, account, readOnly } = load();
    say(byId('settings-server'), server?.replace(/^https?:\/\//, '') ?? 'none');
    say(byId('settings-account'), account?.name ?? 'nobody is signed in');
    byId<HTMLInputElement>('read-only').checked = readOnly ?? false;
    for (const id of ['sync-now', 'sign-out', 'report']) byId(id).hidden = !account;
    byId('settings-sign-in').hidden = account !== undefined;
    this.#actions.onChange();
  }

  #askToLeave(): void {
    const pending = this.#actions.pending();
    byId('unsent').hidden = pending === 0;
    say(byId('unsent'), `${pending === 1 ? 'One change is' : `${pending} changes are`} not uploaded, and removed with the data.`);
    byId<HTMLDialogElement>('leave').showModal();
  }

  #left(answer: string): void {
    if (answer !== 'keep' && answer !== 'remove') return;
    void this.#actions.onSignOut(answer === 'keep').then(() => this.open('sign-in'));
  }
}

function save(report: string): void {
  const href = URL.createObjectURL(new Blob([report], { type: 'application/json' }));
  element('a', { href, download: 'kairos-report.json' }).click();
  URL.revokeObjectURL(href);
}
