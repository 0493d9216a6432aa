// The mirror: a household's habits on a wall, or wherever a browser is. It works offline, and syncs when it can.

import { type Kairos, type Status, databaseName, open } from '../../src/index.ts';
import { accountOf, connector } from './account.ts';
import { Clock } from './clock.ts';
import { SCHEMA, complete, takeBack, watchRows } from './database.ts';
import { dayOf } from './day.ts';
import { byId, element, say, show } from './dom.ts';
import { keepFitting } from './fit.ts';
import { HabitLists } from './habits.ts';
import { heatMap } from './heat-map.ts';
import { type Habit, type Rows, household, nameOf } from './household.ts';
import { remedyOf, showStatus } from './indicator.ts';
import { Screens } from './screens.ts';
import { type Account, change, load, onChangeElsewhere, ownServer } from './settings.ts';

/** After a start that failed. */
const START_AGAIN_MS = 60_000;

class Mirror {
  #kairos: Kairos | null = null;
  #ends: (() => void)[] = [];
  #rows: Rows | null = null;
  /** Whose database is open. */
  #userId: string | undefined;
  #today = dayOf(new Date());
  #refusedCount = 0;
  #hasHabits = false;
  /** What was noted of a habit is on its way to the screen. */
  readonly #touched = new Set<string>();
  readonly #screens = new Screens({
    onSignedIn: (account) => this.#enter(account),
    onSignOut: (keepData) => this.#leave(keepData),
    onSyncNow: async () => this.#kairos?.syncNow(),
    onReport: async () => JSON.stringify(await this.#kairos?.diagnostics(), null, 2),
    onChange: () => this.#settingsChanged(),
    pending: () => this.#kairos?.status.pending ?? 0,
  });
  readonly #habits = new HabitLists(byId('members'), { onTouch: (habit) => void this.#touch(habit) });
  readonly #clock = new Clock((day) => this.#newDay(day));

  async start(): Promise<void> {
    takeFromLink();
    this.#clock.start();
    keepFitting(byId('screen-mirror'), isReadOnly);
    byId('remedy').addEventListener('click', ({ currentTarget }) => {
      this.#screens.open((currentTarget as HTMLElement).dataset.remedy === 'server' ? 'server' : 'sign-in');
    });
    document.addEventListener('visibilitychange', keepAwake);
    onChangeElsewhere(({ account }) => {
      if (account?.userId !== this.#userId) location.reload();
      else this.#settingsChanged();
    });
    void keepAwake();
    const { server, account } = load();
    this.#screens.open(account ? 'mirror' : server ? 'sign-in' : 'server');
    if (account) await this.#enter(account);
    document.body.dataset.ready = 'true';
  }

  /** Opens the database of whoever is signed in; another one's is closed, and kept. */
  async #enter(account: Account): Promise<void> {
    await this.#close();
    this.#userId = account.userId;
    const { server = ownServer() } = load();
    const name = databaseName(server, account.userId);
    this.#kairos = await open({ name, schema: SCHEMA, connector, assets: new URL('./', import.meta.url).href });
    this.#ends.push(this.#kairos.onStatus((status) => this.#showStatus(status)));
    this.#watch(this.#kairos);
    this.#kairos.connect();
  }

  async #leave(keepData: boolean): Promise<void> {
    // The person was told what is not uploaded.
    await this.#kairos?.signOut({ keepData, deleteUnsent: true });
    change({ account: undefined });
    await this.#close();
  }

  async #close(): Promise<void> {
    for (const end of this.#ends.splice(0)) end();
    this.#rows = null;
    this.#userId = undefined;
    show(byId('members'));
    show(byId('year'));
    await this.#kairos?.close();
    this.#kairos = null;
  }

  #watch(kairos: Kairos): void {
    const end = watchRows(kairos, this.#today, (rows) => {
      this.#rows = rows;
      this.#draw();
    });
    this.#ends.push(end);
  }

  #newDay(day: string): void {
    if (day === this.#today) return;
    this.#today = day;
    if (this.#kairos) this.#watch(this.#kairos);
  }

  #draw(): void {
    if (!this.#rows) return;
    const shown = household(this.#rows, this.#today);
    this.#habits.show(shown, isReadOnly());
    const { habits, routines, users } = this.#rows;
    const isShared = new Set(habits.map(({ user_id: userId }) => userId)).size > 1;
    this.#clock.setRoutines(routines, ({ user_id: userId }) => (isShared ? nameOf(userId, users) : null));
    show(byId('year'), shown.year.some(({ count }) => count > 0) ? heatMap(shown.year) : null);
    byId('empty').hidden = shown.members.length > 0;
    this.#hasHabits = shown.hasHabits;
    this.#explainEmptiness();
  }

  /** One more, or the last one back where all is done. */
  async #touch({ id, isDone }: Habit): Promise<void> {
    if (!this.#kairos || isReadOnly() || this.#touched.has(id)) return;
    this.#touched.add(id);
    try {
      if (isDone) await takeBack(this.#kairos, id, this.#today);
      else await complete(this.#kairos, id, this.#today, new Date());
    } finally {
      this.#touched.delete(id);
    }
  }

  #showStatus(status: Status): void {
    showStatus(status);
    this.#screens.showStatus(status);
    const remedy = remedyOf(status);
    const button = byId('remedy');
    button.hidden = remedy === null;
    button.dataset.remedy = remedy ?? '';
    show(button, remedy === 'server' ? 'Change the server' : 'Sign in');
    this.#explainEmptiness();
    if (status.rejected !== this.#refusedCount) {
      this.#refusedCount = status.rejected;
      void this.#showRefused();
    }
  }

  #explainEmptiness(): void {
    const { hasSynced } = this.#kairos?.status ?? { hasSynced: false };
    const nothing = hasSynced ? 'No habits yet. Make the first one on your phone.' : 'Nothing is here yet. It comes with the first sync.';
    say(byId('empty-text'), this.#hasHabits ? 'Nothing to do today.' : nothing);
  }

  /** A habit that was touched looks untouched again where the server did not take that: somebody wants to know why. */
  async #showRefused(): Promise<void> {
    const kairos = this.#kairos;
    const refused = (await kairos?.rejectedWrites()) ?? [];
    const place = byId('refused');
    if (!kairos || refused.length === 0) return show(place);
    const dismiss = element('button', { type: 'button' }, 'OK');
    dismiss.addEventListener('click', () => {
      void Promise.all(refused.map(({ id }) => kairos.dismissRejectedWrite(id)));
    });
    const text = refused.length === 1 ? 'A change was not taken' : `${refused.length} changes were not taken`;
    place.replaceChildren(element('p', { class: 'bad' }, text), element('p', { class: 'dim' }, refused[0]?.message ?? ''), dismiss);
  }

  #settingsChanged(): void {
    this.#draw();
    if (this.#kairos) this.#showStatus(this.#kairos.status);
    else show(byId('last-sync'), 'never');
  }
}

/** A screen on a wall, by its address or by its settings. */
const isReadOnly = (): boolean => new URLSearchParams(location.search).has('readonly') || (load().readOnly ?? false);

/** A link may bring server and token behind its `#`, which no server sees. */
function takeFromLink(): void {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get('token');
  history.replaceState(null, '', location.pathname + location.search);
  if (token) change({ server: given.get('server') ?? ownServer(), account: accountOf(token) });
}

/** A screen on a wall does not go dark. Where the browser has no say in that, the device's settings have. */
async function keepAwake(): Promise<void> {
  if (document.hidden || !isReadOnly()) return;
  await navigator.wakeLock?.request('screen').catch(() => {});
}

function fail(error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  const again = element('button', { type: 'button' }, 'Load again');
  again.addEventListener('click', () => location.reload());
  show(byId('failure'), element('p', { class: 'bad' }, text), again);
}

/** Nobody may stand before the screen, and what keeps the page from starting may pass: a network, or another page. */
function failToStart(error: unknown): void {
  fail(error);
  setTimeout(() => location.reload(), START_AGAIN_MS);
}

addEventListener('unhandledrejection', ({ reason }) => fail(reason));
addEventListener('error', ({ message }) => fail(message));
navigator.serviceWorker?.register('./sw.js', { type: 'module' }).catch(() => {
  // Without it the page is loaded from the server each time.
});
await new Mirror().start().catch(failToStart);
