/**
 * The one door to koffi. It is loaded at a thread's first call, so importing `troupe/sys` runs no native code.
 *
 * All functions are declared together at that moment, not one by one at their first use: koffi cannot throw into a worker that is being terminated, and aborts
 * the whole process instead, if `terminate()` falls into a load or a declaration (koffi 3.3.4: "FATAL ERROR: Error::ThrowAsJavaScriptException napi_throw"; reproduced
 * within a dozen terminations). First uses at the end, an unmount while stopping, would meet terminations often; one moment at the beginning does
 * not, and `prepareSystemCalls` puts it where the worker is not known to anybody yet; who ends threads waits for those that
 * load (loading.ts). Calls of declared functions are safe: 1,200 workers terminated in the middle of them, without one abort.
 *
 * Measured on 2 cores with Node 26: 4 ms and 1.1 MB per thread for koffi and the declarations, a call 0.25 µs on top of the kernel's own time.
 *
 * Variadic functions of C (open, fcntl, ioctl, prctl, syscall) are declared with the arguments that are passed: on Linux, x86_64 and aarch64,
 * integers and pointers travel in the same registers either way.
 */
import { createRequire } from 'node:module';
import type koffi from 'koffi';
import type { LibraryHandle } from 'koffi';
import { errnos, type Path, SysError } from './errno.ts';
import { whileLoading } from './loading.ts';

type Koffi = typeof koffi;

/** A path or a name as a C string: koffi encodes strings itself; bytes come with their NUL. */
export type CString = string | Uint8Array;

/** Of every function that the modules imported so far have. */
const declarations: (() => unknown)[] = [];

let loaded: { koffi: Koffi; libc: LibraryHandle } | undefined;

function load(): { koffi: Koffi; libc: LibraryHandle } {
  return loaded ?? whileLoading(loadAll);
}

function loadAll(): { koffi: Koffi; libc: LibraryHandle } {
  const module = loadKoffi();
  loaded = { koffi: module, libc: module.load('libc.so.6') };
  for (const declaration of declarations) {
    try {
      declaration();
    } catch {
      // A function that this libc lacks fails again, and says so, when it is called.
    }
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
 * Loads koffi and declares all functions now. For the entry of a worker that may be terminated later: call it before the worker says that it is there.
 */
export function prepareSystemCalls(): void {
  load();
}

/**
 * A function of libc; `result` and `parameters` are koffi's type names. Use it as
 * `const mount = declare<(…) => number>('mount', 'int', […])` and call `mount()(…)`; the extra call costs nothing that can be measured.
 */
export function declare<F extends (...args: never[]) => number>(
  name: string,
  result: string,
  parameters: string[],
): () => F {
  return declaration((libc) => libc.func(name, result, parameters) as unknown as F);
}

/** A system call that glibc has no wrapper for, or only since a release newer than the oldest that is supported (2.28). */
export function declareSyscall<F extends (...args: never[]) => number>(
  numbers: { x64: number; arm64: number },
  parameters: string[],
): () => F {
  return declaration((libc) => {
    const number = numbers[process.arch as 'x64' | 'arm64'];
    if (number === undefined) {
      throw new SysError(errnos.ENOSYS, 'syscall', undefined, undefined, `no numbers for ${process.arch}`);
    }
    const raw = libc.func('syscall', 'int64', ['long', ...parameters]);
    return ((...args: never[]) => raw(number, ...args) as number) as F;
  });
}

function declaration<F>(make: (libc: LibraryHandle) => F): () => F {
  let made: F | undefined;
  const get = (): F => {
    // Loading makes all that are known; one of a module that was imported afterwards is made here.
    if (made === undefined) {
      const { libc } = load();
      made ??= make(libc);
    }
    return made;
  };
  declarations.push(get);
  return get;
}

/** A shared library other than libc, for what Node has no equal to (inflate by ISA-L). Nothing of its memory is managed here. */
export interface ForeignLibrary {
  /** Declares a function; before the worker can be terminated, as above. Names of types are koffi's: 'int', 'uint32_t', 'size_t', 'void *', 'const char *' … Memory is passed as a Uint8Array. */
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
  for (const name of names) {
    try {
      return foreign(load().koffi.load(name));
    } catch {
      // Not there, or not for this machine; the next may be.
    }
  }
  return undefined;
}

/**
 * What the Node executable itself brings and exports (zlib, zstd, OpenSSL), for uses that its modules do not have. A shared library that has the same
 * names must not be opened instead: the dynamic linker would give the calls inside it to the executable's functions, of another version.
 */
export function ownLibrary(): ForeignLibrary {
  return foreign(load().koffi.load(null));
}

function foreign(library: LibraryHandle): ForeignLibrary {
  return {
    bind: (symbol, result, parameters) => library.func(symbol, result, parameters) as never,
    address: (memory) => load().koffi.address(memory),
  };
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
