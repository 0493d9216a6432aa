// The credentials in use. Whoever needs new ones waits for the one call to the app that is under way.

import { type Credentials, type CredentialsReason, KairosError } from '../api.ts';
import { readToken } from './token.ts';
import { unreachable } from './transport.ts';

/** The app has this long to come up with credentials. */
const CREDENTIALS_TIMEOUT_MS = 60_000;

export type AskApp = (reason: CredentialsReason) => Promise<Credentials | null>;

export class Session {
  readonly #askApp: AskApp;
  /** Notes the user at the first sync; says later whether it is the same one. */
  readonly #belongsTo: (user: string) => Promise<boolean>;
  #credentials: Credentials | null = null;
  #refused = false;
  #fetching: Promise<Credentials> | null = null;
  #cancel: (() => void) | null = null;
  /** Whose data this is, once that was looked up. */
  #user: string | null = null;

  constructor(askApp: AskApp, belongsTo: (user: string) => Promise<boolean>) {
    this.#askApp = askApp;
    this.#belongsTo = belongsTo;
  }

  /** The credentials, if they are of the user whose data this is: nobody's writes go up under another name. */
  async credentials(): Promise<Credentials> {
    const credentials = this.#credentials ?? (await this.#fetch(this.#refused ? 'refused' : 'start'));
    const user = readToken(credentials.token).sub;
    if (user !== undefined && user !== this.#user) {
      if (!(await this.#belongsTo(user))) {
        // The app may come up with the right user's next time.
        this.#credentials = null;
        throw new KairosError('CLIENT-0303', "this database is another user's; sign out, or open a database for this user");
      }
      this.#user = user;
    }
    return credentials;
  }

  /** Fetches new credentials; true when they differ from those in use. */
  async renew(): Promise<boolean> {
    const before = this.#credentials;
    const renewed = await this.#fetch('expiring');
    return before === null || !isSame(before, renewed);
  }

  /** The service does not accept these credentials. Newer ones, fetched meanwhile, stay. */
  expire(refused: Credentials): void {
    if (this.#credentials === null || !isSame(this.#credentials, refused)) return;
    this.#credentials = null;
    this.#refused = true;
  }

  /** Nobody waits for the app any more. */
  cancel(): void {
    this.#cancel?.();
  }

  /** Nobody is signed in. */
  forget(): void {
    this.#credentials = null;
    this.#refused = false;
    this.#user = null;
  }

  /** Calls the service with credentials; once more with new ones where it does not accept them. */
  async authorized<T>(call: (credentials: Credentials) => Promise<T>): Promise<T> {
    const credentials = await this.credentials();
    try {
      return await call(credentials);
    } catch (error) {
      if (!(error instanceof KairosError) || error.code !== 'CLIENT-0202') throw error;
      this.expire(credentials);
      const renewed = await this.credentials();
      if (isSame(renewed, credentials)) {
        this.expire(credentials);
        throw error;
      }
      return call(renewed);
    }
  }

  #fetch(reason: CredentialsReason): Promise<Credentials> {
    this.#fetching ??= this.#ask(reason).finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  async #ask(reason: CredentialsReason): Promise<Credentials> {
    const credentials = await this.#inTime(this.#askApp(reason));
    if (credentials === null) {
      this.forget();
      throw new KairosError('CLIENT-0300', 'no server is configured');
    }
    this.#credentials = credentials;
    this.#refused = false;
    return credentials;
  }

  #inTime<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(unreachable());
      const timer = setTimeout(giveUp, CREDENTIALS_TIMEOUT_MS);
      this.#cancel = giveUp;
      promise.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }
}

const isSame = (one: Credentials, other: Credentials): boolean =>
  one.endpoint === other.endpoint && one.token === other.token;
