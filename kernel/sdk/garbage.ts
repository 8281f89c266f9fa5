/** Collects garbage at once, when the kernel wants to know what a plugin really holds before it ends it for that. */
let collect: (() => void) | undefined;

export function collectGarbage(): void {
  if (collect === undefined) {
    // The flag decides what a context made after it offers; the daemon is not started with it.
    process.getBuiltinModule('node:v8').setFlagsFromString('--expose-gc');
    collect = process.getBuiltinModule('node:vm').runInNewContext('gc') as () => void;
  }
  collect();
}
