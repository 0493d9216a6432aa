// The download loop: opens streams, feeds the machine, performs what it says.

import { type Credentials, KairosError } from '../api.ts';
import type { Answer, CloseReason, Completion, Instruction, StoreStep } from './core.ts';
import { type Engine, type Failed, failedBy } from './engine.ts';
import { LineBuffer } from './lines.ts';
import { Mailbox } from './mailbox.ts';
import { type StreamSubscription, wantedStreams } from './store/subscriptions.ts';
import { isShownBy } from './subscriptions.ts';
import { readToken, replaceIn } from './token.ts';
import { LINE_BYTES_MAX, openStream, SILENCE_TIMEOUT_MS, unreachable } from './transport.ts';

/** Lines that share one SQLite transaction. */
const LINES_PER_TRANSACTION = 4;
/** A stream that lived this long ends the growth of the waits. */
const HEALTHY_AFTER_MS = 30_000;

type StreamEvent =
  /** The stream goes on when `taken` is called: SQLite's pace is passed on to the service. */
  | { chunk: Uint8Array; taken: () => void }
  | { failed: KairosError }
  | 'ended'
  | 'drained'
  | 'aging'
  | 'renewed'
  | 'resubscribe';

/** Syncs until `stop`. Ending is safe at any moment: all changes are whole transactions. */
export async function runDownload(engine: Engine, stop: AbortSignal): Promise<void> {
  const backoff = engine.backoff();
  while (!stop.aborted) {
    const started = performance.now();
    const failure = await new StreamHost(engine, stop).run().then(() => null, failedBy);
    if (stop.aborted) return;
    if (performance.now() - started >= HEALTHY_AFTER_MS) backoff.reset();
    noteEnd(engine, failure?.code ?? null);
    await pause(engine, failure, backoff.fail(Math.random()));
  }
}

/** The app may not want to wait, but a service that says when is not asked before. */
async function pause({ retry }: Engine, failure: Failed | null, waitMs: number): Promise<void> {
  const until = failure?.retryAfterMs ?? null;
  if (until === null) await retry.wait(['retry', 'over'], waitMs);
  else await retry.wait(['over'], until + waitMs);
}

/** A stream that ended without a failure is opened again soon; until that fails, the status shows no gap. */
function noteEnd({ board, log }: Engine, failure: string | null): void {
  if (failure !== null) log.note(`sync_error ${failure}`);
  if (failure === null) board.note({ current: false });
  else if (failure === 'CLIENT-0300') board.note({ current: false, connected: false, streamFailure: null, configured: false });
  else board.note({ current: false, connected: false, streamFailure: failure, configured: true });
}

/** One stream, from its request to its end: performs the machine's instructions. */
class StreamHost {
  readonly #engine: Engine;
  readonly #stop: AbortSignal;
  /** Ends this stream alone. */
  readonly #end = new AbortController();
  readonly #events = new Mailbox<StreamEvent>();
  readonly #lines = new LineBuffer(LINE_BYTES_MAX);
  /** For the next transaction. */
  #steps: StoreStep[] = [];
  /** Those of the request, in its order, until their rows are visible. */
  #subscriptions: (StreamSubscription | null)[] = [];
  #credentials: Credentials | null = null;
  #aging: ReturnType<typeof setTimeout> | undefined;

  constructor(engine: Engine, stop: AbortSignal) {
    this.#engine = engine;
    this.#stop = stop;
  }

  async run(): Promise<void> {
    const end = (): void => this.#end.abort();
    this.#stop.addEventListener('abort', end);
    this.#engine.onDrained = () => this.#events.push('drained');
    this.#engine.onResubscribe = () => this.#events.push('resubscribe');
    try {
      await this.#sync();
    } finally {
      this.#engine.onDrained = null;
      this.#engine.onResubscribe = null;
      this.#stop.removeEventListener('abort', end);
      clearTimeout(this.#aging);
      end();
      await this.#flush(); // what arrived before an error is not downloaded again
    }
  }

  async #sync(): Promise<void> {
    const { core, store, template } = this.#engine;
    const subscriptions = await store.write(wantedStreams);
    this.#subscriptions = [...subscriptions];
    core.start({ ...template, streams: { include_defaults: true, subscriptions } });
    let answer: Answer | null = core.event({ start: await store.bucketStates() });
    while (answer) {
      const reason = await this.#handle(answer);
      if (reason !== null) return outcomeOf(reason);
      answer = await this.#next();
    }
  }

