// A year of days, a square each, in columns of weeks.

import { weekday } from './day.ts';
import { element, svg } from './dom.ts';

const STEP = 12;
const SIDE = 10;
/** For the names of months, above. */
const HEAD = 14;
const MONTH = new Intl.DateTimeFormat(undefined, { month: 'short', timeZone: 'UTC' });
/** Shades, from nothing to the most. */
const LEVELS = 4;

export function heatMap(year: readonly { day: string; count: number }[]): HTMLElement {
  const most = Math.max(1, ...year.map(({ count }) => count));
  const offset = weekday(year[0]?.day ?? '2026-01-05') - 1;
  const weeks = Math.ceil((year.length + offset) / 7);
  const squares = year.map(({ day, count }, index) => {
    const place = index + offset;
    const level = count === 0 ? 0 : Math.max(1, Math.ceil((LEVELS * count) / most));
    const [x, y] = [STEP * Math.floor(place / 7), HEAD + STEP * (place % 7)];
    return svg('rect', { x, y, width: SIDE, height: SIDE, rx: 2, class: `level-${level}` }, svg('title', {}, `${day}: ${count} done`));
  });
  const months = year.flatMap(({ day }, index) => {
    const x = STEP * Math.ceil((index + offset) / 7);
    // One that begins in the last weeks has no room for its name.
    if (!day.endsWith('-01') || x > STEP * (weeks - 2)) return [];
    return [svg('text', { x, y: HEAD - 5, 'aria-hidden': true }, MONTH.format(Date.parse(day)))];
  });
  const active = year.filter(({ count }) => count > 0).length;
  const label = `Something done on ${active} of the last ${year.length} days`;
  const map = svg('svg', { viewBox: `0 0 ${STEP * weeks} ${HEAD + STEP * 7}`, preserveAspectRatio: 'xMinYMid', role: 'img', 'aria-label': label }, ...months, ...squares);
  return element('div', {}, element('p', { 'aria-hidden': true }, label), map);
}
