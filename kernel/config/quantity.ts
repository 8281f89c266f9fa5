/** Durations as Go writes them (time.ParseDuration) and sizes with binary units. Both return undefined for what is not one. */

const unitMs: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** `10s`, `1m30s`, `1.5h`, `-1s`, `0` → milliseconds. A number without unit is refused, except 0, as in Go. */
export function parseDuration(text: string): number | undefined {
  const signed = /^([+-]?)(.+)$/.exec(text);
  if (signed === null) return undefined;
  const sign = signed[1] === '-' ? -1 : 1;
  const body = signed[2]!;
  if (body === '0') return 0;
  const part = /(\d+\.?\d*|\.\d+)(ns|us|µs|\u03bcs|ms|s|m|h)/y;
  let total = 0;
  for (let at = 0; at < body.length; at = part.lastIndex) {
    part.lastIndex = at;
    const match = part.exec(body);
    if (match === null) return undefined;
    total += Number(match[1]) * unitMs[match[2]!]!;
  }
  // 2⁶³ ns, beyond which Go's own type has no values.
  return total > 9_223_372_036_854 ? undefined : sign * total + 0;
}

/** Milliseconds → `0s`, `250ms`, `1m30s`: what parseDuration reads back as the same number. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  if (ms < 0) return `-${formatDuration(-ms)}`;
  if (ms < 1) return `${Math.round(ms * 1e6)}ns`;
  if (ms < 1000 || !Number.isInteger(ms)) return `${ms}ms`;
  const hours = Math.floor(ms / 3_600_000);
  const minutes = Math.floor(ms / 60_000) % 60;
  const seconds = (ms % 60_000) / 1000;
  return `${hours > 0 ? `${hours}h` : ''}${minutes > 0 ? `${minutes}m` : ''}${seconds > 0 ? `${seconds}s` : ''}`;
}

const unitBytes: Record<string, number> = { '': 1, B: 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `512`, `16MiB`, `1.5 GiB`, `64k` → bytes. Units are powers of 1024 however they are spelled, as docker's flags have them. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?(?:([KMGT])(?:i?B)?|B?)$/i.exec(text.trim());
  if (match === null) return undefined;
  const bytes = Number(match[1]) * unitBytes[(match[2] ?? '').toUpperCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
