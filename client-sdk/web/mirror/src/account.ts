// Signing in: at PocketBase with an address and a password, or with a token that somebody made.

import { type Connector, type Credentials, SignInAgain } from '../../src/index.ts';
import { type Account, change, load } from './settings.ts';

const TIMEOUT_MS = 15_000;

/** A sentence for the person who signs in. */
export class SignInFailed extends Error {}

interface Answer {
  token?: string;
  record?: { id?: string; email?: string; name?: string };
}

async function ask(pocketbase: string, path: string, init: RequestInit): Promise<{ status: number; answer: Answer }> {
  const url = `${pocketbase.replace(/\/+$/, '')}/api/collections/users/${path}`;
  const response = await fetch(url, { ...init, method: 'POST', signal: AbortSignal.timeout(TIMEOUT_MS) });
  return { status: response.status, answer: (await response.json().catch(() => ({}))) as Answer };
}

export async function signIn(pocketbase: string, identity: string, password: string): Promise<Account> {
  const body = JSON.stringify({ identity, password });
  const headers = { 'content-type': 'application/json' };
  const asked = ask(pocketbase, 'auth-with-password', { body, headers });
  const { status, answer } = await asked.catch(() => {
    throw new SignInFailed('PocketBase does not answer at this address.');
  });
  const { token, record } = answer;
  if (status === 400 || status === 401 || status === 403) throw new SignInFailed('E-mail or password is wrong.');
  if (status !== 200 || !token || !record?.id) throw new SignInFailed('There is no PocketBase at this address.');
  return { userId: record.id, name: record.email || record.name || identity, token, isRenewed: true };
}

/** Who a token is for is in it; whether it is good, the service says. */
export function accountOf(token: string): Account {
  try {
    const payload = (token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown };
    if (typeof sub === 'string' && sub !== '') return { userId: sub, name: sub, token, isRenewed: false };
  } catch {
    // Said below.
  }
  throw new SignInFailed('This is no token of a user: it names nobody.');
}

/** The token the sync has. The person may have given another one since, here or in another tab. */
let handedOut: string | null = null;

/** What the sync asks for credentials. */
export const connector: Connector = async (reason) => {
  const { server, pocketbase, account } = load();
  if (!server || !account) return null;
  if (reason === 'start' || account.token !== handedOut) return handOut(server, account.token);
  if (!account.isRenewed || !pocketbase) throw new SignInAgain();
  const { status, answer } = await ask(pocketbase, 'auth-refresh', { headers: { authorization: account.token } });
  if (status === 401 || status === 403 || status === 404) throw new SignInAgain();
  if (!answer.token) throw new Error('PocketBase gave no token');
  change({ account: { ...account, token: answer.token } });
  return handOut(server, answer.token);
};

function handOut(endpoint: string, token: string): Credentials {
  handedOut = token;
  return { endpoint, token };
}
