/**
 * How long to wait before another attempt: exponential with full jitter, a random part of a limit that doubles with each
 * failure. A thousand clients that lost their server at once do not come back at once.
 */
export class Backoff {
  readonly #baseMs: number;
  readonly #capMs: number;
  #failures = 0;

  constructor(baseMs: number, capMs: number) {
    this.#baseMs = baseMs;
    this.#capMs = capMs;
  }

  /** Counts a failure and returns the wait. `random` is between 0 and 1. */
  fail(random: number): number {
    const limit = Math.min(this.#baseMs * 2 ** this.#failures, this.#capMs);
    this.#failures += 1;
    return limit * random;
  }

  /** Something worked. */
  reset(): void {
    this.#failures = 0;
  }
}
