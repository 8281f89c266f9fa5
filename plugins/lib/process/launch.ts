/**
 * Starting a program without forking this process. Node forks: every page table of the daemon is copied and every page of it, of all threads, faults at its next
 * write. With 250 MB resident a start held its thread for 15 to 60 ms; posix_spawn(3), which lets the child borrow the memory until it execs, for 0.3 ms.
 *
 * Only for programs that run briefly and are waited for: their end is noticed by asking (waitpid of the one pid, as libuv does it), soon after they close their output.
 */

import { Socket } from 'node:net';
import { close, errnos, openLibrary, SysError, type WaitStatus, waitpid } from 'troupe/sys';

export interface LaunchOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What it reads, at most `maxInputBytes`: it lies in the pipe before the program starts. */
  readonly stdin: Uint8Array;
}

export interface Launched {
  readonly pid: number;
  readonly stdout: Socket;
  readonly stderr: Socket;
  /** How it ended; it is reaped then. */
  readonly exited: Promise<WaitStatus>;
}

/** What a pipe takes without a reader (pipe(7)). */
export const maxInputBytes = 64 << 10;

type Pointer = Uint8Array;
type Call<Arguments extends unknown[]> = (...args: Arguments) => number;

/** Sizes of glibc's structures are 336 and 80 bytes on x86_64 and aarch64; these leave room, and V8 does not move memory of this size. */
const attributesBytes = 1024;
const actionsBytes = 512;

const EMFILE = 24;
const O_CLOEXEC = 0o2000000;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;

interface Spawner {
  pipe2: Call<[Pointer, number]>;
  write: Call<[number, Pointer, number]>;
  attrInit: Call<[Pointer]>;
  attrFlags: Call<[Pointer, number]>;
  attrMask: Call<[Pointer, Pointer]>;
  attrDefault: Call<[Pointer, Pointer]>;
  actionsInit: Call<[Pointer]>;
  actionsDestroy: Call<[Pointer]>;
  actionsDup2: Call<[Pointer, number, number]>;
  actionsChdir: Call<[Pointer, string]>;
  spawn: Call<[Pointer, string, Pointer, Pointer, (string | null)[], (string | null)[]]>;
}

/** Bound when the module is loaded, while nobody ends the worker. Undefined where libc lacks one of them (changing directory came with glibc 2.29). */
const spawner = bind();

function bind(): Spawner | undefined {
  const libc = openLibrary('libc.so.6');
  if (libc === undefined) return undefined;
  const f = <F extends (...args: never[]) => number>(name: string, ...parameters: string[]): F =>
    libc.bind<F>(name, 'int', parameters);
  try {
    return {
      pipe2: f('pipe2', 'void *', 'int'),
      write: f('write', 'int', 'const void *', 'size_t'),
      attrInit: f('posix_spawnattr_init', 'void *'),
      attrFlags: f('posix_spawnattr_setflags', 'void *', 'short'),
      attrMask: f('posix_spawnattr_setsigmask', 'void *', 'void *'),
      attrDefault: f('posix_spawnattr_setsigdefault', 'void *', 'void *'),
      actionsInit: f('posix_spawn_file_actions_init', 'void *'),
      actionsDestroy: f('posix_spawn_file_actions_destroy', 'void *'),
      actionsDup2: f('posix_spawn_file_actions_adddup2', 'void *', 'int', 'int'),
      actionsChdir: f('posix_spawn_file_actions_addchdir_np', 'void *', 'const char *'),
      spawn: f('posix_spawn', 'void *', 'const char *', 'void *', 'void *', 'const char **', 'const char **'),
    };
  } catch {
    return undefined;
  }
}

/** Whether `launch` works here; where it does not, Node's own way does. */
export const canLaunch: boolean = spawner !== undefined;

/**
 * Starts `file` (an absolute path) in a session of its own, with signals as a program expects them.
 * @throws SysError of exec or of the change of directory, as well as of what this process could not do.
 */
