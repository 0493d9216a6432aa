// What a token says of itself. Only the service can check it; the client reads when to ask for the next one, and for whom
// it is.

/** A token is replaced when so much of its life is over. */
const REPLACE_AT = 0.75;

export interface TokenClaims {
  sub?: string;
  iat?: number;
  exp?: number;
}

/** Claims of a token, as far as they are there. A token that is no JWT has none. */
export function readToken(token: string): TokenClaims {
  try {
    const payload = (token.split('.')[1] ?? '').replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const { sub, iat, exp } = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    return {
      ...(typeof sub === 'string' && { sub }),
      ...(typeof iat === 'number' && { iat }),
      ...(typeof exp === 'number' && { exp }),
    };
  } catch {
    return {};
  }
}

/**
 * How long until a new token should be at hand, in milliseconds; nothing where nobody says, or it is late already: then the
 * service tells when the token ends.
 */
export function replaceIn(claims: TokenClaims, expiresAt: Date | undefined, nowMs: number): number | null {
  const now = nowMs / 1000;
  const exp = claims.exp ?? (expiresAt && expiresAt.getTime() / 1000);
  if (exp === undefined) return null;
  const iat = claims.iat ?? now;
  const wait = iat + (exp - iat) * REPLACE_AT - now;
  // Timers count in 32 bits.
  return wait > 0 && wait * 1000 < 2 ** 31 ? wait * 1000 : null;
}
