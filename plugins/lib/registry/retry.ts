/** When to ask again: after failures that may pass, with pauses that grow, and as the server asks if that is within reason. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds; whatever a server asks for. */
export const longestPause = 60_000;

export interface Backoff {
  /** Of the first pause, ms; each is twice the one before. */
  readonly firstMs: number;
  readonly attempts: number;
}

export const isTransient = (status: number): boolean =>
  status === 408 || status === 425 || status === 429 || status >= 500;

/**
 * Milliseconds to wait before attempt `attempt` (1 for the second). Half of it is chance, so that clients that failed together do not come back together.
 *
 * @param retryAfter the header, seconds or a date (RFC 9110, 10.2.3); what cannot be read does not count
 */
export function pauseBefore(attempt: number, backoff: Backoff, retryAfter?: string, now: number = Date.now()): number {
  const usual = Math.min(backoff.firstMs * 2 ** (attempt - 1), longestPause);
  const jittered = usual * (0.5 + Math.random() / 2);
  return Math.min(Math.max(asked(retryAfter, now), jittered), longestPause);
}

function asked(retryAfter: string | undefined, now: number): number {
  if (retryAfter === undefined) return 0;
  if (/^[0-9]{1,12}$/.test(retryAfter.trim())) return Number(retryAfter) * 1000;
  const date = Date.parse(retryAfter);
  return Number.isNaN(date) ? 0 : Math.max(date - now, 0);
}

export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}
