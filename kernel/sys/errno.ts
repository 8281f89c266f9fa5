import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** A path as the kernel sees it: bytes without NUL. A string is encoded as UTF-8. */
export type Path = string | Uint8Array;

/** Errors of Linux that neither libuv nor `os.constants` names, and that a file system or a socket does return (errno.h, same on x86_64 and aarch64). */
const unnamed: Readonly<Record<number, [string, string]>> = {
  108: ['ESHUTDOWN', 'cannot send after transport endpoint shutdown'],
  117: ['EUCLEAN', 'structure needs cleaning'],
  122: ['EDQUOT', 'disk quota exceeded'],
  123: ['ENOMEDIUM', 'no medium found'],
  124: ['EMEDIUMTYPE', 'wrong medium type'],
  126: ['ENOKEY', 'required key not available'],
  133: ['EHWPOISON', 'memory page has hardware error'],
};

const described = new Map<number, readonly [code: string, words: string]>();

/**
 * The name and the words of an errno. libuv's come first, so that the same fault has the same `code` whether Node or this module
 * reports it (errno 95 is ENOTSUP for both, not EOPNOTSUPP).
 */
export function describeErrno(errno: number): readonly [code: string, words: string] {
  let description = described.get(errno);
  if (description === undefined) {
    const named = Object.entries(constants.errno).find(([, number]) => number === errno);
    description = getSystemErrorMap().get(-errno) ??
      unnamed[errno] ?? [named?.[0] ?? `E${errno}`, `system error ${errno}`];
    described.set(errno, description);
  }
  return description;
}

/**
 * A failed system call, in the shape of Node's own ErrnoException, so that one handler serves both: `code` is 'ENOENT' and the like,
 * `errno` is negative, `path` and `dest` are printable (bytes that are not UTF-8 come out as U+FFFD; nothing may open them again).
 */
export class SysError extends Error implements NodeJS.ErrnoException {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  declare readonly path?: string;
  declare readonly dest?: string;

  /** @param errno positive, as in errno(3). @param detail what the kernel said beyond the number, or what the caller can do. */
  constructor(errno: number, syscall: string, path?: Path, dest?: Path, detail?: string) {
    const [code, words] = describeErrno(errno);
    const from = path === undefined ? undefined : printable(path);
    const to = dest === undefined ? undefined : printable(dest);
    const where = `${from === undefined ? '' : ` '${from}'`}${to === undefined ? '' : ` -> '${to}'`}`;
    super(`${code}: ${words}, ${syscall}${where}${detail === undefined ? '' : ` (${detail})`}`);
    this.name = 'SysError';
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
    if (from !== undefined) this.path = from;
    if (to !== undefined) this.dest = to;
  }
}

/** Whether `thrown` is an error of the system, Node's or ours, with one of these codes. */
export function isErrno(thrown: unknown, ...codes: string[]): thrown is NodeJS.ErrnoException {
  return thrown instanceof Error && codes.includes((thrown as NodeJS.ErrnoException).code ?? '');
}

/** Numbers of the errors that this module itself raises or tells apart. */
export const errnos = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  E2BIG: 7,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENOTDIR: 20,
  EINVAL: 22,
  ENOTTY: 25,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EOPNOTSUPP: 95,
  EPROTOTYPE: 91,
  EADDRINUSE: 98,
  ECONNREFUSED: 111,
} as const;

function printable(path: Path): string {
  return typeof path === 'string' ? path : Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString();
}
