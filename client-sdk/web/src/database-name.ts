/**
 * The name of the database of a user of a server: another user in the same browser gets another. It does not show who it is,
 * which is no secret from who has the browser: `crypto.subtle` is missing where a page came over plain HTTP.
 */
export function databaseName(endpoint: string, userId: string): string {
  const bytes = new TextEncoder().encode(`${endpoint.replace(/\/+$/, '')}\n${userId}`);
  return `kairos-${fnv1a(bytes).toString(16).padStart(32, '0')}`;
}

/** FNV-1a of 128 bits. */
function fnv1a(bytes: Uint8Array): bigint {
  const prime = (1n << 88n) + 0x13bn;
  return bytes.reduce((hash, byte) => BigInt.asUintN(128, (hash ^ BigInt(byte)) * prime), 0x6c62272e07bb014262b821756295c58dn);
}
