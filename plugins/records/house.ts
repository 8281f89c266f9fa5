/** Everything that lives while the file is open: engine, collections and their schedule, the check after an unclean stop. */
import type { DatabaseSync } from 'node:sqlite';
import type { Log } from 'troupe/plugin';
import type { Changes } from './changes.ts';
import { Collector, collect } from './collect.ts';
import { Engine, type EngineOptions } from './engine.ts';
import { type MigrationFolder, migrate } from './migrate.ts';
import { Schedule } from './schedule.ts';
import type { Serving } from './service.ts';
import type { Standby } from './standby.ts';
import { runThread } from './thread.ts';

/** As plugin.toml declares it; durations in ms, sizes in bytes. */
export interface RecordsConfig {
  readonly pause_threshold: number;
  readonly deletion_threshold: number;
  readonly mutation_threshold: number;
  readonly schedule_delay: number;
  readonly startup_delay: number;
  readonly content_sharing_policy: 'shared' | 'isolated';
  readonly no_sync: boolean;
  readonly reserve: number;
}

export interface RecordsHouseOptions {
  readonly path: string;
  readonly migrations: readonly MigrationFolder[];
  readonly config: RecordsConfig;
  /** A generation before has closed the file for this one. */
  readonly handedOver?: boolean;
  /** Ready for that. Its schema has been looked at. */
  readonly standby?: Standby | undefined;
  readonly log: Log;
  /** Told what is committed while the file is open. */
  readonly changes: Changes;
  readonly busy?: EngineOptions['busy'];
  /** Writing has ended for good; called once. */
  onEnd(): void;
}

export interface RecordsHouse extends Serving {
  /** `handOver`: the next generation opens it at once. */
  close(options?: { handOver?: boolean }): Promise<void>;
}

/** Opens the file, migrates it and begins to serve. @throws Failure when it cannot be opened, trusted or migrated. */
export function openRecordsHouse({
  path,
  migrations,
  config,
  handedOver = false,
  standby,
  log,
  changes,
  busy,
  onEnd,
}: RecordsHouseOptions): RecordsHouse {
  const stop = new AbortController();
  const engine = new Engine({
    path,
    durable: !config.no_sync,
    handedOver,
    ...(standby && { standby }),
    reserve: config.reserve,
    ...(busy && { busy }),
    onEnd: (failure) => {
      log.error('writing has ended; the daemon ends itself, and the next start checks the database', {
        error: failure.message,
      });
      onEnd();
    },
  });
  try {
    const run = () => (standby === undefined ? migrate(engine.database, migrations) : []);
    const ran = busy === undefined ? run() : busy('records migrate', 600_000, run);
    if (ran.length > 0) log.info('migrated', { migrations: ran.join(' ') });
    noteSharingPolicy(engine.database, config.content_sharing_policy);
    engine.ready();
  } catch (error) {
    engine.close();
    throw error;
  }
  const collector = new Collector(async () => {
    const collected = await collect(engine, { signal: stop.signal });
    schedule.collected(collected.durationMs);
    log.debug('collected', { ...collected });
    return collected;
  });
  const schedule = new Schedule(
    {
      pauseThreshold: config.pause_threshold,
      deletionThreshold: config.deletion_threshold,
      mutationThreshold: config.mutation_threshold,
      scheduleDelayMs: config.schedule_delay,
      startupDelayMs: config.startup_delay,
    },
    async () => {
      try {
        await collector.collect();
      } catch (error) {
        if (!stop.signal.aborted) log.warn('collection failed', { error: (error as Error).message });
      }
    },
  );
  changes.attach(engine);
  engine.onBatch((mutations, removals) => schedule.changed(mutations, removals));
  if (engine.unclean) void verify(path, stop.signal, log, onEnd);
  return {
    engine,
    collect: () => collector.collect(),
    async close(options) {
      stop.abort();
      schedule.stop();
      engine.close(options);
      changes.detach();
    },
  };
}

/** Who shares content across namespaces is asked of this plugin by containerd's config, and answered by content. */
function noteSharingPolicy(database: DatabaseSync, policy: string): void {
  // Looked at first: taking the lock to write what is there already can cost 1.6 ms, and callers wait.
  const found = database.prepare("SELECT value FROM records_meta WHERE key = 'content_sharing_policy'").get();
  if (found?.value === policy) return;
  database.prepare("INSERT OR REPLACE INTO records_meta (key, value) VALUES ('content_sharing_policy', ?)").run(policy);
}

/** The pages were good enough to start with; this finds what only a full check can. */
async function verify(path: string, signal: AbortSignal, log: Log, onEnd: () => void): Promise<void> {
  try {
    const result = await runThread<string>(new URL('./verify-thread.ts', import.meta.url), { path }, signal);
    if (result === 'ok') return log.info('database checked after an unclean stop');
    log.error('the database is damaged; the daemon ends itself', { path, result });
    onEnd();
  } catch (error) {
    if (!signal.aborted) log.warn('database check did not finish', { error: (error as Error).message });
  }
}
