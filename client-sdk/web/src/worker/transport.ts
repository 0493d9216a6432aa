// How the client reaches a service.
//
// Every call ends: waiting for an answer and silence on a stream have deadlines; a line and an answer have a largest length.
// Errors carry no token and no row value.

import { type Credentials, KairosError } from '../api.ts';
import type { OperationResult } from './store/attention.ts';

/** For one answer other than a stream, and for the first byte of a stream. */
const ANSWER_TIMEOUT_MS = 30_000;
/** Services send something every 20 s. */
export const SILENCE_TIMEOUT_MS = 60_000;
/** A line has one row of any size; 15 MiB is the largest services keep, which escaping may double. */
export const LINE_BYTES_MAX = 64 * 1024 * 1024;
/** Longer explanations of a service are shown in part. */
const REFUSAL_CHARS_MAX = 500;

/** As long as a service may tell the client to wait. */
const RETRY_AFTER_MAX_MS = 600_000;

/** The service has too much to do, or the client asked too often, and says when to come back. */
export class Busy extends KairosError {
  readonly retryAfterMs: number;

  constructor(message: string, retryAfterMs: number) {
    super('CLIENT-0204', message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The service's answer to an upload. */
export interface UploadResponse {
  write_checkpoint?: string;
  results: OperationResult[];
}

/** Opens a stream; `stop` ends it. */
export async function openStream(
  credentials: Credentials,
  request: Record<string, unknown>,
  stop: AbortController,
): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const timer = setTimeout(() => stop.abort(), ANSWER_TIMEOUT_MS);
  try {
    const response = await send(credentials, '/sync/stream', {
      method: 'POST',
      headers: { accept: 'application/x-ndjson', 'content-type': 'application/json' },
      body: JSON.stringify(request),
      signal: stop.signal,
    });
    const isStream = response.headers.get('content-type')?.includes('ndjson');
    if (!isStream || !response.body) {
      stop.abort();
      throw notFound(credentials);
    }
    return response.body.getReader();
  } finally {
    clearTimeout(timer);
  }
}

/** Sends local writes to the service's write API. */
export function upload(credentials: Credentials, body: string, stop: AbortSignal): Promise<UploadResponse> {
  const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body };
  return ask<UploadResponse>(credentials, '/api/sync/data', request, stop);
}

/** Asks for a write checkpoint: it lies after everything that was written before the call. */
export async function writeCheckpoint(credentials: Credentials, clientId: string, stop: AbortSignal): Promise<string> {
  const path = `/write-checkpoint2.json?client_id=${encodeURIComponent(clientId)}`;
  return (await ask<{ write_checkpoint: string }>(credentials, path, {}, stop)).write_checkpoint;
}

async function ask<T>(credentials: Credentials, path: string, request: RequestInit, stop: AbortSignal): Promise<T> {
  const limit = new AbortController();
  const end = (): void => limit.abort();
  const timer = setTimeout(end, ANSWER_TIMEOUT_MS);
  stop.addEventListener('abort', end);
  if (stop.aborted) end();
  try {
    const response = await send(credentials, path, { ...request, signal: limit.signal });
    return dataOf<T>(credentials, await response.text().catch(() => Promise.reject(unreachable())));
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', end);
  }
}

/** What is no JSON is no service. */
function dataOf<T>(credentials: Credentials, text: string): T {
  try {
    const { data } = JSON.parse(text) as { data?: T };
    if (typeof data === 'object' && data !== null) return data;
  } catch {
    // As where there is no data.
  }
  throw notFound(credentials);
}

/** Sends a request; an answer other than 200 becomes an error. */
async function send(credentials: Credentials, path: string, request: RequestInit): Promise<Response> {
  const url = addressOf(credentials, path);
  const headers = { ...request.headers, authorization: `Token ${credentials.token}` };
  let response: Response;
  try {
    response = await fetch(url, { ...request, headers, cache: 'no-store', credentials: 'omit' });
  } catch {
    throw unreachable();
  }
  if (response.status === 200) return response;
  const refusal = await refusalOf(response);
  if (response.status === 401 || response.status === 403) {
    throw new KairosError('CLIENT-0202', `the server does not accept the token${refusal}; sign in again`);
  }
  if (response.status === 404 || response.status === 405) throw notFound(credentials);
  const message = `the server refused the request with status ${response.status}${refusal}`;
  const wait = response.status === 429 || response.status === 503 ? retryAfter(response.headers.get('retry-after'), Date.now()) : null;
  throw wait === null ? new KairosError('CLIENT-0204', message) : new Busy(message, wait);
}

/** Seconds, or a date; in milliseconds. What is neither says nothing. */
export function retryAfter(header: string | null, nowMs: number): number | null {
  if (header === null) return null;
  const wait = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - nowMs;
  return Number.isNaN(wait) ? null : Math.min(Math.max(wait, 0), RETRY_AFTER_MAX_MS);
}

function addressOf(credentials: Credentials, path: string): URL {
  const base = credentials.endpoint.replace(/\/+$/, '');
  if (!/^https?:\/\//i.test(base)) throw notFound(credentials);
  try {
    return new URL(`${base}${path}`);
  } catch {
    throw notFound(credentials);
  }
}

/** What the service said; empty where somebody else answered, such as a proxy. */
async function refusalOf(response: Response): Promise<string> {
  const body = (await response.json().catch(() => null)) as { error?: { code?: unknown; description?: unknown } } | null;
  const plain = (value: unknown): string =>
    typeof value === 'string' ? value.replace(/\p{Cc}/gu, '').slice(0, REFUSAL_CHARS_MAX) : '';
  const [code, description] = [plain(body?.error?.code), plain(body?.error?.description)];
  if (code === '') return '';
  return description === '' ? ` (${code})` : ` (${code}: ${description})`;
}

export const unreachable = (): KairosError => new KairosError('CLIENT-0201', 'the server cannot be reached');

const notFound = ({ endpoint }: Credentials): KairosError =>
  new KairosError('CLIENT-0203', `there is no sync service at \`${endpoint}\`; check the address`);
