// Cuts a stream of bytes into lines.

import { KairosError } from '../api.ts';

const LINE_END = 10;

/** What arrived and is not a whole line yet. A last line without an end is not whole: the stream was cut. */
export class LineBuffer {
  readonly #bytesMax: number;
  /** Whole lines that nobody took yet. */
  #lines: Uint8Array[] = [];
  /** The beginning of the next one. */
  #parts: Uint8Array[] = [];
  #partsLength = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  push(bytes: Uint8Array): void {
    let begin = 0;
    for (let end = bytes.indexOf(LINE_END); end >= 0; end = bytes.indexOf(LINE_END, begin)) {
      this.#keep(bytes.subarray(begin, end));
      this.#lines.push(joined(this.#parts, this.#partsLength));
      this.#parts = [];
      this.#partsLength = 0;
      begin = end + 1;
    }
    this.#keep(bytes.subarray(begin));
  }

  /** The next whole line, without its end. */
  next(): Uint8Array | undefined {
    return this.#lines.shift();
  }

  #keep(part: Uint8Array): void {
    this.#partsLength += part.length;
    if (this.#partsLength > this.#bytesMax) {
      throw new KairosError('CLIENT-0206', `the server sent a line of more than ${this.#bytesMax} bytes`);
    }
    if (part.length > 0) this.#parts.push(part);
  }
}

function joined(parts: Uint8Array[], length: number): Uint8Array {
  if (parts.length === 1 && parts[0]) return parts[0];
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