export function launch(file: string, args: readonly string[], options: LaunchOptions): Launched {
  if (spawner === undefined) throw failed(errnos.ENOSYS, file);
  if (options.stdin.length > maxInputBytes) throw failed(errnos.E2BIG, file);
  for (const text of [file, options.cwd, ...args]) if (text.includes('\0')) throw failed(errnos.EINVAL, file);
  const open: number[] = [];
  const actions = Buffer.alloc(actionsBytes);
  const pid = Buffer.alloc(4);
  must(spawner.actionsInit(actions), file);
  try {
    const [input, output, error] = [pipe(open), pipe(open), pipe(open)];
    if (options.stdin.length > 0 && spawner.write(input.to, options.stdin, options.stdin.length) < 0)
      throw failed(errnos.EAGAIN, file);
    must(spawner.actionsDup2(actions, input.from, 0), file);
    must(spawner.actionsDup2(actions, output.to, 1), file);
    must(spawner.actionsDup2(actions, error.to, 2), file);
    must(spawner.actionsChdir(actions, options.cwd), file);
    const environment = Object.entries(options.env).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}=${value}`],
    );
    must(
      spawner.spawn(pid, file, actions, attributes(spawner, file), [file, ...args, null], [...environment, null]),
      file,
    );
    for (const fd of [input.from, input.to, output.to, error.to]) release(open, fd);
    const stdout = readable(open, output.from);
    const stderr = readable(open, error.from);
    return { pid: pid.readInt32LE(), stdout, stderr, exited: exitOf(pid.readInt32LE(), stdout) };
  } finally {
    for (const fd of [...open]) release(open, fd);
    spawner.actionsDestroy(actions);
  }
}

/** A session of its own; no signal blocked, none ignored (Node ignores SIGPIPE, and a program that inherits that never learns that its reader has gone). */
function attributes(libc: Spawner, file: string): Buffer {
  const attributes = Buffer.alloc(attributesBytes);
  must(libc.attrInit(attributes), file);
  must(libc.attrMask(attributes, Buffer.alloc(128)), file);
  const all = Buffer.alloc(128);
  // Signals 1 to 31 but KILL and STOP, which cannot be set.
  all.writeUInt32LE((0x7fff_ffff & ~(1 << 8) & ~(1 << 18)) >>> 0);
  must(libc.attrDefault(attributes, all), file);
  must(libc.attrFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID), file);
  return attributes;
}

function pipe(open: number[]): { from: number; to: number } {
  const ends = Buffer.alloc(8);
  // Which of the two ways of running out of descriptors it was makes no difference to anybody: EMFILE.
  if (spawner?.pipe2(ends, O_CLOEXEC) !== 0) throw failed(EMFILE, 'pipe');
  const [from, to] = [ends.readInt32LE(0), ends.readInt32LE(4)];
  open.push(from, to);
  return { from, to };
}

function release(open: number[], fd: number): void {
  open.splice(open.indexOf(fd), 1);
  close(fd);
}

/** From here on the socket closes it. */
function readable(open: number[], fd: number): Socket {
  const socket = new Socket({ fd, readable: true, writable: false });
  open.splice(open.indexOf(fd), 1);
  return socket;
}

async function exitOf(pid: number, stdout: Socket): Promise<WaitStatus> {
  let closed = false;
  let wake = (): void => {};
  stdout.once('close', () => {
    closed = true;
    wake();
  });
  for (let pause = 1; ; pause = Math.min(2 * pause, 20)) {
    const status = waitpid(pid);
    if (status === 'none') return { code: undefined, signal: undefined };
    if (status !== undefined) return status;
    // A program that has closed its output is about to end.
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, closed ? 1 : pause);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** posix_spawn and its kin return the number of the error. */
function must(errno: number, file: string): void {
  if (errno !== 0) throw failed(errno, file);
}

function failed(errno: number, file: string): SysError {
  return new SysError(errno, 'posix_spawn', file);
}
