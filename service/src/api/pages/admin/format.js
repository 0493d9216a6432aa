// Figures and moments for people.

import { element } from './dom.js';

const NUMBER = new Intl.NumberFormat('en');

export const count = (number) => NUMBER.format(number);

// `1 bucket`, `2 buckets`
export const counted = (number, what) => `${count(number)} ${what}${number === 1 ? '' : 's'}`;

export function bytes(number) {
  if (number < 1000) return `${number} bytes`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length, Math.floor(Math.log10(number) / 3));
  const value = number / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power - 1]}`;
}

export function seconds(number) {
  if (number < 1) return `${Math.round(number * 1000)} ms`;
  if (number < 90) return `${Math.round(number)} s`;
  if (number < 5400) return `${Math.round(number / 60)} min`;
  if (number < 129600) return `${Math.round(number / 3600)} h`;
  return `${Math.round(number / 86400)} days`;
}

// How long ago a moment was, as the service's clock has it: that of the browser may stand elsewhere.
export function ago(moment, now) {
  if (!moment) return 'never since the start';
  const age = Math.max(0, (new Date(now) - new Date(moment)) / 1000);
  const text = age < 3 ? 'just now' : `${seconds(age < 10 ? Math.round(age) : Math.round(age / 5) * 5)} ago`;
  return element('time', { datetime: moment, title: moment }, text);
}
