// The protocol's state machine: `client-sdk/core`, compiled to WebAssembly. Texts go in and come out.

import { KairosError } from '../api.ts';

/** What the store knows of a bucket when a stream starts. Ids are decimal texts, as everywhere. */
export interface BucketState {
  name: string;
  last_op_id: string;
  count_at_last: number;
  count_since_last: number;
}

export interface Operation {
  op_id: string;
  op: 'PUT' | 'REMOVE' | 'MOVE' | 'CLEAR';
  object_type?: string;
  object_id?: string;
  checksum: number;
  subkey?: string;
  data: string | null;
}

export interface BucketData {
  bucket: string;
  data: Operation[];
}

export interface BucketAim {
  bucket: string;
  checksum: number;
  count: number;
  priority: number;
  /** Why it is sent; explicit subscriptions by their place in the request. */
  subscriptions?: ({ sub: number } | { default: number })[];
}

/** A checkpoint of which everything in `scope` has arrived. */
export interface Completion {
  target: { last_op_id: string; write_checkpoint: string | null; buckets: Record<string, BucketAim> };
  scope: 'full' | { up_to: number };
}

export type StoreStep = { delete_buckets: string[] } | { apply_data: BucketData } | { complete: Completion };

export type CloseReason = 'token_expired' | 'token_refreshed' | 'deferred' | { damaged: string[] } | { protocol: string };

export type Instruction =
  | { open_stream: Record<string, unknown> }
  | { store: StoreStep }
  | 'upload'
  | 'prefetch_credentials'
  | 'drop_credentials'
  | { close_stream: CloseReason };

export type Event =
  | { start: BucketState[] }
  | 'uploads_drained'
  | 'token_aging'
  | 'token_refreshed'
  | 'published'
  | 'withheld'
  | { damaged: string[] };

export interface Answer {
  instructions: Instruction[];
  progress: { done: number; total: number };
  /** The app sees the latest state the service announced on this stream. */
  current: boolean;
}

interface Exports {
  memory: WebAssembly.Memory;
  input(length: number): number;
  output(): number;
  start(): number;
  line(): number;
  event(): number;
  put_checksum(): number;
}

/** One machine at a time: {@link start} begins the next. */
export class Core {
  readonly #exports: Exports;
  readonly #encoder = new TextEncoder();
  readonly #decoder = new TextDecoder();

  constructor(instance: WebAssembly.Instance) {
    this.#exports = instance.exports as unknown as Exports;
  }

  /** A machine whose requests carry what `template` does. */
  start(template: Record<string, unknown>): void {
    this.#write(this.#encoder.encode(JSON.stringify(template)));
    this.#read(this.#exports.start());
  }

  line(bytes: Uint8Array): Answer {
    this.#write(bytes);
    return this.#read(this.#exports.line());
  }

  event(event: Event): Answer {
    this.#write(this.#encoder.encode(JSON.stringify(event)));
    return this.#read(this.#exports.event());
  }

  putChecksum(table: string, id: string, data: string): number {
    this.#write(this.#encoder.encode(JSON.stringify([table, id, data])));
    return this.#exports.put_checksum() >>> 0;
  }

  #write(bytes: Uint8Array): void {
    const address = this.#exports.input(bytes.length);
    new Uint8Array(this.#exports.memory.buffer, address, bytes.length).set(bytes);
  }

  #read(length: number): Answer {
    const bytes = new Uint8Array(this.#exports.memory.buffer, this.#exports.output(), length);
    const answer = JSON.parse(this.#decoder.decode(bytes)) as Answer & { error?: { code: string; message: string } };
    if (answer.error) throw new KairosError(answer.error.code, answer.error.message);
    return answer;
  }
}
