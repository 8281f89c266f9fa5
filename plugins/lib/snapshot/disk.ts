/**
 * What takes as long as a snapshot is big or a disk is slow, as tasks of a pool thread: the plugin's own thread goes on answering. System calls
 * are synchronous here, which is the fastest way to make them.
 */
import { setThreadPriority, syncfs } from 'troupe/sys';
import { copyTree } from './copy-tree.ts';
import { type Measure, measure as measureTree } from './measure.ts';
import { unlinkTree } from './unlink-tree.ts';

/** Structured clone drops an error's `code`, so a failure travels as data. */
export type Outcome<T> =
  | { readonly value: T }
  | { readonly failed: { readonly message: string; readonly code: string } };

function outcome<T>(work: () => T): Outcome<T> {
  try {
    return { value: work() };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { failed: { message, code: code ?? '' } };
  }
}

/** `fd`: a descriptor of the file system, open since before the writes; descriptors are the process's, so any thread may use it. */
export function sync({ fd }: { fd: number }): Outcome<void> {
  return outcome(() => syncfs(fd));
}

export function measure({ path }: { path: string }): Outcome<Measure> {
  return outcome(() => measureTree(path));
}

/** Behind everything else that wants the processor. The thread serves removals only, since taking a lower priority back needs a privilege. */
export function unlink({ parent, name }: { parent: string; name: string }): Outcome<void> {
  return outcome(() => {
    setThreadPriority(15);
    unlinkTree(parent, name);
  });
}

export function copy({ from, to }: { from: string; to: string }): Outcome<void> {
  return outcome(() => copyTree(from, to));
}
