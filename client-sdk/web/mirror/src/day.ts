// Days as the database has them, `2026-08-21`, and what is due on them. Pure.

const DAY_MS = 86_400_000;

/** The day it is here. */
export function dayOf(moment: Date): string {
  const two = (number: number): string => String(number).padStart(2, '0');
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
}

/** So many days later, or earlier. */
export function plusDays(day: string, count: number): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + count * DAY_MS).toISOString().slice(0, 10);
}

/** Monday is 1, Sunday 7. */
export function weekday(day: string): number {
  return new Date(`${day}T00:00:00Z`).getUTCDay() || 7;
}

/** On which days something is to be done: `{"every":"day"}` or `{"weekdays":[1,3,5]}`. What is not understood is every day. */
export type Schedule = ReadonlySet<number> | null;

export function readSchedule(text: string | null): Schedule {
  try {
    const { weekdays } = JSON.parse(text ?? '{}') as { weekdays?: unknown };
    return Array.isArray(weekdays) ? new Set(weekdays.map(Number)) : null;
  } catch {
    return null;
  }
}

export const isDue = (schedule: Schedule, day: string): boolean => schedule === null || schedule.has(weekday(day));
