// A year of days, a square each, in columns of weeks.

import { weekday } from './day.ts';
import { element, svg } from './dom.ts';

const STEP = 12;
const SIDE = 10;
/** Shades, from nothing to the most. */
const LEVELS = 4;

export function heatMap(year: readonly { day: string; count: number }[]): HTMLElement {
  const most = Math.max(1, ...year.map(({ count }) => count));
  const offset = weekday(year[0]?.day ?? '2026-01-05') - 1;
  const weeks = Math.ceil((year.length + offset) / 7);
  const squares = year.map(({ day, count }, index) => {
    const place = index + offset;
    const level = count === 0 ? 0 : Math.max(1, Math.ceil((LEVELS * count) / most));
    const [x, y] = [STEP * Math.floor(place / 7), STEP * (place % 7)];
    return svg('rect', { x, y, width: SIDE, height: SIDE, rx: 2, class: `level-${level}` }, svg('title', {}, `${day}: ${count} done`));
  });
  const active = year.filter(({ count }) => count > 0).length;
  const label = `Something done on ${active} of the last ${year.length} days`;
  const map = svg('svg', { viewBox: `0 0 ${STEP * weeks} ${STEP * 7}`, preserveAspectRatio: 'xMinYMid', role: 'img', 'aria-label': label }, ...squares);
  return element('div', {}, element('p', { 'aria-hidden': true }, label), map);
}
