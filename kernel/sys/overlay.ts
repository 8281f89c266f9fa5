/**
 * Overlay mounts whose options do not fit in the page that mount(2) copies: 128 layers below a root of ordinary depth need 8 KiB. Two ways, neither of which
 * changes the working directory (a thread cannot have one of its own in Node):
 *
 * 1. The mount API of Linux 5.2 with `lowerdir+`, one layer a call (6.7): real paths in /proc/self/mountinfo, up to 500 layers. A string is limited to 255 bytes.
 * 2. Layers opened with O_PATH and named /proc/self/fd/N, 17 bytes each: up to about 230 layers, on every kernel.
 */
import { constants, readSync } from 'node:fs';
import { AT_FDCWD, O_PATH, openat } from './at.ts';
import { errnos, type Path, SysError } from './errno.ts';
import { close, fdPath } from './fd.ts';
import { type CString, cstring, declareSyscall, lastErrno } from './libc.ts';
import * as ms from './mount-options.ts';

const fsopenC = declareSyscall<(fstype: CString, flags: number) => number>({ x64: 430, arm64: 430 }, [
  'const char *',
  'uint',
]);
const fsconfigC = declareSyscall<
  (fd: number, command: number, key: CString | null, value: CString | null, aux: number) => number
>({ x64: 431, arm64: 431 }, ['int', 'uint', 'const char *', 'const char *', 'int']);
const fsmountC = declareSyscall<(fd: number, flags: number, attributes: number) => number>({ x64: 432, arm64: 432 }, [
  'int',
  'uint',
  'uint',
]);
const moveMountC = declareSyscall<(fromfd: number, from: CString, tofd: number, to: CString, flags: number) => number>(
  { x64: 429, arm64: 429 },
  ['int', 'const char *', 'int', 'const char *', 'uint'],
);

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
/** fsconfig(2) copies strings of at most 256 bytes with their NUL. */
const STRING_LIMIT = 255;

/** MS_… → MOUNT_ATTR_… of fsmount(2). */
const attributes: readonly (readonly [flag: number, attribute: number])[] = [
  [ms.MS_RDONLY, 0x1],
  [ms.MS_NOSUID, 0x2],
  [ms.MS_NODEV, 0x4],
  [ms.MS_NOEXEC, 0x8],
  [ms.MS_NOATIME, 0x10],
  [ms.MS_STRICTATIME, 0x20],
  [ms.MS_NODIRATIME, 0x80],
  [ms.MS_NOSYMFOLLOW, 0x20_0000],
];
/** MS_… that belong to the superblock, by the name that fsconfig(2) knows. */
const superFlags: readonly (readonly [flag: number, name: string])[] = [
  [ms.MS_RDONLY, 'ro'],
  [ms.MS_SYNCHRONOUS, 'sync'],
  [ms.MS_DIRSYNC, 'dirsync'],
  [ms.MS_LAZYTIME, 'lazytime'],
];

type Mount = (source: Path, target: Path, fstype: string, flags: number, data: string) => void;

/** What overlay's options say: the layers, topmost first, and the rest as it came. */
export interface OverlayOptions {
  readonly lowerdirs: readonly string[];
  readonly rest: readonly string[];
}

/** Splits at commas and the layers at colons; a backslash keeps the character after it from splitting, and stays (overlayfs.rst). */
export function parseOverlayOptions(data: string): OverlayOptions {
  const rest: string[] = [];
  let lowerdirs: string[] = [];
  for (const option of data.match(/(?:\\.|[^\\,])+/gs) ?? []) {
    if (option.startsWith('lowerdir=')) lowerdirs = option.slice('lowerdir='.length).match(/(?:\\.|[^\\:])+/gs) ?? [];
    else rest.push(option);
  }
  return { lowerdirs, rest };
}

/** `mount` is mount(2), for the second way. */
export function mountLongOverlay(source: Path, target: Path, flags: number, data: string, mount: Mount): void {
  const options = parseOverlayOptions(data);
  const escaped =
    options.lowerdirs.some((path) => path.includes('\\')) || options.rest.some((option) => option.includes('\\'));
  const short = [...options.lowerdirs, ...options.rest].every((text) => Buffer.byteLength(text) <= STRING_LIMIT);
  if (!escaped && short && mountByConfig(source, target, flags, options)) return;
  mountByDescriptors(source, target, flags, options, mount);
}

