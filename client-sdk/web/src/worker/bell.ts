/** Wakes a loop. What rang while nobody waited is remembered, once for each reason. */
export class Bell<Reason extends string> {
  readonly #rung = new Set<Reason>();
  #waiting: { reasons: readonly Reason[]; wake: (reason: Reason | null) => void } | null = null;

  ring(reason: Reason): void {
    this.#rung.add(reason);
    const waiting = this.#waiting;
    if (waiting?.reasons.includes(reason)) {
      this.#rung.delete(reason);
      waiting.wake(reason);
    }
  }

  /** It does not count any more that it rang. */
  forget(reason: Reason): void {
    this.#rung.delete(reason);
  }

  /** The first of the reasons that rang or rings; `null` when none does in time. One may wait. */
  wait(reasons: readonly Reason[], timeoutMs?: number): Promise<Reason | null> {
    const rung = reasons.find((reason) => this.#rung.delete(reason));
    if (rung !== undefined) return Promise.resolve(rung);
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const wake = (reason: Reason | null): void => {
        clearTimeout(timer);
        this.#waiting = null;
        resolve(reason);
      };
      if (timeoutMs !== undefined) timer = setTimeout(wake, timeoutMs, null);
      this.#waiting = { reasons, wake };
    });
  }
}
