// What the mirror makes of rows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dayOf, plusDays, readSchedule, weekday } from '../src/day.ts';
import { household, nextRoutine, streakOf } from '../src/household.ts';

const TODAY = '2026-03-04'; // A Wednesday.
const days = (...ages) => new Map(ages.map((age) => [plusDays(TODAY, -age), 1]));

test('days are those of the calendar, also where clocks are changed', () => {
  assert.equal(dayOf(new Date(2026, 2, 4, 23, 59)), TODAY);
  assert.equal(plusDays('2026-03-28', 2), '2026-03-30');
  assert.equal(plusDays('2024-02-28', 1), '2024-02-29');
  assert.deepEqual([weekday('2026-03-02'), weekday('2026-03-08')], [1, 7]);
});

test('a streak is what was done on each day until today, or yesterday', () => {
  const streak = (...ages) => streakOf(null, 1, days(...ages), [], TODAY);
  assert.equal(streak(), 0);
  assert.equal(streak(0), 1);
  assert.equal(streak(1, 2, 3), 3);
  assert.equal(streak(0, 1, 2, 4), 3);
  assert.equal(streak(2, 3), 0);
});

test('days without a duty and planned breaks do not end it, and less than the target does', () => {
  const schedule = readSchedule('{"weekdays": [1, 3, 5]}');
  assert.equal(streakOf(schedule, 1, days(0, 2, 5), [], TODAY), 3);
  const pause = { habit_id: 'h', from_day: plusDays(TODAY, -3), to_day: plusDays(TODAY, -2) };
  assert.equal(streakOf(null, 1, days(1, 4, 5), [pause], TODAY), 3);
  assert.equal(streakOf(null, 1, days(1, 4, 5), [{ ...pause, to_day: null }], TODAY), 3);
  assert.equal(streakOf(null, 2, days(1, 2), [], TODAY), 0);
});

test('what is not understood of a schedule is every day', () => {
  for (const text of [null, '', '{', '{"every":"day"}', '{"weekdays":"monday"}']) assert.equal(readSchedule(text), null);
});

test('each member has what is due today', () => {
  const habit = (id, user, more = {}) => ({ id, user_id: user, name: id, icon: null, color: null, schedule: null, target_per_day: 1, ...more });
  const rows = {
    habits: [habit('read', 'anna'), habit('water', 'anna', { target_per_day: 8 }), habit('run', 'ben', { schedule: '{"weekdays":[2]}' }), habit('cook', 'ben')],
    done: [
      { habit_id: 'read', day: TODAY, amount: 1 },
      { habit_id: 'water', day: TODAY, amount: 3 },
      { habit_id: 'cook', day: plusDays(TODAY, -1), amount: 1 },
      { habit_id: 'given away', day: TODAY, amount: 1 },
    ],
    routines: [],
    pauses: [],
    users: [{ id: 'ben', display_name: 'Benjamin' }],
  };
  const { members, year } = household(rows, TODAY);
  const told = members.map(({ name, habits, doneCount }) => [name, habits.map(({ id }) => id), doneCount]);
  assert.deepEqual(told, [['Anna', ['read', 'water'], 1], ['Benjamin', ['cook'], 0]]);
  assert.deepEqual(year.at(-1), { day: TODAY, count: 2 });
  assert.deepEqual(year.at(-2), { day: plusDays(TODAY, -1), count: 1 });
  assert.equal(year.length, 371);

  // What is given up is not shown, and what was done of it stays done.
  const givenUp = household({ ...rows, habits: [habit('read', 'anna', { archived: 1 })] }, TODAY);
  assert.deepEqual([givenUp.members, givenUp.hasHabits, givenUp.year.at(-1).count], [[], false, 1]);
  const another = household({ ...rows, habits: [habit('run', 'ben', { schedule: '{"weekdays":[2]}' })] }, TODAY);
  assert.deepEqual([another.members, another.hasHabits], [[], true]);
});

test('the next routine is the next one today, or the first tomorrow', () => {
  const routines = ['21:00:00', '07:30:00'].map((at) => ({ id: at, user_id: 'anna', name: at, starts_at: at, habits: null }));
  assert.equal(nextRoutine(routines, '07:30').routine.id, '07:30:00');
  assert.deepEqual([nextRoutine(routines, '07:31').routine.id, nextRoutine(routines, '07:31').isTomorrow], ['21:00:00', false]);
  assert.deepEqual([nextRoutine(routines, '22:00').routine.id, nextRoutine(routines, '22:00').isTomorrow], ['07:30:00', true]);
  assert.equal(nextRoutine([], '07:00'), null);
});
