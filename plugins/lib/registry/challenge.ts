/** `WWW-Authenticate` (RFC 9110, 11.6.1): one header with several challenges, or several headers. */

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

/** Longer ones name a realm that nobody means. */
const longest = 16 << 10;
const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const quoted = /"((?:[^"\\]|\\.)*)"/y;

/** What cannot be read ends the list: the challenges before it count. */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  return headers.flatMap((header) => (header.length > longest ? [] : parseHeader(header)));
}

function parseHeader(header: string): Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = [];
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at;
    const result = pattern.exec(header) ?? undefined;
    if (result !== undefined) at += result[0].length;
    return result;
  };
  const space = /[ \t,]*/y;
  for (match(space); at < header.length; match(space)) {
    const name = match(token)?.[0].toLowerCase();
    if (name === undefined) break;
    const equals = match(/[ \t]*=[ \t]*/y);
    // A word without `=` begins the next challenge.
    if (equals === undefined) {
      found.push({ scheme: name, parameters: {} });
      continue;
    }
    const value = match(quoted)?.[1]?.replace(/\\(.)/g, '$1') ?? match(token)?.[0];
    if (value === undefined) break;
    const last = found.at(-1);
    if (last !== undefined && !Object.hasOwn(last.parameters, name)) last.parameters[name] = value;
  }
  return found;
}
