// What the mirror shows, from rows of the database. Pure.

import { type Schedule, isDue, plusDays, readSchedule } from './day.ts';

/** Days the year's map shows: 53 whole weeks, as the last one may have begun today. */
export const DAYS_SHOWN = 371;

export interface HabitRow {
  id: string;
  user_id: string;
  name: string;
  icon: string | null;
  color: string | null;
  schedule: string | null;
  target_per_day: number | null;
  /** 1 where it is given up. What was done of it counts in the year. */
  archived?: number;
}

/** How much of a habit was done on a day. */
export interface DoneRow {
  habit_id: string;
  day: string;
  amount: number;
}

export interface RoutineRow {
  id: string;
  user_id: string;
  name: string;
  starts_at: string;
  habits: string | null;
}

/** A planned break. */
export interface PauseRow {
  habit_id: string;
  from_day: string;
  to_day: string | null;
}

export interface UserRow {
  id: string;
  display_name: string | null;
}

export interface Rows {
  habits: readonly HabitRow[];
  done: readonly DoneRow[];
  routines: readonly RoutineRow[];
  pauses: readonly PauseRow[];
  users: readonly UserRow[];
}

export interface Habit {
  id: string;
  name: string;
  icon: string;
  color: string | null;
  amount: number;
  target: number;
  isDone: boolean;
  /** Days in a row on which it was due and done; today counts once it is done. */
  streak: number;
}

export interface Member {
  userId: string;
  name: string;
  /** Those which are due today. */
  habits: Habit[];
  doneCount: number;
}

export interface Household {
  members: Member[];
  /** There are habits, due today or not. */
  hasHabits: boolean;
  /** Habits done on each of the last days, oldest first. */
  year: { day: string; count: number }[];
}

type Amounts = ReadonlyMap<string, number>;

export function household(rows: Rows, today: string): Household {
  const amounts = byHabit(rows.done);
  const members = new Map<string, Member>();
  const habits = rows.habits.filter(({ archived }) => !archived);
  for (const row of habits) {
    const schedule = readSchedule(row.schedule);
    if (!isDue(schedule, today)) continue;
    const member = members.get(row.user_id) ?? { userId: row.user_id, name: nameOf(row.user_id, rows.users), habits: [], doneCount: 0 };
    members.set(row.user_id, member);
    const habit = habitOf(row, schedule, amounts.get(row.id) ?? new Map(), rows.pauses, today);
    member.habits.push(habit);
    if (habit.isDone) member.doneCount += 1;
  }
  return { members: [...members.values()], hasHabits: habits.length > 0, year: yearOf(rows, today) };
}

/** Names of people are known where the rules bring them; else it is who the token names. */
export function nameOf(userId: string, users: readonly UserRow[]): string {
  return users.find(({ id }) => id === userId)?.display_name || `${userId.charAt(0).toUpperCase()}${userId.slice(1)}`;
}

function byHabit(done: readonly DoneRow[]): Map<string, Map<string, number>> {
  const amounts = new Map<string, Map<string, number>>();
  for (const { habit_id: id, day, amount } of done) {
    const days = amounts.get(id) ?? new Map<string, number>();
    amounts.set(id, days.set(day, amount));
  }
  return amounts;
}

function habitOf(row: HabitRow, schedule: Schedule, amounts: Amounts, pauses: readonly PauseRow[], today: string): Habit {
  const target = row.target_per_day ?? 1;
  const amount = amounts.get(today) ?? 0;
  const own = pauses.filter((pause) => pause.habit_id === row.id);
  return {
    id: row.id,
    name: row.name,
    icon: row.icon ?? '',
    color: row.color,
    amount,
    target,
    isDone: amount >= target,
    streak: streakOf(schedule, target, amounts, own, today),
  };
}

/** Days on which a habit is not due, or is paused, neither count nor end a streak. */
export function streakOf(schedule: Schedule, target: number, amounts: Amounts, pauses: readonly PauseRow[], today: string): number {
  const isDone = (day: string): boolean => (amounts.get(day) ?? 0) >= target;
  const isPaused = (day: string): boolean =>
    pauses.some(({ from_day: from, to_day: to }) => from <= day && (to === null || day <= to));
  let streak = isDone(today) ? 1 : 0;
  for (let age = 1; age < DAYS_SHOWN; age += 1) {
    const day = plusDays(today, -age);
    if (isDone(day)) streak += 1;
    else if (isDue(schedule, day) && !isPaused(day)) break;
  }
  return streak;
}

function yearOf({ done, habits }: Rows, today: string): Household['year'] {
  const known = new Set(habits.map(({ id }) => id));
  const counts = new Map<string, number>();
  for (const { habit_id: id, day } of done) if (known.has(id)) counts.set(day, (counts.get(day) ?? 0) + 1);
  return Array.from({ length: DAYS_SHOWN }, (_, index) => {
    const day = plusDays(today, index - DAYS_SHOWN + 1);
    return { day, count: counts.get(day) ?? 0 };
  });
}

/** The next routine today at this time (`07:30`), or the first one tomorrow. */
export function nextRoutine(routines: readonly RoutineRow[], time: string): { routine: RoutineRow; isTomorrow: boolean } | null {
  const inOrder = [...routines].sort((a, b) => a.starts_at.localeCompare(b.starts_at));
  const today = inOrder.find(({ starts_at: at }) => at.slice(0, 5) >= time);
  const routine = today ?? inOrder[0];
  return routine ? { routine, isTomorrow: !today } : null;
}
