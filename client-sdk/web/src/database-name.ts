/**
 * The name of the database of a user of a server: another user in the same browser gets another. It does not tell who it is.
 */
export async function databaseName(endpoint: string, userId: string): Promise<string> {
  const text = `${endpoint.replace(/\/+$/, '')}\n${userId}`;
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `kairos-${hex.slice(0, 32)}`;
}
