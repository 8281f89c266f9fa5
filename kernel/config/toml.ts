/**
 * Reading TOML from a disk that is not trusted to hold what it should: size, depth, file type and encoding are bounded before anything
 * is parsed. Tables have no prototype, so `__proto__` and `constructor` are keys like any other.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { lineOf, scanPositions } from './positions.ts';
import { type Problem, ProblemsError } from './problem.ts';

/** A table as parsed: values are string, bigint, number (floats), boolean, Date, arrays and tables. Integers are bigint, so none is rounded. */
export type TomlTable = { [key: string]: unknown };

export interface Place {
  readonly file: string;
  readonly line?: number;
}

export interface TomlDocument {
  readonly file: string;
  readonly table: TomlTable;
  /** Permission bits, for the warning about files that anyone may write. 0 for text that came from no file. */
  readonly mode: number;
  /** Where the key is written, or the closest table around it that is. Merged documents answer with the file that had the last word. */
  locate(path: readonly string[]): Place | undefined;
}

export const maxFileBytes = 1 << 20;
export const maxDepth = 64;

export function isTable(value: unknown): value is TomlTable {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** @throws ProblemsError with one problem: not a regular file, too big, not UTF-8, not TOML, nested too deep; system errors by their name (ENOENT …). */
export function readToml(file: string): TomlDocument {
  const { bytes, mode } = readBounded(file);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new ProblemsError([{ file, ...invalidUtf8At(bytes), message: 'not valid UTF-8' }]);
  }
  return parseToml(text, file, mode);
}

/** @throws ProblemsError as readToml. */
export function parseToml(text: string, file: string, mode = 0): TomlDocument {
  let table: TomlTable;
  try {
    table = parse(text, { integersAsBigInt: true, maxDepth });
  } catch (error) {
    throw new ProblemsError([syntaxProblem(error, file)]);
  }
  // Before the walk for positions, which costs depth times keys.
  if (deeperThan(table, maxDepth))
    throw new ProblemsError([{ file, message: `tables nested deeper than ${maxDepth}` }]);
  const positions = scanPositions(text);
  const locate = (path: readonly string[]) => {
    const line = lineOf(positions, path);
    return line === undefined ? undefined : { file, line };
  };
  // TOML's integers have 64 bits; the parser's have no end.
  const beyond = tooLargeIn(table, []);
  if (beyond !== undefined)
    throw new ProblemsError([
      { file, ...locate(beyond), message: `${beyond.join('.')} is an integer of more than 64 bits` },
    ]);
  return { file, table, mode, locate };
}

function syntaxProblem(error: unknown, file: string): Problem {
  if (!(error instanceof TomlError)) return { file, message: error instanceof Error ? error.message : String(error) };
  const message = error.message.split('\n', 1)[0]!.replace(/^Invalid TOML document: /, '');
  return { file, line: error.line, column: error.column, message };
}

/** Dotted keys nest without the parser counting them, so depth is measured on the result; a loop, since a recursion is what we guard against. */
function deeperThan(root: TomlTable, limit: number): boolean {
  let level: object[] = [root];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > limit) return true;
    level = level.flatMap((node) =>
      Object.values(node).filter((v) => typeof v === 'object' && v !== null && !(v instanceof Date)),
    );
  }
  return false;
}

/** The key of the first integer that is none; one in an array has the key of the array. */
function tooLargeIn(value: unknown, path: readonly string[]): readonly string[] | undefined {
  if (typeof value === 'bigint') return value === BigInt.asIntN(64, value) ? undefined : path;
  const inside = Array.isArray(value)
    ? value.map((each): [readonly string[], unknown] => [path, each])
    : isTable(value)
      ? Object.entries(value).map(([key, each]): [readonly string[], unknown] => [[...path, key], each])
      : [];
  for (const [at, each] of inside) {
    const found = tooLargeIn(each, at);
    if (found !== undefined) return found;
  }
  return undefined;
}

function invalidUtf8At(bytes: Uint8Array): { line: number } {
  let line = 1;
  let start = 0;
  // Newline bytes never occur inside a multi-byte sequence, so the first line that does not decode alone is the bad one.
  for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, start)) {
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, end));
    } catch {
      break;
    }
    line++;
    start = end + 1;
  }
  return { line };
}

/** O_NONBLOCK and the check on the open descriptor: a FIFO would hang the start, a device could answer without end, and a name can change between two looks. */
function readBounded(file: string): { bytes: Uint8Array; mode: number } {
  const fail = (message: string) => new ProblemsError([{ file, message }]);
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw fail(`cannot be opened: ${describeErrno[code] ?? code}`);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw fail('not a regular file');
    if (stat.size > maxFileBytes) throw fail(`${stat.size} bytes, the limit is ${maxFileBytes}`);
    // One byte more than allowed: the file may grow while we read.
    const buffer = new Uint8Array(maxFileBytes + 1);
    let length = 0;
    for (let n = -1; n !== 0 && length < buffer.length; length += n)
      n = readSync(fd, buffer, length, buffer.length - length, null);
    if (length > maxFileBytes) throw fail(`more than ${maxFileBytes} bytes, the limit`);
    return { bytes: buffer.subarray(0, length), mode: stat.mode & 0o7777 };
  } finally {
    closeSync(fd);
  }
}

const describeErrno: Record<string, string> = {
  ENOENT: 'no such file',
  EACCES: 'permission denied',
  ELOOP: 'too many symbolic links',
  ENXIO: 'not a regular file',
  ENOTDIR: 'a part of its path is not a directory',
};
