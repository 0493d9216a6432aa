// Is there a sync service at an address?

import type { ConnectionTest } from './api.ts';
import { messageOf } from './problem.ts';

const TIMEOUT_MS = 10_000;

const failed = (code: string): ConnectionTest => ({ ok: false, code, message: messageOf(code) });

/** Asks for the service's description of itself, which needs no token. */
export async function testConnection(endpoint: string): Promise<ConnectionTest> {
  const url = addressOf(endpoint);
  if (!url) return failed('CLIENT-0203');
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS), headers: { accept: 'application/json' } });
  } catch {
    return failed('CLIENT-0201');
  }
  if (response.status >= 500) return failed('CLIENT-0204');
  const description: unknown = await response.json().catch(() => null);
  const { info, paths } = (description ?? {}) as { info?: { version?: unknown }; paths?: Record<string, unknown> };
  if (!response.ok || !paths?.['/sync/stream']) return failed('CLIENT-0203');
  return typeof info?.version === 'string' ? { ok: true, version: info.version } : { ok: true };
}

function addressOf(endpoint: string): URL | null {
  const base = endpoint.trim().replace(/\/+$/, '');
  if (!/^https?:\/\//i.test(base)) return null;
  try {
    return new URL(`${base}/api/openapi.json`);
  } catch {
    return null;
  }
}
