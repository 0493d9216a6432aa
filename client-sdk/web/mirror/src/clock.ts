// The time, the day, and what comes next.

import { dayOf } from './day.ts';
import { byId, element, say, show } from './dom.ts';
import { type RoutineRow, nextRoutine } from './household.ts';

const TIME = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const DATE = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

export class Clock {
  readonly #onNewDay: (day: string) => void;
  #routines: readonly RoutineRow[] = [];
  #ownerOf: (routine: RoutineRow) => string | null = () => null;
  #day = '';

  constructor(onNewDay: (day: string) => void) {
    this.#onNewDay = onNewDay;
  }

  start(): void {
    this.#tick();
    setInterval(() => this.#tick(), 1000);
  }

  /** `ownerOf` says whose each is, where that is a question. */
  setRoutines(routines: readonly RoutineRow[], ownerOf: (routine: RoutineRow) => string | null): void {
    this.#routines = routines;
    this.#ownerOf = ownerOf;
    this.#showNext(new Date());
  }

  #tick(): void {
    const now = new Date();
    say(byId('time'), TIME.format(now));
    say(byId('date'), DATE.format(now));
    this.#showNext(now);
    const day = dayOf(now);
    if (day === this.#day) return;
    this.#day = day;
    this.#onNewDay(day);
  }

  #showNext(now: Date): void {
    const time = `${String(now.getHours()).padStart(2, '0')}:${String(now.getMinutes()).padStart(2, '0')}`;
    const next = nextRoutine(this.#routines, time);
    if (!next) return show(byId('next'));
    const { routine, isTomorrow } = next;
    const owner = this.#ownerOf(routine);
    const when = `${isTomorrow ? 'tomorrow ' : ''}${routine.starts_at.slice(0, 5)}`;
    show(
      byId('next'),
      element('h2', {}, 'Next'),
      element('p', {}, element('strong', {}, when), ` ${routine.name}`, owner ? element('span', { class: 'dim' }, ` (${owner})`) : null),
      routine.habits ? element('p', { class: 'dim' }, routine.habits) : null,
    );
  }
}
