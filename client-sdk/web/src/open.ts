import { KairosError, type Kairos, type OpenOptions } from './api.ts';

/** Opens or creates the database. */
export async function open(_options: OpenOptions): Promise<Kairos> {
  throw new KairosError('CLIENT-0101', 'not there yet');
}
