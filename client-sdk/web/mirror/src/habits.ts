// Today's habits, a list for each member of the household.

import { element, show, svg } from './dom.ts';
import type { Habit, Household, Member } from './household.ts';

/** A circle that fills. */
const RADIUS = 15.9155; // Its circumference is 100.

export interface HabitActions {
  onTouch: (habit: Habit) => void;
}

export class HabitLists {
  readonly #place: HTMLElement;
  readonly #actions: HabitActions;
  #habits = new Map<string, Habit>();

  constructor(place: HTMLElement, actions: HabitActions) {
    this.#place = place;
    this.#actions = actions;
    place.addEventListener('click', ({ target }) => {
      const id = target instanceof Element ? target.closest<HTMLElement>('button[data-habit]')?.dataset.habit : undefined;
      const habit = id === undefined ? undefined : this.#habits.get(id);
      if (habit) this.#actions.onTouch(habit);
    });
  }

  show({ members }: Household, isReadOnly: boolean): void {
    this.#habits = new Map(members.flatMap(({ habits }) => habits).map((habit) => [habit.id, habit]));
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.habit : undefined;
    const lists = members.map((member) => memberOf(member, isReadOnly));
    lists.forEach(colour);
    show(this.#place, ...lists);
    if (focused !== undefined && document.activeElement === document.body) {
      this.#place.querySelector<HTMLElement>(`[data-habit="${CSS.escape(focused)}"]`)?.focus();
    }
  }
}

/** A policy of content forbids styles in attributes, and the habit's own colour is data. */
function colour(place: HTMLElement): void {
  for (const each of place.querySelectorAll<HTMLElement>('[data-colour]')) {
    const value = each.dataset.colour ?? '';
    if (/^#[0-9a-f]{6}$/i.test(value)) each.style.setProperty('--habit', value);
  }
}

function memberOf({ userId, name, habits, doneCount }: Member, isReadOnly: boolean): HTMLElement {
  const id = `member-${userId}`;
  const heading = element(
    'h2',
    { id },
    ring(doneCount, habits.length),
    element('span', {}, name),
    element('span', { class: 'count' }, `${doneCount} of ${habits.length}`),
  );
  return element('section', { class: 'member', 'aria-labelledby': id }, heading, element('ul', {}, ...habits.map((habit) => itemOf(habit, isReadOnly))));
}

function itemOf(habit: Habit, isReadOnly: boolean): HTMLElement {
  const { id, name, icon, color, amount, target, isDone, streak } = habit;
  const parts = [
    element('span', { class: 'mark', 'aria-hidden': true }),
    element('span', { class: 'icon', 'aria-hidden': true }, icon),
    element(
      'span',
      { class: 'text' },
      element('span', { class: 'name', title: name }, name),
      target > 1 ? element('span', { class: 'amount' }, `${Math.min(amount, target)}/${target}`) : null,
      streak > 1 ? element('span', { class: 'streak', title: `${streak} days in a row` }, `${streak} days`) : null,
    ),
  ];
  const state = { class: `habit ${isDone ? 'done' : ''}`, 'data-colour': color };
  if (isReadOnly) {
    return element('li', {}, element('div', state, ...parts, element('span', { class: 'hidden' }, isDone ? 'done' : 'not done')));
  }
  return element('li', {}, element('button', { ...state, type: 'button', 'data-habit': id, 'aria-pressed': isDone ? 'true' : 'false' }, ...parts));
}

function ring(done: number, all: number): SVGElement {
  const percent = all === 0 ? 0 : (100 * done) / all;
  const circle = { cx: 18, cy: 18, r: RADIUS, fill: 'none', 'stroke-width': 4 };
  return svg(
    'svg',
    { viewBox: '0 0 36 36', class: 'ring', 'aria-hidden': true },
    svg('circle', { ...circle, class: 'track' }),
    svg('circle', { ...circle, class: 'filled', 'stroke-dasharray': `${percent} 100`, transform: 'rotate(-90 18 18)' }),
  );
}
