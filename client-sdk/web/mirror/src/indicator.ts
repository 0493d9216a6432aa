// The state of the sync, always in sight.

import type { Status } from '../../src/index.ts';
import { byId, say } from './dom.ts';

/** What helps against what is wrong, where a person has to do something. */
export type Remedy = 'sign-in' | 'server' | null;

export function remedyOf({ code }: Status): Remedy {
  if (code === 'CLIENT-0202' || code === 'CLIENT-0303') return 'sign-in';
  return code === 'CLIENT-0203' ? 'server' : null;
}

export function showStatus(status: Status): void {
  const { state, label, message, progress, hasSynced } = status;
  for (const place of document.querySelectorAll<HTMLElement>('[data-status]')) {
    place.dataset.state = state;
    say(place.querySelector<HTMLElement>('.label') ?? place, label);
  }
  const isFirst = !hasSynced && progress && progress.total > 0;
  const told = isFirst ? `${progress.downloaded.toLocaleString('en')} of ${progress.total.toLocaleString('en')}` : (message ?? '');
  say(byId('status-message'), told);
}

export function lastSync(status: Status, now: Date): string {
  if (!status.lastSyncedAt) return 'never';
  const seconds = Math.max(0, Math.round((now.getTime() - status.lastSyncedAt.getTime()) / 1000));
  if (seconds < 60) return 'just now';
  const [count, unit] = seconds < 3600 ? [Math.floor(seconds / 60), 'minute'] : seconds < 86_400 ? [Math.floor(seconds / 3600), 'hour'] : [Math.floor(seconds / 86_400), 'day'];
  return `${count} ${unit}${count === 1 ? '' : 's'} ago`;
}