  /** The machine's answer to what happens next; nothing when the stream ended. Writes what was gathered before it waits. */
  async #next(): Promise<Answer | null> {
    const { core } = this.#engine;
    for (;;) {
      const line = this.#lines.next();
      if (!line || this.#steps.length >= LINES_PER_TRANSACTION) await this.#flush();
      if (line) return core.line(line);
      const event = await this.#events.next();
      switch (event) {
        case 'ended':
          return null;
        case 'resubscribe':
          this.#engine.retry.ring('retry');
          return null;
        case 'drained':
          return core.event('uploads_drained');
        case 'aging':
          return core.event('token_aging');
        case 'renewed':
          return core.event('token_refreshed');
        default:
          if ('failed' in event) throw event.failed;
          this.#engine.log.statistics.bytesReceived += event.chunk.length;
          this.#lines.push(event.chunk);
          event.taken();
      }
    }
  }

  /** Performs what the machine says, and what follows from it. A reason means that the stream is to be closed. */
  async #handle(first: Answer): Promise<CloseReason | null> {
    let answer: Answer | null = first;
    while (answer) {
      const { instructions, progress, current }: Answer = answer;
      answer = null;
      for (const instruction of instructions) {
        if (typeof instruction === 'object' && 'close_stream' in instruction) return instruction.close_stream;
        // A completion is always the last of its list: what follows depends on what becomes of it.
        answer = await this.#perform(instruction);
      }
      if (!answer) this.#engine.board.note({ progress, current });
    }
    return null;
  }

  async #perform(instruction: Exclude<Instruction, { close_stream: CloseReason }>): Promise<Answer | null> {
    const { board, uploads, session, log } = this.#engine;
    if (instruction === 'upload') {
      board.note({ configured: true, connected: true, streamFailure: null });
      uploads.ring('online');
    } else if (instruction === 'prefetch_credentials') {
      // A failure is not an event: the stream goes on until the old token ends, and then says so.
      session.renew().then((isNew) => isNew && this.#events.push('renewed'), () => {});
    } else if (instruction === 'drop_credentials') {
      if (this.#credentials) session.expire(this.#credentials);
    } else if ('open_stream' in instruction) {
      await this.#open(instruction.open_stream);
    } else {
      if ('apply_data' in instruction.store) log.statistics.operations += instruction.store.apply_data.data.length;
      this.#steps.push(instruction.store);
      if ('complete' in instruction.store) return this.#flush();
    }
    return null;
  }

  async #open(request: Record<string, unknown>): Promise<void> {
    const [credentials, reader] = await this.#engine.session.authorized(
      async (credentials) => [credentials, await openStream(credentials, request, this.#end)] as const,
    );
    this.#credentials = credentials;
    this.#engine.log.statistics.streams += 1;
    const agesIn = replaceIn(readToken(credentials.token), credentials.expiresAt, Date.now());
    if (agesIn !== null) this.#aging = setTimeout(() => this.#events.push('aging'), agesIn);
    void this.#pump(reader);
  }

  async #pump(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    try {
      for (;;) {
        const timer = setTimeout(() => this.#end.abort(), SILENCE_TIMEOUT_MS);
        const { done, value: chunk } = await reader.read().finally(() => clearTimeout(timer));
        if (done) return this.#events.push('ended');
        await new Promise<void>((taken) => this.#events.push({ chunk, taken }));
      }
    } catch {
      this.#events.push({ failed: unreachable() });
    }
  }

  /** Writes the gathered steps in one transaction; the machine's answer to what became of a completion. */
  async #flush(): Promise<Answer | null> {
    if (this.#steps.length === 0) return null;
    const { store, board, core } = this.#engine;
    const steps = this.#steps;
    this.#steps = [];
    const outcome = await store.perform(steps);
    if (outcome === null) return null;
    board.note({ local: store.local });
    const last = steps.at(-1);
    if (outcome === 'published' && last && 'complete' in last) await this.#notePublished(last.complete);
    return core.event(outcome);
  }

  async #notePublished(completion: Completion): Promise<void> {
    const { log, subscriptions } = this.#engine;
    if (completion.scope === 'full') {
      log.statistics.checkpoints += 1;
      log.note('sync_completed');
    }
    const isShown = (_: unknown, index: number): boolean => isShownBy(completion, index);
    await subscriptions.noteSynced(this.#subscriptions.filter(isShown).filter((each) => each !== null));
    this.#subscriptions = this.#subscriptions.map((each, index) => (isShown(each, index) ? null : each));
  }
}

/** What the end of a stream means: whether it was a failure. */
function outcomeOf(reason: CloseReason): void {
  if (typeof reason === 'string') return;
  if ('protocol' in reason) throw new KairosError('CLIENT-0301', reason.protocol);
  throw new KairosError('CLIENT-0302', `${reason.damaged.length} buckets did not add up; they are downloaded again`);
}