/** @returns false when this kernel has no fsopen or overlay no `lowerdir+`; nothing has been mounted then. */
export function mountByConfig(source: Path, target: Path, flags: number, options: OverlayOptions): boolean {
  const context = fsopenC()('overlay', FSOPEN_CLOEXEC);
  if (context < 0) {
    const errno = lastErrno();
    if (errno === errnos.ENOSYS || errno === errnos.EPERM) return false;
    throw new SysError(errno, 'fsopen', source, target);
  }
  let mounted = -1;
  try {
    const fail = (syscall: string, errno = lastErrno()): never => {
      throw new SysError(errno, syscall, source, target, kernelWords(context));
    };
    const set = (key: string, value: CString): void => {
      if (fsconfigC()(context, FSCONFIG_SET_STRING, key, value, 0) < 0) fail(`fsconfig ${key}`);
    };
    set('source', cstring(source, 'fsconfig'));
    for (const path of options.lowerdirs) {
      if (fsconfigC()(context, FSCONFIG_SET_STRING, 'lowerdir+', cstring(path, 'fsconfig'), 0) < 0) {
        const errno = lastErrno();
        // Not known: before 6.5, where anything goes until it fills a page, it takes some rounds to come out. The other way tells what is really wrong.
        if (errno === errnos.EINVAL) return false;
        fail(`fsconfig lowerdir+ '${path}'`, errno);
      }
    }
    for (const option of options.rest) {
      const equals = option.indexOf('=');
      if (equals > 0) set(option.slice(0, equals), cstring(option.slice(equals + 1), 'fsconfig'));
      else if (fsconfigC()(context, FSCONFIG_SET_FLAG, cstring(option, 'fsconfig'), null, 0) < 0)
        fail(`fsconfig ${option}`);
    }
    for (const [flag, name] of superFlags) {
      if ((flags & flag) !== 0 && fsconfigC()(context, FSCONFIG_SET_FLAG, name, null, 0) < 0) fail(`fsconfig ${name}`);
    }
    if (fsconfigC()(context, FSCONFIG_CMD_CREATE, null, null, 0) < 0) fail('fsconfig create');
    let attribute = 0;
    for (const [flag, bit] of attributes) if ((flags & flag) !== 0) attribute |= bit;
    mounted = fsmountC()(context, FSMOUNT_CLOEXEC, attribute);
    if (mounted < 0) fail('fsmount');
    if (moveMountC()(mounted, '', AT_FDCWD, cstring(target, 'move_mount'), MOVE_MOUNT_F_EMPTY_PATH) < 0)
      fail('move_mount');
    return true;
  } finally {
    if (mounted >= 0) close(mounted);
    close(context);
  }
}

/** Overlay takes its own references to the layers, so the descriptors may go once it is mounted. The mount shows their /proc names as its options. */
export function mountByDescriptors(
  source: Path,
  target: Path,
  flags: number,
  options: OverlayOptions,
  mount: Mount,
): void {
  const fds: number[] = [];
  const open = (path: string): string => {
    const fd = openat(AT_FDCWD, path.replace(/\\(.)/gs, '$1'), O_PATH | constants.O_DIRECTORY);
    fds.push(fd);
    return fdPath(fd);
  };
  try {
    const lower = options.lowerdirs.map(open).join(':');
    const data = [`lowerdir=${lower}`, ...options.rest].join(',');
    if (Buffer.byteLength(data) >= 4096) {
      throw new SysError(
        errnos.E2BIG,
        'mount',
        source,
        target,
        `${options.lowerdirs.length} layers need Linux 6.7, or fewer layers`,
      );
    }
    mount(source, target, 'overlay', flags, data);
  } finally {
    for (const fd of fds) close(fd);
  }
}

/** What the kernel has to say about a failed configuration: one message a read, with its level ("e overlay: …") in front. */
function kernelWords(context: number): string | undefined {
  const words: string[] = [];
  const buffer = Buffer.alloc(1024);
  try {
    for (let i = 0; i < 8; i++) words.push(buffer.toString('utf8', 0, readSync(context, buffer)).trim());
  } catch {
    // ENODATA: no message is left.
  }
  return words.length === 0 ? undefined : words.join('; ');
}
