/** Collects garbage at once, when the kernel wants to know what a plugin really holds before it ends it for that. */
let collect: (() => void) | undefined;

export function collectGarbage(): void {
  // A context that is made after --expose-gc (kernel/flags.ts) offers it, whatever this thread's own does.
  collect ??= process.getBuiltinModule('node:vm').runInNewContext('gc') as () => void;
  collect();
}
