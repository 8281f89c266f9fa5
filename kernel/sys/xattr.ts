/**
 * Extended attributes, values as bytes. The l… forms do not follow a link at the end of the path; the f… forms take a descriptor, which must not be O_PATH
 * (EBADF): for those, and for entries of a held directory, give `fdPath(dirfd, name)` to the l… form.
 */
import { errnos, type Path, SysError } from './errno.ts';
import { type CString, check, cstring, declare, lastErrno } from './libc.ts';

type Target = number | CString;
type Get = (target: Target, name: CString, value: Uint8Array | null, size: number) => number;
type Set = (target: Target, name: CString, value: Uint8Array, size: number, flags: number) => number;
type List = (target: Target, names: Uint8Array | null, size: number) => number;
type Remove = (target: Target, name: CString) => number;

const lget = declare<Get>('lgetxattr', 'int64', ['const char *', 'const char *', 'void *', 'size_t']);
const fget = declare<Get>('fgetxattr', 'int64', ['int', 'const char *', 'void *', 'size_t']);
const lset = declare<Set>('lsetxattr', 'int', ['const char *', 'const char *', 'void *', 'size_t', 'int']);
const fset = declare<Set>('fsetxattr', 'int', ['int', 'const char *', 'void *', 'size_t', 'int']);
const llist = declare<List>('llistxattr', 'int64', ['const char *', 'void *', 'size_t']);
const flist = declare<List>('flistxattr', 'int64', ['int', 'void *', 'size_t']);
const lremove = declare<Remove>('lremovexattr', 'int', ['const char *', 'const char *']);
const fremove = declare<Remove>('fremovexattr', 'int', ['int', 'const char *']);

/** EEXIST when it is there. */
export const XATTR_CREATE = 1;
/** ENODATA when it is not. */
export const XATTR_REPLACE = 2;

/** Large enough for nearly every value and list, so that one call does; never handed out. */
const scratch = Buffer.alloc(4096);

function get(call: Get, target: Target, name: Path, syscall: string, path?: Path): Buffer | undefined {
  const key = cstring(name, syscall);
  return read((buffer, size) => call(target, key, buffer, size), syscall, path);
}

/** Reads with the scratch buffer, then with one of the size that the kernel asks for, as often as the value grows meanwhile. */
function read(
  call: (buffer: Uint8Array | null, size: number) => number,
  syscall: string,
  path?: Path,
): Buffer | undefined {
  let buffer: Buffer = scratch;
  for (;;) {
    const length = call(buffer, buffer.length);
    if (length >= 0) return Buffer.from(buffer.subarray(0, length));
    const errno = lastErrno();
    if (errno === errnos.ENODATA) return undefined;
    if (errno !== errnos.ERANGE) throw new SysError(errno, syscall, path);
    buffer = Buffer.alloc(check(call(null, 0), syscall, path));
  }
}

/** undefined when there is no such attribute. ENOTSUP where the file system has none. */
export function lgetxattr(path: Path, name: Path): Buffer | undefined {
  return get(lget(), cstring(path, 'lgetxattr'), name, 'lgetxattr', path);
}

export function fgetxattr(fd: number, name: Path): Buffer | undefined {
  return get(fget(), fd, name, 'fgetxattr');
}

/** `flags`: 0, XATTR_CREATE or XATTR_REPLACE. */
export function lsetxattr(path: Path, name: Path, value: Uint8Array, flags = 0): void {
  check(
    lset()(cstring(path, 'lsetxattr'), cstring(name, 'lsetxattr'), value, value.byteLength, flags),
    'lsetxattr',
    path,
  );
}

export function fsetxattr(fd: number, name: Path, value: Uint8Array, flags = 0): void {
  check(fset()(fd, cstring(name, 'fsetxattr'), value, value.byteLength, flags), 'fsetxattr');
}

/** Names, in the kernel's order. Attribute names are text in every namespace that Linux has. */
export function llistxattr(path: Path): string[] {
  const file = cstring(path, 'llistxattr');
  return split(read((buffer, size) => llist()(file, buffer, size), 'llistxattr', path));
}

export function flistxattr(fd: number): string[] {
  return split(read((buffer, size) => flist()(fd, buffer, size), 'flistxattr'));
}

export function lremovexattr(path: Path, name: Path): void {
  check(lremove()(cstring(path, 'lremovexattr'), cstring(name, 'lremovexattr')), 'lremovexattr', path);
}

export function fremovexattr(fd: number, name: Path): void {
  check(fremove()(fd, cstring(name, 'fremovexattr')), 'fremovexattr');
}

function split(list: Buffer | undefined): string[] {
  if (list === undefined || list.length === 0) return [];
  return list.toString('utf8', 0, list.length - 1).split('\0');
}
