// What is wrong with the sync, what to tell the user, and what helps.

/** As `client-sdk/src/status.rs` has them. */
export type Problem =
  | 'unreachable'
  | 'sign_in_again'
  | 'unavailable'
  | 'server_not_found'
  | 'local_database'
  | 'other_user';

const MESSAGES: Record<Problem, string> = {
  unreachable: "Can't reach server. Working offline.",
  sign_in_again: 'Please sign in again',
  unavailable: 'Sync temporarily unavailable',
  server_not_found: 'Server not found at this address',
  local_database: "Can't write to this device's storage",
  other_user: "This device has another account's data",
};

const PROBLEMS: Record<string, Problem> = {
  'CLIENT-0201': 'unreachable',
  'CLIENT-0202': 'sign_in_again',
  'CLIENT-0203': 'server_not_found',
  'CLIENT-0303': 'other_user',
};

/** What a code means to an app; nothing where there is no server. */
export function problemOf(code: string): Problem | null {
  if (code === 'CLIENT-0300') return null;
  return PROBLEMS[code] ?? (/^CLIENT-01/.test(code) ? 'local_database' : 'unavailable');
}

/** What to tell the user. */
export function messageOf(code: string): string {
  const problem = problemOf(code);
  return problem ? MESSAGES[problem] : '';
}
