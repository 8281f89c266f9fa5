/** The whole plugin in this thread, on a directory and a database of its own. For tests. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Log } from 'troupe/plugin';
import { useSurroundings } from '../../test/suites/in-process-records.ts';
import { Disk } from './disk.ts';
import { contentService } from './service.ts';
import { type SharingPolicy, Store } from './store.ts';
import { Trash } from './trash.ts';
import { type Exclusive, Writers } from './writers.ts';

export function useContent(t: ExecutionContext, options: { policy?: SharingPolicy; root?: string } = {}) {
  const surroundings = useSurroundings(t, 'content');
  const memory = statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir();
  const root = mkdtempSync(join(memory, 'troupe-content-'));
  return { ...surroundings, root, ...openContent(t, surroundings, root, options.policy) };
}

/** Another generation on the same records and files. */
export function openContent(
  t: ExecutionContext,
  surroundings: ReturnType<typeof useSurroundings>,
  root: string,
  policy: SharingPolicy = 'shared',
) {
  const logged: string[] = [];
  const log = Object.fromEntries(
    ['debug', 'info', 'warn', 'error'].map((level) => [
      level,
      (message: string) => logged.push(`${level}: ${message}`),
    ]),
  ) as unknown as Log;
  const controller = new AbortController();
  const store = new Store(surroundings.records);
  const disk = new Disk(root);
  const exclusive = locks();
  const writers = new Writers(store, disk, exclusive, () => policy);
  const trash = new Trash(store, disk, exclusive, log, controller.signal);
  disk.prepare();
  t.teardown(async () => {
    controller.abort();
    await writers.close();
    disk.close();
    rmSync(root, { recursive: true, force: true });
  });
  const service = contentService(store, disk, writers, { deleted: () => void trash.empty() });
  return { store, disk, writers, trash, service, exclusive, logged };
}

/** Named locks of this thread, in order of asking. */
function locks(): Exclusive {
  const tails = new Map<string, Promise<unknown>>();
  return (name, work, signal) => {
    const before = tails.get(name) ?? Promise.resolve();
    const granted = Promise.withResolvers<void>();
    before.finally(granted.resolve).catch(() => {});
    const run = (async () => {
      const aborted = Promise.withResolvers<never>();
      const abort = () => aborted.reject(signal!.reason);
      signal?.addEventListener('abort', abort, { once: true });
      if (signal?.aborted) abort();
      try {
        await Promise.race([granted.promise, aborted.promise]);
      } finally {
        signal?.removeEventListener('abort', abort);
      }
      return work();
    })();
    // Who gives up waiting must not let others in before the holder is done.
    tails.set(name, Promise.allSettled([before, run]));
    return run;
  };
}
