// What this device remembers beside its database: where the server is, who is signed in, what the screen is for.

export interface Settings {
  /** Address of the service. */
  server?: string;
  /** Address of PocketBase, where people sign in there. */
  pocketbase?: string;
  /** Who is signed in. */
  account?: Account;
  /** The screen shows, and changes nothing. */
  readOnly?: boolean;
}

export interface Account {
  userId: string;
  /** For the settings screen. */
  name: string;
  token: string;
  /** Whether PocketBase gives the next token, or a person. */
  isRenewed: boolean;
}

const KEPT_AS = 'kairos-mirror';

export function load(): Settings {
  try {
    return (JSON.parse(localStorage.getItem(KEPT_AS) ?? '{}') ?? {}) as Settings;
  } catch {
    return {};
  }
}

/** Changes some of it; `undefined` removes. All tabs read it anew when they need it. */
export function change(part: { [Key in keyof Settings]?: Settings[Key] | undefined }): Settings {
  const next = { ...load(), ...part } as Settings;
  localStorage.setItem(KEPT_AS, JSON.stringify(next));
  return next;
}

/** Calls `listener` when another tab changed something. */
export function onChangeElsewhere(listener: (settings: Settings) => void): void {
  addEventListener('storage', ({ key }) => {
    if (key === KEPT_AS || key === null) listener(load());
  });
}

/** The service that this page came from, with its base path. */
export function ownServer(): string {
  return new URL('..', location.href.split(/[?#]/)[0]).href.replace(/\/+$/, '');
}
