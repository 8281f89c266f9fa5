/** Versions of contracts and the ranges that users of them accept: the part of semver that a manifest needs. Pre-releases do not exist here. */

type Version = readonly [major: number, minor: number, patch: number];

export function parseVersion(text: string): Version | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})\.(\d{1,9})$/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3])];
}

function compare(a: Version, b: Version): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

type Interval = readonly [from: Version, below: Version];

const infinity: Version = [Number.POSITIVE_INFINITY, 0, 0];

/** `1`, `1.2`, `1.2.3`, `^1.2`, `~1.2`, `>=1.1`, `>1.1`, `<2`, `<=1.9`, `=1.2.3`, `*`, as a half-open interval. */
function parseComparator(text: string): Interval | undefined {
  if (text === '*') return [[0, 0, 0], infinity];
  const match = /^(\^|~|>=|<=|>|<|=)?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) return undefined;
  const [major, minor, patch] = [Number(match[2]), match[3], match[4]];
  const from: Version = [major, Number(minor ?? 0), Number(patch ?? 0)];
  // The first version that is no longer covered by the digits given: `1.2` covers 1.2.0 up to 1.3.0.
  const next: Version =
    minor === undefined
      ? [major + 1, 0, 0]
      : patch === undefined
        ? [major, from[1] + 1, 0]
        : [major, from[1], from[2] + 1];
  switch (match[1]) {
    case '^':
      // Nothing is promised between 0.x versions, so there a caret allows only patches.
      return [from, major > 0 || minor === undefined ? [major + 1, 0, 0] : [0, from[1] + 1, 0]];
    case '~':
      return [from, minor === undefined ? [major + 1, 0, 0] : [major, from[1] + 1, 0]];
    case '>=':
      return [from, infinity];
    case '>':
      return [next, infinity];
    case '<':
      return [[0, 0, 0], from];
    case '<=':
      return [[0, 0, 0], next];
    default:
      return [from, next];
  }
}

/** Alternatives of intervals that must all hold: `>=1.1 <3 || 4`. */
function parseRange(text: string): Interval[][] | undefined {
  const alternatives: Interval[][] = [];
  for (const alternative of text.split('||')) {
    const parts = alternative.trim().split(/\s+/);
    const intervals = parts.map(parseComparator);
    if (!intervals.every((interval) => interval !== undefined)) return undefined;
    alternatives.push(intervals);
  }
  return alternatives;
}

export function isRange(text: string): boolean {
  return parseRange(text) !== undefined;
}

/** False also when either text is not what it should be. */
export function satisfies(versionText: string, rangeText: string): boolean {
  const version = parseVersion(versionText);
  const range = parseRange(rangeText);
  if (version === undefined || range === undefined) return false;
  return range.some((intervals) =>
    intervals.every(([from, below]) => compare(version, from) >= 0 && compare(version, below) < 0),
  );
}
