// The upload loop: empties the queue of local writes, oldest first.

import { type Engine, type Failed, failedBy } from './engine.ts';
import { acknowledge, awaitWriteCheckpoint, lacksWriteCheckpoint, nextUpload } from './store/crud.ts';
import { upload, writeCheckpoint } from './transport.ts';

/**
 * The app wrote something, or a stream was opened. The service may have lost its write checkpoints before that, since its store
 * is disposable, so one that did not come back yet is asked for again: the new one is as good. Or the sync is over.
 */
export type UploadReason = 'written' | 'online' | 'over';

/** Uploads until `stop`. Ending is safe at any moment: the service knows repeated writes by their ids. */
export async function runUploads(engine: Engine, stop: AbortSignal): Promise<void> {
  const backoff = engine.backoff();
  let reason: UploadReason = 'online';
  while (!stop.aborted) {
    const failure: Failed | null = await drain(engine, reason, stop).then(() => null, failedBy);
    if (stop.aborted) return;
    engine.board.note({ uploadFailure: failure === null || failure.code === 'CLIENT-0300' ? null : failure.code });
    if (failure === null) {
      backoff.reset();
      reason = (await engine.uploads.wait(['online', 'written', 'over'])) ?? reason;
    } else {
      engine.log.note(`upload_error ${failure.code}`);
      await pause(engine, failure, backoff.fail(Math.random()));
    }
  }
}

/** Not woken by further local writes: they cannot be sent before this one. Nor by anything before the time a service has said. */
async function pause({ uploads }: Engine, { retryAfterMs }: Failed, waitMs: number): Promise<void> {
  if (retryAfterMs === null) await uploads.wait(['online', 'over'], waitMs);
  else await uploads.wait(['over'], retryAfterMs + waitMs);
}

async function drain(engine: Engine, reason: UploadReason, stop: AbortSignal): Promise<void> {
  const { store, session, board, clientId, log } = engine;
  for (;;) {
    const slice = await store.read((db) => nextUpload(db, clientId));
    if (!slice || stop.aborted) break;
    const response = await session.authorized((credentials) => upload(credentials, slice.body, stop));
    await store.write((db) => acknowledge(db, slice.lastId, response.results, response.write_checkpoint));
    log.statistics.writesUploaded += slice.count;
    board.note({ local: store.local });
  }
  const awaits = reason === 'online' ? store.local.awaiting : await store.read(lacksWriteCheckpoint);
  if (awaits && !stop.aborted) {
    const id = await session.authorized((credentials) => writeCheckpoint(credentials, clientId, stop));
    await store.write((db) => awaitWriteCheckpoint(db, id));
  }
  board.note({ local: store.local });
  engine.onDrained?.();
}
