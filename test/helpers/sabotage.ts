/** Threads of a real daemon that break at the test's word: how the daemon's own plugins, and its main thread, die or hang without a fault in their code. */
import { existsSync, renameSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { run } from './command.ts';
import { type Daemon, type DaemonOptions, useDaemon } from './daemon.ts';
import { useScratch } from './scratch.ts';

/**
 * `throw`, `reject`: what nobody catches. `spin`: a loop that V8 can end. `wait`: hangs in a call, for good; `pause`: for a second.
 * `compute`, `fifo`: in a native call that nothing ends, with and without using a processor.
 */
export type Deed = 'throw' | 'reject' | 'spin' | 'wait' | 'pause' | 'compute' | 'fifo';

export interface SabotagedDaemon {
  readonly daemon: Daemon;
  /** Has a thread, by its name, do this. Resolves when the thread begins. */
  order(thread: string, deed: Deed): Promise<void>;
}

export async function useSabotagedDaemon(t: ExecutionContext, options: DaemonOptions = {}): Promise<SabotagedDaemon> {
  const dir = useScratch(t, 'sabotage');
  await run('mkfifo', [join(dir, 'fifo')]);
  const saboteur = new URL('saboteur.ts', import.meta.url).href;
  const env = { ...options.env, TROUPE_TEST_SABOTAGE: dir, NODE_OPTIONS: `--import=${saboteur}` };
  return {
    daemon: await useDaemon(t, { ...options, env }),
    async order(thread, deed) {
      const path = join(dir, `${thread}.order`);
      const watcher = watch(dir);
      const taken = new Promise<void>((resolve) => {
        watcher.on('change', () => !existsSync(path) && resolve());
      });
      // At once there and whole. Nothing is read of the watcher before it is there: this is one turn of the loop.
      writeFileSync(`${path}.new`, deed);
      renameSync(`${path}.new`, path);
      await taken;
      watcher.close();
    },
  };
}
