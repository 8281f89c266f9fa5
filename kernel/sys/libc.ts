/**
 * The one door to koffi. It is loaded at the first call and every function is declared at its first use, so importing `troupe/sys` costs a
 * thread next to nothing until it makes a system call. Measured on 2 cores with Node 26: koffi 3 ms per thread, a declaration 30 µs, a call
 * 0.25 µs on top of the kernel's own time, reading errno 0.02 µs.
 *
 * Variadic functions of C (open, fcntl, ioctl, prctl, syscall) are declared with the arguments that are passed: on Linux, x86_64 and aarch64,
 * integers and pointers travel in the same registers either way.
 */
import { createRequire } from 'node:module';
import type koffi from 'koffi';
import type { LibraryHandle } from 'koffi';
import { errnos, type Path, SysError } from './errno.ts';

type Koffi = typeof koffi;

/** A path or a name as a C string: koffi encodes strings itself; bytes come with their NUL. */
export type CString = string | Uint8Array;

let loaded: { koffi: Koffi; libc: LibraryHandle } | undefined;

function load(): { koffi: Koffi; libc: LibraryHandle } {
  if (loaded === undefined) {
    const module = loadKoffi();
    loaded = { koffi: module, libc: module.load('libc.so.6') };
  }
  return loaded;
}

/**
 * koffi's own entry takes 7 ms, most of it to find out which of a dozen platforms this is, and every worker that makes a system call would
 * pay that. So the binary of the platforms that are supported (glibc only) is taken straight; the entry remains the way for everything else.
 */
function loadKoffi(): Koffi {
  const here = createRequire(import.meta.url);
  try {
    const near = createRequire(here.resolve('koffi'));
    return near(`@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`) as Koffi;
  } catch {
    return here('koffi') as Koffi;
  }
}

/**
 * Declares a function of libc at its first use. `result` and `parameters` are koffi's type names. Use it as
 * `const mount = declare<(…) => number>('mount', 'int', […])` and call `mount()(…)`; the extra call costs nothing that can be measured.
 */
export function declare<F extends (...args: never[]) => number>(
  name: string,
  result: string,
  parameters: string[],
): () => F {
  let declared: F | undefined;
  return () => {
    declared ??= load().libc.func(name, result, parameters) as unknown as F;
    return declared;
  };
}

/** A system call that glibc has no wrapper for, or only since a release newer than the oldest that is supported (2.28). */
export function declareSyscall<F extends (...args: never[]) => number>(
  numbers: { x64: number; arm64: number },
  parameters: string[],
): () => F {
  let declared: F | undefined;
  return () => {
    if (declared === undefined) {
      const number = numbers[process.arch as 'x64' | 'arm64'];
      if (number === undefined)
        throw new SysError(errnos.ENOSYS, 'syscall', undefined, undefined, `no numbers for ${process.arch}`);
      const raw = load().libc.func('syscall', 'int64', ['long', ...parameters]);
      declared = ((...args: never[]) => raw(number, ...args) as number) as F;
    }
    return declared;
  };
}

/** A shared library other than libc, for what Node has no equal to (inflate by ISA-L). Nothing of its memory is managed here. */
export interface ForeignLibrary {
  /** Declares a function; names of types are koffi's: 'int', 'uint32_t', 'size_t', 'void *', 'const char *' … Memory is passed as a Uint8Array. */
  bind<F extends (...args: never[]) => number | bigint | undefined>(
    name: string,
    result: string,
    parameters: string[],
  ): F;
  /** Where `memory` lies, to be stored in a struct that C reads. It holds as long as something refers to `memory`; not for fewer than 65 bytes, which V8 may move. */
  address(memory: Uint8Array): bigint;
}

/** The first of `names` ('libisal.so.2') that the dynamic linker finds, or undefined: the caller has another way then. */
export function openLibrary(...names: string[]): ForeignLibrary | undefined {
  const { koffi } = load();
  for (const name of names) {
    try {
      const library = koffi.load(name);
      return {
        bind: (symbol, result, parameters) => library.func(symbol, result, parameters) as never,
        address: (memory) => koffi.address(memory),
      };
    } catch {
      // Not there, or not for this machine; the next may be.
    }
  }
  return undefined;
}

/** errno of this thread's last call. koffi keeps it from being overwritten between the call and its return to JavaScript. */
export function lastErrno(): number {
  return load().koffi.errno();
}

/** Passes a result through, or throws what errno says when it is negative. Must be the first thing after the call. */
export function check(result: number, syscall: string, path?: Path, dest?: Path): number {
  if (result < 0) throw new SysError(lastErrno(), syscall, path, dest);
  return result;
}

/** Repeats a call that a signal cut short. Only for calls that can wait; never for close(2), which has closed whatever it says. */
export function uninterrupted(call: () => number): number {
  for (;;) {
    const result = call();
    if (result >= 0 || lastErrno() !== errnos.EINTR) return result;
  }
}

/**
 * A path in the form that a function of C takes.
 * @throws SysError EINVAL when it has a NUL inside: C would silently stop there and act on another file.
 */
export function cstring(path: Path, syscall: string): CString {
  if (typeof path === 'string') {
    if (path.includes('\0')) throw new SysError(errnos.EINVAL, syscall, path, undefined, 'NUL in a path');
    return path;
  }
  if (path.includes(0)) throw new SysError(errnos.EINVAL, syscall, path, undefined, 'NUL in a path');
  const bytes = Buffer.allocUnsafe(path.byteLength + 1);
  bytes.set(path);
  bytes[path.byteLength] = 0;
  return bytes;
}
