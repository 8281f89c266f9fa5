/** What the suite tries of what `npm run faults` tries all of: every day has its own seed, so that in time all of it comes by. */
import { Random } from './random.ts';

/** `TROUPE_FAULTS_SEED` has a day again. */
export const seed = process.env.TROUPE_FAULTS_SEED ?? String(Math.floor(Date.now() / 86_400_000));
/** Set by `npm run faults`. */
export const exhaustive = process.env.TROUPE_FAULTS === 'all';

/** So many different ones of today, in their order; or all. @param purpose tells apart who asks */
export function sample<T>(items: readonly T[], count: number, purpose: string): readonly T[] {
  if (exhaustive || items.length <= count) return items;
  const random = new Random(`${purpose} ${seed}`);
  const left = items.map((_, index) => index);
  const chosen = Array.from({ length: count }, () => left.splice(random.between(0, left.length - 1), 1)[0]!);
  return chosen.sort((a, b) => a - b).map((index) => items[index]!);
}
